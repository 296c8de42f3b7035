// SPDX-License-Identifier: Apache-2.0

package bridge_test

import (
	"encoding/binary"
	"sync/atomic"
	"testing"

	"github.com/l2bridge/l2bridge/bridge"
	"github.com/l2bridge/l2bridge/bridge/guard"
	"github.com/l2bridge/l2bridge/fdb"
	"github.com/l2bridge/l2bridge/internal/frame"
)

// newQuietSite returns a site whose ports throw away what they are sent.
func newQuietSite(t testing.TB) *site {
	s := newSite(t, bridge.Config{Table: fdb.New(fdb.Config{}), Outer: outerOf(), Servers: new(guard.Servers)})
	for _, p := range []*port{s.local, s.a, s.b, s.c} {
		p.onSend = func([]*frame.Buf) {}
	}
	s.SetOwn(station(ours))
	s.local.input(hello(here))
	s.a.input(hello(a1))
	s.b.input(hello(b1))
	return s
}

func bufs(frames ...[]byte) []*frame.Buf {
	var all []*frame.Buf
	for _, f := range frames {
		all = append(all, frame.New(f))
	}
	return all
}

// othersPacket differs from one of the tunnel's own in its destination port alone.
func othersPacket() []byte {
	p := outerPacket()
	p[25]++
	return p
}

func TestNothingAllocates(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	s := newQuietSite(t)
	if err := s.AddStatic(station(pinned), "site-b"); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		from *port
		f    []byte
	}{
		{"known", s.local, between(here, a1)},
		{"known, from a peer", s.a, between(a1, here)},
		{"unknown", s.local, between(here, unknown)},
		{"broadcast", s.local, hello(here)},
		{"broadcast of a peer", s.a, hello(a1)},
		{"own packet", s.local, ether(mac(a1), mac(here), outerPacket()...)},
		{"no own packet", s.local, ether(mac(a1), mac(here), othersPacket()...)},
		{"same port", s.a, between(a1, a1)},
		{"split horizon", s.a, between(a1, b1)},
		{"static", s.a, between(pinned, here)},
		{"reserved", s.local, ether(bpdu, mac(here), 8, 0)},
		{"malformed", s.local, hello(here)[:13]},
	} {
		batch := bufs(tt.f)
		if n := testing.AllocsPerRun(100, func() { tt.from.deliver(batch) }); n != 0 {
			t.Errorf("%s: %v allocations a frame", tt.name, n)
		}
	}
	fresh, batch := uint32(1<<20), bufs(hello(0))
	if n := testing.AllocsPerRun(100, func() {
		fresh++
		binary.BigEndian.PutUint32(batch[0].Bytes()[8:], fresh)
		s.a.deliver(batch)
	}); n != 0 {
		t.Errorf("learning: %v allocations a frame", n)
	}
	batch = bufs(between(here, a1), between(here, b1), hello(here), between(here, unknown), between(here, a1))
	if n := testing.AllocsPerRun(100, func() { s.local.deliver(batch) }); n != 0 {
		t.Errorf("a batch that goes all ways: %v allocations", n)
	}
	s.SetLoop(true, true)
	if n := testing.AllocsPerRun(100, func() { s.local.deliver(batch) }); n != 0 {
		t.Errorf("a batch that is cut off: %v allocations", n)
	}
}

// BenchmarkSwitch is what one frame costs in the switch, in batches of the size
// that a TAP hands over under load. Each goroutine has a host of its own, as
// each flow of a TAP and of a peer has.
func BenchmarkSwitch(b *testing.B) {
	const size = 64
	for _, bb := range []struct {
		name string
		to   func(n int) []byte // destination of the n-th frame of a batch
		udp  bool
	}{
		{"known", func(int) []byte { return mac(a1) }, false},
		{"known-udp", func(int) []byte { return mac(a1) }, true},
		{"alternating", func(n int) []byte { return mac([]uint32{a1, b1}[n%2]) }, false},
		{"flood", func(int) []byte { return broadcast }, false},
	} {
		b.Run(bb.name, func(b *testing.B) {
			s := newQuietSite(b)
			var hosts atomic.Uint32
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				src := mac(100 + hosts.Add(1))
				var batch []*frame.Buf
				for n := range size {
					rest := []byte{0x88, 0xb5}
					if bb.udp {
						rest = othersPacket()
					}
					f := make([]byte, 1514)
					copy(f, ether(bb.to(n), src, rest...))
					batch = append(batch, frame.New(f))
				}
				for n := 0; pb.Next(); n++ { // one round is a frame
					if n%size == size-1 {
						s.local.deliver(batch)
					}
				}
			})
		})
	}
}
