// SPDX-License-Identifier: Apache-2.0

package wirepeer

import "encoding/binary"

// The GSO types of §5.
const (
	gsoNone = 0
	gsoTCP4 = 1
	gsoTCP6 = 4
	gsoUDP  = 5
	gsoECN  = 0x80 // may be added to gsoTCP4 and gsoTCP6
)

const needsCSUM = 1

const (
	etherTypeIPv4   = 0x0800
	etherTypeIPv6   = 0x86dd
	etherType8021Q  = 0x8100
	etherType8021AD = 0x88a8

	protocolTCP = 6
	protocolUDP = 17

	minIPv4 = 20
	minIPv6 = 40
	minTCP  = 20
	udpLen  = 8

	checksumInTCP = 16
	checksumInUDP = 6
)

// vnet is the virtio-net header.
type vnet struct {
	flags       byte
	gsoType     byte
	gsoSize     int
	csumStart   int
	csumOffset  int
	headerBytes int // sent 0, ignored
}

func parseVNET(b [vnetBytes]byte) vnet {
	u16 := func(i int) int { return int(binary.LittleEndian.Uint16(b[i:])) }
	return vnet{
		flags:       b[0],
		gsoType:     b[1],
		headerBytes: u16(2),
		gsoSize:     u16(4),
		csumStart:   u16(6),
		csumOffset:  u16(8),
	}
}

func (v vnet) bytes() (b [vnetBytes]byte) {
	b[0], b[1] = v.flags, v.gsoType
	for i, x := range []int{v.headerBytes, v.gsoSize, v.csumStart, v.csumOffset} {
		binary.LittleEndian.PutUint16(b[2+2*i:], uint16(x))
	}
	return b
}

// checkFrame returns the reason why a receiver with this MTU drops the frame
// of o, or "".
func checkFrame(o Object, mtu int) string {
	_, tags := etherType(o.Frame)
	limit := minFrame + tags + mtu
	size := len(o.Frame)
	if o.Flags&VNET != 0 {
		v := parseVNET(o.Header)
		headers, ok := v.check(o.Frame)
		if !ok {
			return BadOffload
		}
		if v.gsoType != gsoNone {
			// Reading: also when the payload is shorter than one segment.
			size = headers + v.gsoSize
		}
	}
	if size > limit {
		return MTUPeer
	}
	return ""
}

// check reports whether the header may stand before this frame, and returns
// the bytes of all headers of a superframe.
func (v vnet) check(frame []byte) (headers int, ok bool) {
	if v.flags != 0 && v.flags != needsCSUM {
		return 0, false
	}
	// Reading: start and offset have no meaning without NEEDS_CSUM, nor has
	// the GSO size without a GSO type.
	if v.flags == needsCSUM {
		if v.csumStart < minFrame || v.csumStart+v.csumOffset+2 > len(frame) {
			return 0, false
		}
	}
	var protocol byte
	csumOffset := checksumInTCP
	switch v.gsoType {
	case gsoNone:
		return 0, true
	case gsoTCP4, gsoTCP4 | gsoECN, gsoTCP6, gsoTCP6 | gsoECN:
		protocol = protocolTCP
	case gsoUDP:
		protocol, csumOffset = protocolUDP, checksumInUDP
	default:
		return 0, false
	}
	if v.flags != needsCSUM || v.gsoSize == 0 || v.csumOffset != csumOffset {
		return 0, false
	}
	headers, ok = v.headers(frame, protocol)
	return headers, ok && len(frame) > headers
}

// headers returns the length of the Ethernet, IP and TCP or UDP headers of a
// superframe, and reports whether they agree with the GSO type and are inside
// the frame.
//
// Reading: the transport header is the one behind the IP header; checksum
// start is not compared with it, IPv6 has no extension headers, and neither
// the lengths in the IP and UDP headers nor a fragment offset are looked at.
func (v vnet) headers(frame []byte, protocol byte) (n int, ok bool) {
	ether, tags := etherType(frame)
	n = minFrame + tags
	if n > len(frame) {
		return 0, false
	}
	gso := v.gsoType &^ gsoECN
	switch ip := frame[n:]; {
	case ether == etherTypeIPv4 && gso != gsoTCP6:
		if len(ip) < minIPv4 || ip[0]>>4 != 4 || ip[9] != protocol {
			return 0, false
		}
		length := int(ip[0]&0x0f) * 4
		if length < minIPv4 {
			return 0, false
		}
		n += length
	case ether == etherTypeIPv6 && gso != gsoTCP4:
		if len(ip) < minIPv6 || ip[0]>>4 != 6 || ip[6] != protocol {
			return 0, false
		}
		n += minIPv6
	default:
		return 0, false
	}
	if protocol == protocolUDP {
		n += udpLen
		return n, n <= len(frame)
	}
	if n+minTCP > len(frame) {
		return 0, false
	}
	length := int(frame[n+12]>>4) * 4
	if length < minTCP {
		return 0, false
	}
	n += length
	return n, n <= len(frame)
}

// etherType returns the EtherType behind at most two tags, and the bytes of
// those tags. A tag that is cut off by the end of the frame counts, with
// EtherType 0 behind it.
func etherType(frame []byte) (ether, tags int) {
	at := func(i int) int {
		if i+2 > len(frame) {
			return 0
		}
		return int(binary.BigEndian.Uint16(frame[i:]))
	}
	for tags < 8 {
		ether = at(12 + tags)
		if ether != etherType8021Q && ether != etherType8021AD {
			return ether, tags
		}
		tags += 4
	}
	return at(12 + tags), tags
}
