// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"encoding/binary"
	"time"

	"github.com/l2bridge/l2bridge/internal/frame"
)

// maxRuns bounds the separate runs of received bytes of an object: slices come
// in order, so each lost datagram makes one more, and a peer that sends single
// bytes here and there gains nothing.
const maxRuns = 32

// slot is the reassembly of one object (section 4):
//
//	new --SLICE or HEAD--> open --whole, damaged or salvaged--> closed
//	 ^                                                            |
//	 '---------------- id leaves the window ----------------------'
type slot struct {
	state state
	id    uint16
	flags byte
	total int

	buf    *frame.Buf // memory of the frame; nil when the object is not taken
	memory *Memory    // that room bytes are taken from; nil for none
	room   int
	prefix [relayedLen]byte // what stands before that in the object, if anything
	runs   []run            // received bytes of the object, sorted, never touching
	got    int              // bytes received
	head   []byte           // of the HEAD record, nil without

	lastSeq  uint64    // datagram that brought the last slice
	lastTime time.Time // and when it came
	ended    bool      // the last byte has been received
}

type state uint8

const (
	stateNew state = iota
	stateOpen
	stateClosed
)

type run struct{ from, to int }

// slice takes the body of a SLICE record.
func (r *Receiver) slice(flags byte, body []byte, now time.Time, frames []*frame.Buf) []*frame.Buf {
	if len(body) < sliceLen-tagLen+1 {
		r.drop(Malformed)
		return frames
	}
	id, offset, total := binary.BigEndian.Uint16(body), u24(body[2:]), u24(body[5:])
	s := r.open(id, flags, total)
	if s == nil {
		return frames
	}
	if s.state == stateClosed {
		r.drop(Late)
		return frames
	}
	p := body[sliceLen-tagLen:]
	if offset+len(p) > total || !s.receive(offset, offset+len(p)) {
		r.drop(Malformed)
		s.close()
		return frames
	}
	s.put(offset, p)
	s.lastSeq, s.lastTime = r.order.current, now
	s.ended = s.ended || offset+len(p) == total
	if s.got < total {
		r.suspect = r.suspect || s.ended
		return frames
	}
	b, prefix := s.buf, s.prefix
	s.buf = nil
	s.close()
	if b == nil {
		r.takes(flags)
		return frames
	}
	return r.deliver(flags, prefix[:], b, frames)
}

// head takes the body of a HEAD record.
func (r *Receiver) head(flags byte, body []byte) {
	n := len(body) - (headLen - tagLen)
	if n < 1 || n > maxHead {
		r.drop(Malformed)
		return
	}
	id, total := binary.BigEndian.Uint16(body), u24(body[2:])
	s := r.open(id, flags, total)
	switch {
	case s == nil || s.state == stateClosed:
	case n > total:
		r.drop(Malformed)
		s.close()
	case len(s.head) == 0:
		s.head = append(s.head, body[headLen-tagLen:]...)
	}
}

// open returns the slot of an object, open or closed, or nil when that was
// closed just now, and counted (steps 2 to 5).
func (r *Receiver) open(id uint16, flags byte, total int) *slot {
	if !r.begun {
		r.begun, r.newest = true, id
	}
	switch d := int16(id - r.newest); {
	case d <= -window:
		return &closed
	case d > 0:
		r.advance(id)
	}
	s := &r.slots[id%window]
	switch {
	case s.state == stateClosed:
	case s.state == stateNew:
		s.state, s.id, s.flags, s.total = stateOpen, id, flags, total
		if !objectFits(flags, total) {
			r.drop(Malformed)
			s.close()
			return nil
		}
		if _, refused := r.refuses(flags); !refused {
			s.buf = frame.Get(total - partsLen(flags))
			if s.room = len(s.buf.Room()); !r.Memory.take(s.room) {
				r.drop(Reassembly)
				s.close()
				return nil
			}
			s.memory = r.Memory
		}
	case s.flags != flags || s.total != total:
		r.drop(Malformed)
		s.close()
		return nil
	}
	return s
}

// closed stands for every object behind the window.
var closed = slot{state: stateClosed}

// advance makes id the newest; what leaves the window and is open is lost.
func (r *Receiver) advance(id uint16) {
	for n := min(int(id-r.newest), window); n > 0; n-- {
		s := &r.slots[(id-uint16(n)+1)%window]
		if s.state == stateOpen {
			r.drop(Reassembly)
			s.close()
		}
		s.state = stateNew
	}
	r.newest = id
}

// Close releases what is open. The Receiver is not used any more.
func (r *Receiver) Close() {
	for i := range r.slots {
		r.slots[i].close()
	}
}

// close ends a slot. Its memory for runs and head is kept for the next object.
func (s *slot) close() {
	if s.memory != nil {
		s.memory.give(s.room)
	}
	if s.buf != nil {
		s.buf.Release()
	}
	*s = slot{state: stateClosed, id: s.id, runs: s.runs[:0], head: s.head[:0]}
}

// put copies bytes of the object to their place.
func (s *slot) put(offset int, p []byte) {
	if s.buf == nil {
		return
	}
	if n := prefixLen(s.flags); n > 0 {
		if offset < n {
			m := copy(s.prefix[offset:n], p)
			p, offset = p[m:], offset+m
		}
		if offset -= n; offset < 0 {
			return
		}
	}
	copy(objectBytes(s.flags, s.buf)[offset:], p)
}

// receive notes that the bytes [from, to) have come, and reports whether that
// may be: none of them has come before, and the runs are not too many.
func (s *slot) receive(from, to int) bool {
	// Slices come in order: the usual place is at the end.
	i := len(s.runs)
	for i > 0 && s.runs[i-1].from > from {
		i--
	}
	if i > 0 && s.runs[i-1].to > from || i < len(s.runs) && s.runs[i].from < to {
		return false
	}
	s.got += to - from
	left := i > 0 && s.runs[i-1].to == from
	right := i < len(s.runs) && s.runs[i].from == to
	switch {
	case left && right:
		s.runs[i-1].to = s.runs[i].to
		s.runs = append(s.runs[:i], s.runs[i+1:]...)
	case left:
		s.runs[i-1].to = to
	case right:
		s.runs[i].from = from
	default:
		if len(s.runs) == maxRuns {
			return false
		}
		s.runs = append(s.runs, run{})
		copy(s.runs[i+1:], s.runs[i:])
		s.runs[i] = run{from, to}
	}
	return true
}
