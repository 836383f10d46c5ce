#!/usr/bin/env bash
# Lets many worlds of simtest live, in as many processes as there are cores, and
# tells how fast, with which faults, and which seeds failed. SEEDS: how many worlds
# (200); FROM: the first seed (1); DAYS: how long they live on average (1).
set -euo pipefail
cd "$(dirname "$0")/.."

seeds=${SEEDS:-200} first=${FROM:-1} days=${DAYS:-1}
chunk=20
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
go test -c -o "$work/simtest" ./simtest

one() {
	"$1/simtest" -test.run 'TestWorld$' -test.v -test.timeout 30m -test.parallel 1 -days "$2" -from "$3" -worlds "$4" >"$1/$3.log" 2>&1 ||
		echo "seeds $3 and up: failed"
}
export -f one
began=$(date +%s)
last=$((first + seeds - 1))
(
	cd simtest
	for ((s = first; s <= last; s += chunk)); do
		echo "$s $((s + chunk - 1 > last ? last - s + 1 : chunk))"
	done | xargs -P "$(nproc)" -L 1 bash -c 'one "$0" "$1" "$2" "$3"' "$work" "$days"
)
took=$(($(date +%s) - began))
cat "$work"/*.log | awk -v seeds="$seeds" -v took="$((took > 0 ? took : 1))" '
	/: seed [0-9]+, day / {
		lived++
		split($0, a, /, day |: [0-9]+ letters/); split(a[2], d, " "); split(d[2], h, ":")
		hours += d[1] * 24 + h[1] + h[2] / 60
	}
	/coverage: / {
		sub(/.*coverage: /, "")
		n = split($0, parts, "; ")
		for (i = 1; i <= n; i++) { split(parts[i], kv, "="); faults[kv[1]] += kv[2]; total += kv[2] }
	}
	END {
		printf "%d of %d worlds lived to their end in %d s: %.0f a minute, %.1f simulated days each\n", lived, seeds, took, lived * 60 / took, (lived ? hours / 24 / lived : 0)
		printf "%d faults:\n", total
		for (f in faults) printf "%8d %s\n", faults[f], f | "sort -k2"
	}'
failed=$(grep -ho -- '--- FAIL: TestWorld/[0-9]*' "$work"/*.log | grep -o '[0-9]*$' | sort -n | tr '\n' ' ' || true)
if grep -lE '^panic:|^fatal error:' "$work"/*.log >/dev/null; then
	grep -hE -A3 '^panic:|^fatal error:' "$work"/*.log
	failed="$failed(and a panic, see above)"
fi
if [ -n "$failed" ]; then
	echo "failed: $failed"
	grep -h 'promise [0-9]\|the node complained' "$work"/*.log | head -20
	echo "look at one: go test ./simtest -run 'TestWorld\$' -seed N -days $days"
	exit 1
fi
