// SPDX-License-Identifier: Apache-2.0

// Package egress is what waits to leave for a peer: flows that share fairly
// what the lanes to it carry, each with a controlled delay.
package egress

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"

	"github.com/l2bridge/l2bridge/internal/frame"
	"github.com/l2bridge/l2bridge/transport/wire"
)

// Bounds of a queue. The bytes are what four TCP flows of a long fat path may
// send before they are told to send less; the frames keep the memory small when
// they are short. What has waited for
// MaxAge is stale: after a stall the LAN has asked again, or given up.
const (
	MaxFrames = 2048
	MaxBytes  = 8 << 20
	MaxAge    = time.Second
)

// MaxLanes bounds the lanes that take from a queue at once.
const MaxLanes = 64

const (
	// buckets is how many flows are told apart (a hash decides), as in Linux's
	// sch_fq_codel.
	buckets = 1024
	// foreignPairs and foreignFlows are how many pairs of members that are relayed
	// for are told apart, and flows of each. Who makes up a flow for each frame has
	// no more turns than others.
	foreignPairs, foreignFlows = 32, 8
	// dropBatch is how many small frames of the fattest flow make room at once,
	// or a superframe, so that to find it is paid for once and not for each frame
	// of a flood.
	dropBatch = 64
	// busyTime is for how long a flow that had to wait counts as one that would
	// send more: TCP fills a lane again some round trips after it was emptied.
	busyTime = 3 * time.Second
	// maxUrgent bounds the urgent frames; more of them are ordinary ones.
	maxUrgent = 64
)

// Queue holds the frames for one peer. Any goroutine may Push. What is pushed
// leaves by lanes, of which each has a taker:
//
//	Push --hash--> flow --home--> Lane --Next, Sent--> wire.Packer
//	               flow ----'     DRR over its flows, CoDel in each
//	               urgent --------> first lane, before all others
//
// What others send by way of us has flows of its own, none of them urgent. While
// frames of ours wait too it has half of each lane.
//
// A flow (VLAN, addresses, ports; if it is relayed, from whom to whom) has its
// home on one lane, so that its frames stay in order. It finds another one only
// when the lane is clear: all that was sent by it has come to the far side, which
// the answer to a ping tells.
type Queue struct {
	full, stale, cut, dropped, marked atomic.Uint64

	epoch time.Time // what a time.Duration in this package counts from

	mu      sync.Mutex // guards what follows
	flows   []flow     // none until the first frame comes
	urgent  flow
	entries []entry
	free    int32 // first of the entries not in use
	n       int   // entries in use
	bytes   int   // of the frames in them
	lanes   []*Lane
	active  int // how many of the lanes, from the first on, new flows go to
	parked  int // flows that wait for their lane to be clear
	delay   delay
	line    line
}

// entry is a frame that waits, as a link of its flow's list.
type entry struct {
	buf   *frame.Buf
	to    *wire.Relayed // nil for the peer's LAN
	since time.Duration
	from  uint16 // segments of a superframe that are gone: sent, or dropped
	next  int32
}

// none ends a list of entries.
const none = -1

// New returns an empty Queue without lanes.
func New() *Queue {
	q := &Queue{epoch: time.Now(), active: MaxLanes}
	q.SetPath(0)
	return q
}

func (q *Queue) clock() time.Duration { return time.Since(q.epoch) }

// SetPath tells how long a round trip to the peer takes without queues: CoDel
// gives a flow the time that its ends need to react.
func (q *Queue) SetPath(roundTrip time.Duration) {
	q.mu.Lock()
	q.delay = delay{
		target:   target + min(roundTrip, time.Second),
		interval: max(interval, 4*min(roundTrip, time.Second)),
	}
	q.mu.Unlock()
}

// SetActive says that new flows are to leave by the first n lanes.
func (q *Queue) SetActive(n int) {
	q.mu.Lock()
	q.active = max(1, n)
	q.mu.Unlock()
}

// Push adds frames, each behind those of its flow. It never blocks: when the
// queue is full the fattest flow loses what it has too much, and that is
// counted. The frames are borrowed; those that stay are retained.
func (q *Queue) Push(frames []*frame.Buf) { q.push(frames, nil, 0, false) }

// PushRelayed is Push for frames of ours that go on from the peer to another, as to
// says. That is kept, and not changed any more.
func (q *Queue) PushRelayed(frames []*frame.Buf, to *wire.Relayed) {
	q.push(frames, to, uint32(maphash.Comparable(pairSeed, *to)), false)
}

// PushForeign is PushRelayed for frames that another member sends to the peer by way
// of us.
func (q *Queue) PushForeign(frames []*frame.Buf, to *wire.Relayed) {
	q.push(frames, to, uint32(maphash.Comparable(pairSeed, *to)), true)
}

// pairSeed keeps others from knowing which flows of two pairs share a bucket.
var pairSeed = maphash.MakeSeed()

// push adds frames, of which those that are relayed come with a hash of the pair
// that to names. foreign says that they are not ours.
func (q *Queue) push(frames []*frame.Buf, to *wire.Relayed, pair uint32, foreign bool) {
	now := q.clock()
	var wake uint64 // lanes that have something to do again
	q.mu.Lock()
	if q.flows == nil {
		q.makeRoomLocked()
	}
	for _, b := range frames {
		f := q.flowLocked(b, pair, foreign)
		if !q.admitLocked(f, b.Len()) {
			q.full.Add(segments(b, 0))
			continue
		}
		q.addLocked(f, b.Retain(), to, now)
		if !f.listed {
			if l := q.homeLocked(f); l != nil {
				l.listLocked(f)
				wake |= 1 << l.index
			}
		}
	}
	lanes := q.lanes
	q.mu.Unlock()
	signal(lanes, wake)
}

// makeRoomLocked takes the memory for frames: a peer that never gets one needs
// none.
func (q *Queue) makeRoomLocked() {
	q.flows = make([]flow, buckets+foreignPairs*foreignFlows)
	for i := range q.flows {
		q.flows[i].head, q.flows[i].tail = none, none
		q.flows[i].foreign = i >= buckets
	}
	q.urgent.head, q.urgent.tail = none, none
	q.entries = make([]entry, MaxFrames)
	for i := range q.entries {
		q.entries[i].next = int32(i) + 1
	}
	q.entries[MaxFrames-1].next = none
}

// flowLocked returns the flow that a frame of a pair belongs to.
func (q *Queue) flowLocked(b *frame.Buf, pair uint32, foreign bool) *flow {
	if foreign {
		return &q.flows[buckets+pair%foreignPairs*foreignFlows+frame.FlowHash(b.Bytes())%foreignFlows]
	}
	if f := b.Bytes(); q.urgent.n < maxUrgent && frame.IsUrgent(f) {
		return &q.urgent
	}
	return &q.flows[(frame.FlowHash(b.Bytes())^pair)%buckets]
}

// admitLocked reports whether there is room for a frame of n bytes of a flow, if need
// be at the cost of the one that has most.
func (q *Queue) admitLocked(f *flow, n int) bool {
	fits := func() bool { return q.n < MaxFrames && q.bytes+n <= MaxBytes }
	if fits() {
		return true
	}
	share := func(f *flow) int { return f.bytes }
	if q.n == MaxFrames {
		share = func(f *flow) int { return f.n }
	}
	if f.bytes > q.bytes/2 || f.n > q.n/2 && q.n == MaxFrames {
		return false // no other can have more
	}
	fat := f
	for i := range q.flows {
		if g := &q.flows[i]; share(g) > share(fat) && (g.n > 1 || g.item.Buf == nil) {
			fat = g
		}
	}
	// Of several frames one stays. A single one gives way if its flow has more all the
	// same: superframes of many flows would keep others out.
	if fat == f || fat.n == 1 && fat.bytes <= f.bytes+n {
		return false
	}
	for freed := 0; freed == 0 || freed < frame.MaxLen && fat.n > 1; {
		freed += max(q.dropWaitingLocked(fat), frame.MaxLen/dropBatch)
	}
	return fits()
}

// addLocked puts a frame at the end of a flow, whose it becomes.
func (q *Queue) addLocked(f *flow, b *frame.Buf, to *wire.Relayed, now time.Duration) {
	i := q.free
	e := &q.entries[i]
	q.free = e.next
	*e = entry{buf: b, to: to, since: now, next: none}
	if f.tail == none {
		f.head = i
	} else {
		q.entries[f.tail].next = i
	}
	f.tail = i
	f.n++
	f.bytes += b.Len()
	q.n++
	q.bytes += b.Len()
}

// popLocked takes the first frame out of a flow, and releases it.
func (q *Queue) popLocked(f *flow) {
	i := f.head
	f.head = q.entries[i].next
	if f.head == none {
		f.tail = none
	}
	q.freeLocked(f, i)
}

// dropWaitingLocked drops the first frame of a flow that is not on its way,
// counts it, and returns its length. There is one.
func (q *Queue) dropWaitingLocked(f *flow) int {
	i := f.head
	if f.item.Buf != nil {
		i = q.entries[i].next
	}
	e := &q.entries[i]
	n := e.buf.Len()
	q.full.Add(segments(e.buf, e.from))
	if i == f.head {
		q.popLocked(f)
		return n
	}
	q.entries[f.head].next = e.next
	if e.next == none {
		f.tail = f.head
	}
	q.freeLocked(f, i)
	return n
}

func (q *Queue) freeLocked(f *flow, i int32) {
	e := &q.entries[i]
	f.n--
	f.bytes -= e.buf.Len()
	q.n--
	q.bytes -= e.buf.Len()
	e.buf.Release()
	*e = entry{next: q.free}
	q.free = i
}

// homeLocked returns the lane that a flow without frames on their way leaves
// by, nil while there is none.
func (q *Queue) homeLocked(f *flow) *Lane {
	switch {
	case len(q.lanes) == 0:
		f.lane = nil
	case f == &q.urgent:
		f.lane = q.lanes[0]
	case f.lane == nil, len(q.lanes) > 1 && f.lane.cleared > f.quiet:
		f.lane = q.leastLocked()
	}
	return f.lane
}

// leastLocked returns the lane that has least to do.
func (q *Queue) leastLocked() *Lane {
	least := q.lanes[0]
	for _, l := range q.lanes[1:min(q.active, len(q.lanes))] {
		if l.work < least.work {
			least = l
		}
	}
	least.work += newWork
	return least
}

// Fade makes what lanes have sent count less; new flows go where little was
// sent of late. Call it a few times a second while there are several lanes.
func (q *Queue) Fade() {
	q.mu.Lock()
	for _, l := range q.lanes {
		l.work -= l.work / 4
	}
	q.mu.Unlock()
}

// Clear drops and counts what waits: nobody is there to have it. No lane is
// open.
func (q *Queue) Clear() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for i := range q.flows {
		q.clearLocked(&q.flows[i])
	}
	q.clearLocked(&q.urgent)
}

func (q *Queue) clearLocked(f *flow) {
	for f.n > 0 {
		e := &q.entries[f.head]
		q.cut.Add(segments(e.buf, e.from))
		q.popLocked(f)
	}
	f.codel = codel{}
}

// Sift drops and counts those frames for the peer's LAN that fits says are none for
// it, by their headers. No lane is open.
func (q *Queue) Sift(fits func(frame.Vnet) bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for i := range q.flows {
		q.siftLocked(&q.flows[i], fits)
	}
	q.siftLocked(&q.urgent, fits)
}

func (q *Queue) siftLocked(f *flow, fits func(frame.Vnet) bool) {
	before := int32(none)
	for i := f.head; f.n > 0 && i != none; {
		e := &q.entries[i]
		next := e.next
		if e.to != nil || fits(e.buf.Header()) {
			before, i = i, next
			continue
		}
		q.cut.Add(segments(e.buf, e.from))
		if before == none {
			f.head = next
		} else {
			q.entries[before].next = next
		}
		if next == none {
			f.tail = before
		}
		q.freeLocked(f, i)
		i = next
	}
}

// Balance gives flows whose frames have to wait, and that share a lane, a lane
// with fewer of them. Call it a few times a second while there are several.
func (q *Queue) Balance() {
	q.mu.Lock()
	defer q.mu.Unlock()
	lanes := q.lanes[:min(q.active, len(q.lanes))]
	if len(q.lanes) < 2 {
		return
	}
	now := q.clock()
	var count [MaxLanes]int
	for i := range q.flows {
		if f := &q.flows[i]; f.lane != nil && q.isBusyLocked(f, now) {
			if f.goal != nil {
				count[f.goal.index]++
			} else {
				count[f.lane.index]++
			}
		}
	}
	for i := range q.flows {
		f := &q.flows[i]
		if f.lane == nil || f.goal != nil || !q.isBusyLocked(f, now) {
			continue
		}
		best := lanes[0]
		for _, l := range lanes[1:] {
			if count[l.index] < count[best.index] {
				best = l
			}
		}
		if count[f.lane.index]-count[best.index] >= 2 || f.lane.index >= len(lanes) {
			count[f.lane.index]--
			count[best.index]++
			f.goal = best
		}
	}
}

// isBusyLocked reports whether frames of a flow have had to wait of late.
func (q *Queue) isBusyLocked(f *flow, now time.Duration) bool {
	return f.held != 0 && now-f.held < busyTime
}

// Busy returns how many flows have had frames waiting for 5 ms and more of late:
// what they send is more than the lanes take.
func (q *Queue) Busy() (n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := q.clock()
	for i := range q.flows {
		if q.isBusyLocked(&q.flows[i], now) {
			n++
		}
	}
	return n
}

// Stats are the counters of a queue, in frames as a LAN would see them.
type Stats struct {
	Full    uint64 // dropped: too many waited
	Stale   uint64 // dropped: waited for MaxAge
	Cut     uint64 // dropped: the lane ended under them, or nobody was there
	Dropped uint64 // dropped by CoDel: waited too long for a tenth of a second
	Marked  uint64 // sent with a congestion mark instead
	Frames  int    // that wait at present
	Bytes   int    // of these
}

// Stats returns the counters.
func (q *Queue) Stats() Stats {
	q.mu.Lock()
	n, bytes := q.n, q.bytes
	q.mu.Unlock()
	return Stats{
		Full: q.full.Load(), Stale: q.stale.Load(), Cut: q.cut.Load(),
		Dropped: q.dropped.Load(), Marked: q.marked.Load(),
		Frames: n, Bytes: bytes,
	}
}

// segments returns how many frames of a LAN the rest of b stands for.
func segments(b *frame.Buf, from uint16) uint64 {
	return uint64(max(1, frame.Segments(b.Header(), b.Bytes())-int(from)))
}
