// SPDX-License-Identifier: Apache-2.0

package fdb_test

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/l2bridge/l2bridge/fdb"
)

// contend runs act again and again until read has been called rounds times by
// each of two goroutines. All make way now and then, where processors are few.
func contend(rounds int, read func(r, i int), act ...func(i int)) {
	var stop atomic.Bool
	var actors, readers sync.WaitGroup
	for _, a := range act {
		actors.Go(func() {
			for i := 0; !stop.Load(); i++ {
				if i%1000 == 0 {
					runtime.Gosched()
				}
				a(i)
			}
		})
	}
	for r := range 2 {
		readers.Go(func() {
			for i := range rounds {
				if i%1000 == 0 {
					runtime.Gosched()
				}
				read(r, i)
			}
		})
	}
	readers.Wait()
	stop.Store(true)
	actors.Wait()
}

// TestEstablishedIsNeverMissed looks a station up, and refreshes it, that is at
// the end of a chain in which others come and go: those are removed and used
// again while readers stand on them on their way to the end. In a long chain
// hardly a reader gets there before the next removal.
func TestEstablishedIsNeverMissed(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ others, rounds int }{
		"short chain": {8, 200_000},
		"long chain":  {300, 10_000},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tab := fdb.New(fdb.Config{Max: 512})
			home, away := attach(t, tab, 1), attach(t, tab, tt.others)
			s := tab.Colliding(1 + tt.others)
			steady, others := s[0], s[1:]
			tab.Learn(0, steady, home)
			contend(tt.rounds, func(_, i int) {
				if p, ok := tab.Lookup(0, steady); !ok || p != home {
					t.Errorf("round %d: Lookup = %d, %v", i, p, ok)
				}
				if v := tab.Learn(fdb.Tick(i/1000), steady, home); v != fdb.Known {
					t.Errorf("round %d: Learn: %v", i, v)
				}
			}, func(i int) {
				for _, s := range others {
					tab.Learn(0, s, away)
				}
				tab.Flush(away)
			})
		})
	}
}

// TestSweepSparesTheRefreshed has stations speak up at the last moment, while
// a sweep that comes one tick later is upon them.
func TestSweepSparesTheRefreshed(t *testing.T) {
	t.Parallel()
	tab := fdb.New(fdb.Config{Max: 4})
	p := attach(t, tab, 4) // twice as many as needed: what is being freed still counts
	const last = fdb.Tick(3000)
	contend(200_000, func(r, i int) {
		s := local(r)
		tab.Delete(s)
		tab.Learn(0, s, p)
		v := tab.Learn(last, s, p) // known or, when the sweep was faster, learned
		if _, ok := tab.Lookup(last, s); !ok {
			t.Errorf("round %d: %v, but then swept", i, v)
		}
	}, func(int) { tab.Sweep(last + 1) })
}

// TestRoamerIsNeverMissed looks a station up that moves all the time.
func TestRoamerIsNeverMissed(t *testing.T) {
	t.Parallel()
	tab := fdb.New(fdb.Config{Max: 2})
	ports := [2]fdb.Port{attach(t, tab, 1), attach(t, tab, 1)}
	tab.Learn(0, local(1), ports[1])
	contend(200_000, func(_, i int) {
		if _, ok := tab.Lookup(0, local(1)); !ok {
			t.Errorf("round %d: missed", i)
		}
	}, func(i int) {
		if v := tab.Learn(0, local(1), ports[i%2]); v != fdb.Moved {
			t.Errorf("move %d: %v", i, v)
		}
	})
}

// TestNobodyIsTakenForAnother has the stations of two ports use the same few
// entries in turn. None is ever found behind the other's port.
func TestNobodyIsTakenForAnother(t *testing.T) {
	t.Parallel()
	tab := fdb.New(fdb.Config{Max: 8})
	s := tab.Colliding(4)
	ports := [2]fdb.Port{attach(t, tab, 4), attach(t, tab, 4)}
	contend(200_000, func(_, i int) {
		if p, ok := tab.Lookup(0, s[i%4]); ok && p != ports[i%2] {
			t.Errorf("round %d: a station of port %d is behind port %d", i, ports[i%2], p)
		}
		if i%100 != 0 {
			return
		}
		for e := range tab.Entries() {
			for n := range s {
				if e.Station == s[n] && e.Port != ports[n%2] {
					t.Errorf("round %d: a station of port %d is listed behind port %d", i, ports[n%2], e.Port)
				}
			}
		}
	}, func(i int) {
		tab.Learn(0, s[i%4], ports[i%2])
		tab.Delete(s[i%4])
	})
}

// TestDetachForgets attaches and detaches ports beside learning, flushing,
// sweeping and an operator. In the end the books balance.
func TestDetachForgets(t *testing.T) {
	t.Parallel()
	tab := fdb.New(fdb.Config{Max: 32})
	home := attach(t, tab, 16)
	const now = fdb.Tick(1 << 20) // what was learned at 0 has expired
	contend(5_000, func(_, i int) {
		p, granted, err := tab.Attach(8)
		if err != nil || granted != 8 {
			t.Errorf("Attach granted %d, %v", granted, err)
			return
		}
		mine := 1000 * int(p)
		for j := range 8 {
			if v := tab.Learn(now, local(mine+j), p); v != fdb.Learned {
				t.Errorf("station %d of a port for 8: %v", j, v)
			}
		}
		if v := tab.Learn(now, local(mine+8), p); v != fdb.Full {
			t.Errorf("a ninth station at a port for 8: %v", v)
		}
		tab.Detach(p)
		for j := range 8 {
			if q, ok := tab.Lookup(now, local(mine+j)); ok {
				t.Errorf("station %d is behind port %d after Detach(%d)", j, q, p)
			}
		}
		if v := tab.Learn(now, local(mine), p); v != fdb.Refused {
			t.Errorf("Learn at a detached port: %v", v)
		}
	}, func(i int) {
		s := local(i % 24)
		switch i % 8 {
		case 0:
			tab.Flush(home)
		case 1:
			tab.Sweep(now)
		case 2:
			tab.Delete(s)
		case 3:
			if err := tab.AddStatic(s, home); err == nil {
				tab.Delete(s)
			}
		case 4:
			tab.Learn(0, s, home)
		default:
			tab.Learn(now, s, home)
		}
	})
	held := 0
	for p := range fdb.Port(fdb.MaxPorts) {
		held += tab.Count(p)
	}
	if st := tab.Stats(); st.Entries != held || held != tab.Count(home) || st.Reserved != 16 {
		t.Errorf("%+v, the ports hold %d, home %d", st, held, tab.Count(home))
	}
	tab.Detach(home)
	if st := tab.Stats(); st.Entries != 0 || st.Reserved != 0 {
		t.Errorf("all ports detached: %+v", st)
	}
}

// TestRoomIsNeverOverdrawn has many goroutines learn different stations at one
// port: together they get its room, to the last station and no further.
func TestRoomIsNeverOverdrawn(t *testing.T) {
	t.Parallel()
	const room, learners = 1000, 4
	tab := fdb.New(fdb.Config{Max: 2 * room})
	p := attach(t, tab, room)
	var learned atomic.Int64
	var wg sync.WaitGroup
	for l := range learners {
		wg.Go(func() {
			for i := range room {
				switch v := tab.Learn(0, local(l*room+i), p); v {
				case fdb.Learned:
					learned.Add(1)
				case fdb.Full:
				default:
					t.Errorf("Learn: %v", v)
				}
			}
		})
	}
	wg.Wait()
	found := 0
	for i := range learners * room {
		if _, ok := tab.Lookup(0, local(i)); ok {
			found++
		}
	}
	if l := learned.Load(); l != room || tab.Count(p) != room || found != room {
		t.Errorf("learned %d, holds %d, found %d, want %d", l, tab.Count(p), found, room)
	}
}
