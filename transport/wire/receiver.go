// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"encoding/binary"
	"errors"
	"sync/atomic"
	"time"

	"github.com/l2bridge/l2bridge/internal/frame"
)

// Reason says why something that a peer sent was dropped.
type Reason uint8

// The reasons, named as in docs/wire.md and `l2bridge drops`.
const (
	Malformed Reason = iota
	UnknownRecord
	Late
	Reassembly
	Relay
	BadOffload
	MTUPeer
	Test
	Reasons // how many there are
)

var reasonNames = [Reasons]string{
	"malformed", "unknown_record", "late", "reassembly", "relay", "bad_offload", "mtu_peer", "test",
}

func (r Reason) String() string { return reasonNames[r] }

// Drops counts what was dropped, by reason. Several lanes may share one.
type Drops [Reasons]atomic.Uint64

// Heartbeat is a HEARTBEAT record that came in.
type Heartbeat struct {
	Mode  Mode
	Nonce uint64
	Size  int // of the datagram that it was in, bytes
}

// Receiver turns the datagrams of one lane into frames. Its memory is bounded:
// a window of 32 objects. It is used by one goroutine at a time.
type Receiver struct {
	// MTU of the own LAN, in bytes.
	MTU int

	// Drops counts; it must be set.
	Drops *Drops

	// Heartbeat is called with each heartbeat; nil ignores them.
	Heartbeat func(Heartbeat)

	// Self is who we are, to know whether a relayed object is for us.
	Self ShortID

	// Relayed is called with the frame of each relayed object that passes, which
	// is borrowed, checked against the own MTU if it is for Self and else against
	// frame.MaxMTU. Whether it came the right way is for it to say. Nil takes none.
	Relayed func(Relayed, *frame.Buf)

	// Test is called with each TEST object's frame, borrowed, and reports whether
	// it was expected; nil takes none.
	Test func([]byte) bool

	// Memory, if not nil, is what the receivers that share it may keep of objects
	// that are not whole, in bytes. One for which there is none left is lost.
	Memory *Memory

	// Salvage lets the whole segments of a damaged superframe through. Without
	// it an object that lacks a byte is lost.
	Salvage bool

	order  order
	begun  bool
	newest uint16
	slots  [window]slot

	suspect bool // there may be something to salvage
}

// Datagram takes one datagram that came in at the time now, appends the frames
// that are whole with it to frames, and returns the result. The frames are the
// caller's, to be released. d is borrowed.
func (r *Receiver) Datagram(d []byte, now time.Time, frames []*frame.Buf) []*frame.Buf {
	if len(d) < seqLen {
		r.drop(Malformed)
		return frames
	}
	if r.order.arrived(binary.BigEndian.Uint16(d)) {
		r.suspect = true
	}
	for p := d[seqLen:]; len(p) > 0 && p[0]&kindMask != kindPad; {
		if len(p) < tagLen {
			r.drop(Malformed)
			break
		}
		n := int(binary.BigEndian.Uint16(p[1:]))
		if n > len(p)-tagLen {
			r.drop(Malformed)
			break
		}
		body := p[tagLen : tagLen+n]
		frames = r.record(p[0], body, len(d), now, frames)
		p = p[tagLen+n:]
	}
	return r.salvage(now, frames)
}

func (r *Receiver) record(tag byte, body []byte, size int, now time.Time, frames []*frame.Buf) []*frame.Buf {
	kind, flags := tag&kindMask, tag&^kindMask
	switch {
	case kind > kindHeartbeat && kind != kindParity, kind >= kindHeartbeat && flags != 0:
		r.drop(UnknownRecord)
	case kind == kindParity: // the Repairer's
	case kind == kindWhole:
		frames = r.whole(flags, body, frames)
	case kind == kindSlice:
		frames = r.slice(flags, body, now, frames)
	case kind == kindHead:
		r.head(flags, body)
	case len(body) < 9:
		r.drop(Malformed)
	case body[0] < byte(nModes) && r.Heartbeat != nil:
		r.Heartbeat(Heartbeat{Mode(body[0]), binary.BigEndian.Uint64(body[1:]), size})
	}
	return frames
}

func (r *Receiver) drop(why Reason) { r.Drops[why].Add(1) }

// whole delivers an object that came in one piece.
func (r *Receiver) whole(flags byte, object []byte, frames []*frame.Buf) []*frame.Buf {
	if !r.takes(flags) {
		return frames
	}
	if !objectFits(flags, len(object)) {
		r.drop(Malformed)
		return frames
	}
	b := frame.Get(len(object) - partsLen(flags))
	n := prefixLen(flags)
	copy(objectBytes(flags, b), object[n:])
	return r.deliver(flags, object[:n], b, frames)
}

// takes reports whether objects with these flags are for us, and counts those
// that are not.
func (r *Receiver) takes(flags byte) bool {
	why, refused := r.refuses(flags)
	if refused {
		r.drop(why)
	}
	return !refused
}

// refuses reports whether objects with these flags are not for us, and why.
func (r *Receiver) refuses(flags byte) (why Reason, refused bool) {
	switch {
	case flags&flagStriped != 0:
		return UnknownRecord, true
	case flags&flagRelayed != 0 && r.Relayed == nil:
		return Relay, true
	case flags&flagTest != 0 && (flags != flagTest || r.Test == nil):
		return Test, true
	}
	return 0, false
}

// objectBytes returns the memory of an object behind its prefix in a Buf: the
// virtio-net header, if there is one, and the frame.
func objectBytes(flags byte, b *frame.Buf) []byte {
	if flags&flagVnet != 0 {
		return b.Raw()
	}
	return b.Bytes()
}

// deliver checks a frame (section 5) and passes it on, or releases it. prefix is
// what stood before it in the object.
func (r *Receiver) deliver(flags byte, prefix []byte, b *frame.Buf, frames []*frame.Buf) []*frame.Buf {
	h, err := frame.CheckVnet(b.Header(), b.Bytes(), r.mtu(flags, prefix))
	if err != nil {
		r.refuse(err)
		b.Release()
		return frames
	}
	if flags&flagTest != 0 {
		if !r.Test(b.Bytes()) {
			r.drop(Test)
		}
		b.Release()
		return frames
	}
	b.SetHeader(h)
	return r.pass(flags, prefix, b, frames)
}

// mtu returns that of the LAN that a frame is for, or the greatest: a relay does
// not know what its destination takes.
func (r *Receiver) mtu(flags byte, prefix []byte) int {
	if flags&flagRelayed != 0 && ShortID(prefix) != r.Self {
		return frame.MaxMTU
	}
	return r.MTU
}

// pass appends a frame that may be sent to the LAN, or hands it to Relayed.
func (r *Receiver) pass(flags byte, prefix []byte, b *frame.Buf, frames []*frame.Buf) []*frame.Buf {
	if flags&flagRelayed == 0 {
		return append(frames, b)
	}
	if to := parseRelayed(prefix); to.Source == to.Destination {
		r.drop(Relay)
	} else {
		r.Relayed(to, b)
	}
	b.Release()
	return frames
}

func (r *Receiver) refuse(err error) {
	if errors.Is(err, frame.ErrMTU) {
		r.drop(MTUPeer)
	} else {
		r.drop(BadOffload)
	}
}
