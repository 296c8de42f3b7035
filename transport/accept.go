// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/l2bridge/l2bridge/transport/identity"
	"github.com/l2bridge/l2bridge/transport/udpconn"
	"github.com/l2bridge/l2bridge/transport/wire"
)

const (
	// maxSessions bounds the sessions of one peer that are on their way up or
	// down.
	maxSessions = 8

	// sessionsAtOnce is how many sessions a member may begin at once, and
	// sessionsEach how many a second: each costs time, and lines in the log.
	sessionsAtOnce, sessionsEach = 30, 2

	// linesAtOnce and linesEach bound the lines about its coming and going: twenty a
	// minute.
	linesAtOnce, linesEach = 40, 1.0 / 3

	// maxGreetingsEach is how many connections a member may have that have not said
	// what for, of the maxGreetings that there may be.
	maxGreetingsEach = 16
)

// serverTLS picks the side of TLS that goes with what a client wants to speak.
func (m *Mesh) serverTLS() *tls.Config {
	lanes := m.cfg.Member.TLSConfig(wire.ALPN)
	enrol := m.cfg.Member.EnrolTLSConfig()
	renew := m.cfg.Member.RenewTLSConfig()
	both := lanes.Clone()
	if m.cfg.Member.External() {
		return both // nobody is let in here
	}
	both.NextProtos = []string{wire.ALPN, identity.AskALPN}
	if m.cfg.Member.Founder() {
		both.NextProtos = append(both.NextProtos, identity.JoinALPN, identity.RenewALPN)
	}
	both.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if m.cfg.Member.Founder() && slices.Contains(hello.SupportedProtos, identity.JoinALPN) {
			return enrol, nil
		}
		if slices.Contains(hello.SupportedProtos, identity.AskALPN) {
			return m.askedTLS(hello.Context())
		}
		if m.cfg.Member.Founder() && slices.Contains(hello.SupportedProtos, identity.RenewALPN) {
			return renew, nil
		}
		return lanes, nil
	}
	return both
}

// openDoor returns the door of one life, which tells the log what it sees.
func (m *Mesh) openDoor(gate *udpconn.Gate) *door {
	return newDoor(gate, func(begun int) {
		m.floods.warn(m.cfg.Log, "flood of handshakes", errFlood, "begun", begun)
	}, func(addr net.Addr, why error) {
		m.refused.warn(m.cfg.Log, "peer refused", why, "addr", addr)
	}, m.expects)
}

// expects reports whether a member was in a network when it was reached last.
func (m *Mesh) expects(from netip.Prefix) bool {
	places := m.places.Load()
	if places == nil {
		return false
	}
	_, ok := (*places)[from]
	return ok
}

// placeLocked notes where a member is.
func (m *Mesh) placeLocked(p *Peer, at netip.AddrPort) {
	same := networkOf(p.at) == networkOf(at)
	p.at = at
	if !same {
		m.placesLocked()
	}
}

// placesLocked has the door know where members are. It asks without a lock.
func (m *Mesh) placesLocked() {
	places := make(map[netip.Prefix]struct{}, len(m.peers))
	for _, p := range m.peers {
		if p.at.IsValid() {
			places[networkOf(p.at)] = struct{}{}
		}
	}
	m.places.Store(&places)
}

// accept takes connections and has each one handled in a goroutine of its own.
func (m *Mesh) accept(ctx context.Context, listener *quic.Listener) error {
	for {
		conn, err := listener.Accept(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("accept on %s: %w", m.cfg.Conn.LocalAddr(), err)
		}
		done, ok := m.door.pass(conn)
		if !ok {
			conn.CloseWithError(wire.CloseGoodbye, errBusy.Error())
			continue
		}
		handle := m.greet
		switch conn.ConnectionState().TLS.NegotiatedProtocol {
		case identity.JoinALPN:
			handle = m.enrol
		case identity.AskALPN:
			handle = m.hear
		case identity.RenewALPN:
			handle = m.renew
		}
		m.group.Go(func() error {
			defer done()
			handle(ctx, conn)
			return nil
		})
	}
}

// greet answers the hello of an accepted connection and puts the lane where it
// belongs.
func (m *Mesh) greet(ctx context.Context, conn *quic.Conn) {
	l, err := m.answerInTurn(ctx, conn)
	switch {
	case err != nil:
		m.blame(conn, err)
	case l.hello.Lane == 0:
		s := newSession(ctx, m, l, false)
		if err = m.admit(s); err != nil {
			s.end(err)
			break
		}
		m.group.Go(func() error { s.accepted(ctx); return nil })
	default:
		err = m.join(l)
	}
	if err != nil {
		if errors.Is(err, errTwin) {
			m.twin(l)
		}
		closeFor(conn, err)
		m.cfg.Log.Debug("greeting ended", "addr", conn.RemoteAddr(), "error", err)
	}
}

// answerInTurn is answer for a member that does not have too many connections there
// already.
func (m *Mesh) answerInTurn(ctx context.Context, conn *quic.Conn) (*lane, error) {
	_, id, err := identity.Peer(conn.ConnectionState().TLS)
	if err != nil {
		return nil, err
	}
	if !m.greetings.take(id, maxGreetingsEach) {
		return nil, errBusy
	}
	defer m.greetings.give(id)
	return m.answer(ctx, conn)
}

// twin tells that the machine at the other end of a lane has another one's key.
func (m *Mesh) twin(l *lane) {
	m.event(Event{Kind: EventTwice, Site: l.site, ID: l.id, Addr: l.remote(), Reason: errTwin.Error()})
}

// admit makes an accepted session known, so that its lanes find it.
func (m *Mesh) admit(s *session) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.sessions[s.key()] != nil {
		return fmt.Errorf("%w: session used twice", wire.ErrProtocol)
	}
	if m.cfg.Member.Revoked(s.id) { // since its handshake
		return errRevoked
	}
	m.greetedLocked(s.control)
	open := 0
	for k := range m.sessions {
		if k.id == s.id {
			open++
		}
	}
	if open >= maxSessions {
		return fmt.Errorf("%w: more than %d sessions at once", wire.ErrProtocol, maxSessions)
	}
	if p := m.peers[s.id]; p != nil {
		now := time.Now()
		if err := p.barError(now); err != nil {
			return err
		}
		if !p.begins.try(now, 1) {
			return errBusy
		}
		if p.boots.refuses(s.control.hello.Boot, p.answers()) {
			return errTwin
		}
	}
	m.sessions[s.key()] = s
	return nil
}

// join gives an accepted data lane to its session: the first one makes the
// session whole.
func (m *Mesh) join(l *lane) error {
	l.socket = m.cfg.Conn
	m.mu.Lock()
	s := m.sessions[sessionKey{l.id, l.hello.Session}]
	first := s != nil && l.hello.Lane == 1 && !s.full
	if first {
		s.full = true
		s.joined <- l
	}
	m.mu.Unlock()
	switch {
	case s == nil:
		return fmt.Errorf("%w: lane %d of no session", wire.ErrProtocol, l.hello.Lane)
	case first:
		return nil
	}
	return s.add(l)
}

// forget ends what admit began.
func (m *Mesh) forget(s *session) {
	m.mu.Lock()
	delete(m.sessions, s.key())
	m.mu.Unlock()
}

// notices keeps what strangers can cause from filling the log: a minute has at
// most a few lines, no two for the same reason.
type notices struct {
	mu      sync.Mutex
	since   time.Time
	seen    map[string]bool
	skipped int
}

// warn logs a warning with its reason, or counts it for the next one to tell.
func (n *notices) warn(log *slog.Logger, msg string, reason error, args ...any) {
	const most, span = 8, time.Minute
	text := identity.Clean(reason.Error())
	n.mu.Lock()
	if now := time.Now(); n.seen == nil || now.Sub(n.since) >= span {
		n.seen, n.since = make(map[string]bool), now
	}
	if n.seen[text] || len(n.seen) == most {
		n.skipped++
		n.mu.Unlock()
		return
	}
	n.seen[text] = true
	if n.skipped > 0 {
		args = append(args, "skipped", n.skipped)
		n.skipped = 0
	}
	n.mu.Unlock()
	log.Warn(msg, append(args, "error", text)...)
}
