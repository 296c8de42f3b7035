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

	protocolHopByHop    = 0
	protocolTCP         = 6
	protocolUDP         = 17
	protocolRouting     = 43
	protocolFragment    = 44
	protocolDestination = 60
	protocolSCTP        = 132

	minIPv4 = 20
	minIPv6 = 40
	minTCP  = 20
	udpLen  = 8

	checksumInTCP = 16
	checksumInUDP = 6

	maxSegmentsTCP = 1024
	maxSegmentsUDP = 128
)

// vnet is the virtio-net header. The zero value is that of a complete frame.
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

// check goes through the checks of §5 in their order, but the first, which
// every object has passed when it is whole. It returns what the header means
// before this frame: without what is ignored or means nothing. A reason other
// than "" is why a receiver with this MTU drops the frame.
func (v vnet) check(frame []byte, mtu int) (meaning vnet, reason string) {
	_, tags := etherType(frame)
	limit := minFrame + tags + mtu

	if v.flags != 0 && v.flags != needsCSUM {
		return v, BadOffload
	}
	if v.gsoType == gsoNone {
		if len(frame) > limit {
			return v, MTUPeer
		}
		if v.flags == 0 {
			return vnet{}, ""
		}
		if !v.validChecksum(frame) {
			return v, BadOffload
		}
		return vnet{flags: needsCSUM, csumStart: v.csumStart, csumOffset: v.csumOffset}, ""
	}
	headers, ok := v.superframe(frame)
	if !ok {
		return v, BadOffload
	}
	payload := len(frame) - headers
	if headers+min(payload, v.gsoSize) > limit {
		return v, MTUPeer
	}
	v.headerBytes = 0
	if payload <= v.gsoSize { // a single segment
		v.gsoType, v.gsoSize = gsoNone, 0
	}
	return v, ""
}

// validChecksum is the end of check 3: whether a checksum may be done at this
// place of a frame without GSO.
func (v vnet) validChecksum(frame []byte) bool {
	ether, tags := etherType(frame)
	least := minFrame + tags + 20
	if ether == etherTypeIPv4 || ether == etherTypeIPv6 {
		_, protocol, at, ok := transport(frame)
		if !ok || protocol == protocolSCTP {
			return false
		}
		least = at
	}
	return v.csumStart >= least && v.csumStart+v.csumOffset+2 <= len(frame)
}

// superframe is check 4: it returns the length of all headers, up to the end
// of that of TCP or UDP.
func (v vnet) superframe(frame []byte) (headers int, ok bool) {
	if v.flags != needsCSUM {
		return 0, false
	}
	version, protocol, at, ok := transport(frame)
	if !ok {
		return 0, false
	}

	tcp := true
	switch v.gsoType {
	case gsoTCP4, gsoTCP4 | gsoECN:
		ok = version == 4 && protocol == protocolTCP
	case gsoTCP6, gsoTCP6 | gsoECN:
		ok = version == 6 && protocol == protocolTCP
	case gsoUDP:
		tcp, ok = false, protocol == protocolUDP
	default:
		ok = false
	}
	if !ok {
		return 0, false
	}

	csumOffset, segments := checksumInTCP, maxSegmentsTCP
	if !tcp {
		csumOffset, segments = checksumInUDP, maxSegmentsUDP
	}
	if v.csumStart != at || v.csumOffset != csumOffset || !lengthAgrees(frame, version) {
		return 0, false
	}

	header := frame[at:]
	if tcp {
		if len(header) < minTCP {
			return 0, false
		}
		n := int(header[12]>>4) * 4
		if n < minTCP {
			return 0, false
		}
		headers = at + n
	} else {
		if len(header) < udpLen || u16(header[4:]) != len(header) {
			return 0, false
		}
		headers = at + udpLen
	}
	// At least one byte of payload, and few enough segments.
	payload := len(frame) - headers
	if payload < 1 || v.gsoSize == 0 || (payload+v.gsoSize-1)/v.gsoSize > segments {
		return 0, false
	}
	return headers, true
}

// lengthAgrees reports whether the length field of the IP header, which is
// whole, says that the packet ends where the frame does.
func lengthAgrees(frame []byte, version int) bool {
	_, tags := etherType(frame)
	ip := frame[minFrame+tags:]
	if version == 4 {
		return u16(ip[2:]) == len(ip)
	}
	return u16(ip[4:]) == len(ip)-minIPv6
}

// transport finds the transport header: which protocol it is of, and where it
// stands behind which version of IP. Not ok: there is none.
func transport(frame []byte) (version int, protocol byte, at int, ok bool) {
	ether, tags := etherType(frame)
	at = minFrame + tags
	if at > len(frame) {
		return 0, 0, 0, false
	}
	ip := frame[at:]
	switch ether {
	case etherTypeIPv4:
		if len(ip) < minIPv4 || ip[0]>>4 != 4 {
			return 0, 0, 0, false
		}
		n := int(ip[0]&0x0f) * 4
		const moreAndOffset = 0x3fff
		if n < minIPv4 || n > len(ip) || u16(ip[6:])&moreAndOffset != 0 {
			return 0, 0, 0, false
		}
		return 4, ip[9], at + n, true
	case etherTypeIPv6:
		if len(ip) < minIPv6 || ip[0]>>4 != 6 {
			return 0, 0, 0, false
		}
		next, n := ip[6], minIPv6
		for next == protocolHopByHop || next == protocolRouting || next == protocolDestination {
			if n+2 > len(ip) {
				return 0, 0, 0, false
			}
			next, n = ip[n], n+8*(int(ip[n+1])+1)
			if n > len(ip) {
				return 0, 0, 0, false
			}
		}
		if next == protocolFragment {
			return 0, 0, 0, false
		}
		return 6, next, at + n, true
	}
	return 0, 0, 0, false
}

// etherType returns the EtherType behind at most two tags, and the bytes of
// those tags. A tag that is cut off by the end of the frame counts, with
// EtherType 0 behind it.
func etherType(frame []byte) (ether, tags int) {
	at := func(i int) int {
		if i+2 > len(frame) {
			return 0
		}
		return u16(frame[i:])
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

func u16(b []byte) int { return int(binary.BigEndian.Uint16(b)) }
