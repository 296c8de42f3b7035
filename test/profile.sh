#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Profiles of both gateways of the demo's two sites under one TCP stream, TIME
# seconds (5) each way, in dist/profile:
#
#   SITE-WAY.cpu.pprof   processor time, for go tool pprof
#   SITE-WAY.svg         the same as a flame graph
#   SITE.heap.pprof      the heap at the end
#   iperf3-WAY.txt       what the stream carried meanwhile
#
# WAY is "out" from home to cabin, "back" the other way. It makes its own sites,
# beside those of a demo, and takes them down.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/sbin:/sbin
. test/wait.sh

export DEMO=l2b-profile L2BRIDGE=$PWD/dist/profile/l2bridge L2BRIDGE_PROFILE=$PWD/dist/profile/raw
readonly out=$PWD/dist/profile seconds=${TIME:-5} server=10.77.0.1
readonly sites=(home cabin)

main() {
	test/need.sh ip:iproute2 iperf3:iperf3
	rm -rf "$out"
	mkdir -p "$out"
	go build -trimpath -tags profile -o "$L2BRIDGE" \
		-ldflags "-X github.com/l2bridge/l2bridge/internal/control.version=${VERSION:-unknown}" ./cmd/l2bridge
	trap 'test/demo.sh down' EXIT
	trap 'exit 130' INT TERM
	echo "laying out two sites; what they say is in dist/profile/sites.txt"
	KEEP=1 test/demo.sh up >"$out/sites.txt" 2>&1 || {
		tail -n 30 "$out/sites.txt" >&2
		exit 1
	}
	loaded out
	loaded back --reverse
	echo "pictures"
	local picture
	for picture in "$out"/*.cpu.pprof; do
		picture=$(basename "$picture" .cpu.pprof)
		go run ./test/profile "l2bridge $picture" "$out/$picture.cpu.pprof" >"$out/$picture.svg"
	done
	rm -f "$out"/raw.*
	ls -l "$out"
}

# loaded WAY IPERF3-ARGS... profiles both gateways while a stream runs.
loaded() {
	local way=$1 site
	inside nas iperf3 --server --one-off >/dev/null &
	local listener=$!
	wait_for "iperf3 to listen" listening
	for site in "${sites[@]}"; do kill -USR2 "$(gateway "$site")"; done
	echo "TCP for $seconds s, $way"
	inside laptop iperf3 --client "$server" --time "$seconds" --interval 0 --congestion cubic "${@:2}" >"$out/iperf3-$way.txt"
	for site in "${sites[@]}"; do kill -USR2 "$(gateway "$site")"; done
	wait "$listener"
	grep -E 'sender|receiver' "$out/iperf3-$way.txt"
	for site in "${sites[@]}"; do
		wait_for "the profile of $site" test -e "$L2BRIDGE_PROFILE.$(gateway "$site").heap"
		mv "$L2BRIDGE_PROFILE.$(gateway "$site").cpu" "$out/$site-$way.cpu.pprof"
		mv "$L2BRIDGE_PROFILE.$(gateway "$site").heap" "$out/$site.heap.pprof"
	done
}

# gateway SITE prints the number of the one process of its machine.
gateway() { ip netns pids "$DEMO-gw-$1"; }

inside() { ip netns exec "$DEMO-$1" "${@:2}"; }

listening() { inside nas ss -Hltn 'sport = :5201' | grep -q .; }

main "$@"
