// SPDX-License-Identifier: Apache-2.0

package fdb_test

import (
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/l2bridge/l2bridge/fdb"
	"github.com/l2bridge/l2bridge/internal/frame"
)

// Every change is told once, and nothing else is.
func TestChanged(t *testing.T) {
	t.Parallel()
	var got []fdb.Change
	tab := fdb.New(fdb.Config{Max: 8, Ageing: time.Second, Changed: func(c fdb.Change) { got = append(got, c) }})
	a, b, full := attach(t, tab, 4), attach(t, tab, 4), attach(t, tab, 0)
	const aged = fdb.Tick(12) // 1 s and what a tick is off
	want := func(step string, changes ...fdb.Change) {
		t.Helper()
		if diff := cmp.Diff(changes, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", step, diff)
		}
		got = nil
	}
	learn := func(now fdb.Tick, s frame.Station, p fdb.Port) { tab.Learn(now, s, p) }

	learn(0, local(1), a)
	want("new", fdb.Change{Kind: fdb.Appeared, Station: local(1), Port: a})
	learn(0, local(1), a)
	learn(1, local(1), a)
	want("known")
	learn(1, local(1), b)
	want("moved", fdb.Change{Kind: fdb.Relocated, Station: local(1), Port: b, From: a})
	learn(1, local(1), full)
	learn(1, local(2), full)
	learn(1, 0, a)
	want("full and refused")
	if n := tab.Sweep(1); n != 0 {
		t.Errorf("swept %d", n)
	}
	want("nothing aged")
	tab.Sweep(1 + aged)
	want("aged", fdb.Change{Kind: fdb.Aged, Station: local(1), Port: b})
	if err := tab.AddStatic(local(3), a); err != nil {
		t.Fatal(err)
	}
	want("static", fdb.Change{Kind: fdb.Fixed, Station: local(3), Port: a})
	if err := tab.AddStatic(local(3), full); err == nil {
		t.Error("a static station where there is no room")
	}
	learn(1, local(3), b)
	want("static elsewhere")
	tab.Delete(local(3))
	tab.Delete(local(3))
	want("deleted", fdb.Change{Kind: fdb.Deleted, Station: local(3), Port: a})
	learn(1, local(4), a)
	learn(1, local(5), b)
	got = nil
	tab.Flush(a)
	want("flushed", fdb.Change{Kind: fdb.Deleted, Station: local(4), Port: a})
	tab.Detach(b)
	want("gone with the port")
}

// The one who is told may use the table: no lock is held.
func TestChangedMayAsk(t *testing.T) {
	t.Parallel()
	var tab *fdb.Table
	var mu sync.Mutex
	told := make(map[fdb.ChangeKind]int)
	tab = fdb.New(fdb.Config{Max: 64, Changed: func(c fdb.Change) {
		tab.Stats()
		tab.Get(c.Station)
		mu.Lock()
		defer mu.Unlock()
		told[c.Kind]++
	}})
	p := attach(t, tab, 64)
	var all sync.WaitGroup
	for g := range 4 {
		all.Go(func() {
			for n := range 1000 {
				s := local(g<<8 | n%16)
				tab.Learn(tab.Now(), s, p)
				tab.Delete(s)
			}
		})
	}
	all.Wait()
	if diff := cmp.Diff(map[fdb.ChangeKind]int{fdb.Appeared: 4000, fdb.Deleted: 4000}, told); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestChangeKindNames(t *testing.T) {
	t.Parallel()
	var got []string
	for k := fdb.Appeared; k <= fdb.Fixed; k++ {
		got = append(got, k.String())
	}
	if diff := cmp.Diff([]string{"learned", "moved", "aged", "deleted", "added"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
