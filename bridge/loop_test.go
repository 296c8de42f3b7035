// SPDX-License-Identifier: Apache-2.0

package bridge_test

import (
	"bytes"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/l2bridge/l2bridge/bridge"
	"github.com/l2bridge/l2bridge/bridge/guard"
)

var self, other = guard.ID{2}, guard.ID{1}

func probe(kind guard.Kind, id guard.ID, network string) []byte {
	b := guard.Probe{Kind: kind, ID: id, Network: network}.Frame()
	defer b.Release()
	return bytes.Clone(b.Bytes())
}

func newLoopSite(t *testing.T) (*site, *guard.Loop) {
	l := guard.NewLoop("net", self)
	l.SetPeers(map[guard.ID]string{other: "site-a"})
	return newSite(t, bridge.Config{Loop: l}), l
}

// TestProbesEndHere: no probe of our network goes from a port to another one,
// none teaches a station, and only those of the LAN are heard.
func TestProbesEndHere(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		local  bool
		frame  []byte
		heard  bool
		passes bool
	}{
		{name: "of the LAN", local: true, frame: probe(guard.KindLoop, other, "net"), heard: true},
		{name: "our own", local: true, frame: probe(guard.KindLoop, self, "net"), heard: true},
		{name: "of a peer", frame: probe(guard.KindLoop, other, "net")},
		{name: "flush from the LAN", local: true, frame: probe(guard.KindFlush, other, "net")},
		{name: "of a version to come", local: true, frame: append(probe(guard.KindLoop, other, "net")[:18], 9, 9, 9)},
		{name: "of a network before ours", local: true, frame: probe(guard.KindLoop, other, "a")},
		{name: "of a network behind ours", local: true, frame: probe(guard.KindLoop, other, "z"), passes: true},
		{name: "of a network behind ours, from a peer", frame: probe(guard.KindLoop, other, "z"), passes: true},
		{name: "like a probe", local: true, frame: append(hello(here)[:12], 0x88, 0xb6, 'l', '2', 'b', '?'), passes: true},
		{name: "cut short", local: true, frame: append(hello(here)[:12], 0x88, 0xb6, 'l', '2', 'b'), passes: true},
	} {
		s, l := newLoopSite(t)
		from, to := s.a, s.local
		if tt.local {
			from, to = s.local, s.b
		}
		from.input(tt.frame)
		if got := len(to.take()) > 0; got != tt.passes {
			t.Errorf("%s: passes %v, want %v", tt.name, got, tt.passes)
		}
		if got := !l.Judge().Equal(guard.Verdict{}); got != tt.heard {
			t.Errorf("%s: heard %v, want %v", tt.name, got, tt.heard)
		}
		if got := s.Stations(); !tt.passes && len(got) > 0 {
			t.Errorf("%s: learned %v", tt.name, got)
		}
		if got := s.Drops(); len(got) > 0 {
			t.Errorf("%s: dropped %v", tt.name, got)
		}
	}
}

// TestCut: while the LAN is cut off nothing passes either way, and nothing is
// learned, but for probes and what the gateway itself sends.
func TestCut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { // ages are listed
		s, l := newLoopSite(t)
		s.local.input(hello(here))
		s.a.input(hello(a1))
		all := []*port{s.local, s.a, s.b, s.c}
		for _, p := range all {
			p.take()
		}
		before := s.Stations()

		s.SetLoop(true, true)
		late := attach(t, s.Switch, "site-d", bridge.Mesh, 10)
		for _, p := range []*port{s.local, s.a, late} {
			p.input(hello(77), between(77, here), between(77, a1), between(77, unknown), between(here, a1))
		}
		s.local.input(probe(guard.KindLoop, other, "net"))
		for _, p := range append(all, late) {
			if got := p.take(); len(got) > 0 {
				t.Errorf("%s was sent %x", p, got)
			}
		}
		if diff := cmp.Diff(before, s.Stations()); diff != "" {
			t.Errorf("stations (-before +after):\n%s", diff)
		}
		want := []bridge.Drop{
			{Reason: "loop", Port: "local", Count: 5},
			{Reason: "loop", Port: "site-a", Count: 5},
			{Reason: "loop", Port: "site-d", Count: 5},
		}
		if diff := cmp.Diff(want, s.Drops()); diff != "" {
			t.Errorf("drops (-want +got):\n%s", diff)
		}
		if !l.Judge().Cut {
			t.Error("a probe was not heard")
		}

		b := l.Frame(guard.KindLoop)
		s.Send(bridge.Local, b)
		s.Send(bridge.Mesh, b)
		b.Release()
		for _, p := range append(all, late) {
			if got := len(p.take()); got != 1 {
				t.Errorf("%s was sent %d of our frames, want 1", p, got)
			}
		}

		s.SetLoop(false, false)
		s.local.input(between(here, a1))
		if got := len(s.a.take()); got != 1 {
			t.Errorf("after the cut the peer was sent %d frames, want 1", got)
		}
	})
}

// TestPeerAsksForFlush: a peer's word that what is behind it has moved makes us
// forget that, and nothing of anybody else, ten times a second at most.
func TestPeerAsksForFlush(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, _ := newLoopSite(t)
		s.local.input(hello(here))
		s.b.input(hello(b1))
		if err := s.AddStatic(station(pinned), "site-a"); err != nil {
			t.Fatal(err)
		}
		flush, foreign := probe(guard.KindFlush, other, "net"), probe(guard.KindFlush, other, "a")
		count := func(want int) {
			t.Helper()
			if got := s.Count("site-a"); got != want {
				t.Errorf("%d stations behind the peer, want %d", got, want)
			}
		}
		for range 2 {
			s.a.input(hello(a1), hello(a2), foreign)
			count(3)
			s.a.input(flush, hello(a1), flush)
			count(2)
			time.Sleep(100 * time.Millisecond)
		}
		s.local.input(flush)
		s.a.input(flush)
		count(1)
		if got := len(s.Stations()); got != 3 {
			t.Errorf("%d stations left, want those of the others and the static one", got)
		}
	})
}

// TestAsks: where LANs are joined, a frame of ours for a station that a switch
// believes to be behind the tunnel has that station asked after.
func TestAsks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, l := newLoopSite(t)
		ip := []byte{0x08, 0x00, 0x45, 0, 0, 20, 0, 0, 0, 0, 64, 1, 0, 0, 10, 77, 0, 1, 10, 77, 0, 2}
		to := func(n uint32) []byte { return ether(mac(n), mac(here), ip...) }
		questions := func(what string, want int) {
			t.Helper()
			got := s.local.take()
			for _, f := range got {
				if !bytes.Equal(f[12:14], []byte{0x08, 0x06}) || !bytes.Equal(f[38:42], []byte{10, 77, 0, 2}) {
					t.Errorf("%s: asked %x", what, f)
				}
			}
			if len(got) != want {
				t.Errorf("%s: asked %d times, want %d", what, len(got), want)
			}
		}
		s.local.input(hello(here), to(unknown))
		questions("not joined", 0)
		s.SetLoop(true, false)
		s.local.input(to(unknown), to(unknown))
		questions("unknown", 1)
		s.local.input(to(here))
		questions("on this LAN", 1)
		s.a.input(hello(a1))
		s.local.take()
		s.local.input(to(a1), hello(here), between(here, unknown+1))
		s.b.input(ether(mac(here), mac(b1), ip...), ether(mac(a1), mac(b1), ip...))
		for _, f := range s.local.take() {
			if bytes.Equal(f[12:14], []byte{0x08, 0x06}) {
				t.Errorf("asked %x", f)
			}
		}
		time.Sleep(900 * time.Millisecond)
		s.local.input(to(unknown))
		questions("too soon", 0)
		time.Sleep(100 * time.Millisecond)
		s.local.input(to(unknown))
		questions("a second later", 1)
		s.SetLoop(true, true)
		time.Sleep(time.Second)
		s.local.input(to(unknown), to(a1))
		questions("cut", 2)

		// The answer ends here, and tells where its sender is.
		s.SetLoop(true, false)
		for _, p := range []*port{s.a, s.b, s.c} {
			p.take()
		}
		s.local.input(ether(l.Own().MAC(), mac(a1), 0x08, 0x06))
		for _, p := range []*port{s.a, s.b, s.c} {
			if got := p.take(); len(got) > 0 {
				t.Errorf("%s was sent %x", p, got)
			}
		}
		if name, _, _ := s.Behind(station(a1)); name != "local" {
			t.Errorf("the station that answered is at %q", name)
		}
	})
}
