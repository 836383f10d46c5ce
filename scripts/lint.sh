#!/usr/bin/env bash
# Format, vet and staticcheck. Each is run even if an earlier one fails. With a
# file as argument a line "ok NAME" or "failed NAME" is added to it for each.
set -uo pipefail
cd "$(dirname "$0")/.."
steps=${1:-/dev/null}
status=0

step() { # step NAME COMMAND…: fails if the command does, or prints anything
	local name=$1 out
	shift
	if out=$("$@" 2>&1) && [ -z "$out" ]; then
		echo "ok      $name"
		echo "ok $name" >>"$steps"
	else
		printf '%s\n' "$out"
		echo "FAILED  $name"
		echo "failed $name" >>"$steps"
		status=1
	fi
}

# Only what belongs to the project: not what a build leaves in .cache.
sources() { find . -name '*.go' -not -path './.cache/*' -not -path '*/testdata/*' -print0; }
format() { sources | xargs -0 gofmt -l; }

step gofmt format
step vet go vet ./...
step staticcheck go tool staticcheck ./...
exit $status
