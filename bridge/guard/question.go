// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"encoding/binary"
	"net/netip"

	"github.com/l2bridge/l2bridge/internal/frame"
)

// Question returns a frame that has the destination of f, a frame of at least
// frame.HeaderLen bytes, send something; nil if there is none. The caller
// releases it.
//
// When LANs are joined, the switches on a shelf are not told. Those that still
// believe a station to be behind the tunnel send the frames for it to the
// gateway, and would for five minutes, unless the station sends something that
// comes by them. Such a frame says itself whom to ask: the owner of an IPv4
// address answers an ARP probe (RFC 5227, 2.1.1), that of an IPv6 address a
// solicitation from the unspecified address (RFC 4861, 7.2.4). Neither teaches
// anybody an address of ours.
//
// A host that makes sure of that very address in this moment, for some seconds
// after its start, takes the question for somebody else's claim. Hence one
// question a second for an address, and only while LANs are joined.
func (l *Loop) Question(f []byte) *frame.Buf {
	tags := f[12 : 12+frame.TagBytes(f)]
	layers := frame.Dissect(f)
	target := frame.HeaderLen + len(tags) + 24 // of an ARP packet (RFC 826)
	switch {
	case layers.Type == frame.TypeARP && len(f) >= target+4:
		// Neighbours that doubt each other ask by unicast first.
		return l.askIPv4(tags, netip.AddrFrom4([4]byte(f[target:])))
	case layers.Type == frame.TypeIPv4 && layers.L3 != 0:
		return l.askIPv4(tags, netip.AddrFrom4([4]byte(f[layers.L3+16:])))
	case layers.Type == frame.TypeIPv6 && layers.L3 != 0:
		return l.askIPv6(tags, netip.AddrFrom16([16]byte(f[layers.L3+24:])))
	}
	return nil
}

// question returns a frame from us in the VLAN of some tags, zero from its
// EtherType's end on, and where that is.
func (l *Loop) question(dst []byte, tags []byte, etherType uint16, n int) (b *frame.Buf, payload []byte) {
	head := frame.HeaderLen + len(tags)
	b = frame.Get(max(shortest, head+n))
	f := b.Bytes()
	clear(f)
	copy(f, dst)
	copy(f[6:], l.own.mac())
	copy(f[12:], tags)
	binary.BigEndian.PutUint16(f[head-2:], etherType)
	return b, f[head:]
}

func (l *Loop) askIPv4(tags []byte, target netip.Addr) *frame.Buf {
	if target.IsUnspecified() || target.IsMulticast() || target.IsLoopback() || target == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return nil
	}
	b, p := l.question([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, tags, frame.TypeARP, 28)
	copy(p, []byte{0, 1, 8, 0, 6, 4, 0, 1}) // Ethernet, IPv4, their lengths, request
	copy(p[8:], l.own.mac())
	copy(p[24:], target.AsSlice())
	return b
}

func (l *Loop) askIPv6(tags []byte, target netip.Addr) *frame.Buf {
	if target.IsUnspecified() || target.IsMulticast() || target.IsLoopback() || target.Is4In6() {
		return nil
	}
	const header, message, solicitation, icmpv6 = 40, 24, 135, 58
	to := target.As16()
	b, p := l.question([]byte{0x33, 0x33, 0xff, to[13], to[14], to[15]}, tags, frame.TypeIPv6, header+message)
	p[0], p[5], p[6], p[7] = 6<<4, message, icmpv6, 255
	group := [16]byte{0: 0xff, 1: 2, 11: 1, 12: 0xff, 13: to[13], 14: to[14], 15: to[15]} // RFC 4291, 2.7.1
	copy(p[24:], group[:])
	p[header] = solicitation
	copy(p[header+8:], to[:])
	// The sum over the pseudo-header (RFC 8200, 8.1): both addresses, the first
	// of which is zero, length and protocol.
	sum := frame.Sum(p[24:header+message], message+icmpv6)
	binary.BigEndian.PutUint16(p[header+2:], ^sum)
	return b
}
