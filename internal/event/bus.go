// SPDX-License-Identifier: Apache-2.0

package event

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// MaxSubscriptions is how many may listen at once.
	MaxSubscriptions = 16
	// queueLen is how many events wait for one listener: what a site with some
	// hundreds of stations brings when it comes up.
	queueLen = 1024
)

// Bus passes events on. Its zero value is ready for use, and its methods may be
// called from any goroutine.
type Bus struct {
	wanted atomic.Uint32 // the kinds that somebody listens for, a bit each

	mu   sync.Mutex // guards what follows, and all of the subscriptions
	subs []*Subscription
}

// Wants reports whether anybody listens for that kind. Who would have to work to
// make an event asks first.
func (b *Bus) Wants(k Kind) bool { return b.wanted.Load()&k.bit() != 0 }

// Publish passes e to all who listen for its kind. It never blocks.
func (b *Bus) Publish(e Event) {
	if !b.Wants(e.Kind) {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if e.TimeMS == 0 {
		e.TimeMS = time.Now().UnixMilli() // under the lock: times and order agree
	}
	for _, s := range b.subs {
		if s.kinds&e.Kind.bit() != 0 {
			s.pushLocked(e)
		}
	}
}

// Subscribe listens for these kinds, or with none for all, until Close. It fails
// when MaxSubscriptions listen already.
func (b *Bus) Subscribe(kinds ...Kind) (*Subscription, error) {
	s := &Subscription{bus: b, wake: make(chan struct{}, 1), ring: make([]Event, queueLen)}
	for _, k := range kinds {
		s.kinds |= k.bit()
	}
	if len(kinds) == 0 {
		s.kinds = ^uint32(0)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.subs) == MaxSubscriptions {
		return nil, fmt.Errorf("%d listen for events already (end one of them)", MaxSubscriptions)
	}
	b.subs = append(b.subs, s)
	b.countLocked()
	return s, nil
}

// countLocked notes which kinds are listened for.
func (b *Bus) countLocked() {
	wanted := uint32(0)
	for _, s := range b.subs {
		wanted |= s.kinds
	}
	b.wanted.Store(wanted)
}

func (k Kind) bit() uint32 { return 1 << k }

// Subscription is one who listens. Next is for one goroutine at a time.
type Subscription struct {
	bus   *Bus
	kinds uint32        // a bit each
	wake  chan struct{} // holds one word when something has come

	// Guarded by Bus.mu.
	ring   []Event
	first  int // of those that wait
	length int
	lost   uint64 // since the last one taken
	lostAt int64  // when the latest of these happened
}

// pushLocked adds an event. When the queue is full the oldest gives way: what
// has just happened is worth more, and the loss stands where it took place,
// before all that waits.
func (s *Subscription) pushLocked(e Event) {
	if s.length == len(s.ring) {
		s.lost++
		s.lostAt = s.ring[s.first].TimeMS
		s.first = (s.first + 1) % len(s.ring)
		s.length--
	}
	s.ring[(s.first+s.length)%len(s.ring)] = e
	s.length++
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Next returns the next event. It blocks until there is one or ctx ends, and
// then returns ctx's error. After a loss it first returns one of kind Lost.
func (s *Subscription) Next(ctx context.Context) (Event, error) {
	for {
		if err := ctx.Err(); err != nil {
			return Event{}, err
		}
		if e, ok := s.take(); ok {
			return e, nil
		}
		select {
		case <-s.wake:
		case <-ctx.Done():
		}
	}
}

// take returns the oldest event that waits.
func (s *Subscription) take() (e Event, ok bool) {
	s.bus.mu.Lock()
	defer s.bus.mu.Unlock()
	switch {
	case s.lost > 0:
		e = Event{TimeMS: s.lostAt, Kind: Lost, What: Lost.String(), Count: s.lost}
		s.lost = 0
	case s.length > 0:
		e = s.ring[s.first]
		s.ring[s.first] = Event{}
		s.first = (s.first + 1) % len(s.ring)
		s.length--
	default:
		return Event{}, false
	}
	return e, true
}

// Close ends the subscription. It may be called again.
func (s *Subscription) Close() {
	s.bus.mu.Lock()
	defer s.bus.mu.Unlock()
	s.bus.subs = slices.DeleteFunc(s.bus.subs, func(other *Subscription) bool { return other == s })
	s.bus.countLocked()
}
