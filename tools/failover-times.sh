#!/bin/sh
# Runs the demo a number of times and prints the times of its failovers by
# kill -9: each one, then minimum, median and maximum, in milliseconds.
# usage: failover-times.sh BINARY RUNS
set -eu
binary=$1
runs=$2
times=$(mktemp)
trap 'rm -f "$times"' EXIT
i=1
while [ "$i" -le "$runs" ]; do
	line=$("$binary" demo --once --json 2>/dev/null | tail -n 1) || { echo "run $i failed: $line" >&2; exit 1; }
	printf '%s\n' "$line" | tr '{' '\n' | sed -n '/"fault": *"kill"/s/.*"failover_ms": *\([0-9.]*\).*/\1/p' >"$times.run"
	printf 'run %2d: %s ms\n' "$i" "$(tr '\n' ' ' <"$times.run")"
	cat "$times.run" >>"$times"
	rm -f "$times.run"
	i=$((i + 1))
done
sort -n "$times" | awk '{v[NR]=$1} END {
	if (NR == 0) { print "no failover was measured"; exit 1 }
	m = NR % 2 ? v[(NR+1)/2] : (v[NR/2] + v[NR/2+1]) / 2
	printf "%d failovers: min %g ms, median %g ms, max %g ms\n", NR, v[1], m, v[NR] }'
