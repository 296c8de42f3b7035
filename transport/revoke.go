// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/l2bridge/l2bridge/transport/identity"
	"github.com/l2bridge/l2bridge/transport/wire"
)

// Who is a member no more stands on a list that the CA signs. Each side's hello
// says which one it has; who has the newer one sends it, and who receives one that
// is newer goes by it and passes it on.
//
// A member that was away does not know whom it must not let in any more, and may
// be reached by that one first. So one without any session holds new ones back: no
// frame goes in or out until it has heard from the holder of the CA key that its
// list is the current one. When the holder does not answer it goes on without.

const (
	// holdFor is how long sessions are held back for the holder of the CA key to
	// answer: two round trips of a path around half of the world. A member that
	// comes back is to have its traffic within a second, though the holder is gone.
	holdFor = 400 * time.Millisecond

	// revokedPause is how long a site waits that was told that it is no member.
	revokedPause = time.Minute

	// leaving is how long a site that leaves waits for the others to have heard it.
	leaving = time.Second

	// finalVersion is that of the last announcement of a member that leaves: none
	// can be newer.
	finalVersion = math.MaxUint64
)

var (
	errRevoked = errors.New("its membership of the network was revoked")
	errLeft    = errors.New("it has left the network for good")

	// errPutOut is what a site is told that is no member any more, errRefused what
	// it finds when it dials.
	errPutOut  = errors.New("this site is no member of the network any more (it was revoked, or left; to come back it needs a new key: l2bridge leave, then join with a new token)")
	errRefused = errors.New("refused us (is this site a member of its network, and not revoked?)")
)

// isPutOut reports whether a connection was ended since we are no member any more.
func isPutOut(err error) bool {
	var closed *quic.ApplicationError
	return errors.Is(err, errPutOut) || errors.As(err, &closed) && closed.Remote && closed.ErrorCode == wire.CloseRevoked
}

// listVersion says in hellos which list we have.
func (m *Mesh) listVersion() wire.ListVersion {
	list := m.cfg.Member.Revocations()
	return wire.ListVersion{Number: list.Version, Digest: list.Digest()}
}

// listLocked returns our list for a peer, as messages, if it is due to have it:
// it has none, an older one, or one that contradicts ours.
func (s *session) listLocked() [][]byte {
	list := s.mesh.cfg.Member.Revocations()
	d := list.Digest()
	if list.Version < s.theirs.Number || d == s.theirs.Digest || d == s.told {
		return nil
	}
	s.theirs, s.told = wire.ListVersion{Digest: d}, d
	return wire.Revoked(list.Bytes())
}

// revoked takes a part of the peer's list. One that the CA has not signed is no
// mistake that a member can make.
func (s *session) revoked(body []byte) error {
	m := s.mesh
	list, err := s.parts.Add(body)
	if list == nil {
		return err
	}
	before, held := m.listVersion(), m.cfg.Member.Founder()
	news, err := m.cfg.Member.TakeRevocations(list)
	switch {
	case errors.Is(err, identity.ErrRevocations):
		return fmt.Errorf("%w: %w", wire.ErrProtocol, err)
	case err != nil:
		m.cfg.Log.Error("list of revoked keys not stored, it counts until this site stops", "error", err)
	}
	if held && !m.cfg.Member.Founder() {
		m.cfg.Log.Warn("the ca key is used at another site now", "site", m.cfg.Member.FounderSite())
	}
	m.mu.Lock()
	s.theirs = wire.ListVersion{Digest: identity.RevocationsDigest(list)}
	m.mu.Unlock()
	s.mail.put(func(o *mail) { o.list = true }) // if we go on by another
	if m.listVersion() != before {
		m.putOut(news)
	}
	sleep(s.ctx, linksPause) // more often is not read
	return nil
}

// Revoke puts a site out of the network, and returns its keys; none when it was
// out before. known tells whether there is or was such a site. It returns when that
// is stored, and on its way to all peers.
func (m *Mesh) Revoke(site string) (news []identity.Revocation, known bool, err error) {
	var keys []identity.ID // as peers have shown them: the founder's book may be an old one
	m.mu.Lock()
	member := m.cfg.Member
	for id, p := range m.peers {
		if p.String() == site {
			keys = append(keys, id)
		}
	}
	m.mu.Unlock()
	if news, err = member.Revoke(site, keys...); err != nil {
		return nil, false, err
	}
	m.putOut(news)
	for _, k := range member.Revocations().Keys {
		known = known || k.Name == site && k.Reason != identity.Rekeyed
	}
	return news, known, nil
}

// putOut goes by the list of revoked keys, which has changed: those that it has
// put out are gone, and all others are told.
func (m *Mesh) putOut(news []identity.Revocation) {
	var out []*Peer
	m.mu.Lock()
	for _, k := range news {
		if p := m.peers[k.ID]; p != nil {
			out = append(out, p)
		}
		for _, s := range m.seeds {
			if s.known && s.id == k.ID && k.Reason == identity.Rekeyed {
				s.loseLocked() // the site is still there, under a key that we may not have met
			}
		}
	}
	m.dropLocked(out)
	for key, s := range m.sessions { // on their way up
		if m.cfg.Member.Revoked(key.id) {
			s.end(errRevoked)
		}
	}
	for _, p := range m.peers {
		if s := p.session.Load(); s != nil {
			s.mail.put(func(o *mail) { o.list = true })
		}
	}
	if m.due > 0 && m.cfg.Member.Revocations().Version >= m.due {
		m.vetLocked()
	}
	m.mu.Unlock()
	for _, p := range out {
		p.dismiss(errRevoked)
	}
	for _, k := range news {
		e := Event{Kind: EventRevoked, Site: k.Name, ID: k.ID, Reason: "it " + k.Reason.String()}
		m.cfg.Log.Info("site is no member any more", "peer", k.Name, "id", k.ID, "reason", e.Reason)
		m.event(e)
	}
	m.stir()
	m.refreshOuter()
}

// dropLocked has us keep track of these peers no more. They are to be dismissed.
func (m *Mesh) dropLocked(out []*Peer) {
	if len(out) == 0 {
		return
	}
	for _, p := range out {
		delete(m.peers, p.id)
	}
	m.nameLocked()
	m.placesLocked()
	m.unstored = true
	poke(m.learned)
}

// Gone returns the addresses by which members were named that are none any more:
// revoked, or gone for good.
func (m *Mesh) Gone() (addresses []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, k := range m.cfg.Member.Revocations().Keys {
		for _, s := range m.seeds {
			if s.known && s.id == k.ID && k.Reason != identity.Rekeyed {
				addresses = append(addresses, s.addresses...)
			}
		}
	}
	return addresses
}

// dismiss ends all that there is with a member: no frame comes from it any more
// when dismiss returns.
func (p *Peer) dismiss(why error) {
	m := p.mesh
	m.mu.Lock()
	p.relay.Store(nil)
	s := p.session.Load()
	m.mu.Unlock()
	if s != nil {
		s.end(why)
	}
	p.stop()
	p.setSink(nil)
	p.leaves()
}

// hasLeftLocked reports whether the member has said that it is none any more. Until the
// holder of the CA key has heard of it others pass that on.
func (p *Peer) hasLeftLocked() bool { return p.news != nil && p.news.Version == finalVersion }

// goes takes the last announcement of a member.
func (m *Mesh) goes(p *Peer) {
	p.dismiss(errLeft)
	m.cfg.Log.Info("site has left the network", "peer", p)
	m.event(Event{Kind: EventRevoked, Site: p.String(), ID: p.id, Reason: errLeft.Error()})
	if !m.cfg.Member.Founder() {
		return
	}
	news, err := m.cfg.Member.Retire(identity.Site{ID: p.id, Name: p.String()}, identity.Left)
	if err != nil {
		m.cfg.Log.Error("site that has left is not revoked (do it by hand: l2bridge revoke)", "peer", p, "error", err)
	}
	if len(news) > 0 {
		m.putOut(news)
	}
}

// Leave announces that this site is a member no more, and returns how many sites
// it could tell, of how many it knows. They pass it on, and end their sessions; no
// other is made.
func (m *Mesh) Leave(ctx context.Context) (told, of int, err error) {
	m.mu.Lock()
	member := m.cfg.Member
	m.mu.Unlock()
	final := wire.Member{Version: finalVersion, Cert: member.Certificate()}
	signed, err := final.Signed()
	if err != nil {
		return 0, 0, err
	}
	signature, err := member.Sign(signed)
	if err != nil {
		return 0, 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, leaving)
	defer cancel()
	var sessions []*session
	heard := make(map[string]bool) // by site: each, ours too, may have a former key for a moment
	m.mu.Lock()
	m.leaving = true
	m.own, m.version = &announcement{final, signed, signature}, finalVersion
	for _, p := range m.peers {
		if p.hasLeftLocked() || p.String() == member.Site {
			continue
		}
		heard[p.String()] = false
		if s := p.session.Load(); s != nil {
			sessions = append(sessions, s)
		}
	}
	m.tellLocked(member.ID, nil)
	m.mu.Unlock()
	for _, s := range sessions {
		select {
		case <-s.done:
			if isPutOut(context.Cause(s.ctx)) {
				heard[s.peer.String()] = true
			}
		case <-ctx.Done():
		}
	}
	for _, h := range heard {
		if h {
			told++
		}
	}
	return told, len(heard), nil
}

// vet holds a session back, of which there is the control lane, until we know whom
// not to let in, but not for long. Neither side uses it meanwhile.
func (m *Mesh) vet(ctx context.Context, control *lane) {
	for ctx.Err() == nil && control.conn.Context().Err() == nil {
		m.mu.Lock()
		list := m.cfg.Member.Revocations()
		holds := func(id identity.ID, site string) bool { return list.Holds(identity.Site{ID: id, Name: site}) }
		wait := time.Until(m.holdUntil)
		if wait <= 0 || m.cfg.Member.External() || holds(m.cfg.Member.ID, m.cfg.Member.Site) {
			m.vetLocked()
		}
		if m.vetted || holds(control.id, control.site) {
			m.mu.Unlock()
			return
		}
		for id, p := range m.peers {
			if holds(id, p.String()) && !p.answers() {
				p.hurry()
			}
		}
		known := m.known
		m.mu.Unlock()
		timer := time.NewTimer(wait)
		select {
		case <-known:
		case <-timer.C:
		case <-control.conn.Context().Done():
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// vetLocked has no session held back any more.
func (m *Mesh) vetLocked() {
	if !m.vetted {
		m.vetted, m.due = true, 0
		close(m.known)
	}
}

// greetedLocked takes the hello on a control lane. The first one begins the time for
// which sessions are held back; both ends count from then, and not one after the
// other. That of the holder of the CA key says of its list that we have it, or that
// it is to come.
func (m *Mesh) greetedLocked(l *lane) {
	if m.vetted {
		return
	}
	if m.holdUntil.IsZero() {
		m.holdUntil = time.Now().Add(holdFor)
	}
	list := m.cfg.Member.Revocations()
	if !list.Holds(identity.Site{ID: l.id, Name: l.site}) {
		return
	}
	if theirs := l.hello.Revoked.Number; theirs > list.Version {
		m.due, m.holdUntil = theirs, time.Now().Add(greeting)
	} else {
		m.vetLocked()
	}
}

// aloneLocked notes that there is no session any more, if so: much may happen until
// the next one.
func (m *Mesh) aloneLocked() {
	for _, p := range m.peers {
		if p.session.Load() != nil {
			return
		}
	}
	if m.vetted {
		m.known = make(chan struct{})
	}
	m.vetted, m.due, m.holdUntil = false, 0, time.Time{}
}
