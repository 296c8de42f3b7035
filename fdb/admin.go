// SPDX-License-Identifier: Apache-2.0

package fdb

import (
	"fmt"
	"iter"
	"time"

	"github.com/l2bridge/l2bridge/internal/frame"
)

// AddStatic puts s behind p until Delete, or Detach of p: it does not age, and
// frames from it elsewhere do not move it. What was known of s before gives way.
// A static station takes from the room of its port. If there is none, nothing
// changes and the error says so.
func (t *Table) AddStatic(s frame.Station, p Port) error {
	if s.IsGroup() || s.IsZero() {
		return fmt.Errorf("station %v: not the address of one station", s)
	}
	if err := t.fix(s, p); err != nil {
		return err
	}
	t.tell(Change{Kind: Fixed, Station: s, Port: p})
	return nil
}

func (t *Table) fix(s frame.Station, p Port) error {
	now := t.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.isAttached(p) {
		return fmt.Errorf("station %v: port %d is not attached", s, p)
	}
	e, v := t.store.findLocked(s)
	if (v == 0 || v.port() != p) && t.isFull(p) {
		return fmt.Errorf("station %v: port %d holds %d stations, its limit (flush some, or raise the limit)",
			s, p, t.ports[p].limit.Load())
	}
	static := newValue(p, now) | staticBit
	if v == 0 {
		t.insertLocked(s, static)
	} else {
		t.changeLocked(e, func(value) value { return static })
	}
	return nil
}

// Delete forgets s, static or not, and reports whether it was there.
func (t *Table) Delete(s frame.Station) bool {
	t.mu.Lock()
	e, v := t.store.findLocked(s)
	if v != 0 {
		t.removeLocked(e)
	}
	t.mu.Unlock()
	if v == 0 {
		return false
	}
	t.tell(Change{Kind: Deleted, Station: s, Port: v.port()})
	return true
}

// Flush forgets the learned stations of p, or of all ports if p is 0, and
// returns how many there were. Static ones stay.
func (t *Table) Flush(p Port) int {
	return t.removeAll(Deleted, func(v value) bool { return v.dynamic() && (p == 0 || v.port() == p) })
}

// Entry is what the table knows about a station.
type Entry struct {
	Station frame.Station
	Port    Port
	Age     time.Duration // since it was last seen, or since AddStatic; in steps of 100 ms
	Static  bool
	Moves   int // times that it was seen behind another port than before; 32767 means or more
}

// Get returns the entry of s, if Lookup would find it.
func (t *Table) Get(s frame.Station) (Entry, bool) {
	t.mu.Lock()
	_, v := t.store.findLocked(s)
	t.mu.Unlock()
	now := t.Now()
	if v == 0 || t.isExpired(v, now) {
		return Entry{}, false
	}
	return v.entry(s, now), true
}

// Entries yields what Lookup would find, in no order. Each entry is true at the
// moment that it is yielded. The table goes on working and changing: a station
// that comes or goes meanwhile may be left out, one that goes and comes back be
// yielded twice. No lock is held while the caller has an entry.
func (t *Table) Entries() iter.Seq[Entry] {
	return func(yield func(Entry) bool) {
		now := t.Now()
		t.mu.Lock()
		used := t.store.usedLocked()
		t.mu.Unlock()
		for i := range used {
			e := &used[i]
			if e.value.Load() == 0 {
				continue
			}
			t.mu.Lock() // who an entry is for changes under the mutex only
			s, v := frame.Station(e.station.Load()), value(e.value.Load())
			t.mu.Unlock()
			if v != 0 && !t.isExpired(v, now) && !yield(v.entry(s, now)) {
				return
			}
		}
	}
}

func (v value) entry(s frame.Station, now Tick) Entry {
	return Entry{
		Station: s,
		Port:    v.port(),
		Age:     time.Duration(v.age(now)) * tick,
		Static:  v.static(),
		Moves:   v.moves(),
	}
}

// Stats is what the table holds and what it has counted since New.
type Stats struct {
	Entries  int // stations held, silent ones that no Sweep has taken yet included
	Reserved int // stations that the attached ports may hold
	Max      int // stations that the table can hold

	Learned uint64 // stations that were new
	Moved   uint64 // stations that were seen behind another port
	Expired uint64 // stations that were silent for the ageing time
	Full    uint64 // frames whose source found its port full
	Claimed uint64 // frames whose source is static behind another port
}

// Stats returns the counts.
func (t *Table) Stats() Stats {
	t.mu.Lock()
	defer t.mu.Unlock()
	return Stats{
		Entries:  t.used,
		Reserved: t.reserved,
		Max:      t.size(),
		Learned:  t.learned,
		Moved:    t.moved,
		Expired:  t.expired,
		Full:     t.full.Load(),
		Claimed:  t.claimed.Load(),
	}
}
