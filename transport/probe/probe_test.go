// SPDX-License-Identifier: Apache-2.0

package probe_test

import (
	"bytes"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/l2bridge/l2bridge/internal/frame"
	"github.com/l2bridge/l2bridge/transport/egress"
	"github.com/l2bridge/l2bridge/transport/probe"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// way is one direction between two gateways: a queue of bounded length, a line of
// a given rate, and a path with a delay that loses frames. Pings do not wait
// behind the load, as in a fair queue.
type way struct {
	rate  float64 // bits a second
	delay time.Duration
	loss  float64
	queue time.Duration // what it holds
	most  int           // longer frames vanish; 0 for none
	to    *probe.End
	mtu   int

	mu     sync.Mutex // guards what follows
	draws  map[draw]*rand.Rand
	free   time.Time // when the line has sent all it has
	full   uint64
	pushed int
	odd    int // frames that were not expected
	wg     sync.WaitGroup
}

// draw is what has a fate of its own: the pings, the load of a stream, a size. What
// becomes of them is then the same in each run, whichever goroutine comes first.
type draw struct {
	stream byte
	length int
}

func (w *way) losesLocked(b *frame.Buf) bool {
	d := draw{b.Bytes()[4], b.Len()}
	if w.draws[d] == nil {
		w.draws[d] = rand.New(rand.NewPCG(uint64(d.stream), uint64(d.length)))
	}
	return w.draws[d].Float64() < w.loss
}

func (w *way) Stats() egress.Stats {
	w.mu.Lock()
	defer w.mu.Unlock()
	waits := max(0, time.Until(w.free))
	return egress.Stats{Full: w.full, Bytes: int(waits.Seconds() * w.rate / 8)}
}

func (w *way) Push(frames []*frame.Buf) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	for _, b := range frames {
		w.pushed++
		if w.free.Before(now) {
			w.free = now
		}
		at := now
		if f := b.Bytes(); f[4] < 8 && (f[5] == 3 || f[5] == 6) || f[4] == 14 {
			if w.free.Sub(now) > w.queue {
				w.full++
				continue
			}
			w.free = w.free.Add(time.Duration(float64(b.Len()) * 8 / w.rate * float64(time.Second)))
			at = w.free
		}
		if !b.IsTest() || w.losesLocked(b) || w.most > 0 && b.Len() > w.most {
			continue
		}
		f := bytes.Clone(b.Bytes())
		w.wg.Go(func() {
			time.Sleep(time.Until(at) + w.delay)
			if !w.to.Take(f, w.mtu) {
				w.mu.Lock()
				w.odd++
				w.mu.Unlock()
			}
		})
	}
}

// pair is two gateways and the ways between them.
func pair(there, back *way) (a, b *probe.End) {
	a, b = probe.New(there), probe.New(back)
	there.to, back.to = b, a
	for _, w := range []*way{there, back} {
		w.draws = make(map[draw]*rand.Rand)
		if w.mtu == 0 {
			w.mtu = 1500
		}
		if w.queue == 0 {
			w.queue = 50 * time.Millisecond
		}
	}
	return a, b
}

func between[T int | uint64 | float64 | time.Duration](t *testing.T, what string, got, least, most T) {
	t.Helper()
	if got < least || got > most {
		t.Errorf("%s: %v, want %v to %v", what, got, least, most)
	}
}

func TestFigures(t *testing.T) {
	for _, tt := range []struct {
		name     string
		up, down float64 // Mbit/s
		delay    time.Duration
		loss     float64
		queue    time.Duration // that the line holds
		time     time.Duration
		least    float64 // of the rate that is to be found
		dropped  float64 // of the frames, at most
	}{
		{name: "a line at home", up: 20, down: 100, delay: 10 * time.Millisecond, least: 0.85},
		{name: "a slow line", up: 1, down: 4, delay: 20 * time.Millisecond, queue: 300 * time.Millisecond, least: 0.8, dropped: 0.4},
		{name: "a LAN", up: 300, down: 300, delay: 200 * time.Microsecond, least: 0.9, time: time.Second},
		{name: "far away", up: 50, down: 50, delay: 150 * time.Millisecond, least: 0.6, dropped: 0.4},
		{name: "loss", up: 20, down: 20, delay: 10 * time.Millisecond, loss: 0.02, least: 0.8},
		{name: "much loss", up: 5, down: 5, delay: 10 * time.Millisecond, loss: 0.1, least: 0.6},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				there, back := &way{rate: tt.up * 1e6, delay: tt.delay, loss: tt.loss, queue: tt.queue}, &way{rate: tt.down * 1e6, delay: tt.delay, loss: tt.loss, queue: tt.queue}
				a, _ := pair(there, back)
				if tt.time == 0 {
					tt.time = 4 * time.Second
				}
				begin := time.Now()
				r, err := a.Run(t.Context(), tt.time, 1500, 1500, func(probe.Progress) {})
				if err != nil {
					t.Fatal(err)
				}
				t.Logf("%+v", r)
				between(t, "time", time.Since(begin), 2*tt.time, 2*tt.time+16*time.Second)
				between(t, "least idle round trip", r.Idle.Min, 2*tt.delay, 2*tt.delay+time.Millisecond)
				between(t, "pings", r.Idle.Sent, 49, 51)
				for name, d := range map[string]probe.Direction{"up": r.Up, "down": r.Down} {
					rate := tt.up
					if name == "down" {
						rate = tt.down
					}
					between(t, name+" Mbit/s", float64(d.BitsPS)/1e6, tt.least*rate, 1.05*rate)
					// Of the load one way, of pings to and fro.
					between(t, name+" loss", float64(d.Lost)/float64(d.Sent-d.Dropped), 0.5*tt.loss, 1.5*tt.loss+0.001)
					between(t, name+" ping loss", float64(d.RTT.Lost)/float64(d.RTT.Sent), 0.5*tt.loss, 3.5*tt.loss)
					between(t, name+" p99", d.RTT.P99, 2*tt.delay, 2*tt.delay+2*time.Millisecond)
					between(t, name+" dropped", float64(d.Dropped)/float64(d.Sent), 0, max(tt.dropped, 0.15))
					if d.Received+d.Dropped+d.Lost != d.Sent {
						t.Errorf("%s does not add up: %+v", name, d)
					}
				}
				if len(r.Sizes.Failed) > 0 || r.Sizes.Least != 14 || r.Sizes.Most != 1514 || r.Sizes.Received != r.Sizes.Sent {
					t.Errorf("sizes %+v", r.Sizes)
				}
				if tt.name != "a slow line" && r.Sizes.Sent != 1501 {
					t.Errorf("%d sizes", r.Sizes.Sent)
				}
				there.wg.Wait()
				back.wg.Wait()
				if there.odd+back.odd > 0 {
					t.Errorf("%d and %d frames were not expected", there.odd, back.odd)
				}
			})
		})
	}
}
