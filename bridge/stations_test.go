// SPDX-License-Identifier: Apache-2.0

package bridge_test

import (
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"github.com/l2bridge/l2bridge/bridge"
	"github.com/l2bridge/l2bridge/fdb"
	"github.com/l2bridge/l2bridge/internal/frame"
)

func listing(t *testing.T, sw *bridge.Switch, want ...bridge.Station) {
	t.Helper()
	if diff := cmp.Diff(want, sw.Stations()); diff != "" {
		t.Errorf("stations (-want +got):\n%s", diff)
	}
}

func TestStationsAreInOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { // ages are listed
		s := newSite(t, bridge.Config{})
		tag := []byte{0x81, 0, 0, 5, 8, 0}
		s.a.input(ether(broadcast, mac(1), tag...), hello(2))
		s.local.input(hello(3), hello(1))
		listing(t, s.Switch,
			bridge.Station{Station: station(1), Port: "local"},
			bridge.Station{Station: station(2), Port: "site-a"},
			bridge.Station{Station: station(3), Port: "local"},
			bridge.Station{Station: frame.NewStation(mac(1), 5), Port: "site-a"},
		)
	})
}

func TestPortName(t *testing.T) {
	t.Parallel()
	s := newSite(t, bridge.Config{})
	s.a.input(hello(2))
	id, _ := s.table.Lookup(s.table.Now(), station(2))
	for id, want := range map[fdb.Port]string{id: "site-a", 0: "", fdb.MaxPorts: ""} {
		if name := s.PortName(id); name != want {
			t.Errorf("port %d is called %q, want %q", id, name, want)
		}
	}
}

// TestStaticOutlivesItsPort follows a static entry whose port comes and goes.
func TestStaticOutlivesItsPort(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { // ages are listed
		s := newSite(t, bridge.Config{})
		pin := bridge.Station{Station: station(41), Port: "site-d", Static: true}
		s.b.input(hello(41)) // what was learned gives way
		if err := s.AddStatic(pin.Station, pin.Port); err != nil {
			t.Fatal(err)
		}
		listing(t, s.Switch, pin)

		attach(t, s.Switch, "site-e", bridge.Mesh, 10)
		listing(t, s.Switch, pin)
		if _, _, ok := s.Behind(station(41)); ok {
			t.Error("a static entry is at the port of another site")
		}
		s.local.input(between(here, 41))
		if got := len(s.a.take()); got != 1 {
			t.Errorf("a station whose port is away is flooded %d times, want once", got)
		}
		s.Delete(station(here))

		s.b.input(hello(41)) // not bound as long as its port is away
		listing(t, s.Switch, bridge.Station{Station: station(41), Port: "site-b"})

		for range 2 {
			d := attach(t, s.Switch, "site-d", bridge.Mesh, 10)
			listing(t, s.Switch, pin)
			s.b.input(hello(41))
			listing(t, s.Switch, pin)
			d.detach()
			listing(t, s.Switch, pin)
		}
		if diff := cmp.Diff(map[frame.Station]string{pin.Station: pin.Port}, s.Statics()); diff != "" {
			t.Errorf("static entries (-want +got):\n%s", diff)
		}
		if !s.Delete(pin.Station) || s.Delete(pin.Station) {
			t.Error("a waiting static entry is not deleted once")
		}
		listing(t, s.Switch)
	})
}

// TestStaticFindsNoRoom: an entry that cannot be made leaves what was there.
func TestStaticFindsNoRoom(t *testing.T) {
	t.Parallel()
	sw := bridge.New(bridge.Config{Table: fdb.New(fdb.Config{Max: 8})})
	attach(t, sw, "site-a", bridge.Mesh, 1)
	b := attach(t, sw, "site-b", bridge.Mesh, 2)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(sw.AddStatic(station(1), "site-a"))
	must(sw.AddStatic(station(2), "site-b"))
	b.input(hello(3))
	want := sw.Stations()
	for _, n := range []uint32{2, 3, 4} {
		err := sw.AddStatic(station(n), "site-a")
		if err == nil || !strings.Contains(err.Error(), "site-a") {
			t.Errorf("static entry %d at a full port: %v", n, err)
		}
	}
	listing(t, sw, want...)
	must(sw.AddStatic(station(1), "site-a")) // again
	sw.Flush("")
	must(sw.AddStatic(station(1), "site-b")) // moves
	must(sw.AddStatic(station(2), "site-a"))
	listing(t, sw,
		bridge.Station{Station: station(1), Port: "site-b", Static: true},
		bridge.Station{Station: station(2), Port: "site-a", Static: true},
	)
}

// TestStaticsBeyondTheRoom has a port come back smaller than its static entries:
// the lowest of them have room, the others wait and can still be deleted.
func TestStaticsBeyondTheRoom(t *testing.T) {
	t.Parallel()
	s := newSite(t, bridge.Config{})
	for n := range uint32(4) {
		if err := s.AddStatic(station(n+1), "site-d"); err != nil {
			t.Fatal(err)
		}
	}
	attach(t, s.Switch, "site-d", bridge.Mesh, 2)
	for n := range uint32(4) {
		if _, _, ok := s.Behind(station(n + 1)); ok != (n < 2) {
			t.Errorf("static entry %d is in the table: %v", n+1, ok)
		}
	}
	if got := len(s.Stations()); got != 4 {
		t.Errorf("%d stations listed, want 4", got)
	}
	if !s.Delete(station(4)) {
		t.Error("a static entry without room is not deleted")
	}
}

func TestStaticRefused(t *testing.T) {
	t.Parallel()
	sw := bridge.New(bridge.Config{Table: fdb.New(fdb.Config{})})
	for _, address := range []frame.Station{frame.NewStation(group, 0), frame.NewStation(broadcast, 5), frame.NewStation(zero, 5)} {
		if err := sw.AddStatic(address, "local"); err == nil {
			t.Errorf("AddStatic(%v) is taken", address)
		}
	}
	for n := range uint32(bridge.MaxStatics) {
		if err := sw.AddStatic(station(n+1), "site-a"); err != nil {
			t.Fatal(err)
		}
	}
	if err := sw.AddStatic(station(bridge.MaxStatics+1), "site-a"); err == nil || !strings.Contains(err.Error(), "1024") {
		t.Errorf("one static entry too many: %v", err)
	}
	if err := sw.AddStatic(station(1), "site-b"); err != nil {
		t.Errorf("a change of an entry, when all are used: %v", err)
	}
}

func TestFlush(t *testing.T) {
	t.Parallel()
	s := newSite(t, bridge.Config{})
	pin := bridge.Station{Station: station(pinned), Port: "site-b", Static: true}
	if err := s.AddStatic(pin.Station, pin.Port); err != nil {
		t.Fatal(err)
	}
	s.a.input(hello(a1), hello(a2))
	s.b.input(hello(b1))
	for _, tt := range []struct {
		port string
		want int
	}{{"site-a", 2}, {"site-a", 0}, {"", 1}, {"", 0}} {
		if n, err := s.Flush(tt.port); n != tt.want || err != nil {
			t.Errorf("Flush(%q) = %d, %v, want %d", tt.port, n, err, tt.want)
		}
	}
	listing(t, s.Switch, pin)
	_, err := s.Flush("attic")
	const want = `flush: no port "attic" (want one of: local, site-a, site-b, site-c)`
	if err == nil || err.Error() != want {
		t.Errorf("Flush of an unknown port: %v, want %s", err, want)
	}
}

func TestUnknownPort(t *testing.T) {
	t.Parallel()
	s := newSite(t, bridge.Config{})
	if n := s.Count("attic"); n != 0 {
		t.Errorf("Count of an unknown port = %d", n)
	}
	if name, _, ok := s.Behind(station(unknown)); ok {
		t.Errorf("an unknown station is behind %q", name)
	}
}
