// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/l2bridge/l2bridge/internal/frame"
	"github.com/l2bridge/l2bridge/transport/identity"
	"github.com/l2bridge/l2bridge/transport/udpconn"
	"github.com/l2bridge/l2bridge/transport/wire"
)

var (
	errReplaced  = errors.New("replaced by a newer connection")
	errNotServed = errors.New("the switch has no port for it")
	errSilent    = errors.New("nothing is heard of it any more")
	errTwin      = errors.New("two machines run with its key")
	errTwice     = errors.New("identity used twice: another machine runs with this site's key (a copied state directory?); each site needs its own, see l2bridge invite")
)

// MaxLanes bounds the data lanes of a session.
const MaxLanes = 16

// session is a set of lanes to one peer:
//
//	control lane --> data lane --> adopted --> ended --> done
//	   hello           hello      (peer up)
//	                               lanes come and go
//
// The side that accepted adopts it first, or refuses, and tells of the former by its
// first message on the control lane, which the side that dialled waits for. A
// session ends when its control lane or its first data lane does, or when another
// has taken its place: see fade.
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

	suspect atomic.Bool   // it does not answer
	doubted atomic.Int64  // since when, by the mesh's clock; 0 for never
	hurry   chan struct{} // whether it does is to be found out now

	outdated atomic.Bool   // another is to take its place
	followed chan struct{} // closed when one has
	turn     chan struct{} // closed when no lane of sessions before takes frames any more
	drained  chan struct{} // closed when none of this one does, by drain
	drain    sync.Once
	saidAll  chan struct{} // closed when the peer says that none of it sends any more

	tasks     sync.WaitGroup
	senders   sync.WaitGroup
	acks      chan wire.ProbeAck // to be sent
	wants     chan wire.Lanes    // to be sent
	peerWants atomic.Uint32      // data lanes
	mail      mail               // to be sent

	theirs wire.ListVersion // the list of revoked keys that the peer has; guarded by Mesh.mu
	told   [8]byte          // the one that we sent last; guarded by Mesh.mu

	doubtsTold bool // the peer was told whom we doubt; the control lane's writer's own

	// The control lane's reader's own.
	heardHave bool
	bad       int                        // announcements that were not good
	punches   map[wire.ShortID]time.Time // when the peer last had us ask whom
	parts     wire.RevokedParts

	mu    sync.Mutex          // guards what follows
	open  bool                // lanes may join
	lanes [MaxLanes + 1]*lane // data lanes, by number

	beside []udpconn.Datagrams // connections of the session before, from the same address
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
		hurry:   make(chan struct{}, 1),

		followed: make(chan struct{}),
		turn:     make(chan struct{}),
		drained:  make(chan struct{}),
		saidAll:  make(chan struct{}),
	}
	s.ctx, s.end = context.WithCancelCause(ctx)
	s.mail.ready, s.mail.list, s.mail.have, s.mail.links, s.mail.seen = make(chan struct{}, 1), true, true, true, true
	s.theirs = control.hello.Revoked
	s.mail.ready <- struct{}{}
	s.punches = make(map[wire.ShortID]time.Time)
	return s
}

func (s *session) key() sessionKey { return sessionKey{s.id, s.control.hello.Session} }

// accepted is the life of an accepted session: it waits for the data lane, then
// for the end.
func (s *session) accepted(ctx context.Context) {
	timeout := time.NewTimer(greeting)
	defer timeout.Stop()
	select {
	case l := <-s.joined:
		s.giveWay()
		s.mesh.vet(s.ctx, s.control)
		s.carry(ctx, l)
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

// giveWay has an accepted session wait for one that we are dialling and that would
// replace it at once, since the two crossed. The peer uses none before we have said
// which, so nothing is lost with the other.
func (s *session) giveWay() {
	if c := s.mesh.rival(s); c != nil {
		select {
		case <-c.Done():
		case <-s.control.conn.Context().Done():
		case <-s.ctx.Done():
		}
	}
}

// carry carries frames over a session with its first data lane until the session
// ends, and returns why it did.
func (s *session) carry(ctx context.Context, data *lane) error {
	defer close(s.done)
	s.data, s.since = data, time.Now()
	p, before, err := s.mesh.adopt(s)
	if err != nil {
		s.end(err)
		s.close()
		return err
	}
	defer s.mesh.leave(p, s)
	run := func(f func() error) {
		s.tasks.Go(func() {
			if err := f(); err != nil {
				s.end(err)
			}
		})
	}
	run(func() error { return s.writeControl() }) // at once: the peer waits to hear of it
	s.follow(p, before)
	s.mesh.refreshOuter()

	s.mu.Lock()
	s.peer, s.mtu, s.open = p, s.control.told.mtu, true
	s.lanes[data.hello.Lane] = data
	s.senders.Add(1)
	s.mu.Unlock()
	run(func() error { return s.runLane(data) })
	run(func() error { return s.steer() })

	run(func() error {
		next := func() ([]byte, error) { return s.control.conn.ReceiveDatagram(s.ctx) }
		astray := func(n int) { p.drops[wire.Malformed].Add(uint64(n)) }
		in := wire.Receiver{
			MTU: s.mtu, Drops: &p.drops, Memory: &p.memory, Salvage: true,
			Test:    func([]byte) bool { astray(1); return true },
			Relayed: func(wire.Relayed, *frame.Buf) { astray(1) },
		}
		return s.control.receive(next, in, s.acks, func(frames []*frame.Buf) { astray(len(frames)) }, func() {})
	})
	run(func() error { return s.watch() })
	run(func() error {
		err := s.readControl(s.control, true)
		if err == nil {
			close(s.saidAll)
		}
		return err
	})

	select {
	case <-s.ctx.Done():
	case <-s.control.conn.Context().Done():
		s.end(context.Cause(s.control.conn.Context()))
	case <-s.followed:
		s.fade()
	}
	s.shut()
	s.close() // frees who waits for quic-go
	s.senders.Wait()
	if before != nil {
		before.end(errReplaced) // it may fade still
		<-before.drained
	}
	s.setDrained()
	s.tasks.Wait()
	return s.whyOver()
}

// shut has no more lanes join.
func (s *session) shut() {
	s.mu.Lock()
	s.open = false
	s.mu.Unlock()
}

// runLane is the life of a data lane, one of the session's senders: it carries frames
// until the lane or the session ends, and returns why.
func (s *session) runLane(l *lane) error {
	defer l.closeOwn()
	ctx, end := context.WithCancelCause(s.ctx)
	defer end(nil)
	next, done := s.receiver(ctx, l)
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
	relay := &relaying{s: s, l: l}
	in := wire.Receiver{
		MTU: s.mtu, Drops: &p.drops, Memory: &p.memory, Salvage: true,
		Test: func(f []byte) bool { return p.probe.Take(f, s.mtu) },
		Self: short(s.mesh.cfg.Member.ID), Relayed: relay.add,
	}
	run(func() error { return l.receive(next, in, s.acks, p.deliver, relay.flush) })
	run(func() error {
		defer s.senders.Done()
		return s.sendBy(ctx, l)
	})
	run(func() error { return l.beat(ctx) })
	run(func() error {
		err := l.watchPath(ctx, &s.suspect)
		if err != nil && l == s.data {
			s.isNarrow()
			return nil
		}
		return err
	})
	run(func() error { return s.readControl(l, false) })
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
	s.senders.Add(1)
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

// readControl reads the peer's control messages on a lane until its stream ends.
// What it says after its hello it says on the control lane. More than it may say
// waits in the stream, and so with the peer.
func (s *session) readControl(l *lane, control bool) error {
	err := s.hearAll(l, control)
	if errors.Is(err, wire.ErrProtocol) {
		s.mesh.warn(s.peer, err.Error())
	}
	return err
}

func (s *session) hearAll(l *lane, control bool) error {
	buf := make([]byte, 256)
	for {
		typ, body, err := l.read(buf)
		switch {
		case err == io.EOF:
			return nil // it has nothing more to say
		case err != nil:
			return err
		}
		cost := 1.0
		if control && typ == wire.TypeMember {
			cost = memberCost
		}
		sleep(s.ctx, s.peer.says.take(time.Now(), cost))
		switch {
		case typ == wire.TypeHello:
			return fmt.Errorf("%w: second hello on a lane", wire.ErrProtocol)
		case !control:
		default:
			if err := s.take(typ, body); err != nil {
				return err
			}
		}
	}
}

// take takes a control message of the peer's.
func (s *session) take(typ uint8, body []byte) error {
	switch typ {
	case wire.TypeProbeAck:
		ack, err := wire.ParseProbeAck(body)
		if err != nil {
			return err
		}
		s.acked(ack)
	case wire.TypeLanes:
		lanes, err := wire.ParseLanes(body)
		if err != nil {
			return err
		}
		s.peerWants.Store(uint32(lanes.Want))
	case wire.TypeHave:
		have, err := wire.ParseHave(body)
		if err != nil {
			return err
		}
		if !s.heardHave {
			s.heardHave = true
			s.has(have)
		}
	case wire.TypeMember:
		return s.hears(body)
	case wire.TypeLinks:
		links, err := wire.ParseLinks(body)
		if err != nil {
			return err
		}
		if s.isCurrent() {
			s.isLinked(links)
		}
		sleep(s.ctx, linksPause/2) // more often than it may is not read
	case wire.TypeDoubts:
		doubts, err := wire.ParseDoubts(body)
		if err != nil {
			return err
		}
		if s.isCurrent() {
			s.isDoubted(doubts)
		}
	case wire.TypeSeen:
		seen, err := wire.ParseSeen(body)
		if err != nil {
			return err
		}
		if s.isCurrent() {
			s.seen(seen.Addr)
		}
	case wire.TypePunch:
		u, err := wire.ParsePunch(body)
		if err != nil {
			return err
		}
		s.punch(u, time.Now())
	case wire.TypeRevoked:
		return s.revoked(body)
	}
	return nil
}

// isCurrent reports whether the session is its peer's, and no other has followed it.
func (s *session) isCurrent() bool { return s.peer.session.Load() == s }

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
	var linksAt time.Time // when LINKS was sent last
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		var messages [][]byte
		var again time.Duration
		select {
		case <-s.ctx.Done():
			return nil
		case ack := <-s.acks:
			messages = [][]byte{ack.Append(nil)}
		case lanes := <-s.wants:
			messages = [][]byte{lanes.Append(nil)}
		case <-s.mail.ready:
			messages, again = s.openMail(time.Now(), &linksAt)
		case <-s.drained:
			return s.control.stream.Close() // which says so
		case <-timer.C:
			messages, again = s.openMail(time.Now(), &linksAt)
		}
		if again > 0 {
			timer.Reset(again)
		}
		for _, message := range messages {
			select {
			case ack := <-s.acks: // does not wait for a long answer to a HAVE
				if _, err := s.control.stream.Write(ack.Append(nil)); err != nil {
					return err
				}
			default:
			}
			if _, err := s.control.stream.Write(message); err != nil {
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
func (m *Mesh) adopt(s *session) (p *Peer, before *session, err error) {
	p, err = m.meet(s.id, s.site)
	if err != nil {
		return nil, nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if s.dialled {
		p.unclaim()
	}
	switch {
	case m.cfg.Member.Revoked(s.id): // since we met
		return nil, nil, errRevoked
	case p.hasLeftLocked():
		return nil, nil, errLeft
	case m.leaving:
		return nil, nil, errReplaced
	}
	if s.control.conn.Context().Err() != nil || s.data.conn.Context().Err() != nil {
		return nil, nil, errReplaced // the other side has decided already
	}
	if err := p.barError(time.Now()); err != nil {
		return nil, nil, err
	}
	if s.control.told != m.lan {
		return nil, nil, errReplaced // by the one that is dialled next: our LAN has changed meanwhile
	}
	old := p.session.Load()
	if old != nil && old.ctx.Err() != nil {
		old = nil
	}
	if !p.boots.admit(s.control.hello.Boot, old != nil && !old.suspect.Load()) {
		return nil, nil, errTwin
	}
	if old != nil {
		if crossed(old, s) && !m.keeps(s) {
			return nil, nil, errReplaced
		}
		p.followLocked(old, s)
	}
	before, p.last = p.last, s
	p.met, p.byUs, p.trouble = true, s.dialled, ""
	m.placeLocked(p, s.control.remote())
	p.refused = false
	p.session.Store(s)
	if !p.served {
		m.attachLocked(p)
	}
	p.wake()
	m.stir()
	return p, before, nil
}

// attachLocked has a peer that is reached served.
func (m *Mesh) attachLocked(p *Peer) {
	p.served = true
	p.expects()
	m.group.Go(func() error { m.serve(m.ctx, p); return nil })
}

// boots are the processes that have used a member's key, the newest first.
type boots [4][8]byte

// refuses reports whether a process comes back after another took its place, which
// still answers: that is a second machine with the same key, and they would take
// each other's place for ever.
func (b *boots) refuses(boot [8]byte, answers bool) bool {
	return answers && b[0] != boot && slices.Contains(b[1:], boot)
}

// admit notes the process that says hello, unless it is refused.
func (b *boots) admit(boot [8]byte, answers bool) bool {
	if b[0] == boot {
		return true
	}
	if b.refuses(boot, answers) {
		return false
	}
	if !answers {
		*b = boots{}
	}
	copy(b[1:], b[:])
	b[0] = boot
	return true
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
	if p.fades == s {
		p.fades = nil
	}
	if p.session.Load() == nil {
		p.sees = netip.AddrPort{}
	}
	p.judgeLocked(time.Since(s.since), s.whyOver())
	m.aloneLocked()
	m.mu.Unlock()
	p.wake()
	m.stir()
	if why, ok := isCutOff(s.whyOver()); ok {
		m.refused.warn(m.cfg.Log, "cut off by peer", errors.New(why), "peer", p)
	}
}

// closeFor closes a connection with the code that fits the reason. What the
// peer is told of it are our own words about its own doing.
func closeFor(conn *quic.Conn, why error) {
	switch {
	case errors.Is(why, errCutOff):
		conn.CloseWithError(wire.CloseCutOff, identity.Clean(why.Error()))
	case errors.Is(why, wire.ErrProtocol):
		conn.CloseWithError(wire.CloseProtocol, identity.Clean(why.Error()))
	case errors.Is(why, errReplaced):
		conn.CloseWithError(wire.CloseReplaced, errReplaced.Error())
	case errors.Is(why, errTwin):
		conn.CloseWithError(wire.CloseTwice, errTwice.Error())
	case errors.Is(why, errRevoked), errors.Is(why, errLeft):
		conn.CloseWithError(wire.CloseRevoked, errPutOut.Error())
	case errors.Is(why, errBusy):
		conn.CloseWithError(wire.CloseGoodbye, errBusy.Error())
	case errors.Is(why, identity.ErrNotMember), errors.Is(why, identity.ErrRevoked):
		conn.CloseWithError(wire.CloseNotMember, identity.Clean(why.Error()))
	default:
		conn.CloseWithError(wire.CloseGoodbye, "goodbye")
	}
}
