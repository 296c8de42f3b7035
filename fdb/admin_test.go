// SPDX-License-Identifier: Apache-2.0

package fdb_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/l2bridge/l2bridge/fdb"
	"github.com/l2bridge/l2bridge/internal/frame"
)

func TestAddStatic(t *testing.T) {
	t.Parallel()
	const a, b = fdb.Port(1), fdb.Port(2)
	for _, tt := range []struct {
		name    string
		s       frame.Station
		p       fdb.Port
		wantErr string
		want    fdb.Port // of s afterwards
	}{
		{"unknown", local(9), a, "", a},
		{"learned there", local(1), a, "", a},
		{"learned elsewhere", local(1), b, "station 02:00:00:00:00:01: port 2 holds 1 stations, its limit (flush some, or raise the limit)", a},
		{"learned at a full port, there", local(2), b, "", b},
		{"taken from a full port", local(2), a, "", a},
		{"static elsewhere", local(3), a, "", a},
		{"broadcast", 0xff_ff_ff_ff_ff_ff, a, "station ff:ff:ff:ff:ff:ff: not the address of one station", 0},
		{"zero", 5 << 48, a, "station 00:00:00:00:00:00 vlan 5: not the address of one station", 0},
		{"no port", local(9), 0, "station 02:00:00:00:00:09: port 0 is not attached", 0},
		{"no such port", local(9), 77, "station 02:00:00:00:00:09: port 77 is not attached", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tab := fdb.New(fdb.Config{Max: 8})
			attach(t, tab, 2)
			attach(t, tab, 1)
			c := attach(t, tab, 1)
			now := tab.Now()
			tab.Learn(now, local(1), a)
			tab.Learn(now, local(2), b)
			if err := tab.AddStatic(local(3), c); err != nil {
				t.Fatal(err)
			}
			got := ""
			if err := tab.AddStatic(tt.s, tt.p); err != nil {
				got = err.Error()
			}
			if d := cmp.Diff(tt.wantErr, got); d != "" {
				t.Errorf("error (-want +got):\n%s", d)
			}
			e, _ := tab.Get(tt.s)
			if e.Port != tt.want || e.Static != (tt.wantErr == "") {
				t.Errorf("Get = %+v, want port %d", e, tt.want)
			}
		})
	}
}

// TestEntriesStops also calls the table while it has an entry in hand.
func TestEntriesStops(t *testing.T) {
	t.Parallel()
	tab := fdb.New(fdb.Config{Max: 4})
	p := attach(t, tab, 4)
	for i := range 4 {
		tab.Learn(0, local(i), p)
	}
	n := 0
	for e := range tab.Entries() {
		if !tab.Delete(e.Station) {
			t.Errorf("%v is not there", e.Station)
		}
		if n++; n == 3 {
			break
		}
	}
	if got := tab.Stats().Entries; n != 3 || got != 1 {
		t.Errorf("yielded %d and left %d, want 3 and 1", n, got)
	}
}
