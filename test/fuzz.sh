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
while IFS=: read -r file name; do
	name=${name#func }
	go test "$@" "${file%/*}" -run="^$" -fuzz="^$name\$" -fuzztime="$time" || failed=1
done < <(grep -rHoE '^func Fuzz[A-Za-z0-9_]+' --include='*_test.go' .)
exit $failed
