#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Two sites on one LAN, inside this machine: demo.sh up|down
#
#   laptop -- br0 [ gw-home ] -- internet -- [ gw-cabin ] br0 -- nas
#                  198.18.1.2                 198.18.2.2
#
# Each of the five is a network namespace. Nothing outside them is touched, and
# all of it goes at the end, also after Ctrl-C; KEEP=1 leaves it up. DEMO gives
# it another name than l2b-demo, and L2BRIDGE another program.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/sbin:/sbin
. test/wait.sh

readonly ns=${DEMO:-l2b-demo} program=${L2BRIDGE:-$PWD/bin/l2bridge}
readonly dir=/run/$ns
readonly machines=(laptop gw-home internet gw-cabin nas)

main() {
	case ${1-} in
	up) up ;;
	down) down ;;
	*)
		echo "usage: demo.sh up|down" >&2
		exit 2
		;;
	esac
}

up() {
	test/need.sh ip:iproute2 ping:iputils-ping dnsmasq:dnsmasq-base udhcpc:udhcpc iperf3:iperf3
	down
	trap finish EXIT
	trap 'exit 130' INT TERM
	lay_out

	say "Two sites, each with a LAN, and a routed network between them:"
	cat <<-'END'

	    laptop --- br0 [ gw-home ] --- internet --- [ gw-cabin ] br0 --- nas
	    no address         198.18.1.2           198.18.2.2        10.77.0.1

	END
	echo "The laptop has no address yet. The only DHCP server is the nas, at the other site."
	echo "(In this demo each gateway keeps its files in $dir, by flags not shown.)"

	say "At home: found a network, start, and print a token for the other site."
	typed gw-home l2bridge init --site home --advertise 198.18.1.2:4433
	running gw-home l2bridge up
	token=$(bridge gw-home invite cabin)
	echo "gw-home# l2bridge invite cabin"
	echo "    ${token:0:24}...  (${#token} characters)"

	say "At the cabin: one command."
	running gw-cabin l2bridge join "$token" --site cabin
	wait_for "the sites to find each other" bridge gw-home status --check

	say "The laptop asks for an address. The nas answers, from the other site."
	inside nas dnsmasq --keep-in-foreground --conf-file=/dev/null --port=0 --interface=eth0 --bind-interfaces \
		--user=root --no-ping --pid-file= --dhcp-leasefile="$dir/leases" --dhcp-range=10.77.0.100,10.77.0.150,1h \
		>"$dir/nas.log" 2>&1 &
	typed laptop udhcpc -i eth0 -f -q -n -t 10 -T 1 -s "$dir/lease"
	typed laptop ip -brief -4 address show dev eth0

	say "It reaches the nas, with full-size packets too, and is one hop away."
	typed laptop ping -n -c 3 -i 0.2 10.77.0.1
	typed laptop ping -n -c 2 -i 0.2 -M do -s 1472 10.77.0.1

	say "Who is where, as home sees it. The laptop ends in :01, the nas in :02."
	typed gw-home l2bridge fdb show

	say "How fast: three seconds of TCP."
	inside nas iperf3 --server --one-off >"$dir/iperf.log" 2>&1 &
	wait_for "iperf3 to listen" listening
	typed laptop iperf3 --client 10.77.0.1 --time 3 --interval 0

	say "All on one screen."
	typed gw-home l2bridge status

	if [[ ${KEEP-} ]]; then
		trap - EXIT INT TERM
		say "It stays up. Look inside, as root:"
		echo "    $dir/gw-home status --watch"
		echo "    $dir/gw-cabin peers"
		echo "    ip netns exec $ns-laptop ping 10.77.0.1"
		echo "End it: sudo make demo-down"
		return
	fi
	say "That was all. Taking it down; KEEP=1 would leave it up."
}

# lay_out makes the machines and their links.
lay_out() {
	mkdir -p "$dir"
	for m in "${machines[@]}"; do
		ip netns add "$ns-$m"
		inside "$m" ip link set lo up
	done
	plug laptop eth0 gw-home lan
	plug nas eth0 gw-cabin lan
	plug gw-home wan internet home
	plug gw-cabin wan internet cabin
	for gw in gw-home gw-cabin; do
		inside "$gw" ip link add br0 type bridge
		inside "$gw" ip link set lan master br0
		inside "$gw" ip link set br0 up
		# Else a firewall's bridge filter may judge what passes, where it is loaded.
		for table in iptables ip6tables arptables; do
			inside "$gw" sysctl -qw "net.bridge.bridge-nf-call-$table=0" 2>/dev/null || true
		done
		cat >"$dir/$gw" <<-END
		#!/bin/sh
		exec ip netns exec $ns-$gw $program "\$@" \\
			--config $dir/$gw.toml --state-dir $dir/$gw.state --socket $dir/$gw.sock
		END
		chmod +x "$dir/$gw"
	done
	inside internet sysctl -qw net.ipv4.ip_forward=1
	inside internet ip address add 198.18.1.1/24 dev home
	inside internet ip address add 198.18.2.1/24 dev cabin
	inside gw-home ip address add 198.18.1.2/24 dev wan
	inside gw-home ip route add default via 198.18.1.1
	inside gw-cabin ip address add 198.18.2.2/24 dev wan
	inside gw-cabin ip route add default via 198.18.2.1
	inside laptop ip link set eth0 address 02:77:00:00:00:01
	inside nas ip link set eth0 address 02:77:00:00:00:02
	inside nas ip address add 10.77.0.1/24 dev eth0

	# What udhcpc calls with its lease; the system's own script would rewrite
	# this machine's resolv.conf.
	cat >"$dir/lease" <<-'END'
	#!/bin/sh
	[ "$1" = bound ] && ip address add "$ip/$mask" dev "$interface"
	exit 0
	END
	chmod +x "$dir/lease"
}

# plug MACHINE LINK MACHINE LINK joins two machines by a cable.
plug() {
	ip link add "$2" netns "$ns-$1" type veth peer name "$4" netns "$ns-$3"
	inside "$1" ip link set "$2" up
	inside "$3" ip link set "$4" up
}

# inside MACHINE COMMAND... runs a command there.
inside() {
	ip netns exec "$ns-$1" "${@:2}"
}

# bridge GATEWAY ARGS... runs l2bridge there.
bridge() {
	"$dir/$1" "${@:2}"
}

# on MACHINE COMMAND... runs a command there, l2bridge as it is typed.
on() {
	if [[ $2 == l2bridge ]]; then
		bridge "$1" "${@:3}"
	else
		inside "$@"
	fi
}

# typed MACHINE COMMAND... shows a command as a person types it there, and its
# answer, the clock of its log left out.
typed() {
	echo "$1# ${*:2}"
	on "$@" 2>&1 | sed 's/^time=[^ ]* //; s/^/    /'
}

# running MACHINE COMMAND... is typed for one that goes on running: it shows
# what it has said once it is ready.
running() {
	local words=("${@:2}") i
	for i in "${!words[@]}"; do
		[[ ${words[i]} == l2b1_* ]] && words[i]="${words[i]:0:24}..."
	done
	echo "$1# ${words[*]} &"
	on "$@" >"$dir/$1.log" 2>&1 &
	local pid=$!
	wait_for "$1 to be ready" ready_or_dead "$1" "$pid"
	kill -0 "$pid"
	sed 's/^time=[^ ]* //; s/^/    /' "$dir/$1.log"
}

ready_or_dead() {
	grep -q ready "$dir/$1.log" || ! kill -0 "$2" 2>/dev/null
}

listening() {
	inside nas ss -Hltn 'sport = :5201' | grep -q .
}

say() {
	printf '\n== %s\n' "$*"
}

# finish takes all down, and says what the machines said if it went wrong.
finish() {
	local status=$?
	trap - EXIT INT TERM
	if [[ $status -ne 0 && $status -ne 130 ]]; then
		echo "the demo stopped with status $status" >&2
		tail -n 30 "$dir"/*.log >&2 2>/dev/null || true
	fi
	down
	exit "$status"
}

down() {
	local m pids
	for m in "${machines[@]}"; do
		[[ -e /run/netns/$ns-$m ]] || continue
		pids=$(ip netns pids "$ns-$m")
		[[ -z $pids ]] || kill $pids 2>/dev/null || true
	done
	for m in "${machines[@]}"; do
		[[ -e /run/netns/$ns-$m ]] || continue
		wait_for "$m to stop" empty "$m" || kill -9 $(ip netns pids "$ns-$m")
		ip netns delete "$ns-$m"
	done
	rm -rf "$dir"
}

empty() {
	[[ -z $(ip netns pids "$ns-$1") ]]
}

main "$@"
