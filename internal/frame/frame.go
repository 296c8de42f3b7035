// SPDX-License-Identifier: Apache-2.0

// Package frame holds one Ethernet frame in memory: a pooled, reference-counted
// buffer, the virtio-net header in front of it, and reads of its headers in
// place. Nothing here allocates per frame.
package frame

import (
	"fmt"
	"sync"
	"sync/atomic"
)

// Sizes in bytes.
const (
	HeaderLen = 14 // destination, source, EtherType
	TagLen    = 4  // one 802.1Q or 802.1ad tag
	MaxTags   = 2  // tags that are looked through and allowed for beyond the MTU
	VnetLen   = 10 // struct virtio_net_hdr, before the frame

	// MaxLen is the longest frame a Buf holds: a TSO superframe is an IP packet
	// of up to 65,535 bytes, for IPv6 not counting its 40-byte header, behind an
	// Ethernet header with two tags.
	MaxLen = HeaderLen + MaxTags*TagLen + 40 + 65535

	// MaxMTU is the largest MTU of a bridged LAN.
	MaxMTU = 9000
)

// Buf is one frame with its virtio-net header, contiguous in memory, as a TAP
// with IFF_VNET_HDR reads and writes it:
//
//	| virtio-net header, 10 bytes | Ethernet frame |
//
// A Buf is made by Get with one reference. Whoever is handed a Buf by a call
// has borrowed it for the time of the call; to keep it longer, Retain it.
// Once it has been delivered to the switch its bytes do not change: several
// ports may share it.
type Buf struct {
	refs atomic.Int32
	pool *sync.Pool
	mem  []byte // VnetLen bytes, then room for the frame
	n    int    // length of the frame
	test bool   // for the gateway at the other end, not for its LAN
}

// Frames come in four classes of room, so that a queue of ordinary frames does
// not hold 64 KB for each, nor one of short superframes much more than their bytes.
const (
	smallLen = HeaderLen + MaxTags*TagLen + 1500
	jumboLen = HeaderLen + MaxTags*TagLen + MaxMTU
)

// ShortLen is the longest frame whose Buf from Get does not hold the memory of one of
// MaxLen: about 2.7 times what a jumbo frame has, and MaxLen as much of it.
const ShortLen = 24 << 10

var (
	smallPool = newPool(smallLen)
	jumboPool = newPool(jumboLen)
	shortPool = newPool(ShortLen)
	superPool = newPool(MaxLen)
)

func newPool(room int) *sync.Pool {
	p := new(sync.Pool)
	p.New = func() any { return &Buf{pool: p, mem: make([]byte, VnetLen+room)} }
	return p
}

// Get returns a Buf with one reference whose frame is n bytes long, contents
// undefined, and whose virtio-net header is zero. It panics when n is negative
// or above MaxLen: callers check lengths that come from outside.
func Get(n int) *Buf {
	if n < 0 || n > MaxLen {
		panic(fmt.Sprintf("frame: Get(%d)", n))
	}
	pool := superPool
	switch {
	case n <= smallLen:
		pool = smallPool
	case n <= jumboLen:
		pool = jumboPool
	case n <= ShortLen:
		pool = shortPool
	}
	b := pool.Get().(*Buf)
	b.refs.Store(1)
	b.n, b.test = n, false
	clear(b.mem[:VnetLen])
	return b
}

// New returns a Buf that holds a copy of the frame p, without offloads.
func New(p []byte) *Buf {
	b := Get(len(p))
	copy(b.Bytes(), p)
	return b
}

// Bytes returns the frame, from its destination address on.
func (b *Buf) Bytes() []byte { return b.mem[VnetLen : VnetLen+b.n] }

// Raw returns the virtio-net header and the frame behind it.
func (b *Buf) Raw() []byte { return b.mem[:VnetLen+b.n] }

// Room returns all the memory of the Buf, header included, to read a frame
// into before SetLen says how long it is.
func (b *Buf) Room() []byte { return b.mem }

// Len returns the length of the frame.
func (b *Buf) Len() int { return b.n }

// SetLen sets the length of the frame, at most what the Buf has room for.
func (b *Buf) SetLen(n int) {
	if n < 0 || n > len(b.mem)-VnetLen {
		panic(fmt.Sprintf("frame: SetLen(%d) in a Buf of %d", n, len(b.mem)-VnetLen))
	}
	b.n = n
}

// Header returns the virtio-net header.
func (b *Buf) Header() Vnet { return ParseVnet(b.mem) }

// SetHeader writes the virtio-net header.
func (b *Buf) SetHeader(h Vnet) { h.Put(b.mem) }

// SetTest says that the frame is for the gateway at the other end and not for
// its LAN: a TEST object of docs/wire.md.
func (b *Buf) SetTest() { b.test = true }

// IsTest reports whether SetTest was called.
func (b *Buf) IsTest() bool { return b.test }

// Retain adds a reference and returns b.
func (b *Buf) Retain() *Buf {
	if b.refs.Add(1) <= 1 {
		panic("frame: Buf retained after release")
	}
	return b
}

// Release drops a reference; the last one gives the memory back.
func (b *Buf) Release() {
	switch n := b.refs.Add(-1); {
	case n == 0:
		poison(b.mem)
		b.pool.Put(b)
	case n < 0:
		panic("frame: Buf released twice")
	}
}
