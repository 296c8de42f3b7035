// SPDX-License-Identifier: Apache-2.0

package wirepeer

import "encoding/binary"

// Flags are the upper four bits of a record's tag: the parts that its object
// has before the frame (§4).
type Flags byte

// The flags, in the order of their parts.
const (
	Test    Flags = 0x80 // for the gateway itself
	Striped Flags = 0x40 // stripe u16, position u32
	Relayed Flags = 0x20 // destination, source: 8 bytes each
	VNET    Flags = 0x10 // virtio-net header of 10 bytes
)

// Sizes of §4 in bytes.
const (
	stripedBytes = 6
	relayedBytes = 16
	vnetBytes    = 10

	minFrame = 14
	maxFrame = 65597
)

// Object is a frame and what must be known about it. The fields of a part that
// Flags does not have are zero. A delivered Object is its receiver's no more:
// Frame is a copy. Its Header is what the one that came means (§5): what is
// ignored or means nothing is 0, and the only segment of a superframe has no
// GSO.
type Object struct {
	Flags       Flags
	Stripe      uint16
	Position    uint32
	Destination Member
	Source      Member
	Header      [vnetBytes]byte // virtio-net, little-endian
	Frame       []byte
}

// Member is the first 8 bytes of a member's id.
type Member [8]byte

// Append appends the object's bytes to b, without any check of them.
func (o Object) Append(b []byte) []byte {
	if o.Flags&Striped != 0 {
		b = binary.BigEndian.AppendUint16(b, o.Stripe)
		b = binary.BigEndian.AppendUint32(b, o.Position)
	}
	if o.Flags&Relayed != 0 {
		b = append(b, o.Destination[:]...)
		b = append(b, o.Source[:]...)
	}
	if o.Flags&VNET != 0 {
		b = append(b, o.Header[:]...)
	}
	return append(b, o.Frame...)
}

// partsBytes returns the size of the parts that stand before the frame.
func (f Flags) partsBytes() int {
	n := 0
	if f&Striped != 0 {
		n += stripedBytes
	}
	if f&Relayed != 0 {
		n += relayedBytes
	}
	if f&VNET != 0 {
		n += vnetBytes
	}
	return n
}

// lawful reports whether an object may have these flags together.
func (f Flags) lawful() bool { return f&Test == 0 || f == Test }

// validTotal reports whether an object of total bytes with these parts has a
// frame of a lawful length.
func (f Flags) validTotal(total int) bool {
	frame := total - f.partsBytes()
	return frame >= minFrame && frame <= maxFrame
}

// parseObject cuts b into the parts. The caller has checked the length with
// validTotal.
func parseObject(f Flags, b []byte) Object {
	o := Object{Flags: f}
	if f&Striped != 0 {
		o.Stripe = binary.BigEndian.Uint16(b)
		o.Position = binary.BigEndian.Uint32(b[2:])
		b = b[stripedBytes:]
	}
	if f&Relayed != 0 {
		copy(o.Destination[:], b)
		copy(o.Source[:], b[8:])
		b = b[relayedBytes:]
	}
	if f&VNET != 0 {
		copy(o.Header[:], b)
		b = b[vnetBytes:]
	}
	o.Frame = append([]byte(nil), b...)
	return o
}
