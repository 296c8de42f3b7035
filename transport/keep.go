// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	mrand "math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/l2bridge/l2bridge/transport/wire"
)

// How a member without a session that answers is dialled.
const (
	// maxTries bounds the tries at one member that are under way, maxDials those
	// at all members.
	maxTries, maxDials = 6, 64

	// yield is the lead of the side that should dial: the one that dialled
	// before, else the one with the lower id. That both do is for when the other
	// one cannot.
	yield = 300 * time.Millisecond

	// urgentPause is how long after a try the next one may be, whatever happens.
	urgentPause = 200 * time.Millisecond

	// trying bounds a try, with the names that it looks up.
	trying = 4 * time.Second

	// maxCandidates bounds the addresses of one try.
	maxCandidates = 16

	// twicePause is how long a site waits that was told that somebody else has
	// its key.
	twicePause = 30 * time.Second

	// upwards is when, at first, a path that had become narrower is tried anew:
	// quic-go finds out how much a path carries only once.
	upwards, mostUpwards = 10 * time.Minute, 24 * time.Hour

	// wide is the path MTU from which on there is little more to be had: quic-go
	// goes up to 1452.
	wide = 1400
)

// keeper keeps a session with one member: whenever there is none, or none that
// answers, it dials, again and again, without waiting for one try to end before
// the next begins. What a path does to the packets of one try while it is away
// then does not matter when it is back. Both sides do this: only one of them
// may be able to reach the other.
type keeper struct {
	poke   chan struct{} // something has changed
	urgent atomic.Bool   // try at once: the way, or the other side's, has changed

	// Guarded by Mesh.mu.
	claim      context.Context // while a control lane that has answered may become a session
	unclaim    func()          // ends it
	candidates []netip.AddrPort
	at         netip.AddrPort // where the member answered last
	trouble    string         // why there is no session, "" when there is
	told       []string       // of that, in the log
	refused    bool           // it says that we are no member
	backOff    time.Time      // no try before
	strikes    int            // sessions in a row that did not last
	upwardsAt  time.Time      // when to try for a wider path; zero when not
	upwardsIn  time.Duration  // how long before that was
}

// wake has the keeper look at what has changed.
func (k *keeper) wake() { poke(k.poke) }

// hurry has it try at once if a session is needed.
func (k *keeper) hurry() {
	k.urgent.Store(true)
	k.wake()
}

// keep runs the keeper until ctx ends.
func (p *Peer) keep(ctx context.Context) {
	var (
		tries sync.WaitGroup
		under atomic.Int32
		since time.Time // when a session was needed first; zero when none is
		due   time.Time // the next try
		last  time.Time // the one before
		timer = time.NewTimer(time.Hour)
	)
	defer tries.Wait()
	defer timer.Stop()
	p.wake() // to begin with
	for {
		select {
		case <-timer.C:
		case <-p.poke:
		case <-ctx.Done():
			return
		}
		now := time.Now()
		urgent := p.urgent.Swap(false)
		need, again := p.needs(now)
		if !need {
			since = time.Time{}
			timer.Reset(again)
			continue
		}
		if since.IsZero() {
			since, due = now, now.Add(p.lag())
		}
		if soon := last.Add(urgentPause); urgent && soon.Before(due) {
			due = soon
		}
		if wait := max(due.Sub(now), again); wait > 0 {
			timer.Reset(wait)
			continue
		}
		last, due = now, now.Add(p.pace(now.Sub(since)))
		timer.Reset(due.Sub(now))
		upward := p.rises(now)
		most := int32(maxTries)
		if urgent {
			most += 2 // those under way go where nobody is any more
		}
		if under.Load() >= most {
			continue
		}
		select {
		case p.mesh.dials <- struct{}{}:
		default:
			continue // others have their turn
		}
		under.Add(1)
		tries.Go(func() {
			release := sync.OnceFunc(func() {
				<-p.mesh.dials
				under.Add(-1)
			})
			defer release()
			if err := p.try(ctx, now, upward, release); ctx.Err() == nil {
				p.report(err)
			}
		})
	}
}

// needs reports whether a session must be made, not before a time that lies
// again ahead, or else when to ask again.
func (p *Peer) needs(now time.Time) (need bool, again time.Duration) {
	const seldom = time.Hour
	p.mesh.mu.Lock()
	defer p.mesh.mu.Unlock()
	if p.mesh.leaving || p.hasLeftLocked() {
		return false, seldom
	}
	if s := p.answering(); s != nil && !s.outdated.Load() {
		switch {
		case p.upwardsAt.IsZero():
			return false, seldom
		case s.pathMTU() >= wide:
			p.upwardsAt, p.upwardsIn = time.Time{}, 0
			return false, seldom
		case p.upwardsAt.After(now):
			return false, p.upwardsAt.Sub(now)
		}
		return true, 0
	}
	if p.claim.Err() == nil {
		until, _ := p.claim.Deadline()
		again = until.Sub(now)
	}
	return true, max(p.backOff.Sub(now), again, p.barLeft(now), 0)
}

// narrows notes that the path carries less than it did. The next session begins
// with little, and finds out how much it is. Whether it is more again is tried
// after a while, by a new session.
func (p *Peer) narrows(now time.Time) {
	p.mesh.mu.Lock()
	defer p.mesh.mu.Unlock()
	if p.upwardsIn == 0 {
		p.upwardsIn = upwards
	}
	p.upwardsAt = now.Add(p.upwardsIn)
}

// rises reports whether such a try is due, and notes that it is made: if it was in
// vain the next one comes after twice the time.
func (p *Peer) rises(now time.Time) bool {
	p.mesh.mu.Lock()
	defer p.mesh.mu.Unlock()
	if p.upwardsAt.IsZero() || p.upwardsAt.After(now) {
		return false
	}
	p.upwardsIn = min(2*p.upwardsIn, mostUpwards)
	p.upwardsAt = now.Add(p.upwardsIn)
	return true
}

// judgeLocked sets the back-off by how a session has ended: what does not last
// is not made at once again.
func (k *keeper) judgeLocked(lasted time.Duration, why error) {
	switch {
	case isPutOut(why):
		k.refused, k.backOff, k.trouble = true, time.Now().Add(revokedPause), errPutOut.Error()
	case lasted >= silence:
		k.strikes = 0
	case !errors.Is(why, errReplaced):
		k.strikes = min(k.strikes+1, 10)
		pause := min(firstRetry<<k.strikes, lastRetry)
		k.backOff = time.Now().Add(pause/2 + mrand.N(pause/2))
	}
}

// lag returns how long to leave the other side to dial.
func (p *Peer) lag() time.Duration {
	m := p.mesh
	m.mu.Lock()
	defer m.mu.Unlock()
	if p.dialsFirstLocked() || time.Since(m.moved) < silence {
		return mrand.N(yield / 10)
	}
	return yield + mrand.N(yield/3)
}

func (p *Peer) dialsFirstLocked() bool {
	switch {
	case p.met && p.byUs, !p.met && p.isGivenLocked():
		return true
	case p.met:
		return false
	}
	own := p.mesh.cfg.Member.ID
	return slices.Compare(own[:], p.id[:]) < 0
}

// isGivenLocked reports whether somebody named the member by address.
func (p *Peer) isGivenLocked() bool {
	return slices.ContainsFunc(p.mesh.seeds, func(s *seed) bool { return s.known && s.id == p.id })
}

// pace returns the pause to the next try at a member that has been away for so
// long.
func (p *Peer) pace(away time.Duration) time.Duration {
	p.mesh.mu.Lock()
	given := p.isGivenLocked()
	p.mesh.mu.Unlock()
	pause := time.Second
	switch {
	case p.relay.Load() != nil:
		// Frames pass, and the way that would be better may never come.
		pause = min(max(pause, away/4), time.Minute)
	case away < silence:
		pause /= 2
	case away > 15*time.Minute && given:
		pause *= 2
	case away > 15*time.Minute:
		pause *= 30
	}
	return pause*9/10 + mrand.N(pause/5)
}

// try makes one session and carries it to its end. under is called when it is
// made, or cannot be. began is when a session was seen to be needed. The error
// says why it could not be made, or ended.
func (p *Peer) try(ctx context.Context, began time.Time, upward bool, under func()) error {
	m := p.mesh
	var lookups error
	dialCtx, cancel := context.WithTimeout(ctx, trying)
	defer cancel()
	control, err := m.reach(dialCtx, func(ctx context.Context) iter.Seq[netip.AddrPort] { return p.addresses(ctx, &lookups) }, p)
	under()
	if err != nil {
		return cmp.Or(lookups, err)
	}
	cancel()
	return m.establish(ctx, control, began, upward)
}

// addresses are those to try, the likeliest first: where the member was last,
// then where the user says that it is, with names looked up anew, then where it
// says so itself. trouble is set to why a name could not be looked up.
func (p *Peer) addresses(ctx context.Context, trouble *error) iter.Seq[netip.AddrPort] {
	m := p.mesh
	return func(yield func(netip.AddrPort) bool) {
		var tried []netip.AddrPort
		offer := func(addrs ...netip.AddrPort) bool {
			for _, a := range addrs {
				if len(tried) == maxCandidates || slices.Contains(tried, a) {
					continue
				}
				if len(tried) == 0 {
					m.ask(p)
				}
				tried = append(tried, a)
				p.dialling(a)
				if !yield(a) {
					return false
				}
			}
			return true
		}
		m.mu.Lock()
		last := p.at
		m.mu.Unlock()
		if last.IsValid() && m.isOutside(last.Addr()) && !offer(last) {
			return
		}
		for _, s := range m.seedsOf(p.id) {
			addrs, err := m.look(ctx, s)
			*trouble = cmp.Or(*trouble, err)
			if !offer(addrs...) {
				return
			}
		}
		m.mu.Lock()
		var announced []string
		if p.news != nil {
			announced = p.news.Addresses
		}
		m.mu.Unlock()
		for _, a := range announced {
			addrs, err := resolve(ctx, m.cfg.Resolve, a)
			if err != nil {
				continue // of those that the member names, one is enough
			}
			for _, a := range addrs {
				if mayDial(a.Addr()) && m.isOutside(a.Addr()) && !offer(a) {
					return
				}
			}
		}
	}
}

// isOutside reports whether an address is reached by another way than a peer.
func (m *Mesh) isOutside(a netip.Addr) bool { return m.cfg.Through == nil || !m.cfg.Through(a) }

// dialling makes an address known as one that packets of ours go to.
func (p *Peer) dialling(a netip.AddrPort) {
	m := p.mesh
	m.mu.Lock()
	news := !slices.Contains(p.candidates, a)
	if news {
		const most = 2 * maxCandidates
		p.candidates = append(p.candidates, a)
		p.candidates = p.candidates[max(0, len(p.candidates)-most):]
	}
	m.mu.Unlock()
	if news {
		m.addOuter(a)
	}
}

// report keeps what stands in the way of a session, and logs it when it is news.
func (p *Peer) report(err error) {
	m := p.mesh
	m.mu.Lock()
	if p.answers() {
		err = nil
		p.trouble = ""
	}
	if errors.Is(err, errReplaced) {
		err = nil // the two sides have agreed on another
	}
	if errors.Is(err, errTwice) || errors.Is(err, errTwin) {
		p.backOff = time.Now().Add(twicePause)
	}
	if isPutOut(err) || errors.Is(err, errRefused) {
		p.refused, p.backOff = true, time.Now().Add(revokedPause)
	}
	if errors.Is(err, errCutOff) {
		p.backOff = time.Now().Add(firstBar)
	}
	text, news := note(&p.trouble, &p.told, err)
	if news && !p.isGivenLocked() && !errors.Is(err, errTwice) && !isPutOut(err) {
		news = false // nobody asked for it by name
	}
	if errors.Is(err, errCutOff) {
		news = false // there was a line when it began
	}
	m.mu.Unlock()
	if news && p.lines.try(time.Now(), 1) {
		m.cfg.Log.Warn("peer not connected, trying again", "peer", p, "error", text)
	}
}

// establish makes a session of a control lane that we dialled, if its peer needs
// one, and carries it to its end. began is when we set out to. A session from
// before then stays if it answers, unless it is outdated or the new one is for a wider
// path.
func (m *Mesh) establish(ctx context.Context, control *lane, began time.Time, upward bool) error {
	p, unclaim, err := m.claim(control, began, upward)
	if p == nil {
		closeFor(control.conn, errReplaced)
		return err
	}
	m.vet(ctx, control)
	data, err := m.dialLane(ctx, m.quic, control.remote(), control.hello.Session, 1)
	if err == nil && data.id != control.id {
		closeFor(data.conn, errReplaced)
		err = fmt.Errorf("%w: lanes of two members", wire.ErrProtocol)
	}
	if err == nil {
		if err = control.waitAdopted(ctx); err != nil {
			closeFor(data.conn, err)
			err = explain(control.remote(), err)
		}
	}
	if err != nil {
		unclaim()
		p.wake()
		if why := context.Cause(control.conn.Context()); why != nil {
			err = explain(control.remote(), why) // what the peer has against us
		}
		closeFor(control.conn, err)
		return err
	}
	s := newSession(ctx, m, control, true)
	return explain(control.remote(), s.carry(ctx, data))
}

// claim returns the peer at the other end of a control lane, or nil when it needs
// no session: it has one that was made since we set out, or another is about to
// be. A claim ends when the session is adopted, by unclaim, with the control lane, or
// by time: its path may have gone.
func (m *Mesh) claim(control *lane, began time.Time, upward bool) (p *Peer, unclaim func(), err error) {
	if p, err = m.meet(control.id, control.site); err != nil {
		return nil, nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.greetedLocked(control)
	if err := p.barError(time.Now()); err != nil {
		return nil, nil, err
	}
	s := p.session.Load()
	switch {
	case m.leaving, p.hasLeftLocked():
		return nil, nil, nil
	case s != nil && s.since.After(began),
		s != nil && s.recovered() && !s.outdated.Load() && !upward,
		p.claim.Err() == nil:
		return nil, nil, nil
	}
	// The data lane takes two round trips.
	lasts := max(time.Second, 8*control.conn.ConnectionStats().SmoothedRTT)
	p.claim, p.unclaim = context.WithTimeout(control.conn.Context(), min(lasts, dialling))
	m.placeLocked(p, control.remote())
	return p, p.unclaim, nil
}

// rival returns the claim of ours that a session which we accepted gives way to, or
// nil.
func (m *Mesh) rival(s *session) context.Context {
	m.mu.Lock()
	defer m.mu.Unlock()
	if p := m.peers[s.id]; p != nil && !m.keeps(s) {
		return p.claim
	}
	return nil
}
