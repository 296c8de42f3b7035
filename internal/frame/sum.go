// SPDX-License-Identifier: Apache-2.0

package frame

import (
	"encoding/binary"
	"math/bits"
)

// Sum returns the ones' complement sum of p, taken as big-endian 16-bit words,
// and of partial, a sum taken before (RFC 1071). An odd last byte is padded
// with zero. An Internet checksum is the complement of the result.
func Sum(p []byte, partial uint16) uint16 {
	// Words are added in little-endian order and swapped once at the end, with
	// the carry of each 64-bit addition fed to the next (RFC 1071, 2 (B) and (C)).
	le := binary.LittleEndian
	sum, carry := uint64(bits.ReverseBytes16(partial)), uint64(0)
	for len(p) >= 32 {
		sum, carry = bits.Add64(sum, le.Uint64(p), carry)
		sum, carry = bits.Add64(sum, le.Uint64(p[8:]), carry)
		sum, carry = bits.Add64(sum, le.Uint64(p[16:]), carry)
		sum, carry = bits.Add64(sum, le.Uint64(p[24:]), carry)
		p = p[32:]
	}
	for len(p) >= 8 {
		sum, carry = bits.Add64(sum, le.Uint64(p), carry)
		p = p[8:]
	}
	var last [8]byte
	copy(last[:], p)
	sum, carry = bits.Add64(sum, le.Uint64(last[:]), carry)
	sum += carry // no carry again: last has a byte of zero

	sum = sum>>32 + sum&0xffffffff
	sum = sum>>32 + sum&0xffffffff
	sum = sum>>16 + sum&0xffff
	sum = sum>>16 + sum&0xffff
	return bits.ReverseBytes16(uint16(sum))
}

// Complete finishes a frame of which VnetNeedsCsum still asks for a checksum:
// it writes the checksum and zeroes the virtio-net header. The header must be
// one that CheckVnet returned, without GSO. It changes the frame, so b must not
// be shared.
func Complete(b *Buf) {
	h := b.Header()
	if h.Flags&VnetNeedsCsum == 0 {
		return
	}
	l4 := b.Bytes()[h.CsumStart:]
	sum := ^Sum(l4, 0)
	if sum == 0 {
		// Zero would say "no checksum" in UDP (RFC 768); everywhere else the two
		// are the same number. Linux skb_checksum_help does it for all alike.
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(l4[h.CsumOffset:], sum)
	b.SetHeader(Vnet{})
}
