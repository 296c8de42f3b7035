// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/l2bridge/l2bridge/internal/frame"
)

// Timing of a test.
const (
	idleTime   = time.Second           // of pings before any load
	pingEvery  = 20 * time.Millisecond // as a call or a game sends packets
	lookEvery  = 10 * time.Millisecond
	grantAgain = 50 * time.Millisecond // one that was lost
	sayEvery   = 250 * time.Millisecond
	// Of the time of a direction, the first part is not measured: flows are still
	// finding their speed.
	rampParts = 3
	mostDrain = time.Second

	leastLoad = 64 // bytes behind the header: less holds no fields
)

// The bounds of the time that a direction may take.
const (
	LeastTime = time.Second
	MostTime  = 30 * time.Second
)

// What a test may fail with.
var (
	ErrBusy     = errors.New("a test is running already")
	ErrNoAnswer = errors.New("nothing comes back")
)

// Phase is a part of a test.
type Phase string

// The phases, in their order.
const (
	Idle      Phase = "idle"
	Upload    Phase = "up"
	Download  Phase = "down"
	SizesPart Phase = "sizes"
)

// Progress says how far a test is.
type Progress struct {
	Phase  Phase
	BitsPS uint64 // at present, while there is load
}

// Result is what a test found.
type Result struct {
	Idle     RTT
	Up, Down Direction
	Sizes    Sizes
}

// RTT is the round trips of small frames, one every 20 ms. Those that were lost
// count in none of the times.
type RTT struct {
	Min, Avg, P99, Max time.Duration
	Sent, Lost         int
}

// Direction is what one direction carried under load.
type Direction struct {
	BitsPS   uint64 // of frames that came, without the time to find the speed
	Length   int    // of each frame, bytes
	Sent     uint64 // frames
	Received uint64
	Dropped  uint64 // of those missing, by the sender's queue: how flows find their speed
	Lost     uint64 // of those missing, on the way
	RTT      RTT
}

// Sizes is which frames came back whole.
type Sizes struct {
	Least, Most int // bytes
	Sent        int // how many sizes of these were tried
	Received    int // and came back
	Failed      []Range
}

// Range is sizes in a row of those that were tried.
type Range struct{ From, To int }

// test is one of ours under way.
type test struct {
	out   Queue
	run   uint32
	epoch time.Time
	load  int // length of its frames
	most  int // greatest size to try

	mu    sync.Mutex // guards what follows
	pings []ping
	flows [bulk]flow
	phase Phase
	off   bool   // no more load
	base  uint32 // dropped, as the other end says, before
	told  bool   // base is set
	more  uint32 // dropped since
	came  map[int]bool
}

// ping is one round trip: rtt is 0 while it is under way.
type ping struct{ rtt time.Duration }

// Run tests the way to the other gateway: the load takes so long each way, in
// frames that suit the MTU of both LANs, and all sizes are tried that suit ours.
// progress is called from time to time.
func (e *End) Run(ctx context.Context, each time.Duration, ourMTU, theirMTU int, progress func(Progress)) (Result, error) {
	t := &test{
		out: e.out, run: rand.Uint32(), epoch: time.Now(), came: make(map[int]bool),
		load: headerLen + max(min(ourMTU, theirMTU), leastLoad), most: headerLen + ourMTU,
	}
	e.mu.Lock()
	if e.test != nil {
		e.mu.Unlock()
		return Result{}, ErrBusy
	}
	e.test = t
	e.mu.Unlock()
	defer func() {
		e.mu.Lock()
		e.test = nil
		e.mu.Unlock()
	}()
	return t.all(ctx, min(max(each, LeastTime), MostTime), progress)
}

func (t *test) all(ctx context.Context, each time.Duration, progress func(Progress)) (r Result, err error) {
	progress(Progress{Phase: Idle})
	if err := t.spend(ctx, idleTime, nil); err != nil {
		return r, err
	}
	if r.Idle, err = t.roundTrips(ctx, 0); err != nil {
		return r, err
	}
	if r.Idle.Lost == r.Idle.Sent {
		return r, ErrNoAnswer
	}
	if r.Up, err = t.direction(ctx, Upload, each, progress); err != nil {
		return r, err
	}
	if r.Down, err = t.direction(ctx, Download, each, progress); err != nil {
		return r, err
	}
	progress(Progress{Phase: SizesPart})
	r.Sizes, err = t.sizes(ctx, r)
	return r, err
}

// spend sends pings for so long, and looks after the load if there is one.
func (t *test) spend(ctx context.Context, long time.Duration, look func(now time.Time)) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	begin := time.Now()
	ping := begin
	for now := begin; now.Sub(begin) < long; now = time.Now() {
		if !now.Before(ping) {
			t.ping(now)
			ping = ping.Add(pingEvery)
			if ping.Before(now) {
				ping = now // late: none is made good
			}
		}
		if look != nil {
			look(now)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
	return nil
}

// clock is the time as frames tell it, in microseconds; never 0.
func (t *test) clock(now time.Time) uint64 { return uint64(now.Sub(t.epoch).Microseconds()) + 1 }

// since returns how long ago a frame told the time; 0 when that cannot be.
func (t *test) since(told uint64, now time.Time) time.Duration {
	at := t.clock(now)
	if told == 0 || told > at {
		return 0
	}
	return max(time.Duration(at-told)*time.Microsecond, time.Microsecond)
}

func (t *test) ping(now time.Time) {
	t.mu.Lock()
	n := len(t.pings)
	t.pings = append(t.pings, ping{})
	t.mu.Unlock()
	push(t.out, message{kind: kindEcho, stream: pingStream, run: t.run, number: uint32(n), time: t.clock(now)}.frame(pingLen))
}

// patience is how long what is under way is waited for.
func (t *test) patience() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	most := time.Duration(0)
	for _, p := range t.pings {
		most = max(most, p.rtt)
	}
	return min(2*most+50*time.Millisecond, mostDrain)
}

// roundTrips waits for the pings from a number on, and sums them up.
func (t *test) roundTrips(ctx context.Context, from int) (RTT, error) {
	waiting := func() bool {
		t.mu.Lock()
		defer t.mu.Unlock()
		for _, p := range t.pings[from:] {
			if p.rtt == 0 {
				return true
			}
		}
		return false
	}
	patience := t.patience()
	if from == 0 {
		patience = mostDrain
	}
	if err := wait(ctx, patience, waiting); err != nil {
		return RTT{}, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return sumUp(t.pings[from:]), nil
}

// wait waits while something holds, at most so long.
func wait(ctx context.Context, most time.Duration, holds func() bool) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for begin := time.Now(); holds() && time.Since(begin) < most; {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
	return nil
}

// direction loads one direction and measures what comes through.
func (t *test) direction(ctx context.Context, phase Phase, each time.Duration, progress func(Progress)) (d Direction, err error) {
	begin := time.Now()
	before := droppedOf(t.out.Stats())
	t.mu.Lock()
	t.phase, t.off, t.told, t.more = phase, false, false, 0
	for i := range t.flows {
		t.flows[i] = newFlow(begin)
	}
	firstPing := len(t.pings)
	t.mu.Unlock()

	type mark struct {
		at    time.Time
		count uint64
	}
	var from, said mark
	said.at = begin
	again := begin
	err = t.spend(ctx, each, func(now time.Time) {
		due := !now.Before(again)
		if due {
			again = now.Add(grantAgain)
		}
		t.look(now, due)
		count := t.counted()
		if from.at.IsZero() && now.Sub(begin) >= each/rampParts {
			from = mark{now, count}
		}
		if long := now.Sub(said.at); long >= sayEvery {
			progress(Progress{phase, t.bits(count-said.count, long)})
			said = mark{now, count}
		}
	})
	if err != nil {
		return d, err
	}
	to := mark{time.Now(), t.counted()}
	if from.at.IsZero() {
		from.at = begin
	}
	d.BitsPS = t.bits(to.count-from.count, to.at.Sub(from.at))
	if d.RTT, err = t.roundTrips(ctx, firstPing); err != nil {
		return d, err
	}
	err = t.drain(ctx, phase)

	t.mu.Lock()
	defer t.mu.Unlock()
	t.phase = ""
	d.Length = t.load
	var missing int64
	for i := range t.flows {
		f := &t.flows[i]
		d.Sent += uint64(f.next)
		d.Received += uint64(min(f.count, f.next))
		missing += max(0, f.missing())
	}
	dropped := uint64(t.more)
	if phase == Upload {
		dropped = droppedOf(t.out.Stats()) - before
	}
	d.Dropped = min(dropped, uint64(missing))
	d.Lost = uint64(missing) - d.Dropped
	return d, err
}

// counted returns how many frames of the load have come.
func (t *test) counted() (n uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range t.flows {
		n += uint64(t.flows[i].count)
	}
	return n
}

func (t *test) bits(frames uint64, in time.Duration) uint64 {
	if in <= 0 {
		return 0
	}
	return uint64(float64(frames) * float64(t.load) * 8 / in.Seconds())
}

// drain ends the load and waits until what is under way has come or is lost.
func (t *test) drain(ctx context.Context, phase Phase) error {
	t.mu.Lock()
	t.off = true
	t.mu.Unlock()
	patience := t.patience()
	asked := time.Time{}
	var goal [bulk]uint32 // what is waited for
	return wait(ctx, patience, func() bool {
		ask := time.Since(asked) >= grantAgain && phase == Upload
		if ask {
			asked = time.Now()
		}
		var frames []*frame.Buf
		t.mu.Lock()
		waits := false
		for i := range t.flows {
			f := &t.flows[i]
			if goal[i] == 0 {
				goal[i] = f.sent
			}
			if f.next >= goal[i] {
				continue
			}
			waits = true
			if ask { // the count is asked for by one more
				frames = append(frames, t.upLocked(i, time.Now(), true))
			}
		}
		t.mu.Unlock()
		push(t.out, frames...)
		return waits
	})
}

// look begins flows and those that have stalled anew. again says that a GRANT is
// to be repeated, which may have been lost.
func (t *test) look(now time.Time, again bool) {
	var frames []*frame.Buf
	t.mu.Lock()
	for i := range t.flows {
		f := &t.flows[i]
		begins := f.sent == 0 || f.stalled(now)
		if begins || again && t.phase == Download {
			frames = t.fillLocked(frames, i, now, true)
		}
	}
	t.mu.Unlock()
	push(t.out, frames...)
}

// fillLocked appends what stream i may send now. anyway says that a GRANT is to be
// among it.
func (t *test) fillLocked(frames []*frame.Buf, i int, now time.Time, anyway bool) []*frame.Buf {
	f := &t.flows[i]
	n := f.free()
	switch {
	case t.off:
	case t.phase == Upload:
		for ; n > 0; n-- {
			frames = append(frames, t.upLocked(i, now, n == 1 || f.window < 16 || f.sent%8 == 7))
		}
	case t.phase == Download && (anyway || n >= max(1, min(16, int(f.window)/4))):
		f.sent += uint32(max(0, n))
		frames = append(frames, message{kind: kindGrant, stream: uint8(i), run: t.run, number: f.sent,
			length: uint16(t.load), time: t.clock(now)}.frame(shortLen))
	}
	return frames
}

// upLocked returns the next frame of stream i.
func (t *test) upLocked(i int, now time.Time, ask bool) *frame.Buf {
	f := &t.flows[i]
	b := message{kind: kindUp, stream: uint8(i), run: t.run, number: f.sent, ask: ask, time: t.clock(now)}.frame(t.load)
	f.sent++
	return b
}

// take takes an answer of the other gateway, borrowed, and reports whether it was
// waited for.
func (t *test) take(m message, p []byte) bool {
	if m.run != t.run {
		return false
	}
	now := time.Now()
	var frames []*frame.Buf
	t.mu.Lock()
	ok := false
	switch {
	case m.kind == kindReply && m.stream == pingStream:
		if ok = len(p) == pingLen && int64(m.number) < int64(len(t.pings)); ok && t.pings[m.number].rtt == 0 {
			t.pings[m.number].rtt = t.since(m.time, now)
		}
	case m.kind == kindReply && m.stream == sizeStream:
		came, sent := t.came[len(p)]
		if ok = sent && isSize(p); ok && !came {
			t.came[len(p)] = true
		}
	case m.kind == kindReply || m.stream >= bulk:
	case m.kind == kindCount && t.phase != Upload, m.kind == kindDown && t.phase != Download:
		ok = true // it comes late
	case m.kind == kindCount:
		f := &t.flows[m.stream]
		if ok = m.number < f.sent && m.next <= f.sent && m.count <= m.next; ok {
			f.come(m.next, m.count, t.since(m.time, now), now)
			frames = t.fillLocked(nil, int(m.stream), now, false)
		}
	case m.kind == kindDown:
		f := &t.flows[m.stream]
		if ok = m.number < f.sent && f.count < f.sent; ok {
			if !t.told {
				t.told, t.base = true, m.dropped
			}
			if more := m.dropped - t.base; int32(more-t.more) > 0 { // streams overtake each other
				t.more = more
			}
			f.come(max(f.next, m.number+1), f.count+1, t.since(m.time, now), now)
			frames = t.fillLocked(nil, int(m.stream), now, false)
		}
	}
	t.mu.Unlock()
	push(t.out, frames...)
	return ok
}
