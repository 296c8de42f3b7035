// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"fmt"
	"time"

	"github.com/l2bridge/l2bridge/internal/frame"
	"github.com/l2bridge/l2bridge/transport/egress"
	"github.com/l2bridge/l2bridge/transport/udpconn"
	"github.com/l2bridge/l2bridge/transport/wire"
)

// A session takes the place of another one, and the port stays where it is. That of a
// process which is no more ends at once. Any other fades, so that what is on its way
// arrives:
//
//	followed --> its lanes end what they have begun --> cleared: the peer has all of it
//	             it takes what still comes                |        the next one sends
//	                                                      v
//	             ended <-- the peer has said the same <-- says that it sends no more
const (
	// fading bounds that: the peer may know nothing of it.
	fading = time.Second

	// fadingUnheard, and a round trip, bounds it for a session that does not answer.
	// If the path is there again the peer hears within half a round trip that it is to
	// send by the next one.
	fadingUnheard = 25 * time.Millisecond

	// patience is how long a session that is to be followed waits for the next one:
	// about two tries to dial it.
	patience = dialling

	// lastPing is the nonce of the ping that follows all else on a data lane. Others
	// are times.
	lastPing = 1 << 63
)

// errNoLane ends a lane that there is no room for.
var errNoLane = fmt.Errorf("%w: more than %d lanes", wire.ErrProtocol, egress.MaxLanes)

// renew has another session take the place of one, which stays until then; but not for
// long, since there may be a way to dial for the other side only.
func (p *Peer) renew(s *session, why error) {
	if s.outdated.Swap(true) {
		return
	}
	p.hurry()
	time.AfterFunc(patience, func() {
		if !s.isFollowed() {
			s.end(why)
		}
	})
}

// isNarrow has the session followed by one that begins with small packets.
func (s *session) isNarrow() {
	p := s.peer
	p.narrows(time.Now())
	e := p.event(EventNarrow)
	e.Reason = errNarrow.Error()
	s.mesh.event(e)
	p.renew(s, errNarrow)
}

// followLocked ends an old session of the peer's, as s has its place now.
func (p *Peer) followLocked(old, s *session) {
	if p.fades != nil {
		p.fades.end(errReplaced) // one at a time
		p.fades = nil
	}
	if old.control.hello.Boot != s.control.hello.Boot {
		old.end(errReplaced)
		return
	}
	close(old.followed)
	p.fades = old
}

// isFollowed reports whether another session with the same process has taken the place
// of this one.
func (s *session) isFollowed() bool {
	select {
	case <-s.followed:
		return true
	default:
		return false
	}
}

// follow has the session begin behind the one before, nil for none: no flow leaves by
// lanes of both, and what one that has ended has brought is delivered first. One that
// fades takes what the peer sent before it sends by this one.
func (s *session) follow(p *Peer, before *session) {
	if before == nil {
		close(s.turn)
		return
	}
	if !before.isFollowed() {
		<-before.done
	} else if before.data.remote() == s.data.remote() {
		s.beside = []udpconn.Datagrams{before.control.conn, before.data.conn}
	}
	s.tasks.Go(func() {
		select {
		case <-before.drained:
		case <-s.ctx.Done():
			return
		}
		takes := s.control.hello.Features
		if before.control.hello.Features&^takes != 0 {
			p.queue.Sift(func(h frame.Vnet) bool { return needs(h)&^takes == 0 })
		}
		close(s.turn)
	})
}

// sendBy has a lane send what waits for the peer when the session's turn has come.
func (s *session) sendBy(ctx context.Context, l *lane) error {
	select {
	case <-s.turn:
	case <-ctx.Done():
		return nil
	}
	if s.isFollowed() {
		return nil
	}
	out := s.peer.queue.Open()
	if out == nil {
		return errNoLane
	}
	l.out.Store(out)
	if s.isFollowed() {
		out.End() // fade may have come too early to see it
	}
	return l.send(ctx, out, &s.peer.tooLarge)
}

// fade has a session that is followed end without loss.
func (s *session) fade() {
	s.shut()
	for _, l := range s.dataLanes() {
		l.out.Load().End()
	}
	s.tasks.Go(func() {
		s.senders.Wait()
		s.setDrained()
	})
	limit := fading
	if s.suspect.Load() {
		limit = s.control.conn.ConnectionStats().SmoothedRTT + fadingUnheard
	}
	over := time.NewTimer(limit)
	defer over.Stop()
	for drained, saidAll := s.drained, s.saidAll; drained != nil || saidAll != nil; {
		select {
		case <-drained:
			drained = nil
		case <-saidAll:
			saidAll = nil
		case <-over.C:
			drained, saidAll = nil, nil
		case <-s.control.conn.Context().Done():
			drained, saidAll = nil, nil
		case <-s.ctx.Done():
			return
		}
	}
	s.end(errReplaced)
}

// setDrained tells that no lane of the session takes frames any more.
func (s *session) setDrained() { s.drain.Do(func() { close(s.drained) }) }

// clear waits for the peer to have all that the lane has sent, if it says so soon: what
// goes by other lanes then does not overtake it.
func (l *lane) clear(ctx context.Context) error {
	const least = 50 * time.Millisecond
	if ctx.Err() != nil {
		return nil
	}
	for tries := range 2 {
		if err := l.say(wire.Ping, lastPing, 0); err != nil {
			return err
		}
		roundTrip := l.conn.ConnectionStats().SmoothedRTT
		wait := time.NewTimer(time.Duration(tries+1)*roundTrip + least)
		select {
		case <-l.cleared:
			wait.Stop()
			return nil
		case <-ctx.Done():
			wait.Stop()
			return nil
		case <-wait.C:
		}
	}
	return nil
}

// whyOver returns why a session has ended, for those who judge the peer by it.
func (s *session) whyOver() error {
	if s.isFollowed() {
		return errReplaced
	}
	return context.Cause(s.ctx)
}
