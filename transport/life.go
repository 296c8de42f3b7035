// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"time"

	"github.com/l2bridge/l2bridge/transport/wire"
)

// How soon a session that does not answer is noticed.
const (
	// While frames pass, or an answer is due, a ping goes on the control lane
	// each eager, else each heartbeat. The peer is suspect when one has had no
	// answer for suspectAfter, and half of the round trip that is usual: then two
	// more have none.
	eager        = 400 * time.Millisecond
	suspectAfter = 1200 * time.Millisecond

	// recent is for how long after a frame the next one is expected.
	recent = 5 * time.Second

	// After something has changed an answer must come within three round trips,
	// and this at least.
	leastCheck = 250 * time.Millisecond

	// overslept is how late a timer may be until it was we who did not listen:
	// the machine was busy, or suspended.
	overslept = 300 * time.Millisecond
)

// check has the session find out whether it still answers.
func (s *session) check() {
	poke(s.hurry)
	for _, l := range s.dataLanes() {
		l.callOut()
	}
}

// watch pings the peer on the control lane, and answers its pings, until the
// session ends. While there are no answers the session is suspect: it may come
// back, but others are dialled. It is answers that count, and not what else is
// heard: they show that both directions work.
func (s *session) watch() error {
	l := s.control
	var (
		open    []time.Duration // when the pings went that have no answer yet, by the epoch
		next    time.Duration   // when the next one goes
		checkBy time.Duration   // when there must be an answer to checkOn or one after it; 0 when not
		checkOn time.Duration
		lateAt  time.Duration // when we were last late to listen
		frames  = s.frames()
		remote  = l.remote()
		active  = -recent // when frames passed last
		timer   = time.NewTimer(1)
		due     = s.mesh.clock() // when the timer fires
	)
	defer timer.Stop()
	for {
		ask := false
		select {
		case <-s.ctx.Done():
			return nil
		case nonce := <-l.pongs:
			if err := l.say(wire.Pong, nonce, 0); err != nil {
				return err
			}
			continue
		case <-s.hurry:
			ask = true
		case <-l.answers:
		case <-timer.C:
		}
		now := s.mesh.clock()
		if now-due > overslept {
			open, checkBy, next, lateAt = nil, 0, now, now // what came meanwhile is not yet read
		}
		answered := time.Duration(l.answered.Load())
		for len(open) > 0 && open[0] <= answered {
			open = open[1:]
		}
		if answered >= checkOn {
			checkBy = 0
		}
		if again := (checkOn + checkBy) / 2; checkBy != 0 && now >= again && len(open) > 0 && open[len(open)-1] < again {
			next = now // the first may be lost
		}
		if at := l.remote(); at != remote {
			remote = at
			s.moved()
		}
		if n := s.frames(); n != frames {
			frames, active = n, now
		}

		roundTrip := l.conn.ConnectionStats().SmoothedRTT
		limit := suspectAfter + roundTrip/2
		pause := heartbeat
		if now-active < recent || len(open) > 0 && now-open[0] > eager+roundTrip {
			pause = eager
		}
		next = min(next, now+pause)
		if ask || now >= next {
			at := now
			if len(open) > 0 {
				at = max(at, open[len(open)-1]+1)
			}
			if err := l.say(wire.Ping, uint64(at), 0); err != nil {
				return err
			}
			open, next = append(open, at), now+pause
			if ask && checkBy == 0 {
				checkOn, checkBy = at, now+max(leastCheck, 3*roundTrip)
			}
		}

		suspect := s.suspect.Load() && answered < lateAt // only an answer clears it
		due = next
		by := func(at time.Duration) {
			if suspect = suspect || now >= at; now < at {
				due = min(due, at)
			}
		}
		if len(open) > 0 {
			if now-open[0] >= silence {
				return errSilent
			}
			by(open[0] + limit)
		}
		if checkBy != 0 {
			if again := (checkOn + checkBy) / 2; now < again {
				due = min(due, again)
			}
			by(checkBy)
		}
		s.setSuspect(suspect)
		timer.Reset(due - now)
	}
}

// moved tells that the peer has another address.
func (s *session) moved() {
	if s.isFollowed() {
		return
	}
	m := s.mesh
	m.mu.Lock()
	m.placeLocked(s.peer, s.control.remote())
	m.mu.Unlock()
	s.mail.put(func(o *mail) { o.seen = true })
	m.refreshOuter()
	m.event(s.peer.event(EventMoved))
}

// setSuspect notes whether the peer answers, and tells who has to know.
func (s *session) setSuspect(suspect bool) {
	if s.suspect.Swap(suspect) == suspect || s.isFollowed() {
		return
	}
	p := s.peer
	s.mesh.stir()
	if suspect {
		s.doubted.Store(int64(s.mesh.clock()))
		s.mesh.event(p.event(EventSuspect))
	} else {
		s.data.callOut()
		s.mesh.event(p.event(EventHeard))
	}
	p.wake()
}

// recovered reports whether the session needs no other in its place: it answers,
// and if it did not for a while the lane for frames has been heard since.
func (s *session) recovered() bool {
	doubted := s.doubted.Load()
	return !s.suspect.Load() && (doubted == 0 || s.data.heard.Load() > doubted)
}

// frames returns a number that changes when frames pass.
func (s *session) frames() uint64 {
	return s.data.carried.Load() + s.peer.rxFrames.Load() + s.peer.txFrames.Load()
}
