// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"iter"
	mrand "math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/l2bridge/l2bridge/transport/identity"
)

// lookPause is how often at most a name is looked up.
const lookPause = 900 * time.Millisecond

// seed is a peer that was named by address: who is there shows when it answers.
// From then on the member's own keeper dials it, and the seed's addresses are
// among those that it tries.
type seed struct {
	mesh      *Mesh
	addresses []string      // HOST:PORT, as given
	founder   bool          // it is Config.Founder
	again     chan struct{} // see at once who is there

	// Guarded by Mesh.mu.
	id         identity.ID // who answered there last
	known      bool        // somebody has
	candidates []netip.AddrPort
	looked     time.Time // when they were looked up
	trouble    string    // why nobody has
	told       []string  // of that, in the log
	since      time.Time
}

func newSeed(m *Mesh, addresses []string) *seed {
	return &seed{mesh: m, addresses: addresses, again: make(chan struct{}, 1)}
}

// run dials until somebody answers, and again when that one is lost, until ctx
// ends.
func (s *seed) run(ctx context.Context) {
	for {
		s.seek(ctx)
		select {
		case <-s.again:
		case <-ctx.Done():
			return
		}
	}
}

// loseLocked forgets who is at a seed's addresses.
func (s *seed) loseLocked() {
	s.id, s.known = identity.ID{}, false
	poke(s.again)
}

// seek dials until somebody answers.
func (s *seed) seek(ctx context.Context) {
	m := s.mesh
	m.mu.Lock()
	s.since = time.Now()
	m.mu.Unlock()
	wait := time.Duration(0)
	for {
		// Half of the pause is random, so that sites that lost the same hub
		// do not come back in step.
		if !s.pause(ctx, wait/2+mrand.N(wait/2+1)) || m.isKnown(s) {
			return
		}
		began := time.Now()
		err := s.dial(ctx)
		if ctx.Err() != nil || m.isKnown(s) {
			return
		}
		if errors.Is(err, errReplaced) {
			err = nil
		}
		m.mu.Lock()
		text, news := note(&s.trouble, &s.told, err)
		m.mu.Unlock()
		if news {
			m.cfg.Log.Warn("peer not connected, trying again", "addr", s, "error", text)
		}
		switch {
		case errors.Is(err, errSelf):
			wait = time.Minute
		case errors.Is(err, errTwice):
			wait = twicePause
		case isPutOut(err), errors.Is(err, errRefused), errors.Is(err, identity.ErrRevoked):
			wait = revokedPause
		case time.Since(began) > lastRetry:
			wait = firstRetry // trying took its time
		default:
			wait = min(max(2*wait, firstRetry), lastRetry)
		}
	}
}

// pause waits until the next dial is due, and reports false when ctx ended first.
func (s *seed) pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-s.again:
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}

// note keeps what stands in the way, and reports whether it is news: one of a few
// that were told since something first did is not. A name that stands for several
// addresses has them fail in turns.
func note(trouble *string, told *[]string, err error) (text string, news bool) {
	const few = 2 * maxResolved
	if err == nil {
		return "", false
	}
	text = identity.Clean(err.Error())
	if *trouble == "" {
		*told = nil
	}
	*trouble = text
	if slices.Contains(*told, text) {
		return text, false
	}
	*told = append((*told)[max(0, len(*told)+1-few):], text)
	return text, true
}

// dial tries the addresses once. It returns when a session that came of it has
// ended, or with why there is none.
func (s *seed) dial(ctx context.Context) error {
	m := s.mesh
	addrs, err := m.look(ctx, s)
	if len(addrs) == 0 {
		return err
	}
	m.refreshOuter()
	began := time.Now()
	control, err := m.reach(ctx, listed(addrs), nil)
	if err != nil {
		return err
	}
	m.bind(s, control.id)
	return m.establish(ctx, control, began, false)
}

// look resolves a seed's addresses, and returns those that may be dialled. What
// they were before stands for a moment, and while they cannot be looked up.
func (m *Mesh) look(ctx context.Context, s *seed) (addrs []netip.AddrPort, err error) {
	now := time.Now()
	m.mu.Lock()
	addrs = s.candidates
	fresh := now.Sub(s.looked) < lookPause
	m.mu.Unlock()
	if !fresh {
		found, lookErr := resolveAll(ctx, m.cfg.Resolve, s.addresses)
		if err = lookErr; err == nil {
			addrs = found
			m.mu.Lock()
			s.candidates, s.looked = found, now
			m.mu.Unlock()
		}
	}
	if len(addrs) > 0 && m.cfg.Through != nil {
		return without(addrs, m.cfg.Through)
	}
	return addrs, err
}

// bind notes who is at a seed's addresses: that member's keeper has them now.
func (m *Mesh) bind(s *seed, id identity.ID) {
	m.mu.Lock()
	s.id, s.known, s.trouble = id, true, ""
	m.mu.Unlock()
}

func (m *Mesh) isKnown(s *seed) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return s.known
}

// seedsOf returns the seeds that turned out to be a member.
func (m *Mesh) seedsOf(id identity.ID) (all []*seed) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.seeds {
		if s.known && s.id == id {
			all = append(all, s)
		}
	}
	return all
}

// String returns the addresses of the peer, for people.
func (s *seed) String() string { return strings.Join(s.addresses, " ") }

// reach dials addresses for a control lane, and returns the first that answers
// with a hello as who is wanted; anybody is while that is nil.
func (m *Mesh) reach(ctx context.Context, addrs func(context.Context) iter.Seq[netip.AddrPort], want *Peer) (*lane, error) {
	control, errs := race(ctx, addrs, func(ctx context.Context, addr netip.AddrPort) (*lane, error) {
		var session [8]byte
		rand.Read(session[:])
		l, err := m.dialLane(ctx, m.quic, addr, session, 0)
		switch {
		case err != nil:
			return nil, err
		case l.id == m.cfg.Member.ID:
			err = errSelf
		case want != nil && l.id != want.id:
			err = m.elsewhere(addr, l)
		default:
			return l, nil
		}
		closeFor(l.conn, errReplaced)
		return nil, err
	}, func(l *lane) { closeFor(l.conn, errReplaced) })
	switch {
	case len(errs) > 0:
		return nil, worst(errs, errSelf)
	case control == nil:
		return nil, cmp.Or(ctx.Err(), errNoAddress)
	}
	return control, nil
}

// errNoAddress is what is in the way of reaching a member of which nothing is
// known but that it exists.
var errNoAddress = errors.New("no address to dial; it has to dial us")

// elsewhere notes that another member than was wanted is at an address.
func (m *Mesh) elsewhere(addr netip.AddrPort, l *lane) error {
	if _, err := m.meet(l.id, l.site); err != nil { // from now on it is dialled itself
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.seeds {
		if s.known && slices.Contains(s.candidates, addr) {
			s.id = l.id
		}
	}
	return fmt.Errorf("%s is site %s now", addr, l.site)
}
