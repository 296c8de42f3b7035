// SPDX-License-Identifier: Apache-2.0

package egress

import (
	"context"
	"math/bits"
	"slices"
	"sync/atomic"
	"time"

	"github.com/l2bridge/l2bridge/internal/frame"
	"github.com/l2bridge/l2bridge/transport/wire"
)

const (
	// quantum is what a flow may send in its turn: about a datagram, so that a
	// superframe holds nobody up.
	quantum = 1514
	// maxOpen is how many items a lane may have begun and not ended, less the
	// one that is finished without a break; docs/wire.md allows 8 in all.
	maxOpen = 7
	// maxBehind is how many items may be begun behind one that is not ended: the
	// far side forgets it when 32 have been.
	maxBehind = 24
	// urgentLead is how many bytes more than others urgent frames may send while those
	// wait: who gives frames the look of urgent ones has half of the lane.
	urgentLead = quantum
	// newWork is what a new flow counts as, in bytes, until it is known.
	newWork = 64 << 10
)

// Lane is one way out of a Queue. It is a wire.Source. Its methods are called by
// one goroutine, its taker, but for those that say otherwise.
type Lane struct {
	q     *Queue
	ready chan struct{} // holds a token when a flow has been listed
	limit atomic.Int64
	ends  atomic.Bool // nothing is begun any more

	// Guarded by Queue.mu.
	index   int // in Queue.lanes
	own     turns
	foreign turns
	work    int           // bytes sent, fading; decides where new flows go
	poked   bool          // a ping is due
	pinged  time.Duration // when the last one was sent
	cleared time.Duration // all that was sent before has come to the far side

	// The taker's own.
	now    time.Duration
	cur    *flow   // whose item Next returned last
	open   []*flow // whose item is begun and not ended, the oldest first
	born   int     // items begun
	urgent int     // bytes that urgent frames have sent more than others, while both wait
	lead   int     // bytes that foreign flows have sent more than our ordinary ones, while both wait
	size   int     // the longest object that fits in this datagram when it is empty
	due    bool    // Wait has seen that a ping is
	tick   *time.Timer
}

// list is a queue of flows.
type list struct{ first, last *flow }

func (s *list) push(f *flow) {
	f.next = nil
	if s.first == nil {
		s.first = f
	} else {
		s.last.next = f
	}
	s.last = f
}

func (s *list) pop() *flow {
	f := s.first
	s.first = f.next
	return f
}

// turns are flows that take turns.
type turns struct {
	fresh list // that have just begun to send; their turn comes first
	old   list
}

func (t *turns) some() bool { return t.fresh.first != nil || t.old.first != nil }

// Open returns a new lane, which takes over what no lane has. It returns nil
// when there are MaxLanes.
func (q *Queue) Open() *Lane {
	l := &Lane{q: q, ready: make(chan struct{}, 1), tick: time.NewTimer(time.Hour), open: make([]*flow, 0, maxOpen+1)}
	l.tick.Stop()
	l.limit.Store(frame.MaxLen)
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.lanes) == MaxLanes {
		return nil
	}
	l.index = len(q.lanes)
	q.lanes = append(slices.Clip(q.lanes), l)
	q.adoptLocked()
	return l
}

// End has the lane begin nothing more: what is begun is sent, and then Wait reports
// false. It may be called by any goroutine.
func (l *Lane) End() {
	l.ends.Store(true)
	l.signal()
}

// Close gives the lane up. Its flows go to others. What was half sent is
// dropped and counted: the rest cannot follow on another lane, and to send all
// of it again could bring segments twice that the far side has salvaged.
func (l *Lane) Close() {
	q := l.q
	q.mu.Lock()
	q.lanes = slices.DeleteFunc(slices.Clone(q.lanes), func(o *Lane) bool { return o == l })
	for i, o := range q.lanes {
		o.index = i
	}
	for i := range q.flows {
		q.leaveLocked(&q.flows[i], l)
	}
	q.leaveLocked(&q.urgent, l)
	l.own, l.foreign, l.cur, l.open = turns{}, turns{}, nil, nil
	q.adoptLocked()
	lanes := q.lanes
	q.mu.Unlock()
	for _, o := range lanes {
		o.signal()
	}
}

func (q *Queue) leaveLocked(f *flow, l *Lane) {
	if f.goal == l {
		f.goal = nil
		if f.parked && f.lane != l {
			// It stays where it is: there is nothing to wait for, and where
			// one lane is left nobody would ask again if the ping was lost.
			f.parked = false
			q.parked--
			f.lane.listLocked(f)
		}
	}
	if f.lane != l {
		return
	}
	switch {
	case f.item.Buf == nil:
	case f.open:
		q.cut.Add(segments(f.item.Buf, 0))
		q.doneLocked(f)
	default:
		q.undoLocked(f)
	}
	if f.parked {
		q.parked--
	}
	f.lane, f.goal, f.listed, f.parked, f.next = nil, nil, false, false, nil
}

// adoptLocked gives flows with frames and without a lane one, if there is any.
func (q *Queue) adoptLocked() {
	if len(q.lanes) == 0 {
		return
	}
	adopt := func(f *flow) {
		if f.n > 0 && !f.listed {
			q.homeLocked(f).listLocked(f)
		}
	}
	for i := range q.flows {
		adopt(&q.flows[i])
	}
	adopt(&q.urgent)
}

// Limit sets how long the pieces are, in bytes, that superframes are sent in:
// on a slow line a whole one would arrive late. It may be called by any goroutine.
func (l *Lane) Limit(bytes int) { l.limit.Store(int64(bytes)) }

// signal tells those lanes whose bit is set that they have something to do.
func signal(lanes []*Lane, wake uint64) {
	for ; wake != 0; wake &= wake - 1 {
		lanes[bits.TrailingZeros64(wake)].signal()
	}
}

func (l *Lane) signal() {
	select {
	case l.ready <- struct{}{}:
	default:
	}
}

// listLocked lets a flow that has frames again have its turn.
func (l *Lane) listLocked(f *flow) {
	f.listed = true
	if f != &l.q.urgent {
		f.deficit = quantum
		if f.foreign {
			l.foreign.fresh.push(f)
		} else {
			l.own.fresh.push(f)
		}
	}
}

// Idle reports whether no flow of the lane has anything to send. It may be called
// by any goroutine.
func (l *Lane) Idle() bool {
	l.q.mu.Lock()
	defer l.q.mu.Unlock()
	return !l.someLocked()
}

// Poke asks for a ping. It may be called by any goroutine.
func (l *Lane) Poke() {
	l.q.mu.Lock()
	l.poked = true
	l.q.mu.Unlock()
	l.signal()
}

// Ping reports whether a ping is due, to be sent by the lane at once, with the
// time at. It is called after each Wait.
func (l *Lane) Ping() (at time.Duration, due bool) {
	if !l.due {
		return 0, false
	}
	l.q.mu.Lock()
	defer l.q.mu.Unlock()
	// Above every time at which a flow left the lane before, and below all at
	// which one does from now on, however coarse the clock is.
	l.due, l.poked, l.pinged = false, false, max(l.q.clock(), l.pinged)+1
	return l.pinged, true
}

// Cleared tells that the ping of the time at has been answered, and so that all
// the lane had sent before has come, or is lost. It may be called by any
// goroutine. A time at which no ping was sent is ignored.
func (l *Lane) Cleared(at time.Duration) {
	q := l.q
	var wake uint64
	q.mu.Lock()
	if at > l.cleared && at <= l.pinged {
		l.cleared = at
		for i := 0; q.parked > 0 && i < len(q.flows); i++ {
			f := &q.flows[i]
			if !f.parked || f.lane != l || f.quiet >= at {
				continue
			}
			f.parked = false
			q.parked--
			if f.goal != nil {
				f.lane, f.goal = f.goal, nil
			}
			f.lane.listLocked(f)
			wake |= 1 << f.lane.index
		}
	}
	lanes := q.lanes
	q.mu.Unlock()
	signal(lanes, wake)
}

// Wait blocks until a frame waits and the line is free, or a ping is due, and
// reports false when ctx is done first, or the lane has ended. It is called before
// each datagram.
func (l *Lane) Wait(ctx context.Context) bool {
	for {
		ends := l.ends.Load()
		if ends && len(l.open) == 0 {
			return false
		}
		l.q.mu.Lock()
		l.now = l.q.clock()
		l.due = l.poked
		some := l.someLocked() || l.due || ends
		pause := l.q.line.busy(l.now)
		l.q.mu.Unlock()
		var tick <-chan time.Time
		if some {
			if pause <= 0 {
				l.size = 0
				return ctx.Err() == nil
			}
			l.tick.Reset(pause)
			tick = l.tick.C
		}
		select {
		case <-tick:
		case <-l.ready:
		case <-ctx.Done():
			return false
		}
	}
}

// someLocked reports whether a flow may have something to send.
func (l *Lane) someLocked() bool {
	return l.own.some() || l.foreign.some() || l.urgentLocked()
}

func (l *Lane) urgentLocked() bool {
	u := &l.q.urgent
	return u.listed && u.lane == l
}

// Next implements wire.Source: deficit round robin (RFC 8290, section 4), by
// slices. So that items which are cut do not stay open behind many others, the
// end of a datagram is filled from one that is open already rather than by
// cutting another frame.
func (l *Lane) Next(room int) *wire.Item {
	if f := l.cur; f != nil && f.item.Buf != nil && f.open && (f.deficit > 0 || !f.isSuper()) {
		return &f.item // its turn is not over, or it is a frame without a break
	}
	if l.ends.Load() {
		if l.cur = nil; len(l.open) > 0 {
			l.cur = l.open[0]
			return &l.cur.item
		}
		return nil
	}
	l.q.mu.Lock()
	f := l.pickLocked()
	l.q.mu.Unlock()
	l.size = max(l.size, room)
	if f != nil && !f.open && len(l.open) > 0 {
		n := f.item.Size()
		if n > room && (l.late() || n <= l.size) {
			f = l.open[0]
		}
	}
	if l.cur = f; f == nil {
		return nil
	}
	return &f.item
}

// late reports whether the far side will soon forget an item that is open, so
// that no other may be begun.
func (l *Lane) late() bool { return len(l.open) > 0 && l.born-l.open[0].born >= maxBehind }

// pickLocked returns the flow whose turn it is, with an item.
func (l *Lane) pickLocked() *flow {
	own, foreign := l.own.some(), l.foreign.some()
	if !own && !foreign {
		l.urgent = 0
	}
	if !own || !foreign {
		l.lead = 0
	}
	if l.urgent < urgentLead {
		if f := l.pickUrgentLocked(); f != nil {
			return f
		}
	}
	first, second := &l.own, &l.foreign
	if l.lead < 0 {
		first, second = second, first
	}
	if f := l.turnLocked(first); f != nil {
		return f
	}
	if f := l.turnLocked(second); f != nil {
		return f
	}
	return l.pickUrgentLocked() // the others had nothing to send
}

// pickUrgentLocked returns the flow of urgent frames, with an item, if one waits.
func (l *Lane) pickUrgentLocked() *flow {
	u := &l.q.urgent
	if !l.urgentLocked() {
		return nil
	}
	if u.item.Buf == nil && !l.q.loadLocked(u, l.now, int(l.limit.Load())) {
		u.listed = false
		return nil
	}
	return u
}

// turnLocked returns the one of some flows whose turn it is, with an item.
func (l *Lane) turnLocked(t *turns) *flow {
	q, limit := l.q, int(l.limit.Load())
	var barred *flow // the first that may not begin another superframe
	for {
		turn := &t.fresh
		if turn.first == nil {
			turn = &t.old
		}
		f := turn.first
		switch {
		case f == nil, f == barred:
			return nil // or those that may go on are among the others
		case f.deficit <= 0:
			f.deficit += quantum
			t.old.push(turn.pop())
			barred = nil
		case f.item.Buf == nil && f.goal != nil:
			turn.pop()
			f.parked, f.quiet, l.poked = true, max(q.clock(), l.pinged), true
			q.parked++
		case f.item.Buf == nil && !q.loadLocked(f, l.now, limit):
			turn.pop()
			if turn == &t.fresh && t.old.first != nil {
				t.old.push(f) // else it would come first again and again
			} else {
				f.listed, f.quiet = false, max(q.clock(), l.pinged)
			}
		case len(l.open) >= maxOpen && !f.open && f.isSuper():
			t.old.push(turn.pop())
			if barred == nil {
				barred = f
			}
		default:
			return f
		}
	}
}

// Sent implements wire.Source.
func (l *Lane) Sent(n int, done bool) {
	f := l.cur
	f.deficit -= n
	if f == &l.q.urgent {
		l.urgent += n
	} else {
		l.urgent = max(0, l.urgent-n)
		if f.foreign {
			l.lead += n
		} else {
			l.lead -= n
		}
	}
	switch {
	case !done && !f.open:
		l.born++
		f.open, f.born = true, l.born
		l.open = append(l.open, f)
	case done && f.open:
		l.open = slices.DeleteFunc(l.open, func(o *flow) bool { return o == f })
	}
	if done {
		l.q.mu.Lock()
		l.q.doneLocked(f)
		l.q.mu.Unlock()
	}
}

// Spent tells that a packet of n bytes has left by the lane, IP header and all.
func (l *Lane) Spent(n int) {
	l.q.mu.Lock()
	l.q.line.spend(l.now, n)
	l.work += n
	l.q.mu.Unlock()
}
