// SPDX-License-Identifier: Apache-2.0

package frame

import "encoding/binary"

// IsUrgent reports whether a frame is one of the few that a LAN stands on: ARP,
// neighbour and router discovery, DHCP, spanning tree. They are small, and what
// waits for them waits for a second. f is at least HeaderLen long.
func IsUrgent(f []byte) bool {
	const (
		reserved = 0x0180c2000000 // ..0F, IEEE 802.1Q-2022, table 8-1: STP, LLDP
		icmpv6   = 58
	)
	be := binary.BigEndian
	if uint64(be.Uint16(f))<<32|uint64(be.Uint32(f[2:]))&^0xf == reserved {
		return true
	}
	l := Dissect(f)
	switch {
	case l.Type == TypeARP:
		return true
	case l.L4 == 0 || len(f) < l.L4+4:
		return false
	case l.Proto == ProtoUDP:
		src, dst := be.Uint16(f[l.L4:]), be.Uint16(f[l.L4+2:])
		return isDHCP(src) && isDHCP(dst)
	case l.Type == TypeIPv6 && l.Proto == icmpv6:
		return f[l.L4] >= 133 && f[l.L4] <= 137 // RFC 4861: RS, RA, NS, NA, redirect
	}
	return false
}

// isDHCP reports whether a UDP port is one that DHCP uses on both ends.
func isDHCP(port uint16) bool {
	return port == 67 || port == 68 || port == 546 || port == 547
}

// ECN codepoints (RFC 3168, section 5).
const (
	ecnMask = 3
	ecnCE   = 3
)

// IsECT reports whether a frame holds an IP packet whose ends have said that
// they understand a congestion mark, or that has one already. f is at least
// HeaderLen long.
func IsECT(f []byte) bool {
	l := Dissect(f)
	switch {
	case l.L3 == 0:
		return false
	case l.Type == TypeIPv4:
		return f[l.L3+1]&ecnMask != 0
	}
	return f[l.L3+1]>>4&ecnMask != 0
}

// MarkCE sets Congestion Experienced in a frame of which IsECT is true, and
// mends the checksum of an IPv4 header (RFC 1624, equation 3). The frame must
// be the caller's alone.
func MarkCE(f []byte) {
	be := binary.BigEndian
	l := Dissect(f)
	if l.Type != TypeIPv4 {
		f[l.L3+1] |= ecnCE << 4
		return
	}
	ip := f[l.L3:]
	var words [4]byte // ~HC is built up from ~HC + ~m + m'
	be.PutUint16(words[:], ^be.Uint16(ip))
	ip[1] |= ecnCE
	be.PutUint16(words[2:], be.Uint16(ip))
	be.PutUint16(ip[10:], ^Sum(words[:], ^be.Uint16(ip[10:])))
}
