// SPDX-License-Identifier: Apache-2.0

package probe

import "time"

const (
	firstWindow = 10 // frames, as a TCP begins (RFC 6928)
	leastWindow = 2
	mostWindow  = 2048 // 1 Gbit/s over 100 ms, by all streams with frames of 1500 bytes

	// standing is how much longer than without load a round trip takes when a
	// queue stands on the way: less may be the noise of a machine. To it comes a
	// part of the round trip itself.
	standing = 4 * time.Millisecond
	tooLong  = time.Second // nobody waits for that
	tooMany  = 5           // one of so many lost is too much, queue or not
)

// flow is how much of one stream may be under way: as much as makes a queue stand
// somewhere, so that what comes through is all that the way carries. It behaves
// as TCP does where a queue is full, so that it shares with others, and as TCP
// does not where a loss has nothing to do with a queue.
//
//	slow start --a queue stands--> by an eighth a round, by one while a queue
//	stands; 0.7 of it with a loss then
type flow struct {
	window float64 // frames
	grown  bool    // slow start is over

	sent    uint32 // frames sent, or allowed, so far
	next    uint32 // the greatest number that has come, plus 1
	count   uint32 // how many have come
	cleared uint32 // below it none is under way

	base  time.Duration // the least round trip; 0 for not known
	heard time.Time     // when something came last

	// The round: it is over when what was under way at its beginning has come.
	end   uint32
	begun uint32        // next at its beginning
	least time.Duration // round trip in it; 0 for not known
	lost  int64         // before it
	cut   bool          // the window was, at its beginning: what comes was sent before
}

func newFlow(now time.Time) flow { return flow{window: firstWindow, heard: now} }

// free returns how many frames may be sent, or allowed, at present.
func (f *flow) free() int { return int(f.window) - int(f.sent-f.cleared) }

// missing returns how many frames are lost, as far as is known.
func (f *flow) missing() int64 { return int64(f.next) - int64(f.count) }

// come takes the news that of the frames before next so many have come, after a
// round trip of rtt; 0 for not known.
func (f *flow) come(next, count uint32, rtt time.Duration, now time.Time) {
	f.heard = now
	if rtt > 0 {
		if f.base == 0 || rtt < f.base {
			f.base = rtt
		}
		if f.least == 0 || rtt < f.least {
			f.least = rtt
		}
	}
	f.count = max(f.count, count)
	if next <= f.next {
		return
	}
	if !f.grown {
		f.window = min(f.window+float64(next-f.next), mostWindow)
	}
	f.next = next
	f.cleared = max(f.cleared, next)
	if next >= f.end && f.least > 0 {
		f.round()
	}
}

// round judges a round, and begins the next.
func (f *flow) round() {
	lost := f.missing()
	queue := f.least - f.base
	stands := queue > standing+f.base/16
	many := (lost-f.lost)*tooMany > int64(f.next-f.begun)
	cut := false
	switch {
	case f.cut:
	case many, stands && lost > f.lost, queue > tooLong:
		keep := 0.7
		if !f.grown {
			keep = 0.5 // it was doubled a round ago
		}
		f.window = max(f.window*keep, leastWindow)
		f.grown, cut = true, true
	case stands:
		f.window = min(f.window+1, mostWindow)
		f.grown = true
	case f.grown:
		f.window = min(f.window+max(1, f.window/8), mostWindow)
	}
	f.end, f.begun, f.least, f.lost, f.cut = f.sent, f.next, 0, lost, cut
}

// stalled reports whether nothing has come for too long, and if so begins anew.
func (f *flow) stalled(now time.Time) bool {
	if now.Sub(f.heard) < max(250*time.Millisecond, 4*f.base) {
		return false
	}
	f.heard, f.cleared, f.end = now, f.sent, f.sent
	f.window, f.grown = leastWindow, false
	return true
}
