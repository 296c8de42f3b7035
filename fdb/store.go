// SPDX-License-Identifier: Apache-2.0

package fdb

import (
	"hash/maphash"
	"math/bits"
	"sync/atomic"

	"github.com/l2bridge/l2bridge/internal/frame"
)

// store is a hash table of fixed size in which one writer at a time, under the
// Table's mutex, changes chains that any number of readers walk without a lock.
//
//	buckets                 entries, by index; 0 is no entry
//	+---------+-------+     +---------+-------+------+
//	| version | first | --> | station | value | next | --> ...
//	+---------+-------+     +---------+-------+------+
//
// An entry that was removed is soon used again, maybe in another chain, under
// the feet of a reader that still stands on it. So removal goes in this order:
//
//	unlink the entry; add one to its bucket's version; use it again
//
// and a reader that has read an entry looks at the version once more. If it is
// still the one that came with the first index, the entry was in this chain
// when it was read: had the reader seen anything of a later use, it would see
// the new version too, for sync/atomic operations have one order for all
// goroutines. Else it starts anew. Hence what find answers, a miss
// included, was true at some moment of the call, and a reader never strays
// into another chain. The version wraps after 2^32 removals from one bucket,
// which nobody sits out in the middle of a read.
type store struct {
	seed    maphash.Seed
	buckets []atomic.Uint64 // version in the upper, first index in the lower half
	entries []entry

	// For writers only.
	free  uint32 // first of the removed entries, linked by next
	fresh uint32 // first entry never used: those from here on are untouched memory
}

type entry struct {
	station atomic.Uint64
	value   atomic.Uint64 // see value; 0 means that no station is here
	next    atomic.Uint32
}

// newStore returns a store for at most n stations.
func newStore(n int) store {
	return store{
		seed:    maphash.MakeSeed(),
		buckets: make([]atomic.Uint64, 1<<bits.Len(uint(n-1))), // one station a chain
		entries: make([]entry, 1+n),
		fresh:   1,
	}
}

// bucket returns where s is filed. The key is drawn anew by each process:
// addresses that share a chain here do not elsewhere.
func (st *store) bucket(s frame.Station) *atomic.Uint64 {
	return &st.buckets[maphash.Comparable(st.seed, s)&uint64(len(st.buckets)-1)]
}

// tries is how often a reader starts anew before it asks for the lock. One
// removal from the one bucket in those nanoseconds is rare already.
const tries = 4

// find returns the entry and the value of s, or a zero value when s is not in
// the store. It takes no lock; settled is false when removals from this bucket
// outran it, and then nothing is known.
func (st *store) find(s frame.Station) (e *entry, v value, settled bool) {
	b := st.bucket(s)
again:
	for range tries {
		head := b.Load()
		for i := uint32(head); i != 0; {
			e := &st.entries[i]
			found := frame.Station(e.station.Load())
			v, next := value(e.value.Load()), e.next.Load()
			if b.Load()>>32 != head>>32 {
				continue again
			}
			if found == s {
				return e, v, true
			}
			i = next
		}
		return nil, 0, true
	}
	return nil, 0, false
}

// findLocked returns the entry and the value of s, or a zero value.
func (st *store) findLocked(s frame.Station) (*entry, value) {
	for i := uint32(st.bucket(s).Load()); i != 0; {
		e := &st.entries[i]
		if frame.Station(e.station.Load()) == s {
			return e, value(e.value.Load())
		}
		i = e.next.Load()
	}
	return nil, 0
}

// insertLocked files s, which must not be in the store. The caller knows that
// there is room.
func (st *store) insertLocked(s frame.Station, v value) {
	i := st.free
	if i != 0 {
		st.free = st.entries[i].next.Load()
	} else {
		i = st.fresh
		st.fresh++
	}
	b := st.bucket(s)
	head := b.Load()
	e := &st.entries[i]
	e.station.Store(uint64(s))
	e.value.Store(uint64(v))
	e.next.Store(uint32(head))
	b.Store(head>>32<<32 | uint64(i))
}

// removeLocked takes e, which must be in the store, out of it. The caller has
// set its value to 0, so that a reader that still holds e cannot refresh it.
func (st *store) removeLocked(e *entry) {
	b := st.bucket(frame.Station(e.station.Load()))
	head := b.Load()
	first, rest := uint32(head), e.next.Load()
	i := first
	if prev := &st.entries[i]; prev == e {
		first = rest
	} else {
		for i = prev.next.Load(); &st.entries[i] != e; i = prev.next.Load() {
			prev = &st.entries[i]
		}
		prev.next.Store(rest)
	}
	b.Store((head>>32+1)<<32 | uint64(first))
	e.next.Store(st.free)
	st.free = i
}

// usedLocked returns the entries that have been in use since New. A pass over
// these leaves the rest of a large table untouched.
func (st *store) usedLocked() []entry { return st.entries[1:st.fresh] }
