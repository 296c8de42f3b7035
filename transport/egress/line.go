// SPDX-License-Identifier: Apache-2.0

package egress

import "time"

// line is a line of a given rate that all lanes share, so that what has to wait
// waits here, where it is ordered, and not in a modem. Zero is a line that is
// always free.
type line struct {
	rate uint64        // bits a second; 0 for no bound
	free time.Duration // when it has sent all it was given
}

// slack is how far the line may catch up: timers are late by a millisecond.
const slack = 2 * time.Millisecond

// busy returns how long the line is still busy, 0 or less when it is free.
func (s *line) busy(now time.Duration) time.Duration {
	if s.rate == 0 {
		return 0
	}
	return s.free - now
}

// spend gives it a packet of n bytes.
func (s *line) spend(now time.Duration, n int) {
	if s.rate != 0 {
		s.free = max(s.free, now-slack) + time.Duration(uint64(n)*8*uint64(time.Second)/s.rate)
	}
}

// SetRate bounds what leaves by all lanes together to bits a second, counted
// from the IP header on; 0 for no bound.
func (q *Queue) SetRate(bits uint64) {
	q.mu.Lock()
	q.line = line{rate: bits}
	q.mu.Unlock()
}
