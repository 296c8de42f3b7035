// SPDX-License-Identifier: Apache-2.0

package fdb_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/l2bridge/l2bridge/fdb"
	"github.com/l2bridge/l2bridge/internal/frame"
)

func TestRun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tab := fdb.New(fdb.Config{Max: 8})
		p := attach(t, tab, 8)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- tab.Run(ctx) }()

		silent, talks, static := local(1), local(2), local(3)
		tab.Learn(tab.Now(), silent, p)
		tab.Learn(tab.Now(), talks, p)
		if err := tab.AddStatic(static, p); err != nil {
			t.Fatal(err)
		}
		held := func(wantSilent bool, wantCount int) {
			t.Helper()
			synctest.Wait()
			for s, want := range map[frame.Station]bool{silent: wantSilent, talks: true, static: true} {
				if _, ok := tab.Lookup(tab.Now(), s); ok != want {
					t.Errorf("Lookup(%v) = %v, want %v", s, ok, want)
				}
			}
			if n := tab.Count(p); n != wantCount {
				t.Errorf("holds %d, want %d", n, wantCount)
			}
		}
		time.Sleep(fdb.DefaultAgeing / 2)
		tab.Learn(tab.Now(), talks, p)
		held(true, 3)
		time.Sleep(fdb.DefaultAgeing / 2)
		held(true, 3) // 300 s to the instant
		time.Sleep(200 * time.Millisecond)
		held(false, 3) // not found any more, not yet swept
		time.Sleep(time.Second)
		held(false, 2)
		if got := tab.Stats().Expired; got != 1 {
			t.Errorf("expired %d, want 1", got)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

func TestAgeing(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		ageing time.Duration
		alive  fdb.Tick // the last tick at which one seen at 0 is found
	}{
		{0, 3000},
		{time.Nanosecond, 1}, // never too early
		{100 * time.Millisecond, 1},
		{101 * time.Millisecond, 2},
		{15 * time.Second, 150},
		{14 * 365 * 24 * time.Hour, 1<<31 - 1}, // as good as never
		{1<<63 - 1, 1<<31 - 1},
	} {
		t.Run(tt.ageing.String(), func(t *testing.T) {
			t.Parallel()
			tab := fdb.New(fdb.Config{Max: 1, Ageing: tt.ageing})
			tab.Learn(0, local(1), attach(t, tab, 1))
			if _, ok := tab.Lookup(tt.alive, local(1)); !ok {
				t.Errorf("not found at %d", tt.alive)
			}
			if tt.alive == 1<<31-1 {
				return
			}
			if _, ok := tab.Lookup(tt.alive+1, local(1)); ok {
				t.Errorf("found at %d", tt.alive+1)
			}
			if n := tab.Sweep(tt.alive); n != 0 {
				t.Errorf("swept %d at %d", n, tt.alive)
			}
			if n := tab.Sweep(tt.alive + 1); n != 1 {
				t.Errorf("swept %d at %d, want 1", n, tt.alive+1)
			}
		})
	}
}
