// SPDX-License-Identifier: Apache-2.0

package frame

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrMTU is returned for a frame, or a superframe whose segments, are longer
// than the MTU of this LAN allows.
var ErrMTU = errors.New("frame longer than the MTU")

// ErrVnet is returned, wrapped with the rule that is broken, for a virtio-net
// header that does not fit its frame.
var ErrVnet = errors.New("bad virtio-net header")

// The rules. They are made once, so that to refuse a frame costs nothing.
var (
	errFlags   = fmt.Errorf("%w: unknown flag", ErrVnet)
	errType    = fmt.Errorf("%w: unknown gso type", ErrVnet)
	errNoCsum  = fmt.Errorf("%w: gso without a checksum to complete", ErrVnet)
	errOffsets = fmt.Errorf("%w: checksum outside of the packet", ErrVnet)
	errHeaders = fmt.Errorf("%w: headers missing, cut short or of another type", ErrVnet)
	errLengths = fmt.Errorf("%w: length field differs from the frame", ErrVnet)
	errSize    = fmt.Errorf("%w: gso size is zero, or too small for the payload", ErrVnet)
	errEmpty   = fmt.Errorf("%w: superframe without payload", ErrVnet)
)

// What the transport protocols are checked for.
const (
	tcpLen     = 20 // without options
	udpLen     = 8
	tcpCsum    = 16 // offset of the checksum
	udpCsum    = 6
	maxUDPSegs = 128 // UDP_MAX_SEGMENTS: more, and a Linux TAP refuses the write

	// maxTCPSegs bounds what one superframe of 64 KB can become on a LAN: a
	// peer could ask for one frame a byte. It is enough down to a segment
	// size of 64 bytes.
	maxTCPSegs = 1024
	protoSCTP  = 132
)

// CheckVnet reports whether the virtio-net header h may go with the frame f to
// a LAN with the given MTU, and returns the header to use from here on: as h,
// but with the true HdrLen for a superframe, GSO taken away from one that has a
// single segment only (Linux takes it, then loses it when it segments), and
// zero where nothing is said. The error is ErrMTU or wraps ErrVnet. It does not
// allocate.
//
// Of h it trusts nothing, and of f only that the LAN can take any bytes in a
// plain frame. A superframe is let through only when segmenting cannot go
// wrong: whole IPv4 or IPv6 and TCP or UDP headers of the type that h says,
// not a fragment, every length field in accord with the frame.
//
// VIRTIO_NET_HDR_F_DATA_VALID, which Linux sets on frames that it has checked,
// is refused: whoever reads a TAP clears it.
func CheckVnet(h Vnet, f []byte, mtu int) (Vnet, error) {
	return CheckHead(h, f, len(f), mtu)
}

// CheckHead is CheckVnet for a frame of n bytes of which only the first,
// head, are at hand. They must hold all headers of a superframe.
func CheckHead(h Vnet, head []byte, n, mtu int) (Vnet, error) {
	if len(head) < HeaderLen || len(head) > n {
		return Vnet{}, errHeaders
	}
	l3 := HeaderLen + TagBytes(head)
	switch {
	case h.Flags&^VnetNeedsCsum != 0:
		return Vnet{}, errFlags
	case h.GSOType != GSONone:
		return checkGSO(h, head, l3, n, mtu)
	case n > l3+mtu:
		return Vnet{}, ErrMTU
	case h.Flags == 0:
		return Vnet{}, nil
	}
	return checkCsum(h, head, l3, n)
}

// checkCsum checks a frame that lacks its checksum and nothing else. It may be
// of any protocol, also inside of a tunnel's, so long as the sum begins behind
// the outer IP header.
func checkCsum(h Vnet, head []byte, l3, n int) (Vnet, error) {
	start := l3 + 20 // no network header that is summed behind is shorter
	if l := Dissect(head); l.Type == TypeIPv4 || l.Type == TypeIPv6 {
		proto, l4 := transport(head, l)
		if l4 == 0 || proto == protoSCTP { // its CRC-32C is not a sum (RFC 9260, 6.8)
			return Vnet{}, errHeaders
		}
		start = l4
	}
	if int(h.CsumStart) < start || int(h.CsumStart)+int(h.CsumOffset)+2 > n {
		return Vnet{}, errOffsets
	}
	return Vnet{Flags: h.Flags, CsumStart: h.CsumStart, CsumOffset: h.CsumOffset}, nil
}

// checkGSO checks a superframe.
func checkGSO(h Vnet, head []byte, l3, n, mtu int) (Vnet, error) {
	if h.Flags != VnetNeedsCsum {
		return Vnet{}, errNoCsum
	}
	var wantProto uint8 = ProtoTCP
	wantType, csum := uint16(TypeIPv4), tcpCsum
	l := Dissect(head)
	switch h.GSOType {
	case GSOTCPv4, GSOTCPv4 | GSOECN:
	case GSOTCPv6, GSOTCPv6 | GSOECN:
		wantType = TypeIPv6
	case GSOUDP:
		wantProto, csum, wantType = ProtoUDP, udpCsum, l.Type
	default:
		return Vnet{}, errType
	}
	proto, l4 := transport(head, l)
	switch {
	case l4 == 0 || l.Type != wantType || proto != wantProto:
		return Vnet{}, errHeaders
	case int(h.CsumStart) != l4 || int(h.CsumOffset) != csum:
		return Vnet{}, errOffsets
	case packetEnd(head, l) != n:
		return Vnet{}, errLengths
	}

	size := transportLen(head[l4:], proto)
	if size == 0 {
		return Vnet{}, errHeaders
	}
	if proto == ProtoUDP && int(binary.BigEndian.Uint16(head[l4+4:])) != n-l4 {
		return Vnet{}, errLengths
	}

	hdr, seg := l4+size, int(h.GSOSize)
	payload := n - hdr
	switch {
	case payload < 1:
		return Vnet{}, errEmpty
	case seg == 0 || proto == ProtoUDP && payload > seg*maxUDPSegs || payload > seg*maxTCPSegs:
		return Vnet{}, errSize
	case hdr+min(seg, payload) > l3+mtu:
		return Vnet{}, ErrMTU
	case payload <= seg:
		h.GSOType, h.GSOSize, h.HdrLen = GSONone, 0, 0
		return h, nil
	}
	h.HdrLen = uint16(hdr)
	return h, nil
}

// transport returns the protocol of the packet in f and where its header
// begins, 0 when there is none: not IP, a fragment, a header not whole. Of IPv6
// extension headers it passes over those that Linux segments behind
// (net/ipv6/ip6_offload.c, ipv6_gso_pull_exthdrs); another one is the protocol,
// but for that of a fragment, which may stand behind them (RFC 8200, 4.1).
func transport(f []byte, l Layers) (proto uint8, l4 int) {
	proto, l4 = l.Proto, l.L4
	if l.Type != TypeIPv6 || l4 == 0 {
		return proto, l4
	}
	const hopByHop, routing, fragment, options = 0, 43, 44, 60
	for proto == hopByHop || proto == routing || proto == options {
		if len(f) < l4+8 { // the shortest one (RFC 8200, 4.3)
			return proto, 0
		}
		proto, l4 = f[l4], l4+8+int(f[l4+1])*8
	}
	if proto == fragment || l4 > len(f) {
		return proto, 0
	}
	return proto, l4
}

// transportLen returns the length of the TCP or UDP header at the start of p, 0
// when it is not whole.
func transportLen(p []byte, proto uint8) int {
	switch {
	case proto == ProtoUDP && len(p) >= udpLen:
		return udpLen
	case proto == ProtoTCP && len(p) >= tcpLen:
		if n := int(p[12]>>4) * 4; n >= tcpLen && n <= len(p) {
			return n
		}
	}
	return 0
}

// packetEnd returns where the IP packet in f ends by its own length field.
func packetEnd(f []byte, l Layers) int {
	if l.Type == TypeIPv4 {
		return l.L3 + int(binary.BigEndian.Uint16(f[l.L3+2:]))
	}
	return l.L3 + 40 + int(binary.BigEndian.Uint16(f[l.L3+4:]))
}
