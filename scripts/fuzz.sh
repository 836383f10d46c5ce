#!/usr/bin/env bash
# Runs every fuzz target of the module for a short time. FUZZ_SECONDS is the time
# of each (default 5), FUZZ_TOTAL bounds the sum (default 150). With a file as
# argument a line "ok NAME" or "failed NAME" is added to it for each target.
set -uo pipefail
cd "$(dirname "$0")/.."
steps=${1:-/dev/null}
status=0

# "./dir FuzzName" for each target.
targets=$(grep -rnoE --include='*_test.go' --exclude-dir=testdata --exclude-dir=.cache '^func Fuzz[A-Za-z0-9_]*' . |
	sed -E 's|^(.*)/[^/]*:[0-9]+:func |\1 |' | sort -u)
if [ -z "$targets" ]; then
	echo "no fuzz targets"
	exit 0
fi
count=$(wc -l <<<"$targets")
seconds=${FUZZ_SECONDS:-5}
most=$((${FUZZ_TOTAL:-150} / count))
if [ -z "${FUZZ_SECONDS:-}" ] && [ "$seconds" -gt "$most" ]; then
	seconds=$((most > 0 ? most : 1))
fi

while read -r dir name; do
	out=$(go test -run='^$' -fuzz="^$name\$" -fuzztime="${seconds}s" -timeout=10m "$dir" 2>&1)
	if [ $? -ne 0 ]; then
		# Go can report its own time limit as a failure; then there is no input.
		if grep -q 'context deadline exceeded' <<<"$out" && ! grep -q 'Failing input written' <<<"$out"; then
			:
		else
			printf '%s\n' "$out"
			echo "FAILED  fuzz $dir $name"
			echo "failed fuzz $dir $name" >>"$steps"
			status=1
			continue
		fi
	fi
	execs=$(grep -oE 'execs: [0-9]+' <<<"$out" | tail -1)
	echo "ok      fuzz $dir $name (${seconds}s, ${execs:-no execs})"
	echo "ok fuzz $dir $name" >>"$steps"
done <<<"$targets"
exit $status
