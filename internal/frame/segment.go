// SPDX-License-Identifier: Apache-2.0

package frame

import (
	"encoding/binary"
	"fmt"
)

// TCP flags that belong to one end of a superframe only, and where they stand.
const (
	tcpFlags = 13

	tcpFIN = 0x01
	tcpPSH = 0x08
	tcpCWR = 0x80
)

// Segments returns how many plain frames the frame f with the virtio-net header
// h turns into: 1 without GSO. It does not need h.HdrLen; for a header that
// CheckVnet refuses the number means nothing.
func Segments(h Vnet, f []byte) int {
	size := int(h.GSOSize)
	if h.GSOType == GSONone || size == 0 {
		return 1
	}
	proto := uint8(ProtoTCP)
	if h.GSOType == GSOUDP {
		proto = ProtoUDP
	}
	p := f[min(int(h.CsumStart), len(f)):]
	payload := len(p) - transportLen(p, proto)
	return max(1, (payload+size-1)/size)
}

// Split calls yield with each plain frame that b turns into, in order, with
// all checksums complete. The frames are borrowed; b itself is yielded when
// there is nothing to do, and is never changed. A frame that CheckVnet refuses
// whatever the MTU is not split: the error is CheckVnet's, and nothing is yielded.
func Split(b *Buf, yield func(*Buf)) error {
	f := b.Bytes()
	h, err := CheckVnet(b.Header(), f, MaxLen)
	switch {
	case err != nil:
		return err
	case h == Vnet{}:
		yield(b)
	case h.GSOType == GSONone:
		plain := New(f)
		plain.SetHeader(h)
		finish(plain, yield)
	default:
		hdr, payload := f[:h.HdrLen], f[h.HdrLen:]
		for i := 0; len(payload) > 0; i++ {
			n := min(int(h.GSOSize), len(payload))
			finish(Cut(h, hdr, payload[:n], i), yield)
			payload = payload[n:]
		}
	}
	return nil
}

// finish completes a frame that is ours, lends it to yield, and releases it.
func finish(b *Buf, yield func(*Buf)) {
	Complete(b)
	yield(b)
	b.Release()
}

// Cut returns a new Buf with a run of whole segments of a superframe: a smaller
// superframe, or for one segment a frame that lacks its checksum only. h is the
// superframe's header as CheckVnet or CheckHead returned it, hdr its first
// h.HdrLen bytes, payload the bytes of the segments wanted, the first of which
// is number from, counted from 0. It panics when that is not a run of whole
// segments. The caller releases the Buf.
//
// What differs between segments is set as Linux does it (net/ipv4/af_inet.c
// inet_gso_segment, tcp_offload.c, udp_offload.c): the lengths, the IPv4 ID
// (one higher each) and header checksum, the TCP sequence number, FIN and PSH
// only with the last segment, CWR only with the first.
func Cut(h Vnet, hdr, payload []byte, from int) *Buf {
	be := binary.BigEndian
	b := Get(len(hdr) + len(payload))
	f := b.Bytes()
	copy(f, hdr)
	copy(f[len(hdr):], payload)

	l3, l4 := HeaderLen+TagBytes(hdr), int(h.CsumStart)
	ip, transport := f[l3:], f[l4:]
	var whole int // bytes behind the IP header, before the cut
	if be.Uint16(f[l3-2:]) == TypeIPv4 {
		whole = l3 + int(be.Uint16(ip[2:])) - l4
		be.PutUint16(ip[2:], uint16(len(ip)))
		be.PutUint16(ip[4:], be.Uint16(ip[4:])+uint16(from))
		be.PutUint16(ip[10:], 0)
		be.PutUint16(ip[10:], ^Sum(f[l3:l4], 0))
	} else {
		whole = l3 + 40 + int(be.Uint16(ip[4:])) - l4
		be.PutUint16(ip[4:], uint16(len(ip)-40))
	}

	size := int(h.GSOSize)
	begin := from * size
	left := l4 + whole - len(hdr) - begin - len(payload) // payload behind the cut
	if from < 0 || len(payload) == 0 || left < 0 || left > 0 && len(payload)%size != 0 {
		panic(fmt.Sprintf("frame: Cut of %d bytes at segment %d, size %d, %d bytes behind",
			len(payload), from, size, left))
	}

	if h.GSOType == GSOUDP {
		be.PutUint16(transport[4:], uint16(len(transport)))
	} else {
		be.PutUint32(transport[4:], be.Uint32(transport[4:])+uint32(begin))
		if from > 0 {
			transport[tcpFlags] &^= tcpCWR
			h.GSOType &^= GSOECN
		}
		if left > 0 {
			transport[tcpFlags] &^= tcpFIN | tcpPSH
		}
	}

	// The checksum field holds the sum of the pseudo-header, in which of all
	// that only the length differs. It is exchanged and not summed anew since
	// the final destination may stand in a routing header (RFC 8200, 8.1).
	field := transport[h.CsumOffset:]
	var lengths [4]byte
	be.PutUint16(lengths[:], ^uint16(whole))
	be.PutUint16(lengths[2:], uint16(len(transport)))
	be.PutUint16(field, Sum(lengths[:], be.Uint16(field)))

	if len(payload) <= size {
		h.GSOType, h.GSOSize, h.HdrLen = GSONone, 0, 0
	}
	b.SetHeader(h)
	return b
}
