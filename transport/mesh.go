// SPDX-License-Identifier: Apache-2.0

// Package transport carries frames between this site and its peers over QUIC:
// it dials and accepts, greets, keeps a session with each peer, and makes of
// each peer a port for the switch.
package transport

import (
	"context"
	"crypto/aes"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
	"golang.org/x/sync/errgroup"

	"github.com/l2bridge/l2bridge/transport/identity"
	"github.com/l2bridge/l2bridge/transport/udpconn"
	"github.com/l2bridge/l2bridge/transport/wire"
)

// Timing of connections.
const (
	// silence is how long a lane may hear nothing until it counts as dead.
	silence = 5 * time.Second
	// heartbeat is how often each side says on a lane that it is alive.
	heartbeat = time.Second
	// greeting bounds each step of a peer's that dials us.
	greeting = 5 * time.Second
	// stagger is the lead that one address has before the next one of the same
	// peer is tried too (RFC 8305, section 5).
	stagger = 150 * time.Millisecond
	// dialling bounds a dial of ours up to the peer's hello. Its packets are
	// sent again after 0.3, 0.9 and 2.1 s (RFC 9002, 6.2): to begin anew then
	// finds a path that is back sooner than the next one at 4.5 s.
	dialling = 3 * time.Second
	// Tries to find out who is at an address are this far apart, doubling, with
	// jitter.
	firstRetry, lastRetry = 100 * time.Millisecond, 2 * time.Second
)

// MaxPeers bounds the members that a site keeps track of, itself among them.
const MaxPeers = 1024

// Config says how a Mesh runs. All fields but those said to be optional are set.
type Config struct {
	Member *identity.Member

	// Conn is the UDP socket, open until after Run.
	Conn net.PacketConn

	// Listen, optional, opens a socket for one more lane, on any port.
	Listen func() (net.PacketConn, error)

	// Dial are the peers to dial, and to dial again for ever: for each the
	// HOST:PORT that it may have.
	Dial [][]string

	// Founder, optional, are the HOST:PORTs that this site was told when it joined.
	// They are dialled as well. Who is there is a member, and no peer of its own once
	// members are known: the founder may have another address by now.
	Founder []string

	// MTU of our LAN, and what we can take beyond plain frames; see SetLAN.
	MTU      int
	Features wire.Features

	// Rate bounds what leaves for each peer, in bits a second counted from the
	// outer IP header on; 0 is no bound.
	Rate uint64

	// Lanes is how many data lanes a peer gets, at most MaxLanes; 0 has them
	// come and go as they are needed.
	Lanes int

	// Serve makes a port of the switch of a peer, for as long as it is there:
	// it calls p.Run and returns what that returns.
	Serve func(ctx context.Context, p *Peer) error

	// Resolve looks a host name up; nil asks the system.
	Resolve lookupFunc

	// Through, optional, reports whether an address is reached through a peer:
	// then it is not dialled.
	Through func(netip.Addr) bool

	// Outer, optional, is told of the ports of sockets beside Conn, and of the
	// addresses that packets of ours go to, whenever they change.
	Outer func(ports []uint16, to []netip.AddrPort)

	// Addresses, optional, gives the HOST:PORTs at which others may dial us, the
	// best first.
	Addresses func() []string

	// Known, optional, is what was learned of other members before, and Learned
	// is told it again when there is more: one announcement each.
	Known   [][]byte
	Learned func(announcements [][]byte)

	// Event, optional, is told what happens to peers. It must not block, and
	// may be called from several goroutines at once.
	Event func(Event)

	Log *slog.Logger
}

// Mesh is this site among its peers. Its methods may be called from any
// goroutine.
type Mesh struct {
	cfg               Config
	boot              [8]byte
	quic              *quic.Transport
	door              *door
	epoch             time.Time // what nonces of pings count from
	seeds             []*seed
	dials             chan struct{} // a token for each try under way
	outer             outer
	refused, unserved notices
	floods            notices
	greetings         shares
	requests          *requests
	stirred           chan struct{} // something has changed that tend is to look at
	learned           chan struct{} // there is something to store
	arrived           chan struct{} // a member has announced itself
	shorts            atomic.Pointer[map[wire.ShortID]*Peer]
	places            atomic.Pointer[map[netip.Prefix]struct{}] // where members are

	// Set by Run, before anything else runs.
	ctx   context.Context
	group *errgroup.Group

	mu       sync.Mutex       // guards what follows
	next     *identity.Member // who to be from now on; nil while it is cfg.Member
	end      func()           // has Run look at next; nil before Run
	lan      lan
	moved    time.Time // when our addresses or routes changed last
	peers    map[identity.ID]*Peer
	sessions map[sessionKey]*session // accepted, by who dialled and what for

	own        *announcement // nil until made
	version    uint64        // of it
	restateDue bool          // it may have to change
	restated   time.Time     // when that was looked at last
	bumped     time.Time     // when we last said anew what our key had said elsewhere
	unstored   bool          // there is more than Learned was told
	linksTold  wire.Links
	doubtsTold wire.Doubts
	leaving    bool

	vetted    bool          // sessions are not held back: see vet
	known     chan struct{} // closed when so
	holdUntil time.Time     // they are at most; zero while none was
	due       uint64        // version of the list that the holder of the CA key is to send; 0 for none
}

// lan is what our hellos say about our side.
type lan struct {
	mtu      int
	features wire.Features
}

// New returns a Mesh that does nothing until Run.
func New(cfg Config) *Mesh {
	if cfg.Resolve == nil {
		cfg.Resolve = systemLookup
	}
	m := &Mesh{
		cfg:      cfg,
		peers:    make(map[identity.ID]*Peer),
		sessions: make(map[sessionKey]*session),
		epoch:    time.Now().Add(-time.Second), // a ping at 0 would have been answered
		dials:    make(chan struct{}, maxDials),
		stirred:  make(chan struct{}, 1),
		requests: newRequests(),
		learned:  make(chan struct{}, 1),
		known:    make(chan struct{}),
		arrived:  make(chan struct{}, 1),
	}
	rand.Read(m.boot[:])
	m.lan = lan{cfg.MTU, cfg.Features}
	// By the clock, so that it rises from one run to the next. With a clock that
	// does not, peers tell: see learn.
	m.version, m.restateDue = uint64(max(1, time.Now().UnixMilli())), true
	for _, addresses := range cfg.Dial {
		m.seeds = append(m.seeds, newSeed(m, addresses))
	}
	if len(cfg.Founder) > 0 {
		founder := newSeed(m, cfg.Founder)
		founder.founder = true
		m.seeds = append(m.seeds, founder)
	}
	return m
}

// newTransport wraps a socket. Connection IDs of 17 bytes let a datagram of the
// greatest size fill a packet exactly, so that quic-go sends them in batches.
// member is nil for a site that has none yet. A restarted site knows the
// connection IDs of before, and tells its peers so with the same key as then
// (RFC 9000, 10.3). Nobody is told that another version of QUIC is not spoken.
func newTransport(conn net.PacketConn, member *identity.Member, gate *udpconn.Gate) *quic.Transport {
	if c, ok := conn.(interface{ Guard(*udpconn.Gate) }); ok {
		c.Guard(gate)
	}
	tr := &quic.Transport{
		Conn:                             conn,
		ConnectionIDGenerator:            gate,
		DisableVersionNegotiationPackets: true,
	}
	if member != nil {
		tr.StatelessResetKey = resetKey(member)
	}
	return tr
}

// quicConfig returns the settings of a lane. Packets start at 1200 bytes: a
// path that is narrow in its middle swallows larger ones without a word.
func quicConfig(lane int) *quic.Config {
	return &quic.Config{
		Versions:                       []quic.Version{quic.Version1},
		HandshakeIdleTimeout:           greeting,
		MaxIdleTimeout:                 silence,
		InitialStreamReceiveWindow:     64 << 10,
		MaxStreamReceiveWindow:         64 << 10,
		InitialConnectionReceiveWindow: 64 << 10,
		MaxConnectionReceiveWindow:     64 << 10,
		MaxIncomingStreams:             1,
		MaxIncomingUniStreams:          -1,
		InitialPacketSize:              1200,
		DisablePathMTUDiscovery:        lane == 0,
		EnableDatagrams:                true,
	}
}

// Run dials and accepts until ctx ends, then says goodbye to all peers. It
// returns nil when ctx ended, and only after all that it started has stopped.
func (m *Mesh) Run(ctx context.Context) error {
	for {
		life, end := context.WithCancel(ctx)
		m.mu.Lock()
		m.end = end
		m.rebornLocked()
		m.mu.Unlock()
		err := m.live(life)
		end()
		if err != nil || ctx.Err() != nil {
			return err
		}
	}
}

// Become has this site go on under another membership of its network, with
// another key, another name, or what else member has: all peers are taken leave
// of, and met again.
func (m *Mesh) Become(member *identity.Member) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.next = member
	if m.end != nil {
		m.end()
	}
}

// rebornLocked takes on the membership that is next, if there is one. Nothing
// runs meanwhile; what was learned of others stays.
func (m *Mesh) rebornLocked() {
	if m.next == nil {
		return
	}
	m.cfg.Known = m.newsLocked()
	m.cfg.Member, m.next = m.next, nil
	m.peers, m.sessions = make(map[identity.ID]*Peer), make(map[sessionKey]*session)
	m.shorts.Store(nil)
	m.places.Store(nil)
	m.own, m.linksTold, m.doubtsTold, m.restateDue = nil, nil, nil, true
	m.aloneLocked()
	for _, s := range m.seeds {
		s.id, s.known, s.trouble = identity.ID{}, false, ""
	}
}

// live is Run under one membership.
func (m *Mesh) live(ctx context.Context) error {
	gate := newGate(m.cfg.Member)
	tr := newTransport(m.cfg.Conn, m.cfg.Member, gate)
	m.mu.Lock()
	m.quic, m.door = tr, m.openDoor(gate)
	m.mu.Unlock()
	defer m.quic.Close()
	m.door.guard(m.quic)
	listener, err := m.quic.Listen(m.serverTLS(), quicConfig(-1))
	if err != nil {
		return fmt.Errorf("listen on %s: %w", m.cfg.Conn.LocalAddr(), err)
	}
	g, ctx := errgroup.WithContext(ctx)
	m.ctx, m.group = ctx, g
	for _, a := range m.cfg.Known {
		if err := m.learn(a, nil); err != nil {
			m.cfg.Log.Warn("stored member not known any more", "error", err)
		}
	}
	m.mu.Lock()
	m.unstored = false
	m.mu.Unlock()
	g.Go(func() error { return m.accept(ctx, listener) })
	for _, s := range m.seeds {
		g.Go(func() error { s.run(ctx); return nil })
	}
	g.Go(func() error { m.watchOuter(ctx); return nil })
	m.stir()
	g.Go(func() error { m.tend(ctx); return nil })
	g.Go(func() error { m.inspect(ctx); return nil })
	g.Go(func() error { m.keepBook(ctx); return nil })
	if m.cfg.Learned != nil {
		g.Go(func() error { m.keepStored(ctx); return nil })
	}
	g.Go(func() error {
		<-ctx.Done()
		listener.Close()
		return nil
	})
	return g.Wait()
}

// SetLAN tells that the MTU of our LAN, or what we can take, has changed. The
// peers are told by sessions made anew.
func (m *Mesh) SetLAN(mtu int, features wire.Features) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if now := (lan{mtu, features}); now != m.lan {
		m.lan, m.restateDue = now, true
		m.stir()
		for _, p := range m.peers {
			if s := p.session.Load(); s != nil {
				p.renew(s, errReplaced)
			}
		}
	}
}

// clock returns the time that pings tell.
func (m *Mesh) clock() time.Duration { return time.Since(m.epoch) }

func (m *Mesh) getLAN() lan {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.lan
}

// serve keeps a peer attached to the switch for as long as it has a session.
func (m *Mesh) serve(ctx context.Context, p *Peer) {
	for {
		p.tellAttached()
		err := m.cfg.Serve(ctx, p)
		if err != nil {
			p.settles()
		}
		if s := p.session.Load(); err != nil && s != nil {
			// There is a session and no port for it. Let it go, so that the
			// next try comes with the dialler's back-off.
			s.end(errNotServed)
			<-s.done
		}
		if p.lines.try(time.Now(), 1) {
			m.cfg.Log.Info("peer down", "peer", p, "error", p.why())
		}
		if err != nil {
			m.unserved.warn(m.cfg.Log, "peer not attached", err, "peer", p)
			if p.relay.Load() != nil {
				sleep(ctx, lastRetry) // no session's back-off holds that
			}
		}
		p.tellDetached() // while no other can tell that it is up
		m.mu.Lock()
		gone := !p.reachable() || ctx.Err() != nil
		if gone {
			p.served = false
			p.settles()
		} else {
			p.expects()
		}
		m.mu.Unlock()
		if gone {
			return
		}
	}
}

// Moved tells that addresses or routes of this machine have changed, or may
// have: whether peers are still heard is found out at once, and those that are
// not are dialled anew.
func (m *Mesh) Moved() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.moved, m.restateDue = time.Now(), true
	m.stir()
	for _, p := range m.peers {
		if s := p.session.Load(); s != nil {
			s.check()
		}
		if !p.answers() {
			p.hurry()
		}
	}
}

// Readdress tells that Config.Addresses may have others to say now. Unlike Moved it
// doubts no session.
func (m *Mesh) Readdress() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.restateDue = true
	m.stir()
}

// meet returns the peer of that id, which from now on has a keeper.
func (m *Mesh) meet(id identity.ID, site string) (*Peer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.peers[id]
	if p == nil {
		switch {
		case m.cfg.Member.Revoked(id):
			return nil, errRevoked
		case len(m.peers) >= MaxPeers-1:
			return nil, fmt.Errorf("more than %d peers", MaxPeers)
		}
		p = newPeer(m, id, m.cfg.Rate)
		m.peers[id] = p
		m.nameLocked()
		var ctx context.Context
		ctx, p.stop = context.WithCancel(m.ctx)
		m.group.Go(func() error { p.keep(ctx); return nil })
	}
	p.site.Store(&site)
	return p, nil
}

// nameLocked has peers found by their short names.
func (m *Mesh) nameLocked() {
	shorts := make(map[wire.ShortID]*Peer, len(m.peers))
	for id, p := range m.peers {
		shorts[short(id)] = p
	}
	m.shorts.Store(&shorts)
}

// Peers returns the state of every peer, ordered by site; those that were named
// by address and never answered stand under that, the founder while no member is
// known.
func (m *Mesh) Peers() []Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []Status
	for _, s := range m.seeds {
		if !s.known && (!s.founder || len(m.peers) == 0) {
			all = append(all, Status{State: "connecting", Site: s.String(), Unknown: true, Since: s.since, Error: s.trouble})
		}
	}
	for _, p := range m.peers {
		if p.hasLeftLocked() {
			continue
		}
		st := p.statusLocked()
		if st.State != "up" && st.State != "relayed" {
			st.Error, st.Refused = p.trouble, p.refused
		}
		all = append(all, st)
	}
	slices.SortStableFunc(all, func(a, b Status) int { return strings.Compare(a.Site, b.Site) })
	return all
}

// Up returns how many peers are reached.
func (m *Mesh) Up() (n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range m.peers {
		if p.reachable() {
			n++
		}
	}
	return n
}

// resetKey derives the key of stateless resets from the site's own.
func resetKey(member *identity.Member) *quic.StatelessResetKey {
	key := member.Secret("l2bridge stateless reset", len(quic.StatelessResetKey{}))
	if key == nil {
		return nil
	}
	return (*quic.StatelessResetKey)(key)
}

// newGate returns what makes and knows connection IDs, by a key derived from the
// site's own, or by any that nobody knows.
func newGate(member *identity.Member) *udpconn.Gate {
	var key [aes.BlockSize]byte
	rand.Read(key[:])
	if member != nil {
		copy(key[:], member.Secret("l2bridge connection id", len(key)))
	}
	return udpconn.NewGate(key)
}

// receiver returns how a data lane's datagrams are taken: through the socket's receive
// credit where it keeps one. The control lane, and what fades, are other connections
// with the same address, unless the lane has a socket of its own at one of the ends.
func (s *session) receiver(ctx context.Context, l *lane) (receive func() ([]byte, error), done func()) {
	conn := l.conn
	if c, ok := l.socket.(*udpconn.Conn); ok {
		var beside []udpconn.Datagrams
		if l.own == nil && l.remote() == s.control.remote() {
			beside = append(beside, s.control.conn)
		}
		if l == s.data {
			beside = append(beside, s.beside...)
		}
		flow := c.Flow(ctx, conn, beside...)
		return flow.Receive, flow.Close
	}
	return func() ([]byte, error) { return conn.ReceiveDatagram(ctx) }, func() {}
}
