// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"sync"
	"time"

	"github.com/l2bridge/l2bridge/internal/frame"
	"github.com/l2bridge/l2bridge/transport/egress"
)

// Bounds of what another gateway's test may have of us (section 8).
const (
	runTime  = 35 * time.Second
	maxGrant = 256
	// What waits in the queue already: with more than that, nothing is added.
	maxWaiting       = 1 << 20 // bytes
	maxWaitingFrames = 1024
)

// Queue is where frames leave for the other gateway; see egress.Queue.
type Queue interface {
	Push(frames []*frame.Buf) // borrowed; never blocks
	Stats() egress.Stats
}

// End is our end of the way to one other gateway: it answers that one's test, and
// runs ours. Its methods may be called from any goroutine.
//
// To answer takes no goroutine, and no memory but a few numbers: what is asked
// for goes into the queue at once, which is bounded.
type End struct {
	out Queue

	mu   sync.Mutex // guards what follows
	run  answering
	past uint32 // the run before
	test *test  // ours; nil for none
}

// answering is what is kept of the other gateway's test.
type answering struct {
	run     uint32
	began   time.Time // zero when there was none yet
	streams [streams]tally
}

// tally is a stream of it.
type tally struct {
	next, count uint32 // UP: the greatest number that came plus 1, how many came
	sent        uint32 // DOWN
}

// New returns an End that sends by a queue.
func New(out Queue) *End { return &End{out: out} }

// Take takes a frame of a test, borrowed, in front of a LAN of the given MTU. It
// reports whether the frame was expected. It does not block.
func (e *End) Take(f []byte, mtu int) bool {
	m, ok := parse(f)
	if !ok {
		return false
	}
	switch m.kind {
	case kindEcho:
		b := frame.New(f)
		b.SetTest()
		b.Bytes()[5] = byte(kindReply)
		push(e.out, b)
		return true
	case kindUp:
		return e.takeUp(m)
	case kindGrant:
		return e.takeGrant(m, mtu)
	}
	e.mu.Lock()
	t := e.test
	e.mu.Unlock()
	return t != nil && t.take(m, f)
}

// push sends frames, which are the caller's no more.
func push(out Queue, frames ...*frame.Buf) {
	if len(frames) == 0 {
		return
	}
	out.Push(frames)
	for _, b := range frames {
		b.Release()
	}
}

// droppedOf returns how many frames a queue has dropped.
func droppedOf(s egress.Stats) uint64 { return s.Full + s.Stale + s.Cut + s.Dropped }

// currentLocked returns what is kept of a run, which it begins if it is new, or nil
// when the run has ended.
func (e *End) currentLocked(run uint32, now time.Time) *answering {
	r := &e.run
	switch {
	case r.began.IsZero() || r.run != run && run != e.past:
		e.past = r.run
		if r.began.IsZero() {
			e.past = ^run // none
		}
		*r = answering{run: run, began: now}
	case r.run != run, now.Sub(r.began) >= runTime:
		return nil
	}
	return r
}

func (e *End) takeUp(m message) bool {
	e.mu.Lock()
	r := e.currentLocked(m.run, time.Now())
	if r == nil {
		e.mu.Unlock()
		return false
	}
	s := &r.streams[m.stream]
	s.next = max(s.next, m.number+1)
	s.count++
	c := message{kind: kindCount, stream: m.stream, run: m.run, number: m.number, time: m.time, next: s.next, count: s.count}
	e.mu.Unlock()
	if m.ask {
		push(e.out, c.frame(shortLen))
	}
	return true
}

func (e *End) takeGrant(m message, mtu int) bool {
	if m.length < leastDown || int(m.length) > headerLen+mtu {
		return false
	}
	stats := e.out.Stats()
	dropped := uint32(droppedOf(stats))
	e.mu.Lock()
	r := e.currentLocked(m.run, time.Now())
	if r == nil {
		e.mu.Unlock()
		return false
	}
	s := &r.streams[m.stream]
	from, n := s.sent, uint32(0)
	if m.number > from && stats.Bytes <= maxWaiting && stats.Frames <= maxWaitingFrames {
		n = min(m.number-from, maxGrant)
	}
	s.sent += n
	e.mu.Unlock()
	frames := make([]*frame.Buf, n)
	for i := range frames {
		frames[i] = message{kind: kindDown, stream: m.stream, run: m.run, number: from + uint32(i), time: m.time, dropped: dropped}.frame(int(m.length))
	}
	push(e.out, frames...)
	return true
}
