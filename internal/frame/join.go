// SPDX-License-Identifier: Apache-2.0

package frame

import (
	"bytes"
	"encoding/binary"
)

// Joiner makes superframes of UDP datagrams that a sender sent one by one, as
// generic receive offload does: the far kernel then takes one frame for up to
// 128 of them. It joins only what segmentation gives back byte for byte: whole
// IPv4 and IPv6 packets of one flow with equal headers, IPv4 IDs that count up,
// sums that are right or left to be done, equal sizes but for the last. The
// zero value is ready for use, by one goroutine.
type Joiner struct {
	last *Buf // what Join or Begin returned or was given last; nil when nothing can follow
	l4   int
	size int // payload of each datagram, but the last
	n    int // datagrams in it
	id   uint16
	done bool // the last one was shorter
	ours bool // last is a superframe that we made
}

// Begin takes note of a frame that others may be joined to.
func (j *Joiner) Begin(b *Buf) {
	*j = Joiner{}
	if l4, size, ok := joinable(b); ok {
		*j = Joiner{last: b, l4: l4, size: size, n: 1}
		if f := b.Bytes(); isIPv4(l4) {
			j.id = binary.BigEndian.Uint16(f[l4-20+4:])
		}
	}
}

// Join adds the frame b to last, if it is the one that Join returned or Begin was
// given before, and returns the Buf that holds both: last itself or, the first
// time and when last has no room, a new one, with one reference, which takes last's
// place. It returns nil, and changes nothing, when the two cannot be joined.
func (j *Joiner) Join(last, b *Buf) *Buf {
	if j.last == nil || j.last != last || j.done || j.n >= maxUDPSegs {
		return nil
	}
	l4, size, ok := joinable(b)
	hdr := l4 + udpLen
	if !ok || l4 != j.l4 || size > j.size || last.Len()+size > maxJoined || last.Header().Flags != b.Header().Flags && !j.ours {
		return nil
	}
	f, g := last.Bytes(), b.Bytes()
	if !sameFlow(f, g, l4) || isIPv4(l4) && binary.BigEndian.Uint16(g[l4-20+4:]) != j.id+1 {
		return nil
	}
	if !sumsRight(b, l4) || !j.ours && !sumsRight(last, l4) {
		return nil
	}
	n := last.Len()
	if j.ours && n+size <= len(last.Room())-VnetLen {
		last.SetLen(n + size)
	} else {
		last = Get(n + size)
		copy(last.Bytes(), f)
	}
	copy(last.Bytes()[n:], g[hdr:])
	j.last, j.ours, j.done = last, true, size < j.size
	j.n++
	j.id++
	j.finish(last)
	return last
}

// maxJoined keeps the length fields of IPv4 within their 16 bits.
const maxJoined = 65535

// finish makes the headers those of the whole.
func (j *Joiner) finish(b *Buf) {
	be, f := binary.BigEndian, b.Bytes()
	total := len(f) - j.l4
	if isIPv4(j.l4) {
		ip := f[j.l4-20 : j.l4]
		be.PutUint16(ip[2:], uint16(20+total))
		be.PutUint16(ip[10:], 0)
		be.PutUint16(ip[10:], ^Sum(ip, 0))
	} else {
		be.PutUint16(f[j.l4-40+4:], uint16(total))
	}
	udp := f[j.l4:]
	be.PutUint16(udp[4:], uint16(total))
	be.PutUint16(udp[udpCsum:], pseudoSum(f, j.l4, total))
	b.SetHeader(Vnet{
		Flags: VnetNeedsCsum, GSOType: GSOUDP, HdrLen: uint16(j.l4 + udpLen), GSOSize: uint16(j.size),
		CsumStart: uint16(j.l4), CsumOffset: udpCsum,
	})
}

// isIPv4 reports whether the packet of a joinable frame is IPv4. It has 20 bytes
// before UDP then, and IPv6 has 40, which is more than tags make up for: where UDP
// begins tells them apart. Nothing in the frame does, since in the place of an IPv4
// header's first bytes IPv6 has an address, which may be anything.
func isIPv4(l4 int) bool { return l4 < HeaderLen+40 }

// joinable reports whether a frame holds one whole UDP datagram and nothing else,
// and returns where it begins and the length of its payload.
func joinable(b *Buf) (l4, size int, ok bool) {
	be, f, h := binary.BigEndian, b.Bytes(), b.Header()
	if h.GSOType != GSONone || len(f) < HeaderLen+20+udpLen+1 {
		return 0, 0, false
	}
	l := Dissect(f)
	if l.Proto != ProtoUDP || l.L4 == 0 || l.Type == TypeIPv4 && l.L4 != l.L3+20 {
		return 0, 0, false
	}
	if l.Type == TypeIPv6 && len(f) < HeaderLen+40+udpLen+1 {
		return 0, 0, false
	}
	size = len(f) - l.L4 - udpLen
	if size < 1 || packetEnd(f, l) != len(f) || int(be.Uint16(f[l.L4+4:])) != size+udpLen {
		return 0, 0, false
	}
	if l.Type == TypeIPv4 && be.Uint16(f[l.L3+6:])&0x8000 != 0 {
		return 0, 0, false // a reserved bit
	}
	if h.Flags != 0 && (int(h.CsumStart) != l.L4 || h.CsumOffset != udpCsum) {
		return 0, 0, false
	}
	return l.L4, size, true
}

// sameFlow reports whether two joinable frames differ in nothing but lengths,
// IPv4 ID, sums and payload.
func sameFlow(f, g []byte, l4 int) bool {
	if isIPv4(l4) {
		ip := l4 - 20
		return bytes.Equal(f[:ip+2], g[:ip+2]) && bytes.Equal(f[ip+6:ip+10], g[ip+6:ip+10]) &&
			bytes.Equal(f[ip+12:l4+4], g[ip+12:l4+4])
	}
	ip := l4 - 40
	return bytes.Equal(f[:ip+4], g[:ip+4]) && bytes.Equal(f[ip+6:l4+4], g[ip+6:l4+4])
}

// sumsRight reports whether the sums of a joinable frame are what segmentation
// would make them: a wrong one must stay wrong.
func sumsRight(b *Buf, l4 int) bool {
	f := b.Bytes()
	if isIPv4(l4) && Sum(f[l4-20:l4], 0) != 0xffff {
		return false
	}
	udp := f[l4:]
	field, pseudo := binary.BigEndian.Uint16(udp[udpCsum:]), pseudoSum(f, l4, len(udp))
	if b.Header().Flags&VnetNeedsCsum != 0 {
		return field == pseudo
	}
	// Zero is no sum, and 0xffff one that is zero (RFC 768).
	return field != 0 && Sum(udp, pseudo) == 0xffff
}

// pseudoSum returns the sum of the pseudo-header of n bytes of UDP, not
// complemented, as Linux leaves it in the field when the rest is to be done.
func pseudoSum(f []byte, l4, n int) uint16 {
	addresses := f[l4-32 : l4]
	if isIPv4(l4) {
		addresses = f[l4-8 : l4]
	}
	rest := [4]byte{0, ProtoUDP, byte(n >> 8), byte(n)}
	return Sum(addresses, Sum(rest[:], 0))
}
