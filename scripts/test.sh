#!/usr/bin/env bash
# Everything that is checked, in one run: peers, lint, all tests with -race, 200
# simulated worlds without, and every fuzz target for a moment. The last lines say what ran and what was left
# out; the very last is "N passed, N failed, N skipped". TEST_FLAGS are handed to
# go test; TEST_PACKAGES are the packages to test, if not all.
set -uo pipefail
cd "$(dirname "$0")/.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
steps=$work/steps
: >"$steps"
began=$SECONDS
part() { printf '\n== %s (after %d s)\n' "$1" $((SECONDS - began)); }

part "what the tests talk to"
scripts/peers.sh "$steps"
# Debian's daemons live in sbin, which is not on everybody's path.
export PATH=$PATH:/usr/sbin:/sbin
export BSMTPD_TEST_EXIM=$PWD/.cache/exim/usr/sbin/exim4

part "lint"
scripts/lint.sh "$steps"

part "tests"
race=-race
if ! echo '#include <stdlib.h>' | cc -x c -fsyntax-only - 2>/dev/null; then
	race=
fi
if ! go build -o "$work/summary" ./scripts/summary; then
	echo "0 passed, 1 failed, 0 skipped"
	exit 1
fi
# shellcheck disable=SC2086 # TEST_FLAGS are several words
go test $race -shuffle=on -timeout=10m -json ${TEST_FLAGS:-} ${TEST_PACKAGES:-./...} </dev/null | "$work/summary" read "$work/tests"

# The race detector makes a simulated day ten times as dear; under it few worlds live.
part "simulated worlds"
if DAYS=0.25 SEEDS=200 scripts/sim.sh; then
	echo "ok 200 simulated worlds" >>"$steps"
else
	echo "failed simulated worlds" >>"$steps"
fi
if go test ./simtest -run 'TestPlantedBugsAreFound$' </dev/null; then
	echo "ok planted bugs" >>"$steps"
else
	echo "failed planted bugs" >>"$steps"
fi

part "fuzz"
scripts/fuzz.sh "$steps"

part "summary"
exec "$work/summary" total "$work/tests" "$steps"
