// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"net/netip"
	"sync"
	"time"
)

// maxNetworks bounds what a limiter remembers.
const maxNetworks = 1024

// limiter bounds how many are at something at once, in all and from one network,
// and how often one from a network may begin. Memory is taken only for networks
// that have some at it, or have begun of late. When it is full of these the others
// are held to the bound of all.
type limiter struct {
	most, each  int     // at once
	rate, burst float64 // from one network: a second, and after silence

	mu   sync.Mutex
	open int
	from map[netip.Prefix]*visitor // hashed with a key drawn at random, as all of Go's maps are
}

// visitor is a network that is known to a limiter.
type visitor struct {
	open  int
	begun pace
}

func newLimiter(most, each int, rate, burst float64) *limiter {
	return &limiter{most: most, each: each, rate: rate, burst: burst, from: make(map[netip.Prefix]*visitor)}
}

// enter counts one more, from a network that is invalid when nothing is known of it,
// until leave is called. It returns false when that is too many. To call leave again
// does nothing.
func (l *limiter) enter(from netip.Prefix) (leave func(), ok bool) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open >= l.most {
		return nil, false
	}
	v := l.visitorLocked(from, now)
	if v != nil {
		if v.open >= l.each || !v.begun.try(now, 1) {
			return nil, false
		}
		v.open++
	}
	l.open++
	return sync.OnceFunc(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.open--
		if v != nil {
			v.open--
		}
	}), true
}

// visitorLocked returns what is known of a network, nil when nothing can be.
func (l *limiter) visitorLocked(from netip.Prefix, now time.Time) *visitor {
	if !from.IsValid() {
		return nil
	}
	if v := l.from[from]; v != nil {
		return v
	}
	if len(l.from) >= maxNetworks {
		for p, v := range l.from {
			if v.open == 0 && v.begun.isFresh(now) {
				delete(l.from, p)
			}
		}
		if len(l.from) >= maxNetworks {
			return nil
		}
	}
	v := &visitor{begun: pace{burst: l.burst, rate: l.rate}}
	l.from[from] = v
	return v
}

// count returns how many there are.
func (l *limiter) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open
}
