// SPDX-License-Identifier: Apache-2.0

package fdb

import (
	"context"
	"math"
	"time"

	"github.com/l2bridge/l2bridge/internal/frame"
)

// Tick is a time in units of 100 ms since New. It wraps after 13 years, which
// does no harm: only differences count.
type Tick uint32

const tick = 100 * time.Millisecond

// ticks returns d, which is positive, in ticks, rounded up. What is beyond 6.8
// years never ends.
func ticks(d time.Duration) Tick {
	return Tick(min((d-1)/tick+1, math.MaxInt32))
}

// Now returns the time for Learn and Lookup. One reading does for a batch of
// frames.
func (t *Table) Now() Tick {
	return Tick(time.Since(t.start) / tick)
}

// isExpired reports whether a station has been silent for longer than the
// ageing time. As a tick has an extent, it is never so too early, and up to two
// ticks late.
func (t *Table) isExpired(v value, now Tick) bool {
	return !v.static() && v.age(now) > t.ageing
}

// sweepEvery is how long a silent station keeps its port's room beyond the
// ageing time. A pass over a full table of the default size takes a millisecond.
const sweepEvery = time.Second

// Run sweeps the table each second until ctx ends, and returns nil.
func (t *Table) Run(ctx context.Context) error {
	every := time.NewTicker(sweepEvery)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-every.C:
			t.Sweep(t.Now())
		}
	}
}

// Sweep makes room of the stations that have been silent for longer than the
// ageing time, which Lookup does not find any more, and returns how many there
// were. It reads the used part of the table once, without the lock but for the
// time it takes to remove one station.
func (t *Table) Sweep(now Tick) int {
	n := t.removeAll(Aged, func(v value) bool { return v != 0 && t.isExpired(v, now) })
	t.mu.Lock()
	t.expired += uint64(n)
	t.mu.Unlock()
	return n
}

// removeAll forgets the stations that are in the table now and match, tells so,
// and returns how many there were. match is false for 0.
func (t *Table) removeAll(kind ChangeKind, match func(value) bool) int {
	t.mu.Lock()
	used := t.store.usedLocked()
	t.mu.Unlock()
	n := 0
	for i := range used {
		e := &used[i]
		if !match(value(e.value.Load())) {
			continue
		}
		if s, p, ok := t.removeIf(e, match); ok {
			t.tell(Change{Kind: kind, Station: s, Port: p})
			n++
		}
	}
	return n
}

// removeIf forgets the station of e if it matches at that moment: it may just
// have been refreshed. It returns what it has forgotten.
func (t *Table) removeIf(e *entry, match func(value) bool) (s frame.Station, p Port, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for v := value(e.value.Load()); match(v); v = value(e.value.Load()) {
		if e.value.CompareAndSwap(uint64(v), 0) {
			s = frame.Station(e.station.Load())
			t.unlinkLocked(e, v)
			return s, v.port(), true
		}
	}
	return 0, 0, false
}
