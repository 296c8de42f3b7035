// SPDX-License-Identifier: Apache-2.0

package fdb

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/l2bridge/l2bridge/internal/frame"
)

const (
	// DefaultMax is how many stations a Table holds unless told otherwise.
	DefaultMax = 1 << 18

	// MaxStations is the most that a Table can be told to hold. They take 512 MB.
	MaxStations = 1 << 24

	// DefaultAgeing is how long a silent station is remembered unless told
	// otherwise (IEEE 802.1Q-2022, table 8-6).
	DefaultAgeing = 300 * time.Second
)

// Config sizes a Table. Zero values mean the defaults.
type Config struct {
	Max    int           // stations of all ports together; DefaultMax, at most MaxStations
	Ageing time.Duration // silence after which a station is forgotten; DefaultAgeing

	// Changed, if not nil, is told of each change of where stations are, but for
	// those that go with their port. It is called without a lock, on the way of
	// the frame that brought the change: it must not block. Of two changes at
	// once the later may be told first.
	Changed func(Change)
}

// Table is the forwarding database. Its methods may be called from any number
// of goroutines.
type Table struct {
	start   time.Time // tick 0
	ageing  Tick
	changed func(Change) // may be nil
	store   store
	ports   [MaxPorts + 1]port // by Port

	full    atomic.Uint64 // see Stats
	claimed atomic.Uint64

	mu       sync.Mutex // held to write to the store and for what follows
	last     Port       // latest given out
	reserved int        // sum of the ports' limits
	used     int        // entries in the store
	learned  uint64
	moved    uint64
	expired  uint64
}

// New returns an empty Table with all the memory that it will ever have. It
// panics when Max or Ageing is negative or Max above MaxStations: callers check
// what comes from outside.
func New(c Config) *Table {
	if c.Max < 0 || c.Max > MaxStations || c.Ageing < 0 {
		panic(fmt.Sprintf("fdb: New(%+v)", c))
	}
	if c.Max == 0 {
		c.Max = DefaultMax
	}
	if c.Ageing == 0 {
		c.Ageing = DefaultAgeing
	}
	t := &Table{start: time.Now(), ageing: ticks(c.Ageing), changed: c.Changed, store: newStore(c.Max)}
	for p := range t.ports {
		t.ports[p].limit.Store(detached)
	}
	return t
}

// Verdict is what Learn made of a source address.
type Verdict uint8

// The verdicts.
const (
	Known   Verdict = iota // is where it was
	Learned                // was not known, and is now
	Moved                  // was behind another port, and is behind this one now
	Full                   // not learned: this port has no room for one more. See Learn
	Static                 // not learned: an operator has put this station behind another port
	Refused                // not learned: no station's address, or no attached port
)

func (v Verdict) String() string {
	switch v {
	case Known:
		return "known"
	case Learned:
		return "learned"
	case Moved:
		return "moved"
	case Full:
		return "full"
	case Static:
		return "static"
	case Refused:
		return "refused"
	}
	return fmt.Sprintf("verdict(%d)", uint8(v))
}

// Learn notes that at now a frame from s came in at p. Group and zero addresses
// are refused; that s is not one of our own the caller has seen to.
//
// A station that moves takes from the room of its new port. If that port is
// full the station stays where it was: a flood of made-up addresses that hits
// upon another port's station must not evict it. One that has really moved is
// found again when there is room, or flooded to when its entry has aged. Room
// that silent stations held is free after the next Sweep.
//
// Learn takes no lock when s is Known or Static, nor when p is full, which is
// what a flood comes down to; Lookup's exception holds here too.
func (t *Table) Learn(now Tick, s frame.Station, p Port) Verdict {
	if s.IsGroup() || s.IsZero() {
		return Refused
	}
	e, v, settled := t.store.find(s)
	switch {
	case !settled:
	case v.static() && v.port() != p && t.isAttached(p):
		t.claimed.Add(1)
		return Static
	case v == 0 || v.port() != p && !t.isExpired(v, now):
		if t.isFull(p) { // what is being freed right now still counts: the next frame will do
			t.full.Add(1)
			return Full
		}
	case v.port() == p && !t.isExpired(v, now) && refresh(e, s, v, now):
		return Known
	}
	return t.learn(now, s, p)
}

// refresh notes a sign of life of s, found with value v in e. A store a tick is
// enough, and keeps the entry's cache line with its readers. It reports false
// when another goroutine was faster to see, move or forget s.
//
// If e has been used again meanwhile, for a station of the same port that was
// last seen in the same tick, then the exchange succeeds. That station was
// learned just now, so the sign of life is right for it; s is not there any more.
func refresh(e *entry, s frame.Station, v value, now Tick) bool {
	return v.age(now) == 0 ||
		e.value.CompareAndSwap(uint64(v), uint64(v.seen(now))) && e.station.Load() == uint64(s)
}

// learn is Learn for the cases that change the table's shape.
func (t *Table) learn(now Tick, s frame.Station, p Port) Verdict {
	verdict, from := t.place(now, s, p)
	switch verdict {
	case Learned:
		t.tell(Change{Kind: Appeared, Station: s, Port: p})
	case Moved:
		t.tell(Change{Kind: Relocated, Station: s, Port: p, From: from})
	}
	return verdict
}

// place puts s behind p, if that may be. from is the port that a station that
// moved was behind.
func (t *Table) place(now Tick, s frame.Station, p Port) (verdict Verdict, from Port) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.isAttached(p) {
		return Refused, 0
	}
	e, v := t.store.findLocked(s)
	if v != 0 && t.isExpired(v, now) {
		t.removeLocked(e)
		t.expired++
		v = 0
	}
	switch {
	case v == 0:
		if t.isFull(p) {
			t.full.Add(1)
			return Full, 0
		}
		t.insertLocked(s, newValue(p, now))
		t.learned++
		return Learned, 0
	case v.port() == p:
		refresh(e, s, v, now) // only another sign of life can have been faster
		return Known, 0
	case v.static():
		t.claimed.Add(1)
		return Static, 0
	case t.isFull(p):
		t.full.Add(1)
		return Full, 0
	}
	t.changeLocked(e, func(v value) value { return v.moved(p).seen(now) })
	t.moved++
	return Moved, v.port()
}

// Lookup returns the port that s was last seen behind, unless that is longer
// ago than the ageing time. It takes no lock, but when removals from the very
// chain of s have outrun it several times in a row.
func (t *Table) Lookup(now Tick, s frame.Station) (Port, bool) {
	_, v, settled := t.store.find(s)
	if !settled {
		t.mu.Lock()
		_, v = t.store.findLocked(s)
		t.mu.Unlock()
	}
	if v == 0 || t.isExpired(v, now) {
		return 0, false
	}
	return v.port(), true
}

func (t *Table) insertLocked(s frame.Station, v value) {
	t.store.insertLocked(s, v)
	t.ports[v.port()].used.Add(1)
	t.used++
}

// changeLocked replaces the value of e, which may be refreshed meanwhile, by what
// change makes of it.
func (t *Table) changeLocked(e *entry, change func(value) value) {
	for {
		v := value(e.value.Load())
		w := change(v)
		if e.value.CompareAndSwap(uint64(v), uint64(w)) {
			t.ports[v.port()].used.Add(-1)
			t.ports[w.port()].used.Add(1)
			return
		}
	}
}

// removeLocked forgets the station of e.
func (t *Table) removeLocked(e *entry) {
	t.unlinkLocked(e, value(e.value.Swap(0)))
}

// unlinkLocked gives back the entry whose value was v and is 0 now.
func (t *Table) unlinkLocked(e *entry, v value) {
	t.store.removeLocked(e)
	t.ports[v.port()].used.Add(-1)
	t.used--
}

// size returns how many stations the table can hold.
func (t *Table) size() int { return len(t.store.entries) - 1 }
