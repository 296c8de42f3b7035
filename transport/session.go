// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/l2bridge/l2bridge/internal/frame"
	"github.com/l2bridge/l2bridge/transport/identity"
	"github.com/l2bridge/l2bridge/transport/wire"
)

var (
	errReplaced = errors.New("replaced by a newer connection")
	errTwice    = errors.New("identity used twice")
	errLeaving  = errors.New("goodbye")
)

// session is a set of lanes to one peer:
//
//	control lane --> data lane --> adopted --> ended
//	   hello           hello      (peer up)
//
// It is carried by run, which returns when any of its lanes ends.
type session struct {
	mesh    *Mesh
	site    string
	id      identity.ID
	dialled bool // by us
	since   time.Time
	control *lane
	joined  chan *lane // data lanes, as they come

	ctx context.Context // ends with the session
	end context.CancelCauseFunc

	mu   sync.Mutex // guards what follows
	data *lane
}

func newSession(m *Mesh, control *lane, dialled bool) *session {
	s := &session{
		mesh:    m,
		site:    control.site,
		id:      control.id,
		dialled: dialled,
		control: control,
		joined:  make(chan *lane, 1),
	}
	s.ctx, s.end = context.WithCancelCause(context.Background())
	return s
}

// join gives an accepted lane to the session.
func (s *session) join(l *lane) {
	select {
	case s.joined <- l:
	default:
		closeFor(l.conn, fmt.Errorf("%w: more lanes than agreed", wire.ErrProtocol))
	}
}

// alive reports whether the session has not ended.
func (s *session) alive() bool { return s.ctx.Err() == nil }

// run carries an accepted session: it waits for the data lane, then for the end.
func (s *session) run(ctx context.Context, g *errgroup.Group) {
	defer s.mesh.forget(s)
	timeout := time.NewTimer(greeting)
	defer timeout.Stop()
	select {
	case l := <-s.joined:
		s.carry(ctx, g, l)
	case <-timeout.C:
		closeFor(s.control.conn, fmt.Errorf("%w: no data lane", wire.ErrProtocol))
	case <-s.control.conn.Context().Done():
	case <-ctx.Done():
		closeFor(s.control.conn, errLeaving)
	}
	s.end(errLeaving)
	select {
	case l := <-s.joined: // came too late
		closeFor(l.conn, errReplaced)
	default:
	}
}

// carry carries frames over a session with its data lane until the session
// ends, and returns why it did.
func (s *session) carry(ctx context.Context, g *errgroup.Group, data *lane) error {
	s.since = time.Now()
	s.mu.Lock()
	s.data = data
	s.mu.Unlock()
	data.acks = make(chan ackProbe, 1)
	if !s.mesh.adopt(ctx, g, s) {
		s.end(errReplaced)
	}
	p := s.mesh.peer(s.id)
	if p == nil {
		closeFor(data.conn, errReplaced)
		closeFor(s.control.conn, errReplaced)
		return errReplaced
	}

	mtu := s.mesh.getLAN().mtu
	lanes, laneCtx := errgroup.WithContext(s.ctx)
	stop := context.AfterFunc(ctx, func() { s.end(errLeaving) })
	defer stop()
	next, done := receiver(laneCtx, s.mesh.cfg.Conn, data.conn)
	defer done()
	lanes.Go(func() error { return data.receive(next, mtu, &p.drops, p.deliver) })
	lanes.Go(func() error {
		// The lane of the session before may still be sending; a queue has
		// one taker.
		p.sending.Lock()
		defer p.sending.Unlock()
		return data.send(laneCtx, p.queue, &p.tooLarge)
	})
	lanes.Go(func() error { return data.beat(laneCtx) })
	lanes.Go(func() error { return s.control.beat(laneCtx) })
	lanes.Go(func() error { // heartbeats only
		next := func() ([]byte, error) { return s.control.conn.ReceiveDatagram(laneCtx) }
		return s.control.receive(next, mtu, &p.drops, func(frames []*frame.Buf) {
			p.drops[wire.Malformed].Add(uint64(len(frames)))
		})
	})
	lanes.Go(func() error { return s.readControl() })
	lanes.Go(func() error { return s.writeControl(laneCtx, data.acks) })
	lanes.Go(func() error { // whichever ends first ends all
		select {
		case <-laneCtx.Done():
		case <-data.conn.Context().Done():
		case <-s.control.conn.Context().Done():
		}
		why := context.Cause(s.ctx)
		if s.ctx.Err() == nil {
			why = firstError(context.Cause(data.conn.Context()), context.Cause(s.control.conn.Context()))
		}
		s.end(why)
		closeFor(data.conn, context.Cause(s.ctx))
		closeFor(s.control.conn, context.Cause(s.ctx))
		return why
	})
	err := lanes.Wait()
	p.detach(s, err)
	return err
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return io.EOF
}

// readControl reads the peer's control messages until the stream ends.
func (s *session) readControl() error {
	buf := make([]byte, 256)
	for {
		typ, body, err := wire.ReadMessage(s.control.stream, buf)
		if err != nil {
			return err
		}
		switch typ {
		case wire.TypeHello:
			return fmt.Errorf("%w: second hello on a lane", wire.ErrProtocol)
		case wire.TypeProbeAck:
			if _, err := wire.ParseProbeAck(body); err != nil {
				return err
			}
		}
	}
}

// writeControl writes our control messages.
func (s *session) writeControl(ctx context.Context, acks <-chan ackProbe) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case ack := <-acks:
			if _, err := s.control.stream.Write(ack.Append(nil)); err != nil {
				return err
			}
		}
	}
}
