#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Usage: fuzz.sh TIME [FLAG...]
# Runs each fuzz target for TIME, with the flags given to go test, all of them
# even if one fails.
set -uo pipefail
cd "$(dirname "$0")/.."
time=$1
shift
failed=0
out=$(mktemp)
trap 'rm -f "$out"' EXIT
while IFS=: read -r file name; do
	name=${name#func }
	for try in 1 2 3; do
		go test "$@" "${file%/*}" -run="^$" -fuzz="^$name\$" -fuzztime="$time" >"$out" 2>&1 </dev/null
		status=$?
		# At the end of its time go test sometimes fails with this and has found
		# nothing: a finding is written to a file, and said.
		[[ $status -ne 0 ]] && grep -q 'context deadline exceeded' "$out" &&
			! grep -q 'Failing input written' "$out" || break
	done
	cat "$out"
	[[ $status -eq 0 ]] || failed=1
done < <(grep -rHoE '^func Fuzz[A-Za-z0-9_]+' --include='*_test.go' .)
exit $failed
