// SPDX-License-Identifier: Apache-2.0

package transport_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go/testutils/simnet"
	"go.uber.org/goleak"

	"github.com/l2bridge/l2bridge/internal/frame"
	"github.com/l2bridge/l2bridge/transport"
	"github.com/l2bridge/l2bridge/transport/identity"
	"github.com/l2bridge/l2bridge/transport/udpconn"
	"github.com/l2bridge/l2bridge/transport/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a simulated network. Whatever is sent to nobody vanishes, as on a
// real one. Packets between two addresses keep their order unless reorder says
// how many of them, one in so many, are held back.
type world struct {
	mu      sync.Mutex // guards what follows
	rng     *rand.Rand
	nodes   map[netip.AddrPort]*simnet.SimulatedLink
	last    map[[2]netip.AddrPort]time.Time
	mute    map[netip.AddrPort]bool // sends nothing
	latency time.Duration           // one way
	loss    float64                 // of packets
	reorder int
	dark    bool                           // nothing passes
	busy    map[netip.Addr]time.Time       // until when somebody has no time for packets
	cut     func(from, to netip.Addr) bool // nothing passes from one address to another; nil for all do
	nats    map[netip.Addr]*nat            // by the address of who is behind it
	moved   map[netip.Addr]netip.Addr      // the address that somebody has now, by the first one
	mtu     int                            // UDP payload in the middle of the path, bytes
	packets int                            // that were sent
	losses  []time.Time
}

// newWorld returns a network whose latency is that of a good line at home.
func newWorld() *world {
	return &world{
		rng:     rand.New(rand.NewPCG(1, 2)),
		nodes:   make(map[netip.AddrPort]*simnet.SimulatedLink),
		last:    make(map[[2]netip.AddrPort]time.Time),
		mute:    make(map[netip.AddrPort]bool),
		nats:    make(map[netip.Addr]*nat),
		moved:   make(map[netip.Addr]netip.Addr),
		latency: 10 * time.Millisecond,
		mtu:     1500,
	}
}

// set changes the network's ways.
func (w *world) set(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

// count returns how many packets have been sent, and when some were lost.
func (w *world) count() (packets int, losses []time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.packets, slices.Clone(w.losses)
}

func addrPort(a net.Addr) netip.AddrPort { return a.(*net.UDPAddr).AddrPort() }

// AddNode implements simnet.Router.
func (w *world) AddNode(addr net.Addr, r simnet.PacketReceiver) {
	w.set(func() { w.nodes[addrPort(addr)] = r.(*simnet.SimulatedLink) })
}

// SendPacket implements simnet.Router.
func (w *world) SendPacket(p simnet.Packet) error {
	w.mu.Lock()
	from, dst := addrPort(p.From), addrPort(p.To)
	mute := w.mute[from]
	if n := w.nats[from.Addr()]; n != nil {
		from = n.leaves(from, dst)
		p.From = net.UDPAddrFromAddrPort(from)
	}
	if now, ok := w.moved[from.Addr()]; ok {
		from = netip.AddrPortFrom(now, from.Port())
		p.From = net.UDPAddrFromAddrPort(from)
	}
	for _, n := range w.nats {
		if n.outer == dst.Addr() {
			dst = n.enters(dst, from)
		}
	}
	to := w.nodes[w.isAt(dst)]
	w.packets++
	lost := w.cut != nil && w.cut(from.Addr(), dst.Addr()) || w.dark || len(p.Data) > w.mtu || mute || w.rng.Float64() < w.loss
	if lost {
		w.losses = append(w.losses, time.Now())
	}
	w.mu.Unlock()
	if to != nil && !lost {
		to.RecvPacket(p)
	}
	return nil
}

// move gives who was at an address first another one, which nobody else has.
func (w *world) move(first, to string) {
	w.set(func() { w.moved[netip.MustParseAddr(first)] = netip.MustParseAddr(to) })
}

// addressOf returns the address now of who was at one first.
func (w *world) addressOf(first string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if now, ok := w.moved[netip.MustParseAddr(first)]; ok {
		return now.String()
	}
	return first
}

// isAt returns the first address of who is at an address now.
func (w *world) isAt(a netip.AddrPort) netip.AddrPort {
	for first, now := range w.moved {
		switch a.Addr() {
		case now:
			return netip.AddrPortFrom(first, a.Port())
		case first:
			return netip.AddrPort{}
		}
	}
	return a
}

// nat is a box that lets hosts out under one address. It keeps ports where it can,
// and lets in only what answers, as Linux does; a symmetric one takes another port
// for each destination.
type nat struct {
	outer     netip.Addr
	symmetric bool
	timeout   time.Duration  // of a way that is not used; 0 for never
	forwards  netip.AddrPort // where what comes to its port 4433 goes; zero for none

	next uint16
	ways map[[2]netip.AddrPort]*natWay // by inner and far address
}

type natWay struct {
	inner, outer, far netip.AddrPort
	used              time.Time
}

// behind puts an address behind a NAT.
func (w *world) behind(inner, outer string, symmetric bool) *nat {
	n := &nat{outer: netip.MustParseAddr(outer), symmetric: symmetric, ways: make(map[[2]netip.AddrPort]*natWay)}
	w.set(func() { w.nats[netip.MustParseAddr(inner)] = n })
	return n
}

func (n *nat) leaves(inner, far netip.AddrPort) netip.AddrPort {
	key := [2]netip.AddrPort{inner, far}
	way := n.ways[key]
	if way == nil || n.timeout != 0 && time.Since(way.used) > n.timeout {
		port := inner.Port()
		if n.symmetric {
			n.next++
			port = 20000 + n.next
		}
		way = &natWay{inner: inner, outer: netip.AddrPortFrom(n.outer, port), far: far}
		n.ways[key] = way
	}
	way.used = time.Now()
	return way.outer
}

func (n *nat) enters(outer, far netip.AddrPort) netip.AddrPort {
	for _, way := range n.ways {
		if way.outer == outer && way.far == far && (n.timeout == 0 || time.Since(way.used) <= n.timeout) {
			way.used = time.Now()
			return way.inner
		}
	}
	if n.forwards.IsValid() && outer.Port() == 4433 {
		n.ways[[2]netip.AddrPort{n.forwards, far}] = &natWay{inner: n.forwards, outer: outer, far: far, used: time.Now()}
		return n.forwards
	}
	return netip.AddrPort{}
}

// forget drops all ways: who is behind it gets another port than before.
func (n *nat) forget() {
	clear(n.ways)
	n.next += 100
}

// delay is how long a packet takes.
func (w *world) delay(p simnet.Packet) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.reorder > 0 && w.rng.IntN(w.reorder) == 0 {
		return 3 * w.latency
	}
	way := [2]netip.AddrPort{addrPort(p.From), addrPort(p.To)}
	now := time.Now()
	at := now.Add(w.latency)
	for _, who := range way {
		if until := w.busy[who.Addr()]; until.After(at) {
			at = until
		}
	}
	if last := w.last[way]; at.Before(last) && w.reorder == 0 {
		at = last
	}
	w.last[way] = at
	return at.Sub(now)
}

// socket is a UDP socket in a world.
type socket struct {
	*simnet.SimConn
	w    *world
	addr netip.AddrPort
	link *simnet.SimulatedLink
	gate *udpconn.Gate
}

// Guard has what a real socket drops unseen be dropped.
func (s *socket) Guard(g *udpconn.Gate) { s.gate = g }

func (s *socket) ReadFrom(b []byte) (n int, from net.Addr, err error) {
	for {
		n, from, err = s.SimConn.ReadFrom(b)
		if err != nil || s.gate == nil {
			return n, from, err
		}
		if s.gate.Admits(b[:n]) {
			s.gate.Received(b[:n], addrPort(from))
			return n, from, nil
		}
	}
}

// WriteTo sends what a real socket would.
func (s *socket) WriteTo(b []byte, to net.Addr) (int, error) {
	if s.gate != nil && !s.gate.MaySend(b, addrPort(to)) {
		return len(b), nil
	}
	return s.SimConn.WriteTo(b, to)
}

// listen opens a socket on port 4433 of an address, or another one.
func (w *world) listen(addr string) *socket {
	ap, err := netip.ParseAddrPort(addr)
	if err != nil {
		ap = netip.AddrPortFrom(netip.MustParseAddr(addr), 4433)
	}
	s := &socket{w: w, addr: ap}
	s.link = &simnet.SimulatedLink{
		UplinkSettings:   simnet.LinkSettings{MTU: 1500},
		DownlinkSettings: simnet.LinkSettings{MTU: 1500},
		LatencyFunc:      w.delay,
		UploadPacket:     w,
	}
	s.SimConn = simnet.NewBlockingSimConn(net.UDPAddrFromAddrPort(ap), s.link)
	s.link.Start()
	w.AddNode(s.SimConn.LocalAddr(), s.link)
	return s
}

func (s *socket) Close() error {
	s.w.set(func() {
		if s.w.nodes[s.addr] == s.link {
			delete(s.w.nodes, s.addr)
		}
	})
	return errors.Join(s.SimConn.Close(), s.link.Close())
}

// lan stands for the switch of a site: it keeps what its peers send.
type lan struct {
	mu       sync.Mutex // guards what follows
	peers    map[string]*transport.Peer
	frames   [][]byte
	attached int                             // how often a peer was
	take     func(from string, b *frame.Buf) // in place of keeping frames
}

func (l *lan) serve(ctx context.Context, p *transport.Peer) error {
	site := p.String()
	l.mu.Lock()
	l.peers[site] = p
	l.attached++
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		if l.peers[site] == p { // not yet the same site under another key
			delete(l.peers, site)
		}
		l.mu.Unlock()
	}()
	return p.Run(ctx, func(frames []*frame.Buf) {
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, b := range frames {
			if l.take != nil {
				l.take(site, b)
			} else {
				l.frames = append(l.frames, bytes.Clone(b.Bytes()))
			}
		}
	})
}

// peer returns the port of a site, or nil.
func (l *lan) peer(site string) *transport.Peer {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.peers[site]
}

func (l *lan) attaches() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.attached
}

// received returns the frames that came since it was called last.
func (l *lan) received() [][]byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.frames
	l.frames = nil
	return f
}

// send sends a frame to a site, if that is attached.
func (l *lan) send(site string, b *frame.Buf) bool {
	defer b.Release()
	p := l.peer(site)
	if p != nil {
		p.Send([]*frame.Buf{b})
	}
	return p != nil
}

// node is a running site.
type node struct {
	*transport.Mesh
	*lan
	t      *testing.T
	member *identity.Member
	sock   *socket
	log    *logbook
	cancel context.CancelFunc
	done   chan error

	outerMu sync.Mutex
	outer   []netip.AddrPort

	stopped sync.Once
}

// dials returns where packets of the site go or may go.
func (n *node) dials() string {
	n.outerMu.Lock()
	defer n.outerMu.Unlock()
	return fmt.Sprint(n.outer)
}

// run starts a site at an address, which dials peers.
func (w *world) run(t *testing.T, m *identity.Member, addr string, peers []string, settings ...func(*transport.Config)) *node {
	t.Helper()
	n := &node{
		t:      t,
		member: m,
		sock:   w.listen(addr),
		lan:    &lan{peers: make(map[string]*transport.Peer)},
		log:    &logbook{to: t.Output()},
		done:   make(chan error, 1),
	}
	cfg := transport.Config{
		Member: m, Conn: n.sock, MTU: 1500,
		Features: wire.FeatureCsum | wire.FeatureTSO | wire.FeatureUSO,
		Serve:    n.serve,
		Resolve:  func(context.Context, string) ([]netip.Addr, error) { return nil, errors.New("no names here") },
		Outer: func(_ []uint16, to []netip.AddrPort) {
			n.outerMu.Lock()
			n.outer = to
			n.outerMu.Unlock()
		},
		Log: slog.New(slog.NewTextHandler(n.log, nil)).With("at", m.Site),
	}
	for _, p := range peers {
		cfg.Dial = append(cfg.Dial, []string{p})
	}
	for _, set := range settings {
		set(&cfg)
	}
	n.Mesh = transport.New(cfg)
	var ctx context.Context
	ctx, n.cancel = context.WithCancel(context.Background())
	go func() { n.done <- n.Mesh.Run(ctx) }()
	t.Cleanup(n.stop)
	return n
}

// stop ends a site as it ends by itself. The end of the test does so too.
func (n *node) stop() {
	n.stopped.Do(func() {
		n.cancel()
		if err := <-n.done; err != nil {
			n.t.Errorf("mesh of %s: %v", n.member.Site, err)
		}
		synctest.Wait() // let the goodbyes go
		n.sock.Close()
	})
}

// kill ends a site so that nobody hears of it.
func (n *node) kill() {
	w := n.sock.w
	w.set(func() { w.mute[n.sock.addr] = true })
	n.stop()
	w.set(func() { delete(w.mute, n.sock.addr) })
}

// logbook keeps the lines of a log.
type logbook struct {
	to io.Writer
	mu sync.Mutex
	b  strings.Builder
}

func (l *logbook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.b.Write(p)
	return l.to.Write(p)
}

// lines returns the lines that contain text.
func (l *logbook) lines(text string) (out []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.b.String()) {
		if strings.Contains(line, text) {
			out = append(out, line)
		}
	}
	return out
}

// until waits for a condition to hold, in steps of 10 ms, at most so long, and
// returns how long it took.
func until(t *testing.T, what string, limit time.Duration, holds func() bool) time.Duration {
	t.Helper()
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		synctest.Wait()
		took := time.Since(began)
		if holds() {
			return took
		}
		if took >= limit {
			t.Fatalf("%s: not after %v", what, limit)
		}
	}
}

// connected reports whether two sites have each other for a peer.
func connected(a, b *node) func() bool {
	return func() bool { return a.peer(b.member.Site) != nil && b.peer(a.member.Site) != nil }
}

// numbered returns a frame of length bytes that tells its number, and has other
// bytes than those of other numbers all along.
func numbered(n, length int) *frame.Buf {
	b := frame.Get(length)
	b.SetHeader(frame.Vnet{})
	f := b.Bytes()
	for i := range f {
		f[i] = byte(n*31 + i*7 + i>>8)
	}
	copy(f, []byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb5})
	if length >= 18 {
		copy(f[14:], []byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
	}
	return b
}

// exchange sends count frames each way and checks that all arrive, in order.
func exchange(t *testing.T, a, b *node, count int) {
	t.Helper()
	var want [][]byte
	a.received()
	b.received()
	for i := range count {
		f := numbered(i, 60+i*1454/count)
		want = append(want, bytes.Clone(f.Bytes()))
		f.Release()
		if !a.send(b.member.Site, numbered(i, len(want[i]))) || !b.send(a.member.Site, numbered(i, len(want[i]))) {
			t.Fatalf("%s and %s are not connected", a.member.Site, b.member.Site)
		}
	}
	time.Sleep(5 * time.Second)
	synctest.Wait()
	for _, n := range []*node{a, b} {
		if got := n.received(); !slices.EqualFunc(got, want, bytes.Equal) {
			t.Fatalf("%d frames came to %s, of %d, or they are not the same; %v %v", len(got), n.member.Site, count, a.Drops(), b.Drops())
		}
	}
}

// members founds a network in temporary directories and enrols sites by the
// founder's own hand.
func members(t *testing.T, sites ...string) []*identity.Member {
	t.Helper()
	return membersOf(t, t.TempDir(), sites...)
}

// membersOf is members with the founder's directory.
func membersOf(t *testing.T, founder string, sites ...string) []*identity.Member {
	t.Helper()
	var out []*identity.Member
	for i, site := range sites {
		path := founder
		if i > 0 {
			path = t.TempDir()
		}
		dir, err := identity.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { dir.Close() })
		var m *identity.Member
		if i == 0 {
			m, err = dir.Found(site)
		} else {
			m, err = enrolByPipe(out[0], dir, site)
		}
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, m)
	}
	return out
}

// enrolByPipe enrols a site as Enrol does, without a network.
func enrolByPipe(founder *identity.Member, dir *identity.Dir, site string) (*identity.Member, error) {
	token, err := founder.Invite(site, time.Hour, []string{"192.0.2.1:4433"})
	if err != nil {
		return nil, err
	}
	key, err := dir.SiteKey()
	if err != nil {
		return nil, err
	}
	a, b := net.Pipe()
	server, client := tls.Server(a, founder.EnrolTLSConfig()), tls.Client(b, identity.JoinTLSConfig(key, site, token.CA))
	shaken := make(chan error, 1)
	go func() { shaken <- server.Handshake() }()
	if err := errors.Join(client.Handshake(), <-shaken); err != nil {
		return nil, err
	}
	request, err := identity.NewJoinRequest(token, site, client.ConnectionState())
	if err != nil {
		return nil, err
	}
	reply, err := founder.Enrol(request, server.ConnectionState(), nil)
	if err != nil {
		return nil, err
	}
	m, _, err := dir.Join(token, site, reply)
	return m, err
}
