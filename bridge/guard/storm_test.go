// SPDX-License-Identifier: Apache-2.0

package guard_test

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"

	"github.com/l2bridge/l2bridge/bridge/guard"
)

var (
	allClasses = []guard.Class{guard.Broadcast, guard.Multicast, guard.UnknownUnicast}

	// What the documents promise, a second and at once.
	rates  = []int{500, 3000, 1000}
	bursts = []int{1000, 6000, 10000}
)

// plainPolicer is a Policer for one goroutine, whose buckets hold tokens.
type plainPolicer struct {
	now     int // ticks
	tokens  []int
	refused []int // tick of the latest refusal, -1 for none
}

func newPlainPolicer() *plainPolicer {
	return &plainPolicer{tokens: slices.Clone(bursts), refused: []int{-1, -1, -1}}
}

func (p *plainPolicer) wait(ticks int) {
	p.now += ticks
	for c := range p.tokens {
		p.tokens[c] = min(bursts[c], p.tokens[c]+ticks*rates[c]/guard.TicksPerSecond)
	}
}

func (p *plainPolicer) pass(c guard.Class, n int) bool {
	if n > p.tokens[c] {
		p.refused[c] = p.now
		return false
	}
	p.tokens[c] -= n
	return true
}

func (p *plainPolicer) policed() (all []guard.Class) {
	for c, at := range p.refused {
		if at >= 0 && p.now-at <= 10*guard.TicksPerSecond {
			all = append(all, guard.Class(c))
		}
	}
	return all
}

// TestPolicerModel holds a Policer to one of plain tokens, also where the ticks
// wrap.
func TestPolicerModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var p guard.Policer
		plain := newPlainPolicer()
		start := rapid.SampledFrom([]uint32{0, 1, 1<<31 - 1, 1<<32 - 40}).Draw(t, "start")
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			if rapid.IntRange(0, 3).Draw(t, "kind") == 0 {
				plain.wait(rapid.OneOf(rapid.IntRange(0, 3), rapid.IntRange(0, 150)).Draw(t, "ticks"))
			}
			now := start + uint32(plain.now)
			c := rapid.SampledFrom(allClasses).Draw(t, "class")
			n := rapid.OneOf(rapid.Just(1), rapid.IntRange(1, 128), rapid.IntRange(1, 12000)).Draw(t, "n")
			if got, want := p.Pass(now, c, n), plain.pass(c, n); got != want {
				t.Fatalf("at %d: Pass(%v, %d) = %v, want %v", plain.now, c, n, got, want)
			}
			if got, want := p.Policed(now), plain.policed(); !slices.Equal(got, want) {
				t.Fatalf("at %d: Policed = %v, want %v", plain.now, got, want)
			}
		}
	})
}

// TestPolicerHonest holds that what the LAN of a home does is never refused.
func TestPolicerHonest(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		class guard.Class
		tick  func(tick int) (frames int)
	}{
		{"ARP scan of a /24, asked twice, each other second", guard.Broadcast, every(20, 508)},
		{"arp-scan of a /16", guard.Broadcast, every(1, 50)},
		{"hundred hosts that ask for an address", guard.Broadcast, every(50, 400)},
		{"video of 20 Mbit/s", guard.Multicast, every(1, 190)},
		{"video of 20 Mbit/s in bursts of a second", guard.Multicast, every(10, 1900)},
		{"hundred devices wake at once, each minute", guard.Multicast, every(600, 3000)},
		{"1 Gbit/s after a flush, each minute", guard.UnknownUnicast, every(600, 8000)},
		{"Wake-on-LAN of a /24", guard.UnknownUnicast, every(10, 254)},
	} {
		var p guard.Policer
		for tick := range 3000 {
			if n := tt.tick(tick); n > 0 && !p.Pass(uint32(tick), tt.class, n) {
				t.Errorf("%s: refused at tick %d", tt.name, tick)
				break
			}
		}
		if got := p.Policed(3000); got != nil {
			t.Errorf("%s: policed %v", tt.name, got)
		}
	}
}

func every(ticks, frames int) func(int) int {
	return func(tick int) int {
		if tick%ticks == 0 {
			return frames
		}
		return 0
	}
}

// TestPolicerStorm has four goroutines bring what a loop does, one of them with a
// clock that is a tick behind. What passes is what the limits say.
func TestPolicerStorm(t *testing.T) {
	t.Parallel()
	const seconds = 4
	for i, c := range allClasses {
		var p guard.Policer
		var passed atomic.Int64
		for tick := range uint32(seconds*guard.TicksPerSecond + 1) {
			var wait sync.WaitGroup
			for late := range uint32(4) {
				wait.Go(func() {
					for range 3000 {
						if p.Pass(tick+1-late/3, c, 1) {
							passed.Add(1)
						}
					}
				})
			}
			wait.Wait()
		}
		least := int64(bursts[i] + seconds*rates[i])
		most := least + int64(rates[i]/guard.TicksPerSecond) // if the late one was first
		if got := passed.Load(); got < least || got > most {
			t.Errorf("%v: %d frames passed in %d s, want %d to %d", c, got, seconds, least, most)
		}
	}
}

// TestPolicedLate holds that who looks with a clock that is a tick behind sees the
// storm, so that it is not told of as a new one at the next look.
func TestPolicedLate(t *testing.T) {
	t.Parallel()
	const now = 7
	var p guard.Policer
	if p.Pass(now, guard.Broadcast, bursts[guard.Broadcast]+1) {
		t.Fatal("more than the burst passes")
	}
	if got := p.Policed(now - 1); !slices.Equal(got, []guard.Class{guard.Broadcast}) {
		t.Errorf("policed a tick earlier: %v, want broadcast", got)
	}
}

func TestPolicerAllocates(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	var p guard.Policer
	if n := testing.AllocsPerRun(2000, func() { p.Pass(1, guard.Broadcast, 1) }); n != 0 {
		t.Errorf("%v allocations a frame", n)
	}
}

func BenchmarkPolicer(b *testing.B) {
	for _, bb := range []struct {
		name string
		tick uint32 // that passes after each frame
	}{{"passes", 1}, {"refused", 0}} {
		b.Run(bb.name, func(b *testing.B) {
			var p guard.Policer
			now := uint32(1)
			for b.Loop() {
				p.Pass(now, guard.Broadcast, 1)
				now += bb.tick
			}
		})
	}
}
