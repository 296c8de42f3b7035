// SPDX-License-Identifier: Apache-2.0

package transport_test

import (
	"bytes"
	"flag"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/l2bridge/l2bridge/internal/frame"
	"github.com/l2bridge/l2bridge/transport"
	"github.com/l2bridge/l2bridge/transport/egress"
)

var seedFlag = flag.Uint64("seed", 0, "seed of the simulated hour; 0 picks one, and prints it")

// backAfter is how long traffic may take to be back after a trouble is over: a
// silence of 5 s until the connections count as dead, and a heartbeat more, a
// pause of 2 s, and a handshake that loses packets.
const backAfter = 10 * time.Second

// stream is the numbered traffic from one site to another, and what came of it.
type stream struct {
	t      *testing.T
	dir    int  // 0 or 1, in every number
	orders bool // the path keeps it

	mu    sync.Mutex // guards what follows
	sent  []shipment // by number
	plain int        // the last one of each kind that came
	train [2]int
	came  time.Time // when the last one was sent that came
}

type shipment struct {
	at       time.Time
	length   int
	segments []bool // of a superframe that came
	got      bool
}

// next returns the next frame to send; a superframe when segments are given.
func (s *stream) next(length, segments int) *frame.Buf {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.sent)
	s.sent = append(s.sent, shipment{at: time.Now(), length: length, segments: make([]bool, segments)})
	if segments > 0 {
		return superframe(2*n+s.dir, segments)
	}
	return numbered(2*n+s.dir, length)
}

// take checks a frame that has come: it is one that was sent, byte for byte,
// has not come before, and none of its flow that was sent later has.
func (s *stream) take(_ string, b *frame.Buf) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b.Bytes()[12] == 0x08 {
		s.takeSegments(b)
		return
	}
	f := b.Bytes()
	num := int(f[14])<<24 | int(f[15])<<16 | int(f[16])<<8 | int(f[17])
	n := num / 2
	if num%2 != s.dir || n >= len(s.sent) || s.sent[n].length != len(f) {
		s.t.Errorf("a frame of %d bytes came that was not sent, number %d", len(f), num)
		return
	}
	want := numbered(num, len(f))
	if !bytes.Equal(f, want.Bytes()) {
		s.t.Errorf("frame %d is altered", n)
	}
	want.Release()
	if s.sent[n].got {
		s.t.Errorf("frame %d came twice", n)
	}
	if s.orders && n < s.plain {
		s.t.Errorf("frame %d came after %d", n, s.plain)
	}
	s.sent[n].got, s.plain = true, n
	s.came = s.sent[n].at
}

func (s *stream) takeSegments(b *frame.Buf) {
	num, segments, err := segmentsOf(b)
	n := num / 2
	if err != nil || num%2 != s.dir || n >= len(s.sent) {
		s.t.Errorf("superframe %d: %v", num, err)
		return
	}
	for _, seg := range segments {
		sh := &s.sent[n]
		if seg >= len(sh.segments) || sh.segments[seg] {
			s.t.Errorf("segment %d of %d came twice, or was not sent", seg, n)
			continue
		}
		if at := [2]int{n, seg}; s.orders && slices.Compare(at[:], s.train[:]) < 0 {
			s.t.Errorf("segment %v came after %v", at, s.train)
		} else {
			s.train = at
		}
		sh.segments[seg] = true
	}
	s.sent[n].got = !slices.Contains(s.sent[n].segments, false)
	s.came = s.sent[n].at
}

// cameAfter reports whether something came that was sent later than at.
func (s *stream) cameAfter(at time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.came.After(at)
}

// span is a time of trouble.
type span struct {
	from, to time.Time
	what     string
}

// unexplained returns the frames that did not come for no reason: they were sent
// when there was no trouble, and no packet was lost about then, or while they
// waited to be sent: at most egress.MaxAge, and a while in quic-go.
func (s *stream) unexplained(troubles []span, losses []time.Time) (all []int) {
	for n, sh := range s.sent {
		if sh.got {
			continue
		}
		i, _ := slices.BinarySearchFunc(losses, sh.at.Add(-time.Millisecond), time.Time.Compare)
		lost := i < len(losses) && losses[i].Before(sh.at.Add(egress.MaxAge+time.Second))
		trouble := slices.ContainsFunc(troubles, func(p span) bool { return !sh.at.Before(p.from) && !sh.at.After(p.to) })
		if !lost && !trouble {
			all = append(all, n)
		}
	}
	return all
}

// Two sites live through an hour of loss, blackouts and restarts.
func TestHour(t *testing.T) {
	length := time.Hour
	if testing.Short() {
		length = 10 * time.Minute
	}
	t.Run("in order", func(t *testing.T) { liveThrough(t, length, 0) })
	t.Run("reordering path", func(t *testing.T) { liveThrough(t, length/6, 10) })
}

func liveThrough(t *testing.T, length time.Duration, reorder int) {
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-seed=%d", seed)
	ms := members(t, "home", "office")
	synctest.Test(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(seed, 0))
		between := func(from, to time.Duration) time.Duration { return from + time.Duration(rng.Int64N(int64(to-from))) }
		w := newWorld()
		w.rng = rand.New(rand.NewPCG(seed, 1))
		w.reorder = reorder
		streams := [2]*stream{{t: t, orders: reorder == 0}, {t: t, dir: 1, orders: reorder == 0}}
		var sites [2]*node
		start := func(i int) {
			at, other := homeAddr, officePort
			if i == 1 {
				at, other = officeAddr, homePort
			}
			sites[i] = w.run(t, ms[i], at, []string{other}, func(c *transport.Config) { c.MTU = 9000 })
			sites[i].mu.Lock()
			sites[i].take = streams[1-i].take // what the other one sends
			sites[i].mu.Unlock()
		}
		start(0)
		start(1)

		var (
			troubles []span
			ongoing  *span       // a trouble that is over when traffic is back
			over     func() bool // nil when the cause of it has gone
			calm     = time.Now().Add(5 * time.Second)
			until    = time.Now().Add(length)
			slowest  time.Duration
			healthy  footprint
			counted  [2]uint64 // frames that waited too long to be sent
		)
		end := func(i int, how func()) {
			counted[i] += dropped(sites[i], "stale") + dropped(sites[i], "queue_full") + dropped(sites[i], "queue_delay")
			how()
		}
		begin := func(what string, lasts time.Duration, undo func()) {
			ends := time.Now().Add(lasts)
			ongoing = &span{from: time.Now().Add(-2 * time.Second), what: what}
			over = func() bool {
				if time.Now().Before(ends) {
					return false
				}
				undo()
				ongoing.to = time.Now()
				return true
			}
		}
		begin("start", 0, func() {})
		for tick := 0; time.Now().Before(until) || ongoing != nil; tick++ {
			for i, s := range streams {
				to := ms[1-i].Site
				count := 1
				if tick%300 == 0 {
					count = 50
				}
				for range count {
					size := 60 + rng.IntN(1455)
					if rng.IntN(10) == 0 {
						size = 9014
					}
					sites[i].send(to, s.next(size, 0))
				}
				if tick%50 == 25 {
					sites[i].send(to, s.next(0, 2+rng.IntN(40)))
				}
			}
			time.Sleep(200 * time.Millisecond)
			synctest.Wait()

			switch {
			case over != nil:
				if over() {
					over = nil
				}
			case ongoing != nil:
				took := time.Since(ongoing.to)
				if streams[0].cameAfter(ongoing.to) && streams[1].cameAfter(ongoing.to) {
					slowest = max(slowest, took)
					// A lane that has been dark for almost 5 s may still die
					// of its next silence.
					ongoing.to = later(time.Now(), ongoing.from.Add(backAfter))
					troubles = append(troubles, *ongoing)
					ongoing = nil
				} else if took > backAfter {
					t.Fatalf("%v after %q there is no traffic", took, ongoing.what)
				}
				calm = time.Now().Add(between(20*time.Second, 90*time.Second))
			case time.Now().After(calm):
				if healthy == (footprint{}) && time.Until(until) < length-length/10 {
					healthy = measure()
				}
				calm = time.Now().Add(between(20*time.Second, 90*time.Second))
				switch i := rng.IntN(2); rng.IntN(5) {
				case 0:
					w.set(func() { w.loss = max(0, rng.Float64()*0.08-0.03) }) // often none
				case 1:
					w.set(func() { w.latency = between(time.Millisecond, 150*time.Millisecond) })
				case 2:
					w.set(func() { w.dark = true })
					lasts := between(time.Second, 2*time.Minute)
					if rng.IntN(2) == 0 {
						lasts = between(time.Second, 10*time.Second)
					}
					begin(fmt.Sprintf("blackout of %v", lasts), lasts, func() { w.set(func() { w.dark = false }) })
				case 3:
					end(i, sites[i].stop)
					begin("restart of "+ms[i].Site, between(0, 10*time.Second), func() { start(i) })
				case 4:
					end(i, sites[i].kill)
					begin("crash of "+ms[i].Site, between(0, 10*time.Second), func() { start(i) })
				}
			}
		}
		w.set(func() { w.loss = 0 })
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if now := measure(); now.goroutines > healthy.goroutines+8 || now.heap > healthy.heap+16<<20 {
			t.Errorf("at the end %+v, after the first tenth %+v", now, healthy)
		}
		packets, losses := w.count()
		for i, s := range streams {
			lost := 0
			for _, sh := range s.sent {
				if !sh.got {
					lost++
				}
			}
			end(i, func() {})
			// A superframe whose slices are held back is given up (docs/wire.md,
			// section 4, salvage).
			if missing := s.unexplained(troubles, losses); reorder == 0 && len(missing) > int(counted[i]) {
				t.Errorf("%d frames of %s are lost for no reason at %v: %v; %d are counted", len(missing), ms[i].Site, s.sent[missing[0]].at, missing[:min(10, len(missing))], counted[i])
			}
			t.Logf("%s sent %d frames, %d did not come", ms[i].Site, len(s.sent), lost)
		}
		t.Logf("%d troubles; traffic was back after %v at most; %d packets, %d lost", len(troubles), slowest, packets, len(losses))
	})
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// footprint is what the process holds.
type footprint struct {
	goroutines int
	heap       uint64
}

func measure() footprint {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return footprint{len(bubbled()), m.HeapAlloc}
}

// An idle hour: nobody comes or goes, and few packets pass.
func TestIdle(t *testing.T) {
	ms := members(t, "home", "office")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		home := w.run(t, ms[0], homeAddr, []string{officePort})
		office := w.run(t, ms[1], officeAddr, []string{homePort})
		time.Sleep(10 * time.Second)
		exchange(t, home, office, 10)
		before := measure()
		packets, _ := w.count()
		began := home.attaches() + office.attaches()
		time.Sleep(time.Hour)
		synctest.Wait()
		exchange(t, home, office, 10)
		if n := home.attaches() + office.attaches() - began; n != 0 {
			t.Errorf("the sites came and went %d times", n)
		}
		// Each way and second: a ping, its answer and an ack on one lane, a
		// heartbeat and an ack on the other.
		if n, _ := w.count(); n-packets > 3600*2*5+100 {
			t.Errorf("%d packets in an idle hour", n-packets)
		}
		if now := measure(); now.goroutines > before.goroutines || now.heap > before.heap+8<<20 {
			t.Errorf("after the hour %+v, before %+v", now, before)
		}
		if st := office.Peers(); st[0].State != "up" {
			t.Errorf("status %+v", st)
		}
	})
}
