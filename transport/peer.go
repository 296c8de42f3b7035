// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/l2bridge/l2bridge/internal/frame"
	"github.com/l2bridge/l2bridge/transport/egress"
	"github.com/l2bridge/l2bridge/transport/identity"
	"github.com/l2bridge/l2bridge/transport/probe"
	"github.com/l2bridge/l2bridge/transport/wire"
)

// Peer is a remote gateway, as a port of the switch. It outlives the sessions
// with it: the port stays attached when one replaces another.
type Peer struct {
	mesh    *Mesh
	knownAt time.Time
	id      identity.ID
	session atomic.Pointer[session] // nil while there is none
	relay   atomic.Pointer[Peer]    // by way of whom frames go while no session answers; nil without
	site    atomic.Pointer[string]
	queue   *egress.Queue
	probe   *probe.End
	left    chan struct{}
	stop    context.CancelFunc // its keeper, and the sessions that this has made
	toIt    wire.Relayed       // on frames for it that go by way of another

	keeper
	conduct
	says, begins pace // its control messages, and its sessions
	lines        pace // that its coming and going has in the log

	takes  atomic.Uint32               // wire.Features that it announces
	links  atomic.Pointer[links]       // members that it says it has sessions with
	doubts atomic.Pointer[wire.Doubts] // and those that do not answer it

	// Guarded by Mesh.mu.
	served   bool
	rerouted time.Time // when relay changed last
	last     *session  // whose lanes take from the queue, or did
	fades    *session  // that last has followed, until it ends; or nil
	met      bool      // there was a session
	byUs     bool      // the last one was dialled by us
	boots    boots
	news     *announcement // nil until heard
	untold   bool          // others are to be told of it, but newsFrom
	newsFrom *session
	toldAt   time.Time
	sees     netip.AddrPort // where it sees us
	punched  time.Time      // when it last asked to be dialled

	telling  sync.Mutex // so that what is told last of its coming and going is how it is
	attached bool       // as told; guarded by telling

	coming atomic.Pointer[chan struct{}] // closed when a port is there, or will not be; nil while none is to come
	mu     sync.RWMutex                  // read-held during a delivery
	sink   func([]*frame.Buf)

	memory                               wire.Memory // of what is being put together
	drops                                wire.Drops
	tooLarge, unheard, unsent, uncut     atomic.Uint64
	rxFrames, txFrames, rxBytes, txBytes atomic.Uint64

	lost atomic.Pointer[loss]
}

// loss is how the last session ended.
type loss struct {
	at  time.Time
	why error
}

// maxMemory is what the lanes of a peer may keep of frames that have not come whole:
// sixty superframes, of which a lane has a few under way.
const maxMemory = 4 << 20

// superframes is what a peer must take for every frame to be sent as it is.
const superframes = wire.FeatureCsum | wire.FeatureTSO | wire.FeatureUSO

func newPeer(m *Mesh, id identity.ID, rate uint64) *Peer {
	p := &Peer{mesh: m, id: id, knownAt: time.Now(), queue: egress.New(), left: make(chan struct{}, 1)}
	p.poke = make(chan struct{}, 1)
	p.claim, p.unclaim = context.WithCancel(context.Background())
	p.unclaim() // there is none
	p.memory.Most = maxMemory
	p.says = pace{burst: messagesAtOnce, rate: messagesEach}
	p.begins = pace{burst: sessionsAtOnce, rate: sessionsEach}
	p.lines = pace{burst: linesAtOnce, rate: linesEach}
	p.toIt = wire.Relayed{Destination: short(id), Source: short(m.cfg.Member.ID)}
	p.queue.SetRate(rate)
	p.probe = probe.New(p.queue)
	return p
}

// String returns the peer's site.
func (p *Peer) String() string {
	if s := p.site.Load(); s != nil {
		return *s
	}
	return p.id.Short()
}

// Send puts frames in the queue for the peer; see bridge.Port.
func (p *Peer) Send(frames []*frame.Buf) {
	s, relay := p.session.Load(), p.relay.Load()
	if s == nil && relay == nil {
		p.unsent.Add(uint64(len(frames))) // on its way out of the switch
		return
	}
	var n, bytes uint64
	for _, b := range frames {
		n += uint64(frame.Segments(b.Header(), b.Bytes()))
		bytes += uint64(b.Len())
	}
	p.txFrames.Add(n)
	p.txBytes.Add(bytes)
	if relay != nil {
		relay.push(frames, &p.toIt, wire.Features(p.takes.Load()))
	} else {
		p.push(frames, nil, s.control.hello.Features)
	}
}

// push puts frames in the queue, as they are or as the plain frames that they
// stand for, as takes allows. to says where the peer relays them; nil for its own
// LAN.
func (p *Peer) push(frames []*frame.Buf, to *wire.Relayed, takes wire.Features) {
	put := func(frames []*frame.Buf) {
		switch {
		case to == nil:
			p.queue.Push(frames)
		case to.Source == p.toIt.Source: // that is us
			p.queue.PushRelayed(frames, to)
		default:
			p.queue.PushForeign(frames, to)
		}
	}
	if takes&superframes == superframes {
		put(frames)
		return
	}
	one := make([]*frame.Buf, 1)
	for i, b := range frames {
		if needs(b.Header())&^takes == 0 {
			put(frames[i : i+1])
			continue
		}
		if err := frame.Split(b, func(plain *frame.Buf) {
			one[0] = plain
			put(one)
		}); err != nil {
			p.uncut.Add(1) // p.drops is of what came from it, which it answers for
		}
	}
}

// needs returns what a peer must take for a frame with this header to be sent
// as it is.
func needs(h frame.Vnet) wire.Features {
	switch {
	case h.GSOType == frame.GSOUDP:
		return wire.FeatureCsum | wire.FeatureUSO
	case h.GSOType != frame.GSONone:
		return wire.FeatureCsum | wire.FeatureTSO
	case h.Flags&frame.VnetNeedsCsum != 0:
		return wire.FeatureCsum
	}
	return 0
}

// Run delivers what the peer sends for as long as there is a session with it;
// see bridge.Port.
func (p *Peer) Run(ctx context.Context, deliver func([]*frame.Buf)) error {
	p.setSink(deliver)
	p.settles()
	defer p.setSink(nil)
	defer p.expects() // there may be a session again
	for p.reachable() {
		select {
		case <-p.left:
		case <-ctx.Done():
			return nil
		}
	}
	return nil
}

func (p *Peer) setSink(sink func([]*frame.Buf)) {
	p.mu.Lock()
	p.sink = sink
	p.mu.Unlock()
}

// expects notes that there will be a port soon: what comes meanwhile waits for it.
func (p *Peer) expects() {
	c := make(chan struct{})
	p.coming.CompareAndSwap(nil, &c)
}

// settles ends that: the port is there, or will not be.
func (p *Peer) settles() {
	if c := p.coming.Swap(nil); c != nil {
		close(*c)
	}
}

// deliver passes frames to the switch, if we are attached to it or about to be.
func (p *Peer) deliver(frames []*frame.Buf) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	for p.sink == nil {
		coming := p.coming.Load()
		if coming == nil {
			p.unheard.Add(uint64(len(frames)))
			return
		}
		p.mu.RUnlock()
		<-*coming
		p.mu.RLock()
	}
	var n, bytes uint64
	for _, b := range frames {
		n += uint64(frame.Segments(b.Header(), b.Bytes()))
		bytes += uint64(b.Len())
	}
	p.rxFrames.Add(n)
	p.rxBytes.Add(bytes)
	p.sink(frames)
}

// detach takes the session s away, and reports whether it was still the peer's.
func (p *Peer) detach(s *session, why error) bool {
	if !p.session.CompareAndSwap(s, nil) {
		return false
	}
	p.lost.Store(&loss{time.Now(), why})
	p.leaves()
	return true
}

// leaves has Run see that the member is not reached any more.
func (p *Peer) leaves() { poke(p.left) }

// roundTrip returns how long a round trip to the peer takes, directly.
func (p *Peer) roundTrip() time.Duration {
	if s := p.session.Load(); s != nil {
		return s.control.conn.ConnectionStats().SmoothedRTT
	}
	return 0
}

// why returns how the last session ended.
func (p *Peer) why() error {
	if l := p.lost.Load(); l != nil && p.session.Load() == nil {
		return l.why
	}
	return nil
}

// event returns something that has happened to the peer.
func (p *Peer) event(kind EventKind) Event {
	e := Event{Kind: kind, Site: p.String(), ID: p.id}
	if s := p.session.Load(); s != nil {
		e.Addr = s.control.remote()
	}
	if r := p.relay.Load(); r != nil {
		e.Via = r.String()
	}
	if why := p.why(); kind == EventDown && why != nil {
		e.Reason = identity.Clean(why.Error())
	}
	return e
}

// Status is what is known of a peer.
type Status struct {
	Site    string
	ID      identity.ID
	Unknown bool   // it has never answered: Site is its address, ID zero
	State   string // up, suspect, relayed, connecting or down
	Addr    string // at present, "" when down
	Via     string // site that relays, "" when direct
	Since   time.Time
	RTT     time.Duration // smoothed
	PathMTU int           // UDP payload, bytes
	Lanes   int           // that carry frames
	Kex     string        // key exchange
	MTU     int           // of its LAN
	Takes   wire.Features // which frames beside plain ones, while it is up
	Error   string        // what stands in the way of connecting
	Refused bool          // it says that we are no member

	RxFrames, TxFrames, RxBytes, TxBytes uint64
}

// overhead is what a QUIC packet adds to a datagram: the short header with a
// 17-byte connection ID and a 2-byte number, the frame type, the tag.
const overhead = 1 + wire.MaxConnIDLen + 2 + 1 + 16

// pathMTU returns the greatest UDP payload that the path takes, as far as is known.
func (s *session) pathMTU() int { return int(s.data.size.Load()) + overhead }

// doubtedAt returns when the session last became suspect.
func (s *session) doubtedAt() time.Time { return s.mesh.epoch.Add(time.Duration(s.doubted.Load())) }

func (p *Peer) statusLocked() Status {
	st := Status{
		Site: p.String(), ID: p.id, State: "connecting", Since: p.knownAt,
		RxFrames: p.rxFrames.Load(), TxFrames: p.txFrames.Load(),
		RxBytes: p.rxBytes.Load(), TxBytes: p.txBytes.Load(),
	}
	if l := p.lost.Load(); l != nil {
		st.State, st.Since = "down", l.at
	}
	s := p.session.Load()
	if r := p.relay.Load(); r != nil {
		st.State, st.Via, st.Since = "relayed", r.String(), p.rerouted
		if p.news != nil {
			st.MTU = int(p.news.MTU)
		}
		st.Takes = wire.Features(p.takes.Load()) & superframes
		if s = r.session.Load(); s != nil {
			st.PathMTU = s.pathMTU()
			if s.suspect.Load() {
				st.State, st.Since = "suspect", s.doubtedAt()
			}
		}
		if !r.linksTo(short(p.id)) {
			st.State = "suspect"
		}
		return st
	}
	if s == nil {
		return st
	}
	st.State, st.Since, st.Addr = "up", s.since, s.data.remote().String()
	if s.suspect.Load() {
		st.State, st.Since = "suspect", s.doubtedAt()
	}
	st.RTT = s.data.conn.ConnectionStats().SmoothedRTT
	st.PathMTU = s.pathMTU()
	st.Lanes = max(1, len(s.dataLanes()))
	st.Kex = s.data.conn.ConnectionState().TLS.CurveID.String()
	st.MTU = int(s.control.hello.MTU)
	st.Takes = s.control.hello.Features & superframes
	return st
}

// Drop is a counter of frames that a peer's port has dropped.
type Drop struct {
	Reason string
	Port   string
	Count  uint64
}

// Drops returns the counters of all peers that are not zero.
func (m *Mesh) Drops() (all []Drop) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range m.peers {
		add := func(reason string, n uint64) {
			if n > 0 {
				all = append(all, Drop{reason, p.String(), n})
			}
		}
		for r := range wire.Reasons {
			add(r.String(), p.drops[r].Load())
		}
		q := p.queue.Stats()
		add("queue_full", q.Full)
		add("queue_delay", q.Dropped)
		add("stale", q.Stale)
		add("peer_down", q.Cut+p.unsent.Load())
		add("path_shrunk", p.tooLarge.Load())
		add("peer_offload", p.uncut.Load())
		add("not_attached", p.unheard.Load())
	}
	return all
}

// peer returns the peer with that id, or nil.
func (m *Mesh) peer(id identity.ID) *Peer {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.peers[id]
}
