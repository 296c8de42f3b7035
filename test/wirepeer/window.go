// SPDX-License-Identifier: Apache-2.0

package wirepeer

import (
	"encoding/binary"
	"slices"
)

const (
	// windowIDs is how many ids a receiver keeps, up to the newest (§4).
	windowIDs = 32
	// maxRuns is how many separate runs of bytes an open object may have.
	maxRuns = 32
	// maxHead is the greatest part of an object that a HEAD may repeat.
	maxHead = 256

	sliceFixed = 8 // id u16, offset u24, total u24
	headFixed  = 5 // id u16, total u24
)

// part is a SLICE or a HEAD.
type part struct {
	head   bool
	flags  Flags
	id     uint16
	offset int // 0 for a HEAD
	total  int
	bytes  []byte
}

// parsePart reports whether body passes step 1.
func parsePart(kind byte, flags Flags, body []byte) (p part, ok bool) {
	p.flags = flags
	if kind == kindHead {
		if len(body) < headFixed+1 || len(body) > headFixed+maxHead {
			return p, false
		}
		p.head = true
		p.id = binary.BigEndian.Uint16(body)
		p.total = u24(body[2:])
		p.bytes = body[headFixed:]
		return p, true
	}
	if len(body) < sliceFixed+1 {
		return p, false
	}
	p.id = binary.BigEndian.Uint16(body)
	p.offset = u24(body[2:])
	p.total = u24(body[5:])
	p.bytes = body[sliceFixed:]
	return p, true
}

func u24(b []byte) int { return int(b[0])<<16 | int(b[1])<<8 | int(b[2]) }

func appendU24(b []byte, v int) []byte {
	return append(b, byte(v>>16), byte(v>>8), byte(v))
}

// window is the reassembly of one lane in one direction:
//
//	new ----part----> open ----all bytes----> closed, delivered
//	                   | \----lie-----------> closed, malformed
//	                   \------left behind---> gone, reassembly
//
// The zero value has seen no id yet.
type window struct {
	begun  bool
	newest uint16
	// ids holds those ids of the window that are open or closed; one that is
	// not here is new.
	ids map[uint16]*assembly
}

// assembly is an object that is open, or closed.
type assembly struct {
	closed   bool
	flags    Flags
	total    int
	bytes    []byte
	received []bool // of each byte
	head     []byte // what salvage would use; nil before the first HEAD
}

// add takes one part through steps 2 to 8 and returns the whole object when p
// was the last of it, else nil. It calls drop once for each count.
func (w *window) add(p part, drop func(reason string)) []byte {
	if !w.admit(p.id, drop) {
		return late(p, drop)
	}
	a := w.ids[p.id]
	if a == nil {
		a = &assembly{flags: p.flags, total: p.total}
		w.ids[p.id] = a
		if !p.flags.validTotal(p.total) {
			a.close()
			drop(Malformed)
			return nil
		}
		a.bytes = make([]byte, p.total)
		a.received = make([]bool, p.total)
	}
	if a.closed {
		return late(p, drop)
	}
	if !a.take(p) {
		a.close()
		drop(Malformed)
		return nil
	}
	if slices.Contains(a.received, false) {
		return nil
	}
	b := a.bytes
	a.close()
	return b
}

// late is step 3: a part of a closed object.
func late(p part, drop func(reason string)) []byte {
	if !p.head {
		drop(Late)
	}
	return nil
}

// admit is step 2: it reports whether id is in the window, which it moves up
// to id when that is newer.
func (w *window) admit(id uint16, drop func(reason string)) bool {
	if !w.begun {
		w.begun = true
		w.newest = id
		w.ids = map[uint16]*assembly{}
		return true
	}
	d := int16(id - w.newest)
	if d <= 0 {
		return d > -windowIDs
	}
	w.newest = id
	for old, a := range w.ids {
		// Modulo 65,536: after a jump an id can be more than 32,767 behind.
		if behind := w.newest - old; behind < windowIDs {
			continue
		}
		delete(w.ids, old)
		if !a.closed {
			drop(Reassembly)
		}
	}
	return true
}

// close forgets all but the fact.
func (a *assembly) close() { *a = assembly{closed: true} }

// take is steps 5 to 7: it reports whether p agrees with what came before.
func (a *assembly) take(p part) bool {
	if p.flags != a.flags || p.total != a.total {
		return false
	}
	if p.head {
		if len(p.bytes) > a.total {
			return false
		}
		if a.head == nil {
			a.head = append([]byte(nil), p.bytes...)
		}
		return true
	}
	if p.offset+len(p.bytes) > a.total {
		return false
	}
	for i := range p.bytes {
		if a.received[p.offset+i] {
			return false
		}
	}
	for i, c := range p.bytes {
		a.bytes[p.offset+i] = c
		a.received[p.offset+i] = true
	}
	return a.runs() <= maxRuns
}

// runs counts the separate runs of received bytes.
func (a *assembly) runs() int {
	n, in := 0, false
	for _, got := range a.received {
		if got && !in {
			n++
		}
		in = got
	}
	return n
}
