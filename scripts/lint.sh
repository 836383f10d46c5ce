#!/usr/bin/env bash
# Format, vet and staticcheck. Each is run even if an earlier one fails. With a
# file as argument a line "ok NAME" or "failed NAME" is added to it for each.
set -uo pipefail
cd "$(dirname "$0")/.."
steps=${1:-/dev/null}
status=0

step() { # step NAME COMMAND…
	local name=$1 out
	shift
	if out=$("$@" 2>&1); then
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
format() {
	local files
	files=$(find . -name '*.go' -not -path './.cache/*' -not -path '*/testdata/*' -print0 | xargs -0 gofmt -l) || return 1
	[ -z "$files" ] || { echo "run gofmt -w on:" $files && return 1; }
}

step gofmt format
step vet go vet ./...
step staticcheck go tool staticcheck ./...
exit $status
