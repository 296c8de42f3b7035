// SPDX-License-Identifier: Apache-2.0

package fdb_test

import (
	"testing"

	"github.com/l2bridge/l2bridge/fdb"
	"github.com/l2bridge/l2bridge/internal/frame"
)

func TestReservations(t *testing.T) {
	t.Parallel()
	tab := fdb.New(fdb.Config{Max: 10})
	grant := func(quota, want int) fdb.Port {
		t.Helper()
		p, granted, err := tab.Attach(quota)
		if err != nil || granted != want {
			t.Fatalf("Attach(%d) granted %d, %v, want %d", quota, granted, err, want)
		}
		return p
	}
	grant(4, 4)
	b := grant(5, 5)
	grant(5, 1) // what is left
	none := grant(5, 0)
	grant(-1, 0)
	if v := tab.Learn(0, local(1), none); v != fdb.Full {
		t.Errorf("Learn at a port without room: %v", v)
	}
	tab.Detach(b)
	tab.Detach(b) // harmless, and gives nothing back twice
	tab.Detach(0)
	tab.Detach(fdb.MaxPorts + 1)
	grant(10, 5)
	grant(1, 0)
}

func TestPortNumbers(t *testing.T) {
	t.Parallel()
	tab := fdb.New(fdb.Config{Max: 1})
	const kept = fdb.Port(2)
	for want := fdb.Port(1); want <= fdb.MaxPorts; want++ {
		if p := attach(t, tab, 0); p != want {
			t.Fatalf("Attach = %d, want %d", p, want)
		}
	}
	if p, _, err := tab.Attach(0); err == nil {
		t.Fatalf("one port too many: %d", p)
	}
	for p := fdb.Port(1); p <= fdb.MaxPorts; p++ {
		if p != kept {
			tab.Detach(p)
		}
	}
	for _, want := range []fdb.Port{1, 3, 4} { // round, past the one that is taken
		if p := attach(t, tab, 0); p != want {
			t.Errorf("Attach = %d, want %d", p, want)
		}
	}
	tab.Detach(4)
	if p := attach(t, tab, 0); p != 5 {
		t.Errorf("Attach = %d: 4 was given out again too soon", p)
	}
}

func TestDetachGivesStaticUp(t *testing.T) {
	t.Parallel()
	tab := fdb.New(fdb.Config{Max: 4})
	a, b := attach(t, tab, 2), attach(t, tab, 2)
	if err := tab.AddStatic(local(1), a); err != nil {
		t.Fatal(err)
	}
	tab.Learn(0, local(2), a)
	tab.Learn(0, local(3), b)
	tab.Detach(a)
	for s, want := range map[frame.Station]fdb.Port{local(1): 0, local(2): 0, local(3): b} {
		if p, _ := tab.Lookup(0, s); p != want {
			t.Errorf("Lookup(%v) = %d, want %d", s, p, want)
		}
	}
}
