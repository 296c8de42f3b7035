// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
	"golang.org/x/sync/errgroup"

	"github.com/l2bridge/l2bridge/internal/frame"
	"github.com/l2bridge/l2bridge/transport/egress"
	"github.com/l2bridge/l2bridge/transport/identity"
	"github.com/l2bridge/l2bridge/transport/wire"
)

var (
	errReplaced  = errors.New("replaced by a newer connection")
	errNotServed = errors.New("the switch has no port for it")
)

// MaxLanes bounds the data lanes of a session.
const MaxLanes = 16

// session is a set of lanes to one peer:
//
//	control lane --> data lane --> adopted --> ended --> done
//	   hello           hello      (peer up)
//	                               lanes come and go
//
// It ends when its control lane or its first data lane does.
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

	// Set before anything runs.
	data  *lane
	since time.Time
	peer  *Peer
	mtu   int // of our LAN

	tasks     sync.WaitGroup
	acks      chan wire.ProbeAck // to be sent
	wants     chan wire.Lanes    // to be sent
	peerWants atomic.Uint32      // data lanes

	mu    sync.Mutex          // guards what follows
	open  bool                // lanes may join
	lanes [MaxLanes + 1]*lane // data lanes, by number
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
		acks:    make(chan wire.ProbeAck, MaxLanes),
		wants:   make(chan wire.Lanes, 1),
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

// carry carries frames over a session with its first data lane until the session
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
		// What came first over the old session is delivered first, and no flow
		// leaves by lanes of both.
		<-before.done
		if before.control.hello.Features&^s.control.hello.Features != 0 {
			p.queue.Clear() // what waits may be more than the peer takes now
		}
	}
	s.mesh.refreshOuter()

	run := func(f func() error) {
		s.tasks.Go(func() {
			if err := f(); err != nil {
				s.end(err)
			}
		})
	}
	s.mu.Lock()
	s.peer, s.mtu, s.open = p, s.mesh.getLAN().mtu, true
	s.lanes[data.hello.Lane] = data
	s.mu.Unlock()
	run(func() error { return s.runLane(data) })
	run(func() error { return s.steer() })

	run(func() error {
		next := func() ([]byte, error) { return s.control.conn.ReceiveDatagram(s.ctx) }
		return s.control.receive(next, s.mtu, &p.drops, s.acks, func([]byte) bool {
			p.drops[wire.Malformed].Add(1)
			return true // counted
		}, func(frames []*frame.Buf) {
			p.drops[wire.Malformed].Add(uint64(len(frames)))
		})
	})
	run(func() error { return s.control.beat(s.ctx) })
	run(func() error { return readControl(s.control.stream, s) })
	run(func() error { return s.writeControl() })

	select {
	case <-s.ctx.Done():
	case <-s.control.conn.Context().Done():
		s.end(context.Cause(s.control.conn.Context()))
	}
	s.mu.Lock()
	s.open = false // no lane joins any more
	s.mu.Unlock()
	s.close() // frees who waits for quic-go
	s.tasks.Wait()
	return context.Cause(s.ctx)
}

// runLane is the life of a data lane: it carries frames until the lane or the
// session ends, and returns why.
func (s *session) runLane(l *lane) error {
	defer l.closeOwn()
	out := s.peer.queue.Open()
	if out == nil {
		err := fmt.Errorf("%w: more than %d lanes", wire.ErrProtocol, egress.MaxLanes)
		closeFor(l.conn, err)
		return err
	}
	l.out.Store(out)
	ctx, end := context.WithCancelCause(s.ctx)
	defer end(nil)
	next, done := receiver(ctx, l.socket, l.conn)
	defer done()
	var tasks sync.WaitGroup
	run := func(f func() error) {
		tasks.Go(func() {
			if err := f(); err != nil {
				end(err)
			}
		})
	}
	p := s.peer
	test := func(f []byte) bool { return p.probe.Take(f, s.mtu) }
	run(func() error { return l.receive(next, s.mtu, &p.drops, s.acks, test, p.deliver) })
	run(func() error { return l.send(ctx, out, &p.tooLarge) })
	run(func() error { return l.beat(ctx) })
	run(func() error { return l.watchPath(ctx, s.control) })
	run(func() error { return readControl(l.stream, nil) })
	select {
	case <-ctx.Done():
	case <-l.conn.Context().Done():
		end(context.Cause(l.conn.Context()))
	case <-l.retired:
		end(nil)
	}
	why := context.Cause(ctx)
	closeFor(l.conn, why) // frees who waits for quic-go
	tasks.Wait()
	return why
}

// add runs one more data lane for as long as it lasts. The session goes on
// without it when it ends.
func (s *session) add(l *lane) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := int(l.hello.Lane)
	switch {
	case n < 2 || n > MaxLanes:
		return fmt.Errorf("%w: lane %d is more than agreed", wire.ErrProtocol, n)
	case !s.open:
		return fmt.Errorf("%w: lane %d of a session that is not up", wire.ErrProtocol, n)
	case s.lanes[n] != nil:
		return fmt.Errorf("%w: lane %d twice", wire.ErrProtocol, n)
	case l.id != s.id:
		return fmt.Errorf("%w: lanes of two members", wire.ErrProtocol)
	}
	s.lanes[n] = l
	s.tasks.Go(func() {
		err := s.runLane(l)
		s.mu.Lock()
		s.lanes[n] = nil
		s.mu.Unlock()
		s.mesh.cfg.Log.Debug("lane ended", "peer", s.site, "lane", n, "error", err)
	})
	s.mesh.cfg.Log.Debug("lane up", "peer", s.site, "lane", n)
	return nil
}

// dataLanes returns the data lanes that run, by number.
func (s *session) dataLanes() (all []*lane) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.lanes {
		if l != nil && l.out.Load() != nil {
			all = append(all, l)
		}
	}
	return all
}

// close closes the connections of a session that has ended.
func (s *session) close() {
	closeFor(s.data.conn, context.Cause(s.ctx))
	closeFor(s.control.conn, context.Cause(s.ctx))
}

// readControl reads the peer's control messages on a lane until the stream ends.
// What it says after its hello it says on the control lane, whose session is s;
// on another lane s is nil.
func readControl(stream io.Reader, s *session) error {
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
		case s == nil:
		case typ == wire.TypeProbeAck:
			ack, err := wire.ParseProbeAck(body)
			if err != nil {
				return err
			}
			s.acked(ack)
		case typ == wire.TypeLanes:
			lanes, err := wire.ParseLanes(body)
			if err != nil {
				return err
			}
			s.peerWants.Store(uint32(lanes.Want))
		}
	}
}

// acked takes the answer to a probe to its lane.
func (s *session) acked(ack wire.ProbeAck) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := int(ack.Lane); n < len(s.lanes) && s.lanes[n] != nil {
		s.lanes[n].acked.Store(ack.Nonce)
	}
}

// writeControl writes our control messages.
func (s *session) writeControl() error {
	for {
		var message []byte
		select {
		case <-s.ctx.Done():
			return nil
		case ack := <-s.acks:
			message = ack.Append(nil)
		case lanes := <-s.wants:
			message = lanes.Append(nil)
		}
		if _, err := s.control.stream.Write(message); err != nil {
			return err
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
