// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"encoding/binary"
	"math/bits"
	"time"
)

const (
	parityLen  = tagLen + 2 + 4 + 2 // a PARITY without its bytes
	paritySpan = 32                 // datagrams that it can tell of
)

// ParityCost is by how many bytes datagrams must be shorter than the greatest
// that the lane takes while they are protected: else a PARITY, as long as the
// longest of them, would not fit in one.
const ParityCost = parityLen

// Protector makes the PARITY records of a lane (section 3a): the sum of a few
// datagrams, from which the far side makes one that was lost. It is used by the
// goroutine that sends.
type Protector struct {
	first   uint16 // sequence of the first that is covered
	covered uint32 // bit i: first + i is
	n       int    // bits set
	length  uint16 // sum of the lengths behind the sequence
	longest int    // of these
	sum     [2048]byte
}

// Covers returns how many datagrams the next PARITY would cover.
func (p *Protector) Covers() int { return p.n }

// Reset forgets what was added.
func (p *Protector) Reset() {
	clear(p.sum[:p.longest])
	p.first, p.covered, p.n, p.length, p.longest = 0, 0, 0, 0, 0
}

// Add covers a datagram that is about to be sent.
func (p *Protector) Add(d []byte) {
	seq, body := binary.BigEndian.Uint16(d), d[seqLen:]
	if p.n > 0 && seq-p.first >= paritySpan {
		p.Reset() // others have come between: too far apart for one record
	}
	if p.n == 0 {
		p.first = seq
	}
	p.covered |= 1 << (seq - p.first)
	p.n++
	p.length ^= uint16(len(body))
	p.longest = max(p.longest, len(body))
	xor(p.sum[:], body)
}

// Append appends a datagram with the PARITY of what was added, and forgets that.
func (p *Protector) Append(d []byte, seq uint16) []byte {
	d = binary.BigEndian.AppendUint16(d, seq)
	d = append(d, kindParity)
	d = binary.BigEndian.AppendUint16(d, uint16(parityLen-tagLen+p.longest))
	d = binary.BigEndian.AppendUint16(d, p.first)
	d = binary.BigEndian.AppendUint32(d, p.covered)
	d = binary.BigEndian.AppendUint16(d, p.length)
	d = append(d, p.sum[:p.longest]...)
	p.Reset()
	return d
}

// xor adds src to dst, which is as long at least.
func xor(dst, src []byte) {
	le := binary.LittleEndian
	for len(src) >= 8 {
		le.PutUint64(dst, le.Uint64(dst)^le.Uint64(src))
		dst, src = dst[8:], src[8:]
	}
	for i, b := range src {
		dst[i] ^= b
	}
}

// parity is a PARITY record as it came.
type parity struct {
	first   uint16
	covered uint32
	length  uint16
	sum     []byte
}

// parseParity reads the PARITY that a datagram begins with, if it does.
func parseParity(d []byte) (p parity, ok bool) {
	if len(d) < seqLen+parityLen || d[seqLen] != kindParity {
		return p, false
	}
	n := int(binary.BigEndian.Uint16(d[seqLen+1:]))
	body := d[seqLen+tagLen:]
	if n < parityLen-tagLen || n > len(body) {
		return p, false
	}
	body = body[:n]
	p = parity{
		first:   binary.BigEndian.Uint16(body),
		covered: binary.BigEndian.Uint32(body[2:]),
		length:  binary.BigEndian.Uint16(body[6:]),
		sum:     body[8:],
	}
	return p, p.covered&1 != 0
}

const (
	// repairWindow is how many datagrams a Repairer keeps.
	repairWindow = 64
	// holdTime is the longest that datagrams wait for one before them.
	holdTime = 25 * time.Millisecond
	// parityTime without a PARITY ends the waiting for more of them.
	parityTime = 5 * time.Second
)

// Repairer puts the datagrams of a lane in order and replaces those that were
// lost, by PARITY records. As long as no such record comes it passes on what
// comes, at once. Its memory is bounded: 64 datagrams. It is used by one
// goroutine at a time.
//
//	next                    high
//	 v                       v
//	 lost  held  held  held  held     held ones wait for the PARITY
type Repairer struct {
	// Repaired counts datagrams that were made good.
	Repaired uint64

	begun bool      // a datagram has come
	seen  time.Time // when the last PARITY came; zero for never, or long ago
	next  uint16    // the first that was neither passed on nor given up
	high  uint16    // behind the last that came
	gap   time.Time // since when next is missing, and others wait; zero when not
	ring  [repairWindow]held
}

// held is a datagram that came, or did not.
type held struct {
	d    []byte // nil when it did not
	seq  uint16
	gone bool // it will not come any more
}

// Datagram takes a datagram that came in at the time now, which becomes the
// Repairer's, and passes on those whose turn it is. What is passed on is
// borrowed.
func (r *Repairer) Datagram(d []byte, now time.Time, pass func(d []byte)) {
	p, isParity := parseParity(d)
	if len(d) < seqLen {
		pass(d)
		return
	}
	seq := binary.BigEndian.Uint16(d)
	if r.seen.IsZero() {
		r.follow(seq)
		if !isParity {
			pass(d)
			return
		}
	}
	if isParity {
		r.seen = now
	}
	switch ahead := int16(seq - r.next); {
	case ahead < 0:
		// It was given up, or is here by repair already.
		if int16(r.high-seq) > repairWindow {
			break // its place is another's
		}
		if s := r.slot(seq); s.d == nil {
			s.d = d
			pass(d)
		}
	default:
		if ahead >= 2*repairWindow {
			// What is held goes first; what was between is nowhere.
			for range repairWindow {
				r.step(pass)
			}
			r.next = seq - repairWindow + 1
			r.high, ahead = r.next, repairWindow-1
		}
		for ; ahead >= repairWindow; ahead-- {
			r.step(pass)
		}
		if s := r.slot(seq); s.d == nil {
			s.d = d
		}
		if int16(seq+1-r.high) > 0 {
			r.high = seq + 1
		}
	}
	if isParity {
		r.repair(p)
	}
	r.release(now, pass)
	if now.Sub(r.seen) > parityTime {
		r.flush(pass)
	}
}

// follow notes that a datagram has come, while none are kept. The first that is to
// be is one behind all that came: what has been passed on already must not be made
// good when a PARITY covers it, which that datagram has overtaken.
func (r *Repairer) follow(seq uint16) {
	const jump = 1 << 14 // no straggler comes so late: a great many were lost
	if ahead := int16(seq + 1 - r.high); !r.begun || ahead > 0 || ahead < -jump {
		r.begun, r.next, r.high = true, seq+1, seq+1
	}
}

// slot returns the place of a datagram in the window, emptied if another had it.
func (r *Repairer) slot(seq uint16) *held {
	s := &r.ring[seq%repairWindow]
	if s.seq != seq {
		*s = held{seq: seq}
	}
	return s
}

// repair makes the one datagram that is missing of those that p covers.
func (r *Repairer) repair(p parity) {
	if int16(r.high-p.first) > repairWindow || int16(p.first+paritySpan-r.high) > paritySpan {
		return // too old, or of the future
	}
	// What is before it had a PARITY of its own, which has not come.
	for seq := r.next; int16(p.first-seq) > 0; seq++ {
		r.slot(seq).gone = true
	}
	missing, count := uint16(0), 0
	for c := p.covered; c != 0; c &= c - 1 {
		seq := p.first + uint16(bits.TrailingZeros32(c))
		if r.slot(seq).d == nil {
			missing = seq
			count++
		}
	}
	if count > 1 {
		for c := p.covered; c != 0; c &= c - 1 {
			r.slot(p.first + uint16(bits.TrailingZeros32(c))).gone = true
		}
	}
	if count != 1 || int16(missing-r.next) < 0 {
		return // what is before next was passed on, or given up
	}
	d := make([]byte, seqLen+len(p.sum))
	binary.BigEndian.PutUint16(d, missing)
	body, length := d[seqLen:], p.length
	copy(body, p.sum)
	for c := p.covered; c != 0; c &= c - 1 {
		s := r.slot(p.first + uint16(bits.TrailingZeros32(c)))
		if s.d == nil {
			continue
		}
		other := s.d[seqLen:]
		length ^= uint16(len(other))
		xor(body, other[:min(len(other), len(body))])
	}
	s := r.slot(missing)
	s.gone = true
	if int(length) <= len(body) {
		s.d = d[:seqLen+int(length)]
		r.Repaired++
	}
}

// release passes on what need not wait.
func (r *Repairer) release(now time.Time, pass func([]byte)) {
	for r.next != r.high {
		s := r.slot(r.next)
		if s.d == nil && !s.gone {
			switch {
			case r.gap.IsZero():
				r.gap = now
				return
			case now.Sub(r.gap) < holdTime:
				return
			}
		}
		r.step(pass)
	}
	r.gap = time.Time{}
}

// step passes the next one on if it is there, and else gives it up.
func (r *Repairer) step(pass func([]byte)) {
	s := r.slot(r.next)
	if r.next++; int16(r.next-r.high) > 0 {
		r.high = r.next
	}
	r.gap = time.Time{}
	if s.d != nil {
		pass(s.d)
	}
}

// flush passes on what waits, and waits for no more.
func (r *Repairer) flush(pass func([]byte)) {
	for r.next != r.high {
		r.step(pass)
	}
	*r = Repairer{Repaired: r.Repaired, begun: true, next: r.next, high: r.high}
}

// Waits reports whether datagrams wait for one that is missing; Idle is to be
// called then, some milliseconds later.
func (r *Repairer) Waits() bool { return !r.gap.IsZero() }

// Idle passes on what has waited for too long by the time now.
func (r *Repairer) Idle(now time.Time, pass func(d []byte)) {
	if r.Waits() {
		r.release(now, pass)
	}
}
