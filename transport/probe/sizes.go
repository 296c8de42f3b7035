// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"context"
	"slices"
	"time"

	"github.com/l2bridge/l2bridge/internal/frame"
)

const (
	// denseTo is up to where every size is tried; beyond it, every seventh: what
	// fails there fails from some size on.
	denseTo   = headerLen + 1500
	wideStep  = 7
	sizesTime = 3 * time.Second // that one frame of each may take on a slow line
	mostTime  = 20 * time.Second
	tries     = 10
	leastTry  = 2                     // so often is tried what is said to fail
	enough    = 20                    // of so many that are tried again one comes, unless they cannot
	slowLine  = 2_000_000             // bits a second, for want of a measure
	burstTime = 50 * time.Millisecond // frames are sent at once for so much time
	mostBurst = 256 << 10             // bytes, a part of what a queue holds
)

// lengths returns the sizes to try up to most bytes, so that one of each takes no
// more than sizesTime at a rate in bits a second.
func lengths(most int, rate uint64) (all []int) {
	bytes := 0
	for n := headerLen; n <= most; n++ {
		if n > denseTo {
			n = min(n+wideStep-1, most)
		}
		all = append(all, n)
		bytes += n
	}
	step := int(float64(bytes) * 8 / max(1, float64(rate)) / sizesTime.Seconds())
	if step < 1 {
		return all
	}
	last := all[len(all)-1]
	for i := range all {
		if i*(step+1) >= len(all) {
			all = all[:i]
			break
		}
		all[i] = all[i*(step+1)]
	}
	if all[len(all)-1] != last {
		all = append(all, last)
	}
	return all
}

// sizes sends frames of every size to and fro.
func (t *test) sizes(ctx context.Context, r Result) (s Sizes, err error) {
	rate := min(r.Up.BitsPS, r.Down.BitsPS)
	if rate == 0 { // the load does not pass, but smaller frames may
		rate = max(r.Up.BitsPS, r.Down.BitsPS, slowLine)
	}
	all := lengths(t.most, rate)
	roundTrip := max(r.Idle.Max, t.patience()/2)
	burst := int(float64(rate) / 8 * (burstTime + r.Idle.Min).Seconds())
	burst = min(max(burst, 2*t.load), mostBurst)

	pace := 2 * time.Duration(float64(burst)*8/float64(rate)*float64(time.Second))
	begin := time.Now()
	tried := make(map[int]int)
	for try := 1; try <= tries && time.Since(begin) < mostTime; try++ {
		again := t.missing(all)
		for rest := again; len(rest) > 0 && time.Since(begin) < mostTime; {
			var some []int
			for n := 0; len(rest) > 0 && (n == 0 || n+rest[0] <= burst); rest = rest[1:] {
				some = append(some, rest[0])
				n += rest[0]
			}
			t.sendSizes(some)
			for _, n := range some {
				tried[n]++
			}
			if err := wait(ctx, pace, func() bool { return len(t.missing(some)) > 0 }); err != nil {
				return s, err
			}
		}
		if err := wait(ctx, 2*roundTrip+100*time.Millisecond, func() bool { return len(t.missing(again)) > 0 }); err != nil {
			return s, err
		}
		if left := len(t.missing(again)); try >= leastTry && left >= enough && left == len(again) {
			break
		}
	}
	// What there was no time for to try often enough has not failed.
	missing := t.missing(all)
	all = slices.DeleteFunc(all, func(n int) bool {
		_, lacks := slices.BinarySearch(missing, n)
		return lacks && tried[n] < leastTry
	})
	s.Sent = len(all)
	if len(all) == 0 {
		return s, nil
	}
	s.Least, s.Most = all[0], all[len(all)-1]
	row := false
	for _, n := range all {
		if _, lacks := slices.BinarySearch(missing, n); !lacks {
			s.Received++
			row = false
			continue
		}
		if !row {
			s.Failed = append(s.Failed, Range{From: n})
		}
		s.Failed[len(s.Failed)-1].To = n
		row = true
	}
	return s, nil
}

// missing returns those of some sizes that have not come back.
func (t *test) missing(some []int) (rest []int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, n := range some {
		if !t.came[n] {
			rest = append(rest, n)
		}
	}
	return rest
}

func (t *test) sendSizes(some []int) {
	t.mu.Lock()
	for _, n := range some {
		if _, waits := t.came[n]; !waits {
			t.came[n] = false
		}
	}
	t.mu.Unlock()
	frames := make([]*frame.Buf, 0, len(some))
	for _, n := range some {
		frames = append(frames, sizeFrame(t.run, n))
	}
	push(t.out, frames...)
}

// sumUp makes the figures of round trips.
func sumUp(pings []ping) (r RTT) {
	var all []time.Duration
	var sum time.Duration
	for _, p := range pings {
		if r.Sent++; p.rtt == 0 {
			r.Lost++
			continue
		}
		all = append(all, p.rtt)
		sum += p.rtt
	}
	if len(all) == 0 {
		return r
	}
	slices.Sort(all)
	r.Min, r.Max, r.Avg = all[0], all[len(all)-1], sum/time.Duration(len(all))
	r.P99 = all[(len(all)*99+99)/100-1]
	return r
}
