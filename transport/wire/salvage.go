// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"time"

	"github.com/l2bridge/l2bridge/internal/frame"
)

const (
	// reorder is how many datagrams may come before one that was sent earlier
	// until that counts as lost: QUIC's own packet threshold (RFC 9002, 6.1.1).
	reorder = 3

	// SalvageAfter is how long a lane may be quiet until what is missing of a
	// superframe counts as lost.
	SalvageAfter = 5 * time.Millisecond
)

// order follows the sequence of a lane to see what was lost.
type order struct {
	begun   bool
	current uint64 // sequence of the datagram at hand, without wrapping
	high    uint64 // greatest sequence that came
	seen    uint64 // bit i: high - i has come
	hole    uint64 // greatest sequence that counts as lost; 0 for none
}

// arrived takes the sequence of a datagram and reports whether another one
// counts as lost by it.
func (o *order) arrived(seq uint16) bool {
	if !o.begun {
		// Far from zero, so that what was sent before has a number too.
		*o = order{begun: true, high: 1<<32 + uint64(seq), seen: ^uint64(0)}
		o.current = o.high
		return false
	}
	d := int64(int16(seq - uint16(o.high)))
	o.current = uint64(int64(o.high) + d)
	if d <= 0 {
		if d > -64 {
			o.seen |= 1 << -d
		}
		return false
	}
	old := o.high
	o.high = o.current
	if d >= 64 {
		o.seen = 1
	} else {
		o.seen = o.seen<<d | 1
	}
	// What has become old enough with this step: old-reorder+1 .. high-reorder.
	for s := o.high - reorder; s > old-reorder && o.high-s < 64; s-- {
		if o.seen&(1<<(o.high-s)) == 0 {
			o.hole = max(o.hole, s)
			return true
		}
	}
	return false
}

// lacking reports whether a slot is a superframe of which some bytes have come.
func (s *slot) lacking() bool {
	return s.state == stateOpen && s.buf != nil && s.flags&flagVnet != 0 && len(s.runs) > 0
}

// stuck reports whether something sent before the end of the object is missing,
// as far as the sequence of the lane can tell.
func (s *slot) stuck(o *order) bool { return s.ended || o.hole > s.lastSeq }

// salvage looks for superframes whose missing slices will not come any more.
func (r *Receiver) salvage(now time.Time, frames []*frame.Buf) []*frame.Buf {
	if !r.Waits() {
		return frames
	}
	r.suspect = false
	for i := range r.slots {
		switch s := &r.slots[i]; {
		case !s.lacking():
		case s.ended && r.order.high >= s.lastSeq+reorder,
			s.stuck(&r.order) && now.Sub(s.lastTime) >= SalvageAfter:
			frames = r.rescue(s, frames)
		case s.stuck(&r.order):
			r.suspect = true
		}
	}
	return frames
}

// Waits reports whether there is something to be salvaged by Idle, no sooner
// than SalvageAfter from now.
func (r *Receiver) Waits() bool { return r.Salvage && r.suspect }

// Idle salvages what is due at the time now, on a lane that has gone quiet. It
// appends to frames as Datagram does.
func (r *Receiver) Idle(now time.Time, frames []*frame.Buf) []*frame.Buf {
	return r.salvage(now, frames)
}

// rescue closes a damaged superframe and delivers its whole segments.
func (r *Receiver) rescue(s *slot, frames []*frame.Buf) []*frame.Buf {
	r.drop(Reassembly)
	defer s.close()

	known := s.runs[0].to // object bytes that are at hand from the start
	if s.runs[0].from != 0 {
		known = 0
	}
	if known < len(s.head) {
		s.putHead()
		known = len(s.head)
	}
	parts := partsLen(s.flags)
	if known < parts+frame.HeaderLen {
		return frames
	}
	b, prefix := s.buf, s.prefix[:]
	n, raw := b.Len(), b.Raw()
	h, err := frame.CheckHead(frame.ParseVnet(raw), raw[frame.VnetLen:][:known-parts], n, r.mtu(s.flags, prefix))
	if err != nil || h.GSOType == frame.GSONone {
		return frames // headers that are not all at hand, or one frame, and not whole
	}
	f, hdr, size := b.Bytes(), int(h.HdrLen), int(h.GSOSize)
	segments := frame.Segments(h, f)
	for _, run := range s.runs {
		// In segments: the first that begins in the run, and the one behind the
		// last that ends in it. The headers count as part of the first.
		from, to := max(0, run.from-parts-hdr), run.to-parts-hdr
		first := (from + size - 1) / size
		last := to / size
		if run.to == s.total {
			last = segments
		}
		if to <= 0 || first >= last {
			continue
		}
		frames = r.pass(s.flags, prefix, frame.Cut(h, f[:hdr], f[hdr+first*size:min(n, hdr+last*size)], first), frames)
	}
	return frames
}

// putHead puts those bytes of HEAD in their place that no slice has brought.
func (s *slot) putHead() {
	at := 0
	for _, run := range s.runs {
		if at >= len(s.head) {
			return
		}
		s.put(at, s.head[at:max(at, min(run.from, len(s.head)))])
		at = run.to
	}
	if at < len(s.head) {
		s.put(at, s.head[at:])
	}
}
