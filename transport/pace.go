// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"sync"
	"time"

	"github.com/l2bridge/l2bridge/transport/identity"
)

// pace lets so much be done at once, and then so much a second. It is for what
// happens seldom, by any goroutine.
type pace struct {
	burst, rate float64

	mu    sync.Mutex // guards what follows
	spent float64
	at    time.Time
}

// take takes n, and returns how long to wait before it is done.
func (b *pace) take(now time.Time, n float64) (wait time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fadeLocked(now)
	b.spent += n
	return time.Duration(max(0, b.spent-b.burst) / b.rate * float64(time.Second))
}

// try takes n if that may be done now.
func (b *pace) try(now time.Time, n float64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fadeLocked(now)
	if b.spent+n > b.burst {
		return false
	}
	b.spent += n
	return true
}

// isSpent reports whether nothing may be taken now.
func (b *pace) isSpent(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fadeLocked(now)
	return b.spent+1 > b.burst
}

// isFresh reports whether nothing that was taken counts any more.
func (b *pace) isFresh(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fadeLocked(now)
	return b.spent == 0
}

func (b *pace) fadeLocked(now time.Time) {
	b.spent = max(0, b.spent-now.Sub(b.at).Seconds()*b.rate)
	b.at = now
}

// shares keeps one member from having all of what all share.
type shares struct {
	mu    sync.Mutex // guards what follows
	taken map[identity.ID]int
}

// take takes one for a member, which is to give it back, and reports false when it
// has most already.
func (s *shares) take(id identity.ID, most int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.taken == nil {
		s.taken = make(map[identity.ID]int)
	}
	if s.taken[id] >= most {
		return false
	}
	s.taken[id]++
	return true
}

func (s *shares) give(id identity.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.taken[id]--; s.taken[id] == 0 {
		delete(s.taken, id)
	}
}
