// SPDX-License-Identifier: Apache-2.0

package fdb_test

import (
	"sync/atomic"
	"testing"

	"github.com/l2bridge/l2bridge/fdb"
	"github.com/l2bridge/l2bridge/internal/frame"
)

func TestNothingAllocates(t *testing.T) {
	changes := 0
	tab := fdb.New(fdb.Config{Max: 1 << 13, Changed: func(fdb.Change) { changes++ }})
	a, b, full := attach(t, tab, 1<<12), attach(t, tab, 1), attach(t, tab, 0)
	if err := tab.AddStatic(local(0), a); err != nil {
		t.Fatal(err)
	}
	tab.Learn(0, local(1), a)
	tab.Learn(0, local(2), a)
	now, fresh, port := fdb.Tick(0), 1000, a
	learn := func(s frame.Station, p fdb.Port, want fdb.Verdict) {
		if v := tab.Learn(now, s, p); v != want {
			t.Errorf("Learn(%v) = %v, want %v", s, v, want)
		}
	}
	lookup := func(s frame.Station, want bool) {
		if _, ok := tab.Lookup(now, s); ok != want {
			t.Errorf("Lookup(%v) = %v, want %v", s, ok, want)
		}
	}
	for _, tt := range []struct {
		name string
		f    func()
	}{
		{"Learn known", func() { now++; learn(local(1), a, fdb.Known) }},
		{"Learn new", func() { fresh++; learn(local(fresh), a, fdb.Learned) }},
		{"Learn moved", func() { port = a + b - port; learn(local(2), port, fdb.Moved) }},
		{"Learn full", func() { learn(local(3), full, fdb.Full) }},
		{"Learn static", func() { learn(local(0), b, fdb.Static) }},
		{"Learn refused", func() { learn(0, a, fdb.Refused) }},
		{"Lookup hit", func() { lookup(local(1), true) }},
		{"Lookup miss", func() { lookup(local(3), false) }},
		{"Delete", func() { tab.Delete(local(fresh)); fresh-- }},
		{"Sweep", func() { tab.Sweep(now) }},
		{"Now", func() { tab.Now() }},
	} {
		if n := testing.AllocsPerRun(100, tt.f); n != 0 {
			t.Errorf("%s allocates %v times", tt.name, n)
		}
	}
}

// stations is how many a large LAN has. Their entries fit a level 2 cache.
const stations = 4096

func benchTable(b *testing.B) (*fdb.Table, fdb.Port) {
	tab := fdb.New(fdb.Config{})
	p := attach(b, tab, 2*stations)
	for i := range stations {
		tab.Learn(0, local(i), p)
	}
	b.ReportAllocs()
	b.ResetTimer()
	return tab, p
}

// BenchmarkForward is what a frame costs: its source learned, which is known
// already, and its destination looked up. Run it with -cpu 1,2,4.
func BenchmarkForward(b *testing.B) {
	tab, p := benchTable(b)
	var offset atomic.Uint32
	b.RunParallel(func(pb *testing.PB) {
		i := int(offset.Add(stations / 7))
		for pb.Next() {
			i++
			if tab.Learn(fdb.Tick(i>>16), local(i%stations), p) != fdb.Known {
				b.Fatal("not known")
			}
			if _, ok := tab.Lookup(0, local((i+stations/2)%stations)); !ok {
				b.Fatal("not found")
			}
		}
	})
}

func BenchmarkMiss(b *testing.B) {
	tab, _ := benchTable(b)
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			tab.Lookup(0, local(stations+i%stations))
		}
	})
}

// BenchmarkFlood is what a made-up source costs at a port that is full.
func BenchmarkFlood(b *testing.B) {
	tab, _ := benchTable(b)
	p := attach(b, tab, 0)
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			tab.Learn(0, local(stations+i), p)
		}
	})
}

// BenchmarkNew is what a station costs that comes and goes.
func BenchmarkNew(b *testing.B) {
	tab, p := benchTable(b)
	var offset atomic.Uint32
	b.RunParallel(func(pb *testing.PB) {
		s := 0x06<<40 | frame.Station(offset.Add(1)<<24)
		for pb.Next() {
			tab.Learn(0, s, p)
			tab.Delete(s)
		}
	})
}

// BenchmarkSweep is a pass over a full table in which nobody is silent.
func BenchmarkSweep(b *testing.B) {
	tab := fdb.New(fdb.Config{})
	p := attach(b, tab, fdb.DefaultMax)
	for i := range fdb.DefaultMax {
		tab.Learn(0, local(i), p)
	}
	b.ReportAllocs()
	for b.Loop() {
		tab.Sweep(0)
	}
}

// BenchmarkDetach is a full port that goes away.
func BenchmarkDetach(b *testing.B) {
	tab := fdb.New(fdb.Config{})
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		p := attach(b, tab, stations)
		for i := range stations {
			tab.Learn(0, local(i), p)
		}
		b.StartTimer()
		tab.Detach(p)
	}
}
