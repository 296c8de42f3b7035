// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
	"golang.org/x/sync/errgroup"

	"github.com/l2bridge/l2bridge/internal/frame"
	"github.com/l2bridge/l2bridge/transport/identity"
	"github.com/l2bridge/l2bridge/transport/wire"
)

var (
	errReplaced  = errors.New("replaced by a newer connection")
	errNotServed = errors.New("the switch has no port for it")
)

// session is a set of lanes to one peer:
//
//	control lane --> data lane --> adopted --> ended --> done
//	   hello           hello      (peer up)
//
// It ends as a whole when any of its lanes does.
type session struct {
	mesh    *Mesh
	site    string
	id      identity.ID
	dialled bool // by us
	control *lane

	joined chan *lane // the data lane of an accepted session, when it comes
	full   bool       // it has come; guarded by Mesh.mu

	ctx  context.Context // ends with the session, the cause says why
	end  context.CancelCauseFunc
	done chan struct{} // closed when nothing of the session runs any more

	// Set before the session is adopted.
	data  *lane
	since time.Time
}

type sessionKey struct {
	id      identity.ID
	session [8]byte
}

// newSession returns a session that lives no longer than ctx.
func newSession(ctx context.Context, m *Mesh, control *lane, dialled bool) *session {
	s := &session{
		mesh:    m,
		site:    control.site,
		id:      control.id,
		dialled: dialled,
		control: control,
		joined:  make(chan *lane, 1),
		done:    make(chan struct{}),
	}
	s.ctx, s.end = context.WithCancelCause(ctx)
	return s
}

func (s *session) key() sessionKey { return sessionKey{s.id, s.control.hello.Session} }

// accepted is the life of an accepted session: it waits for the data lane, then
// for the end.
func (s *session) accepted(ctx context.Context, g *errgroup.Group) {
	timeout := time.NewTimer(greeting)
	defer timeout.Stop()
	select {
	case l := <-s.joined:
		s.carry(ctx, g, l)
		s.mesh.forget(s)
		return
	case <-timeout.C:
		s.end(fmt.Errorf("%w: no data lane", wire.ErrProtocol))
	case <-s.control.conn.Context().Done():
		s.end(context.Cause(s.control.conn.Context()))
	case <-s.ctx.Done():
	}
	s.mesh.forget(s)
	closeFor(s.control.conn, context.Cause(s.ctx))
	select {
	case l := <-s.joined: // too late
		closeFor(l.conn, context.Cause(s.ctx))
	default:
	}
}

// carry carries frames over a session with its data lane until the session
// ends, and returns why it did.
func (s *session) carry(ctx context.Context, g *errgroup.Group, data *lane) error {
	defer close(s.done)
	s.data, s.since = data, time.Now()
	p, before, err := s.mesh.adopt(ctx, g, s)
	if err != nil {
		s.end(err)
		s.close()
		return err
	}
	defer s.mesh.leave(p, s)
	if before != nil {
		// What came first over the old session is delivered first, and a
		// queue has one taker.
		<-before.done
		if before.control.hello.Features&^s.control.hello.Features != 0 {
			p.queue.Clear() // what waits may be more than the peer takes now
		}
	}
	s.mesh.refreshOuter()

	var lanes sync.WaitGroup
	run := func(f func() error) {
		lanes.Go(func() {
			if err := f(); err != nil {
				s.end(err)
			}
		})
	}
	mtu := s.mesh.getLAN().mtu
	next, done := receiver(s.ctx, s.mesh.cfg.Conn, data.conn)
	defer done()
	acks := make(chan wire.ProbeAck, 1)
	run(func() error { return data.receive(next, mtu, &p.drops, acks, p.deliver) })
	run(func() error { return data.send(s.ctx, p.queue.Open(), &p.tooLarge) })
	run(func() error { return data.beat(s.ctx) })
	run(func() error { return data.watchPath(s.ctx) })
	run(func() error { return readControl(data.stream, nil) })

	run(func() error {
		next := func() ([]byte, error) { return s.control.conn.ReceiveDatagram(s.ctx) }
		return s.control.receive(next, mtu, &p.drops, acks, func(frames []*frame.Buf) {
			p.drops[wire.Malformed].Add(uint64(len(frames)))
		})
	})
	run(func() error { return s.control.beat(s.ctx) })
	run(func() error { return readControl(s.control.stream, data) })
	run(func() error { return writeControl(s.ctx, s.control.stream, acks) })

	select {
	case <-s.ctx.Done():
	case <-data.conn.Context().Done():
		s.end(context.Cause(data.conn.Context()))
	case <-s.control.conn.Context().Done():
		s.end(context.Cause(s.control.conn.Context()))
	}
	s.close() // frees who waits for quic-go
	lanes.Wait()
	return context.Cause(s.ctx)
}

// close closes the connections of a session that has ended.
func (s *session) close() {
	closeFor(s.data.conn, context.Cause(s.ctx))
	closeFor(s.control.conn, context.Cause(s.ctx))
}

// readControl reads the peer's control messages on a lane until the stream ends.
// All that a peer may say after its hello are answers to probes of the data lane,
// on the control lane; for another lane probed is nil.
func readControl(stream io.Reader, probed *lane) error {
	buf := make([]byte, 256)
	for {
		typ, body, err := wire.ReadMessage(stream, buf)
		switch {
		case err == io.EOF:
			return nil // it has nothing more to say
		case err != nil:
			return err
		case typ == wire.TypeHello:
			return fmt.Errorf("%w: second hello on a lane", wire.ErrProtocol)
		case typ == wire.TypeProbeAck && probed != nil:
			ack, err := wire.ParseProbeAck(body)
			if err != nil {
				return err
			}
			if ack.Lane == probed.hello.Lane {
				probed.acked.Store(ack.Nonce)
			}
		}
	}
}

// writeControl writes our control messages.
func writeControl(ctx context.Context, stream io.Writer, acks <-chan wire.ProbeAck) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case ack := <-acks:
			if _, err := stream.Write(ack.Append(nil)); err != nil {
				return err
			}
		}
	}
}

// adopt makes a session that is whole the one of its peer, and ends the one
// that it replaces. That and all before it have left the peer's queue when
// before, unless nil, is done.
//
// The newest wins: it is the one that both sides know to work. Only when both
// dialled each other at the same time the two must agree which one to keep: it
// is the one that the lower id dialled.
func (m *Mesh) adopt(ctx context.Context, g *errgroup.Group, s *session) (p *Peer, before *session, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p = m.peers[s.id]
	if p == nil {
		if len(m.peers) >= MaxPeers {
			return nil, nil, fmt.Errorf("more than %d peers", MaxPeers)
		}
		p = newPeer(s.id, m.cfg.Rate)
		m.peers[s.id] = p
	}
	if old := p.session.Load(); old != nil && old.ctx.Err() == nil {
		if crossed(old, s) && !m.keeps(s) {
			return nil, nil, errReplaced
		}
		old.end(errReplaced)
	}
	before, p.last = p.last, s
	p.site.Store(&s.site)
	p.session.Store(s)
	if !p.served {
		p.served = true
		g.Go(func() error { m.serve(ctx, p); return nil })
	}
	return p, before, nil
}

// crossed reports whether two processes dialled each other at the same time.
func crossed(old, s *session) bool {
	return old.dialled != s.dialled && s.since.Sub(old.since) < time.Second &&
		old.control.hello.Boot == s.control.hello.Boot
}

// keeps reports whether the lower of the two ids dialled s.
func (m *Mesh) keeps(s *session) bool {
	own := m.cfg.Member.ID
	return s.dialled == (strings.Compare(string(own[:]), string(s.id[:])) < 0)
}

// leave takes a session that has ended from its peer.
func (m *Mesh) leave(p *Peer, s *session) {
	if p.detach(s, context.Cause(s.ctx)) {
		p.queue.Clear()
	}
	m.mu.Lock()
	if p.last == s {
		p.last = nil
	}
	m.mu.Unlock()
}

// closeFor closes a connection with the code that fits the reason. What the
// peer is told of it are our own words about its own doing.
func closeFor(conn *quic.Conn, why error) {
	switch {
	case errors.Is(why, wire.ErrProtocol):
		conn.CloseWithError(wire.CloseProtocol, identity.Clean(why.Error()))
	case errors.Is(why, errReplaced):
		conn.CloseWithError(wire.CloseReplaced, errReplaced.Error())
	default:
		conn.CloseWithError(wire.CloseGoodbye, "goodbye")
	}
}
