// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"testing"
	"time"
)

// One processor more while all are used and the machine idles, one less when
// they have been idle for a while.
func TestProcs(t *testing.T) {
	p := procs{most: 4, n: 1}
	now, used, idle := time.Unix(1000, 0), time.Duration(0), time.Duration(0)
	run := func(steps int, load, idles float64) []int {
		var seen []int
		for range steps {
			now = now.Add(procsEvery)
			used += time.Duration(load * float64(procsEvery))
			idle += time.Duration(idles * float64(procsEvery))
			n := p.next(now, used, func() (time.Duration, bool) { return idle + 1, true })
			if n != p.n {
				p.n = n
				seen = append(seen, n)
			}
		}
		return seen
	}
	if seen := run(10, 0.5, 3); len(seen) != 0 {
		t.Errorf("half a processor's work: %v", seen)
	}
	if seen := run(20, 1, 0.1); len(seen) != 0 {
		t.Errorf("a busy machine: %v", seen)
	}
	if seen := run(3, 1, 3); len(seen) != 1 || seen[0] != 2 {
		t.Errorf("one is used up, three idle: %v, want 2", seen)
	}
	if seen := run(20, 3.9, 0.6); len(seen) != 2 || p.n != 4 {
		t.Errorf("all are used up: %v, want 3 and 4, and no more", seen)
	}
	if seen := run(5, 0.5, 3.5); len(seen) != 0 {
		t.Errorf("a short pause: %v", seen)
	}
	if seen := run(100, 0.1, 3.9); p.n != 1 {
		t.Errorf("idle: %v, want down to 1", seen)
	}
}

func TestIdleTime(t *testing.T) {
	if d, ok := idleTime(); !ok || d <= 0 {
		t.Errorf("idleTime() = %v, %v", d, ok)
	}
	if d := processTime(); d <= 0 {
		t.Errorf("processTime() = %v", d)
	}
}

// The less of the heap is in use the more it may grow by, but never by much.
func TestPercentFor(t *testing.T) {
	t.Parallel()
	for live, want := range map[uint64]int{0: 200, 8 << 20: 200, 14 << 20: 100, 20 << 20: 50, 40 << 20: 25, 1 << 30: 25} {
		if got := percentFor(live); got != want {
			t.Errorf("%d MiB in use: %d %%, want %d", live>>20, got, want)
		}
	}
}
