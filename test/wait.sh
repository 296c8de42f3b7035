# SPDX-License-Identifier: Apache-2.0
# For scripts of this directory to source.

# wait_for WHAT COMMAND... repeats a command until it succeeds, 20 s at most.
wait_for() {
	local end=$((SECONDS + 20))
	until "${@:2}" >/dev/null 2>&1; do
		if ((SECONDS >= end)); then
			echo "waited 20 s for $1" >&2
			return 1
		fi
		sleep 0.1
	done
}
