// SPDX-License-Identifier: Apache-2.0

package transport_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/l2bridge/l2bridge/transport"
	"github.com/l2bridge/l2bridge/transport/probe"
)

func drops(n *node, reason string) (count uint64) {
	for _, d := range n.Drops() {
		if d.Reason == reason {
			count += d.Count
		}
	}
	return count
}

// A test finds the rates that two sites are held to, one each way, and disturbs
// nobody. Without loss nothing is lost; with it no more than that of the
// datagrams that a frame is in, and less where parity makes some good.
func TestMeasure(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name     string
		up, down uint64 // bits a second
		loss     float64
		least    float64 // of the rate, to be found
		late     uint64  // frames that may come: both of a size that was tried again
	}{
		{"clean", 20_000_000, 5_000_000, 0, 0.8, 0},
		{"loss", 4_000_000, 4_000_000, 0.01, 0.3, 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ms := members(t, "home", "office")
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				home := w.run(t, ms[0], homeAddr, nil, func(c *transport.Config) { c.Rate = tt.down })
				office := w.run(t, ms[1], officeAddr, []string{homePort}, func(c *transport.Config) { c.Rate = tt.up })
				until(t, "up", time.Second, connected(home, office))
				time.Sleep(5 * time.Second) // the path is found
				w.set(func() { w.loss = tt.loss })
				var phases []probe.Phase
				begin := time.Now()
				r, err := office.Test(t.Context(), "home", 4*time.Second, func(p probe.Progress) {
					if len(phases) == 0 || phases[len(phases)-1] != p.Phase {
						phases = append(phases, p.Phase)
					}
				})
				if err != nil {
					t.Fatal(err)
				}
				t.Logf("%v %+v", time.Since(begin), r)
				if r.Addr != homePort || r.Lanes < 1 || r.PathMTU < 1200 || !r.Superframes || len(phases) != 4 {
					t.Errorf("phases %v, %+v", phases, r)
				}
				for name, way := range map[string]struct {
					probe.Direction
					rate uint64
				}{"up": {r.Up, tt.up}, "down": {r.Down, tt.down}} {
					if got := float64(way.BitsPS) / float64(way.rate); got < tt.least || got > 1 {
						t.Errorf("%s: %d bit/s of %d", name, way.BitsPS, way.rate)
					}
					const untold = 6 // of the last ones that a queue drops nobody is told
					if got := float64(way.Lost-min(way.Lost, untold)) / float64(way.Sent-way.Dropped); got > 0.002+3*tt.loss {
						t.Errorf("%s: %d of %d lost", name, way.Lost, way.Sent)
					}
					if way.RTT.P99 > 60*time.Millisecond && tt.loss == 0 {
						t.Errorf("%s: round trips of %v", name, way.RTT.P99)
					}
				}
				if r.Sizes.Sent != 1501 || r.Sizes.Received != 1501 || len(r.Sizes.Failed) > 0 {
					t.Errorf("sizes %+v", r.Sizes)
				}
				w.set(func() { w.loss = 0 })
				time.Sleep(15 * time.Second) // CoDel and congestion control calm down
				exchange(t, home, office, 10)
				if n := drops(home, "test") + drops(office, "test"); n > tt.late {
					t.Errorf("%d frames of the test were not expected", n)
				}
			})
		})
	}
}

// What the sites' LANs do not take does not pass, and is told.
func TestMeasureNarrow(t *testing.T) {
	t.Parallel()
	ms := members(t, "home", "office")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		rate := func(c *transport.Config) { c.Rate = 20_000_000 }
		home := w.run(t, ms[0], homeAddr, nil, rate, func(c *transport.Config) { c.MTU = 1400 })
		office := w.run(t, ms[1], officeAddr, []string{homePort}, rate)
		until(t, "up", time.Second, connected(home, office))
		r, err := office.Test(t.Context(), "home", time.Second, func(probe.Progress) {})
		if want := (probe.Range{From: 1415, To: 1514}); err != nil || len(r.Sizes.Failed) != 1 || r.Sizes.Failed[0] != want || r.Sizes.Received != 1401 {
			t.Errorf("%v, sizes %+v, want %v to fail", err, r.Sizes, want)
		}
		if r.Up.BitsPS < 10_000_000 || r.Down.BitsPS < 10_000_000 {
			t.Errorf("%+v", r)
		}
		r, err = home.Test(t.Context(), "office", time.Second, func(probe.Progress) {})
		if err != nil || len(r.Sizes.Failed) != 0 || r.Sizes.Most != 1414 {
			t.Errorf("the other way round: %v, %+v", err, r.Sizes)
		}
	})
}

func TestMeasureFails(t *testing.T) {
	ms := members(t, "home", "office", "attic")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		rate := func(c *transport.Config) { c.Rate = 5_000_000 }
		home := w.run(t, ms[0], homeAddr, nil, rate)
		office := w.run(t, ms[1], officeAddr, []string{homePort}, rate)
		until(t, "up", time.Second, connected(home, office))
		quiet := func(probe.Progress) {}

		_, err := home.Test(t.Context(), "cabin", time.Second, quiet)
		if !errors.Is(err, transport.ErrNoPeer) || !strings.Contains(err.Error(), "there are: office") {
			t.Errorf("no such site: %v", err)
		}

		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			_, err := home.Test(ctx, "office", 30*time.Second, quiet)
			done <- err
		}()
		time.Sleep(3 * time.Second)
		if _, err := home.Test(t.Context(), "office", time.Second, quiet); !errors.Is(err, probe.ErrBusy) {
			t.Errorf("a second one: %v", err)
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("interrupted: %v", err)
		}

		go func() {
			_, err := home.Test(t.Context(), "office", 30*time.Second, quiet)
			done <- err
		}()
		time.Sleep(3 * time.Second)
		office.stop()
		if err := <-done; err == nil || !strings.Contains(err.Error(), "the session has ended") {
			t.Errorf("the peer went: %v", err)
		}
		if _, err := home.Test(t.Context(), "office", time.Second, quiet); !errors.Is(err, transport.ErrNotUp) {
			t.Errorf("to a peer that is down: %v", err)
		}
	})
}

// A member that asks for a download and goes on forging gets no more than its
// grants allow, and what is no test is counted.
func TestHostileTest(t *testing.T) {
	evilWorld(t, func(t *testing.T, _ *world, home *node, e *evil) {
		_, data, _ := e.session(1)
		grant := func(run, total uint32, length uint16) []byte {
			f := make([]byte, 60)
			copy(f, []byte{0x02, 0x6c, 0x32, 0x62, 0, 5, 2, 0, 0, 0, 0, byte(run), 0x88, 0xb5,
				byte(total >> 24), byte(total >> 16), byte(total >> 8), byte(total), byte(length >> 8), byte(length)})
			return append([]byte{0, 0, 0x81, 0, byte(len(f))}, f...)
		}
		came := make(chan int)
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		go func() {
			n := 0
			for {
				d, err := data.ReceiveDatagram(ctx)
				if err != nil {
					came <- n
					return
				}
				n += bytes.Count(d, []byte{0x02, 0x6c, 0x32, 0x62, 0, 6})
			}
		}()
		for _, d := range [][]byte{
			grant(1, 1<<31, 100),                  // 256 of them
			grant(1, 10, 100), grant(1, 256, 100), // no more
			grant(1, 1000, 31), grant(1, 1000, 1515), // malformed
			{0, 0, 0x81, 0, 14, 1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 5, 6, 8, 0},
			{0, 0, 0x81, 0, 14, 0x02, 0x6c, 0x32, 0x62, 0, 2, 2, 0, 0, 0, 0, 1, 0x88, 0xb5}, // a REPLY to nothing
			{0, 0, 0x81, 0, 14, 0x02, 0x6c, 0x32, 0x62, 16, 1, 2, 0, 0, 0, 0, 1, 0x88, 0xb5},
			{0, 0, 0x81, 0, 14, 0x02, 0x6c, 0x32, 0x62, 0, 9, 2, 0, 0, 0, 0, 1, 0x88, 0xb5},
			{0, 0, 0x81, 0, 14, 0x02, 0x6c, 0x32, 0x62, 0, 3, 2, 0, 0, 0, 0, 1, 0x88, 0xb5}, // UP without fields
		} {
			if err := data.SendDatagram(d); err != nil {
				t.Fatal(err)
			}
			time.Sleep(50 * time.Millisecond)
		}
		if n := <-came; n != 256 {
			t.Errorf("%d frames came, want 256", n)
		}
		if n := drops(home, "test"); n != 7 {
			t.Errorf("%d drops, want 7: %v", n, home.Drops())
		}
	})
}
