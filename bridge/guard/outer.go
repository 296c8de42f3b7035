// SPDX-License-Identifier: Apache-2.0

// Package guard keeps what could hurt a LAN, or the tunnel itself, from
// crossing the switch.
package guard

import (
	"encoding/binary"
	"net/netip"
	"sync/atomic"

	"github.com/l2bridge/l2bridge/internal/frame"
)

// Outer recognises the tunnel's own packets among the frames of the LAN. Once
// two sites share a subnet the peer's LAN address answers through the tunnel,
// and a bridge floods what it has no port for: without this check the tunnel
// could carry itself. The zero value recognises nothing.
type Outer struct {
	set atomic.Pointer[outerSet]
}

type outerSet struct {
	ports [1 << 16 / 64]uint64 // UDP ports of our sockets, a bit each
	peers map[netip.AddrPort]struct{}
}

// Set replaces what is recognised: packets from one of our UDP ports to one of
// the addresses that peers have, or are being dialled at.
func (o *Outer) Set(ports []uint16, peers []netip.AddrPort) {
	set := &outerSet{peers: make(map[netip.AddrPort]struct{}, len(peers))}
	for _, p := range ports {
		set.ports[p/64] |= 1 << (p % 64)
	}
	for _, p := range peers {
		set.peers[netip.AddrPortFrom(p.Addr().Unmap().WithZone(""), p.Port())] = struct{}{}
	}
	o.set.Store(set)
}

// Match reports whether the frame f, at least frame.HeaderLen long, is one of
// the tunnel's own packets, tagged or not, a USO superframe included. Fragments
// and IPv6 extension headers need no looking through: our sockets forbid the
// former (quic-go sets IP_PMTUDISC_PROBE) and use none of the latter. ICMP
// errors that quote our packets are not ours: they pass.
func (o *Outer) Match(f []byte) bool {
	set := o.set.Load()
	if set == nil {
		return false
	}
	l := frame.Dissect(f)
	if l.Proto != frame.ProtoUDP || l.L4 == 0 || l.L4+4 > len(f) {
		return false
	}
	src, dst := binary.BigEndian.Uint16(f[l.L4:]), binary.BigEndian.Uint16(f[l.L4+2:])
	if set.ports[src/64]&(1<<(src%64)) == 0 {
		return false
	}
	var to netip.Addr
	if l.Type == frame.TypeIPv4 {
		to = netip.AddrFrom4([4]byte(f[l.L3+16:]))
	} else {
		to = netip.AddrFrom16([16]byte(f[l.L3+24:])).Unmap()
	}
	_, ok := set.peers[netip.AddrPortFrom(to, dst)]
	return ok
}
