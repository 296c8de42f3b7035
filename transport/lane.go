// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/l2bridge/l2bridge/internal/frame"
	"github.com/l2bridge/l2bridge/transport/egress"
	"github.com/l2bridge/l2bridge/transport/identity"
	"github.com/l2bridge/l2bridge/transport/wire"
)

// lane is one QUIC connection of a session, after both sides have said hello.
type lane struct {
	conn   *quic.Conn
	stream *quic.Stream // control messages
	site   string       // who is at the other end
	id     identity.ID
	hello  wire.Hello // what it said
	told   lan        // what we said

	socket  net.PacketConn  // that it is on
	own     *quic.Transport // on a socket of the lane's own, nil without
	out     atomic.Pointer[egress.Lane]
	retired chan struct{} // closed when the lane is not needed any more

	parity  atomic.Int32  // datagrams that each PARITY covers; 0 for none
	carried atomic.Uint64 // datagrams with frames, both ways
	seen    uint64        // of these, by steer
	active  time.Time     // when steer saw more of them; zero at first

	packer wire.Packer
	size   atomic.Int32 // greatest datagram that the connection takes at present
	pongs  chan uint64  // nonces of pings to be answered

	filled atomic.Bool   // a datagram of the greatest size has been sent
	probes chan uint64   // nonces of probes to be sent
	acked  atomic.Uint64 // nonce of the probe answered last
	heard  atomic.Int64  // when a datagram came last, by the mesh's clock

	// Of the control lane.
	first      *message      // that waitAdopted has read; its reader's own
	answered   atomic.Uint64 // nonce of the newest ping that had an answer
	answers    chan struct{} // tells of one
	answeredAt atomic.Int64  // when that came, by the mesh's clock
	resumed    atomic.Int64  // when one came last after a long pause

	cleared chan struct{} // tells that the peer has all that was sent
	call    chan struct{} // something is to be sent now, for the peer to see where from

	epoch time.Time // what the mesh's clock counts from
}

// measureEvery is after how many full datagrams the greatest size is asked for
// again: asking costs an allocation.
const measureEvery = 256

// maxDatagram bounds the datagrams that are sent: quic-go's packets end at 1452
// bytes, but it is quic-go that says so.
const maxDatagram = 2048

// newLane judges the peer's hello against its certificate.
func (m *Mesh) newLane(conn *quic.Conn, stream *quic.Stream, hello wire.Hello, told lan) (*lane, error) {
	site, id, err := identity.Peer(conn.ConnectionState().TLS)
	if err != nil {
		return nil, err
	}
	if hello.ID != id {
		return nil, fmt.Errorf("%w: hello of %s is in another member's name", wire.ErrProtocol, site)
	}
	if !conn.ConnectionState().SupportsDatagrams.Remote {
		return nil, fmt.Errorf("%w: %s takes no QUIC datagrams", wire.ErrProtocol, site)
	}
	l := &lane{
		conn: conn, stream: stream, site: site, id: id, hello: hello, told: told,
		pongs: make(chan uint64, 1), probes: make(chan uint64, 1), retired: make(chan struct{}),
		answers: make(chan struct{}, 1), cleared: make(chan struct{}, 1), call: make(chan struct{}, 1), epoch: m.epoch,
	}
	l.answeredAt.Store(int64(m.clock()))
	l.measure()
	return l, nil
}

// greetPeer says hello on a connection that we dialled, and waits for the answer.
func (m *Mesh) greetPeer(ctx context.Context, conn *quic.Conn, session [8]byte, number uint8) (*lane, error) {
	stream, err := conn.OpenStreamSync(ctx)
	if err != nil {
		return nil, err
	}
	told := m.getLAN()
	if _, err := stream.Write(m.hello(told, session, number).Append(nil)); err != nil {
		return nil, err
	}
	hello, err := readHello(ctx, stream)
	if err != nil {
		return nil, err
	}
	if hello.Session != session || hello.Lane != number {
		return nil, fmt.Errorf("%w: hello answers another lane", wire.ErrProtocol)
	}
	return m.newLane(conn, stream, hello, told)
}

// answer waits for the hello on a connection that we accepted, and returns it.
func (m *Mesh) answer(ctx context.Context, conn *quic.Conn) (*lane, error) {
	ctx, cancel := context.WithTimeout(ctx, greeting)
	defer cancel()
	stream, err := conn.AcceptStream(ctx)
	if err != nil {
		return nil, err
	}
	hello, err := readHello(ctx, stream)
	if err != nil {
		return nil, err
	}
	told := m.getLAN()
	l, err := m.newLane(conn, stream, hello, told)
	if err != nil {
		return nil, err
	}
	_, err = stream.Write(m.hello(told, hello.Session, hello.Lane).Append(nil))
	return l, err
}

func (m *Mesh) hello(lan lan, session [8]byte, number uint8) wire.Hello {
	return wire.Hello{
		ID:        m.cfg.Member.ID,
		Boot:      m.boot,
		Session:   session,
		Lane:      number,
		ConnIDLen: wire.MaxConnIDLen,
		MTU:       uint16(lan.mtu),
		Features:  lan.features | always,
		Revoked:   m.listVersion(),
	}
}

// always is what we take whatever our LAN does.
const always = wire.FeatureTest | wire.FeatureParity | wire.FeatureRelay | wire.FeatureVia

// readHello reads the first message of a stream, for as long as ctx allows.
func readHello(ctx context.Context, stream *quic.Stream) (h wire.Hello, err error) {
	stop := context.AfterFunc(ctx, func() { stream.CancelRead(wire.CloseGoodbye) })
	defer stop()
	typ, body, err := wire.ReadMessage(stream, nil)
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return h, err
	}
	if typ != wire.TypeHello {
		return h, fmt.Errorf("%w: first message has type %d, not hello", wire.ErrProtocol, typ)
	}
	return wire.ParseHello(body)
}

// message is a control message.
type message struct {
	typ  uint8
	body []byte
}

// waitAdopted waits until the peer, which accepted the lane, has adopted its session:
// whatever it says first says that.
func (l *lane) waitAdopted(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, dialling)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { l.stream.CancelRead(wire.CloseGoodbye) })
	defer stop()
	typ, body, err := wire.ReadMessage(l.stream, nil)
	if err != nil {
		return cmp.Or(context.Cause(ctx), err)
	}
	l.first = &message{typ, body}
	return nil
}

// read reads the next control message; see wire.ReadMessage.
func (l *lane) read(buf []byte) (typ uint8, body []byte, err error) {
	if m := l.first; m != nil {
		l.first = nil
		return m.typ, m.body, nil
	}
	return wire.ReadMessage(l.stream, buf)
}

// measure asks the connection how great a datagram may be: one that cannot be
// sent is refused at once, and the error tells.
func (l *lane) measure() {
	var tooLarge *quic.DatagramTooLargeError
	if err := l.conn.SendDatagram(impossible); errors.As(err, &tooLarge) {
		l.size.Store(int32(min(max(wire.MinSize, tooLarge.MaxDatagramPayloadSize), maxDatagram)))
	}
}

// impossible is longer than any UDP payload.
var impossible = make([]byte, 1<<16)

// send packs what waits for the lane into datagrams until ctx, the connection or out
// ends. It is the one goroutine that SendDatagram may block.
func (l *lane) send(ctx context.Context, out *egress.Lane, lost *atomic.Uint64) error {
	defer out.Close()
	d := make([]byte, maxDatagram)
	outer := overhead + l.outerHeaders()
	full := 0
	var protector wire.Protector
	for out.Wait(ctx) {
		size, covers := int(l.size.Load()), int(l.parity.Load())
		if covers > 0 {
			size -= wire.ParityCost
		}
		if n := l.packer.Pack(d[:size], out); n > 0 {
			if n == size {
				l.filled.Store(true)
				// Only datagrams of the greatest size fill packets, which only
				// then are sent in batches: follow the path's discovery closely.
				if full++; full%measureEvery == 0 {
					l.measure()
				}
			}
			out.Spent(n + outer)
			l.carried.Add(1)
			if err := l.conn.SendDatagram(d[:n]); err != nil {
				if !isTooLarge(err) {
					return err
				}
				lost.Add(1) // the path has just changed; what was in it is lost
				l.measure()
			}
			if covers > 0 {
				protector.Add(d[:n])
			}
		}
		if n := protector.Covers(); n > 0 && (n >= covers || n >= covers/2 && out.Idle()) {
			parity := protector.Append(d[:0], l.packer.Seq())
			out.Spent(len(parity) + outer)
			if err := l.conn.SendDatagram(parity); err != nil && !isTooLarge(err) {
				return err
			}
		}
		if at, due := out.Ping(); due {
			if err := l.conn.SendDatagram(wire.AppendHeartbeat(nil, l.packer.Seq(), wire.Ping, uint64(at), 0)); err != nil {
				return err
			}
		}
	}
	return l.clear(ctx)
}

// clock is the mesh's.
func (l *lane) clock() time.Duration { return time.Since(l.epoch) }

func isTooLarge(err error) bool {
	var tooLarge *quic.DatagramTooLargeError
	return errors.As(err, &tooLarge)
}

// outerHeaders returns the bytes of UDP and IP header before each packet.
func (l *lane) outerHeaders() int {
	const udp, ipv4, ipv6 = 8, 20, 40
	if l.remote().Addr().Is4() {
		return udp + ipv4
	}
	return udp + ipv6
}

// receive hands the frames that come in, and that r makes of datagrams, to deliver
// until the connection ends; after each datagram it calls flush. Probes are left to
// acks, to be answered on the control lane.
func (l *lane) receive(next func() ([]byte, error), r wire.Receiver, acks chan<- wire.ProbeAck, deliver func([]*frame.Buf), flush func()) error {
	var (
		mu     sync.Mutex // guards what follows, between here and the timer
		ended  bool
		frames = make([]*frame.Buf, 0, 64)
		rep    wire.Repairer
		now    time.Time
	)
	r.Heartbeat = func(h wire.Heartbeat) { l.heartbeat(h, acks) }
	pass := func() {
		if len(frames) > 0 {
			l.carried.Add(1)
			deliver(frames)
		}
		flush()
		for i, b := range frames {
			b.Release()
			frames[i] = nil
		}
		frames = frames[:0]
	}
	take := func(d []byte) { frames = r.Datagram(d, now, frames) }
	wait := func(timer *time.Timer) {
		if r.Waits() || rep.Waits() {
			timer.Reset(wire.SalvageAfter)
		}
	}
	// What waits, or is to be salvaged, on a lane that goes quiet has a timer.
	var timer *time.Timer
	timer = time.AfterFunc(time.Hour, func() {
		mu.Lock()
		defer mu.Unlock()
		if ended {
			return
		}
		now = time.Now()
		rep.Idle(now, take)
		frames = r.Idle(now, frames)
		pass()
		wait(timer)
	})
	defer func() {
		timer.Stop()
		mu.Lock()
		ended = true
		r.Close()
		mu.Unlock()
	}()
	for {
		d, err := next()
		if err != nil {
			return err
		}
		mu.Lock()
		now = time.Now()
		l.heard.Store(int64(now.Sub(l.epoch)))
		rep.Datagram(d, now, take)
		pass()
		wait(timer)
		mu.Unlock()
	}
}

// heartbeat takes one from the peer. What is to be answered is left to beat, or
// to acks; one answer is as good as two.
func (l *lane) heartbeat(h wire.Heartbeat, acks chan<- wire.ProbeAck) {
	switch h.Mode {
	case wire.Ping:
		select {
		case l.pongs <- h.Nonce:
		default:
		}
	case wire.Pong:
		switch out := l.out.Load(); {
		case h.Nonce == lastPing:
			poke(l.cleared)
		case out != nil:
			out.Cleared(time.Duration(h.Nonce))
		case h.Nonce > l.answered.Load():
			l.answered.Store(h.Nonce)
			l.isAnswered()
			poke(l.answers)
		}
	case wire.Probe:
		select {
		case acks <- wire.ProbeAck{Lane: l.hello.Lane, Nonce: h.Nonce}:
		default:
		}
	}
}

// longPause is how long answers on a control lane may be apart, as they come once a
// heartbeat at least, before the peer may have come to doubt that we are there: it
// does so no sooner than after suspectAfter.
const longPause = (heartbeat + suspectAfter) / 2

// isAnswered notes that an answer has come.
func (l *lane) isAnswered() {
	now := int64(l.clock())
	if now-l.answeredAt.Swap(now) > int64(longPause) {
		l.resumed.Store(now)
	}
}

// steady reports whether answers have come without a break for so long that nothing
// is on its way any more that the peer may have sent by a relay.
func (l *lane) steady() bool {
	now := l.clock()
	return now-time.Duration(l.answeredAt.Load()) <= longPause && now-time.Duration(l.resumed.Load()) >= underway
}

// callOut has the lane send something at once.
func (l *lane) callOut() { poke(l.call) }

// beat says on a data lane at intervals that we are alive, answers who asks, and
// sends the probes of watchPath. It follows the size that the connection takes
// as well.
func (l *lane) beat(ctx context.Context) error {
	tick := time.NewTicker(heartbeat)
	defer tick.Stop()
	for {
		mode, nonce, size := wire.Alive, uint64(0), 0
		select {
		case <-ctx.Done():
			return nil
		case nonce = <-l.pongs:
			mode = wire.Pong
		case nonce = <-l.probes:
			mode, size = wire.Probe, int(l.size.Load())
		case <-l.call:
		case <-tick.C:
			l.measure()
		}
		if err := l.say(mode, nonce, size); err != nil {
			return err
		}
	}
}

// say sends a heartbeat.
func (l *lane) say(mode wire.Mode, nonce uint64, size int) error {
	err := l.conn.SendDatagram(wire.AppendHeartbeat(nil, l.packer.Seq(), mode, nonce, size))
	if err != nil && isTooLarge(err) {
		l.measure() // the size has just changed; the next one has it
		return nil
	}
	return err
}

// blackHole is how long datagrams of the greatest size may go unanswered, while
// smaller ones arrive, until the path counts as narrower than it was.
const blackHole = 3 * time.Second

// errNarrow ends a session whose path has become narrower: quic-go finds out
// how much a path carries when that grows, and never when it shrinks. The next
// session starts at the least that QUIC needs.
var errNarrow = errors.New("path has become narrower")

// watchPath sees whether datagrams of the greatest size arrive. As long as such
// are being sent it has one a second answered by way of the control lane. While the
// session is suspect nothing has an answer, which is no matter of size: a path that
// is dark in one direction would pass for narrow.
func (l *lane) watchPath(ctx context.Context, suspect *atomic.Bool) error {
	tick := time.NewTicker(heartbeat)
	defer tick.Stop()
	var sent, acked uint64 // nonces
	var since time.Time    // of the first probe that had no answer since the last one that had
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		if n := l.acked.Load(); n > acked && n <= sent {
			acked, since = n, time.Time{}
		}
		if sent == acked && !l.filled.Swap(false) {
			continue
		}
		switch now := time.Now(); {
		case since.IsZero(), suspect.Load():
			since = now
		case now.Sub(since) >= blackHole:
			return errNarrow
		}
		sent++
		select {
		case l.probes <- sent:
		default: // the last one still waits to be sent
		}
	}
}

// closeOwn closes the lane's own socket, if it has one.
func (l *lane) closeOwn() {
	if l.own != nil {
		l.own.Close()
		l.socket.Close()
	}
}

// remote returns the address of the other end at present.
func (l *lane) remote() netip.AddrPort { return addrPort(l.conn.RemoteAddr()) }

// addrPort returns the address that a net.Addr of UDP stands for.
func addrPort(a net.Addr) netip.AddrPort {
	u, ok := a.(*net.UDPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := u.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
