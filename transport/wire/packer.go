// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"encoding/binary"
	"sync/atomic"

	"github.com/l2bridge/l2bridge/internal/frame"
)

// Item is a frame on its way out, with what has been sent of it. Whoever queues
// an Item sets Buf, and Relayed if it has another way than the peer's LAN, and
// leaves the rest to the Packer.
type Item struct {
	Buf     *frame.Buf // its header as frame.CheckVnet returned it
	Relayed *Relayed   // from whom to whom, not changed while it waits; nil for the peer

	sent  int    // bytes of the object that are in datagrams
	id    uint16 // of a cut object
	begun bool   // the first slice has been sent
}

// Begun reports whether part of the frame has been sent, so that the rest must
// follow on the same lane.
func (it *Item) Begun() bool { return it.begun }

// Size returns how long the item's object is at most, in bytes.
func (it *Item) Size() int { return it.prefixLen() + frame.VnetLen + it.Buf.Len() }

// Source hands out what waits to be sent, in the order that it should go.
type Source interface {
	// Next returns the item whose turn it is, or nil when nothing waits. It
	// returns the same item until Sent has ended it, unless another one's turn
	// comes between two slices of it. An object of up to room bytes still fits
	// in the datagram without a cut.
	Next(room int) *Item

	// Sent tells that n more bytes of the item that Next returned last are in
	// a datagram; done says that these were its last.
	Sent(n int, done bool)
}

// Packer fills the datagrams of one lane. Pack is used by one goroutine.
type Packer struct {
	seq  atomic.Uint32
	id   uint16
	head heading
}

// heading is the HEAD record that is due in the next datagram.
type heading struct {
	id    uint16
	flags byte
	total int
	n     int
	b     [maxHead]byte
}

// leastSlice is the fewest bytes that a slice is made for; less room than that
// is padded.
const leastSlice = 16

// Seq returns the sequence of the next datagram and counts on: for datagrams
// that are made elsewhere, such as heartbeats, by any goroutine.
func (p *Packer) Seq() uint16 { return uint16(p.seq.Add(1) - 1) }

// Pack fills one datagram from the source and returns its length. d is the
// memory for it, as long as the greatest datagram that the lane takes, at least
// MinSize. The datagram is full to the last byte if more than fits is waiting,
// else as long as its records. Pack returns 0 when nothing waits.
//
// With all bytes of a frame in datagrams its Item is done; Pack neither retains
// nor releases it.
func (p *Packer) Pack(d []byte, src Source) int {
	it := src.Next(len(d) - seqLen - tagLen)
	if it == nil {
		return 0
	}
	n := seqLen
	binary.BigEndian.PutUint16(d, p.Seq())
	n += p.putHead(d[n:])
	for ; it != nil; it = src.Next(len(d) - n - tagLen) {
		flags, object := split(it.Buf)
		total, room := len(object), len(d)-n
		if it.Relayed != nil {
			flags, total = flags|flagRelayed, total+relayedLen
		}
		switch {
		case it.sent == 0 && tagLen+total <= room:
			d[n] = kindWhole | flags
			binary.BigEndian.PutUint16(d[n+1:], uint16(total))
			n += tagLen + it.putFirst(d[n+tagLen:], flags, object)
			src.Sent(total, true)
			continue
		case room >= sliceLen+least(it) || room >= sliceLen+total-it.sent:
			sent := p.putSlice(d[n:], it, flags, object)
			n += sliceLen + sent
			done := it.sent == total // Sent may end the item
			src.Sent(sent, done)
			if done {
				continue
			}
		}
		// More waits than fits: fill the rest.
		clear(d[n:])
		return len(d)
	}
	return n
}

// least returns the fewest bytes that the next slice of an item should hold.
// The first one of a superframe holds all its headers: else the loss of the
// second, which brings HEAD, would cost them, and so every segment.
func least(it *Item) int {
	if it.sent == 0 {
		return max(it.prefixLen()+leastSlice, headEnd(it))
	}
	return leastSlice
}

// headEnd returns where the headers of a superframe's object end, 0 for a frame
// that is none, or whose headers are too long for a HEAD.
func headEnd(it *Item) int {
	h, parts := it.Buf.Header(), it.prefixLen()+frame.VnetLen
	end := parts + int(h.HdrLen)
	if h.GSOType == frame.GSONone || h.HdrLen == 0 || end > min(maxHead, parts+it.Buf.Len()) {
		return 0
	}
	return end
}

// prefixLen returns how many bytes stand before the virtio-net header and the
// frame of an item's object.
func (it *Item) prefixLen() int {
	if it.Relayed != nil {
		return relayedLen
	}
	return 0
}

// split returns the flags and the bytes of a frame's object without its prefix.
func split(b *frame.Buf) (flags byte, object []byte) {
	if raw := b.Raw(); raw[0] != 0 || raw[1] != 0 {
		return flagVnet, raw
	}
	if b.IsTest() {
		flags = flagTest
	}
	return flags, b.Bytes()
}

// putFirst copies the first bytes of an item's object, as many as fit, and
// returns how many: its prefix and at least leastSlice behind that. The header
// length in a virtio-net header is sent 0 (section 5); ours serves whoever cuts
// the frame here.
func (it *Item) putFirst(d []byte, flags byte, object []byte) int {
	n := 0
	if it.Relayed != nil {
		n = it.Relayed.put(d)
		d = d[n:]
	}
	n += copy(d, object)
	if flags&flagVnet != 0 {
		clear(d[2:4])
	}
	return n
}

// putSlice writes the next slice of an item, as long as d has room, and returns
// how many bytes of the object it holds.
func (p *Packer) putSlice(d []byte, it *Item, flags byte, object []byte) int {
	if !it.begun {
		it.begun, it.id = true, p.id
		p.id++
		p.setHead(it, flags, object)
	}
	n := 0
	if it.sent == 0 {
		n = it.putFirst(d[sliceLen:], flags, object)
	} else {
		n = copy(d[sliceLen:], object[it.sent-it.prefixLen():])
	}
	d[0] = kindSlice | flags
	binary.BigEndian.PutUint16(d[1:], uint16(sliceLen-tagLen+n))
	binary.BigEndian.PutUint16(d[3:], it.id)
	putU24(d[5:], it.sent)
	putU24(d[8:], it.prefixLen()+len(object))
	it.sent += n
	return n
}

// setHead keeps the headers of a superframe for the next datagram, so that the
// loss of this one costs only the segments in it.
func (p *Packer) setHead(it *Item, flags byte, object []byte) {
	if end := headEnd(it); end > 0 {
		p.head.id, p.head.flags, p.head.total = it.id, flags, it.prefixLen()+len(object)
		p.head.n = it.putFirst(p.head.b[:end], flags, object)
	}
}

// putHead writes the HEAD that is due, if any, and returns its length.
func (p *Packer) putHead(d []byte) int {
	h := &p.head
	if h.n == 0 {
		return 0
	}
	d[0] = kindHead | h.flags
	binary.BigEndian.PutUint16(d[1:], uint16(headLen-tagLen+h.n))
	binary.BigEndian.PutUint16(d[3:], h.id)
	putU24(d[5:], h.total)
	n := headLen + copy(d[headLen:], h.b[:h.n])
	h.n = 0
	return n
}
