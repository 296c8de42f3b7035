// SPDX-License-Identifier: Apache-2.0

package udpconn

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
)

const (
	// creditLimit is how many datagrams of a flow may lie between the socket
	// and the consumer. quic-go's receive queue holds 128 and drops the rest
	// after acknowledging it, so that nobody ever learns; its queue before
	// decryption holds 256 packets.
	creditLimit = 100
	// resumeBelow is where a held reader goes on: half, so that it hands up
	// whole batches and sleeps seldom.
	resumeBelow = creditLimit / 2
	// maxCost bounds what a packet costs, in datagrams: a reader that goes on
	// has room for one. A flow begins there and comes down as it measures.
	maxCost = creditLimit - resumeBelow

	// maxHold is the longest that a flow may hold the reader, sharedHold when
	// other flows of the socket wait with it.
	maxHold    = 50 * time.Millisecond
	sharedHold = 5 * time.Millisecond
	// stallTime is how long a connection may finish no packet, with its
	// consumer waiting, until we take it that it has none and the count is
	// wrong. A busy machine keeps a thread from running for 5 ms easily.
	stallTime = 25 * time.Millisecond
	// quietTime without a packet is enough for all before to be done with.
	quietTime = 250 * time.Millisecond
	// A flow whose hold ended by time twice within failureMemory goes without
	// credit for openFactor times as long: its count cannot be had right, or
	// its consumer hangs, and more holds would only slow the others.
	failureMemory = 100 * time.Millisecond
	openFactor    = 4
	// holdTick is how often a held reader looks by itself: nobody tells when
	// packets that carry no datagram are done with.
	holdTick = 500 * time.Microsecond
)

// Datagrams is what a [Flow] needs of a QUIC connection; *quic.Conn has it.
type Datagrams interface {
	ReceiveDatagram(context.Context) ([]byte, error)
	ConnectionStats() quic.ConnectionStats
	RemoteAddr() net.Addr
}

// Flow is the receiving side of one QUIC connection and its receive credit.
// Whoever takes a connection's datagrams takes them from Receive, and nowhere
// else. While a hundred of them wait to be taken, the reader of the socket is
// held, and what comes in waits in the kernel's buffer, where loss is seen by
// the sender's congestion control.
//
// The reader counts packets and the consumer datagrams; one packet may carry
// several, or none. Two figures are exact, though: the connection's own count
// of packets it has finished with, and that the queue of datagrams was empty
// when the consumer had to wait. So each time the consumer waits, all packets
// the connection had finished with before are settled:
//
//	packets handed up  ----settled----|--------taken-------->
//	datagrams received ----settled----|---received--->
//	                     nothing left  | at most taken x cost - received
//
// The cost of a packet, in datagrams, is measured over the packets settled. A
// guess in between that is too high makes the reader wait until the consumer
// has caught up, and then all is settled. What never settles (packets that
// quic-go dropped, a connection from the same address that is not among beside) shows in that
// everything is settled but the connection gets no further: then the count
// starts over. And no hold is longer than maxHold, so that no miscount stalls
// a flow.
type Flow struct {
	conn   Datagrams
	beside []Datagrams     // other connections with the same address, whose datagrams are no concern
	ctx    context.Context // a flowContext
	stop   func() bool
	flows  *flows
	remote net.Addr // conn's, as last registered; for the consumer

	received uint64      // consumer: the count of packets before it looked for datagrams
	waiting  atomic.Bool // consumer: waits, and found no datagram before
	poke     chan struct{}

	taken  atomic.Uint64 // packets handed up
	done   atomic.Uint64 // datagrams received
	parked atomic.Bool   // the reader is held
	closed atomic.Bool
	wake   chan struct{} // ends a hold

	delay delay // reader's

	timer     *time.Timer // reader, as the three below
	lastTaken time.Time
	failed    time.Time // when a hold last ended by time
	openUntil time.Time

	mu           sync.Mutex
	settledTaken uint64 // packets
	settledDone  uint64 // datagrams
	offset       uint64 // taken - received, for packets both have counted; modulo 2^64
	cost         uint64
}

// Receive returns the connection's next datagram, which is the caller's. It
// blocks until there is one, and returns the connection's error when it has
// ended and ctx's when that is done; either closes the flow. One goroutine at
// a time may call it.
func (f *Flow) Receive() ([]byte, error) {
	for {
		if a := f.conn.RemoteAddr(); a != f.remote {
			f.flows.move(f, a)
		}
		// Before the queue is looked at, so that an empty queue proves that
		// these packets are done with.
		f.received = f.packets()
		p, err := f.conn.ReceiveDatagram(f.ctx)
		f.waiting.Store(false)
		if err != nil {
			f.Close()
			return nil, err
		}
		if p == nil { // poked
			continue
		}
		f.done.Add(1)
		if f.parked.Load() {
			f.mu.Lock()
			f.wakeLocked()
			f.mu.Unlock()
		}
		return p, nil
	}
}

// Close gives the credit up: the reader is no longer held for this flow. It
// does not close the connection, nor end a Receive. It may be called again.
func (f *Flow) Close() {
	f.stop()
	f.closed.Store(true)
	f.flows.remove(f)
	f.wakeReader()
}

// flowContext tells the flow when its consumer has to wait. ReceiveDatagram
// looks at Err, then at its queue, and calls Done only when that is empty. A
// value from Done ends the wait once; as Err stays nil unless the context is
// really done, ReceiveDatagram then returns neither datagram nor error.
type flowContext struct {
	context.Context
	flow *Flow
}

func (c flowContext) Done() <-chan struct{} {
	c.flow.settle()
	return c.flow.poke
}

// settle is called by the consumer when it found no datagram: all packets up
// to f.received are done with.
func (f *Flow) settle() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.waiting.Store(true)
	taken, done := f.taken.Load(), f.done.Load()
	position := f.received + f.offset
	if ahead := int64(position - taken); ahead > 0 {
		// The connection got packets that took no credit: handshake, or from
		// another address.
		f.offset -= uint64(ahead)
		position = taken
	}
	if int64(position-f.settledTaken) <= 0 {
		return
	}
	// Quick to rise and slow to fall: packets of one flow are not alike.
	f.measureLocked(position-f.settledTaken, done-f.settledDone, f.cost-(f.cost+7)/8)
	f.settledTaken, f.settledDone = position, done
	f.wakeLocked()
}

// measureLocked sets the cost of a packet to datagrams/packets, rounded up,
// but not below floor.
func (f *Flow) measureLocked(packets, datagrams, floor uint64) {
	f.cost = min(max((datagrams+packets-1)/packets, floor, 1), maxCost)
}

// outstandingLocked returns how many datagrams may lie between the socket and
// the consumer.
func (f *Flow) outstandingLocked() uint64 {
	packets, datagrams := f.taken.Load()-f.settledTaken, f.done.Load()-f.settledDone
	if datagrams > packets*f.cost && packets > 0 {
		f.measureLocked(packets, datagrams, f.cost)
	}
	if datagrams >= packets*f.cost {
		return 0
	}
	return packets*f.cost - datagrams
}

// wakeLocked ends the reader's hold when enough has been taken.
func (f *Flow) wakeLocked() {
	if f.parked.Load() && f.outstandingLocked() <= resumeBelow {
		f.wakeReader()
	}
}

func (f *Flow) wakeReader() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// room returns how many packets the reader may hand up at this time. A nil
// Flow has no credit to run out of.
func (f *Flow) room(now time.Time) int {
	const unlimited = int(^uint(0) >> 1)
	if f == nil || f.closed.Load() || now.Before(f.openUntil) {
		return unlimited
	}
	if f.waiting.Load() && now.Sub(f.lastTaken) > quietTime {
		// All is quiet: whatever the count says, nothing is outstanding.
		f.startOver()
	}
	f.mu.Lock()
	outstanding, cost := f.outstandingLocked(), f.cost
	f.mu.Unlock()
	if outstanding > resumeBelow {
		f.pokeIfWaiting()
	}
	if outstanding >= creditLimit {
		return 0
	}
	return int((creditLimit - outstanding) / cost)
}

// take counts n packets as handed up.
func (f *Flow) take(n int, now time.Time) {
	if f == nil || n == 0 {
		return
	}
	f.taken.Add(uint64(n))
	f.lastTaken = now
}

// hold blocks the reader until the flow has credit again, or for the longest
// time allowed.
func (f *Flow) hold() {
	f.flows.holds.Add(1)
	f.parked.Store(true)
	defer f.parked.Store(false)
	longest := maxHold
	if f.flows.shared() {
		longest = sharedHold
	}
	stalled, before := 0, uint64(0) // ticks at which the connection's count was still before
	for range longest / holdTick {
		received := f.packets()
		f.mu.Lock()
		outstanding := f.outstandingLocked()
		settled := f.settledTaken == received+f.offset
		f.mu.Unlock()
		if outstanding <= resumeBelow || f.closed.Load() {
			return
		}
		if received != before || !settled {
			stalled, before = 0, received
		} else if stalled++; stalled > int(stallTime/holdTick) {
			break
		}
		f.pokeIfWaiting()
		f.timer.Reset(holdTick)
		select {
		case <-f.wake:
		case <-f.timer.C:
		}
	}
	f.flows.timeouts.Add(1)
	f.startOver()
	now := time.Now()
	if now.Sub(f.failed) < failureMemory {
		f.openUntil = now.Add(openFactor * longest)
	}
	f.failed = now
}

// pokeIfWaiting makes a waiting consumer look again, and so settle. It may
// wait for nothing: the packets since it last looked may have carried no
// datagram.
func (f *Flow) pokeIfWaiting() {
	if f.waiting.Load() {
		f.pokeConsumer()
	}
}

func (f *Flow) pokeConsumer() {
	select {
	case f.poke <- struct{}{}:
	default:
	}
}

// packets returns how many packets from the address are done with.
func (f *Flow) packets() uint64 {
	n := f.conn.ConnectionStats().PacketsReceived
	for _, c := range f.beside {
		n += c.ConnectionStats().PacketsReceived
	}
	return n
}

// startOver settles everything, whatever came of it.
func (f *Flow) startOver() {
	received := f.packets()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.settledTaken, f.settledDone = f.taken.Load(), f.done.Load()
	f.offset = f.settledTaken - received
}

// flows are the flows of a socket, by remote address. The zero value is ready
// for use.
type flows struct {
	holds, timeouts atomic.Uint64

	mu sync.Mutex // of writers; the map is replaced, never changed
	m  atomic.Pointer[map[netip.AddrPort]*Flow]
}

// of returns the flow from addr, nil if there is none.
func (t *flows) of(addr netip.AddrPort) *Flow {
	m := t.m.Load()
	if m == nil {
		return nil
	}
	return (*m)[addr]
}

// shared reports whether there is more than one flow.
func (t *flows) shared() bool {
	m := t.m.Load()
	return m != nil && len(*m) > 1
}

func (t *flows) open(ctx context.Context, conn Datagrams, beside []Datagrams) *Flow {
	f := &Flow{
		conn:   conn,
		beside: beside,
		flows:  t,
		poke:   make(chan struct{}, 1),
		wake:   make(chan struct{}, 1),
		timer:  time.NewTimer(time.Hour),
		cost:   maxCost,
	}
	f.ctx = flowContext{ctx, f}
	f.timer.Stop()
	f.startOver()
	f.stop = context.AfterFunc(ctx, f.pokeConsumer)
	t.move(f, conn.RemoteAddr())
	return f
}

// move registers f under the address remote, and no other.
func (t *flows) move(f *Flow, remote net.Addr) {
	f.remote = remote
	t.update(f, func(m map[netip.AddrPort]*Flow) {
		if udp, ok := remote.(*net.UDPAddr); ok && !f.closed.Load() {
			m[flowKey(udp)] = f
		}
	})
}

func (t *flows) remove(f *Flow) {
	t.update(f, func(map[netip.AddrPort]*Flow) {})
}

// update replaces the map by one without f, after change has been at it.
func (t *flows) update(f *Flow, change func(map[netip.AddrPort]*Flow)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	next := make(map[netip.AddrPort]*Flow)
	if m := t.m.Load(); m != nil {
		for addr, other := range *m {
			if other != f {
				next[addr] = other
			}
		}
	}
	change(next)
	t.m.Store(&next)
}

// flowKey is the address as the reader sees it.
func flowKey(a *net.UDPAddr) netip.AddrPort { return zoneless(a.AddrPort()) }

// delay watches how long a flow's packets wait in the socket. A reader that is
// slower than what comes in would have them wait for as long as the buffer is
// deep, since nothing is lost until it is full: QUIC's congestion control is
// told before that, by ECN, as a router on the path would. A flow that does not
// listen, and without credit holds up those of others, loses packets.
type delay struct {
	above     time.Time // when packets began to wait for too long; zero when they do not
	longest   time.Duration
	burst     time.Duration
	refreshed time.Time

	late    time.Time // when packets began to wait for longer than overrunDelay; likewise
	overran time.Time // when a packet was last dropped
}

const (
	// longestDelay is how long packets may wait, but for bursts that are over
	// within burstTime; on a long path, which takes long to fill again, a quarter
	// of a round trip, and bursts of two. A mark makes QUIC send 0.7 times as
	// much, at once, so that the next one is due when that must have had its
	// effect.
	longestDelay = 500 * time.Microsecond
	burstTime    = 2 * time.Millisecond
	// delayRefresh is how often the round trip is asked for.
	delayRefresh = 100 * time.Millisecond

	// A flow overruns us when it has no credit, its packets have waited for longer
	// than overrunDelay for overrunTime, which is many marks, and other flows wait
	// behind it. From then on what it has no credit for is dropped, until it has
	// had enough for overrunMemory.
	overrunDelay  = 10 * time.Millisecond
	overrunTime   = 100 * time.Millisecond
	overrunMemory = time.Second
)

// overruns reports whether a packet for which the flow has no credit is to be dropped
// instead of holding the reader.
func (f *Flow) overruns(now time.Time) bool {
	d := &f.delay
	since := now.Sub(d.overran)
	if !f.flows.shared() || since > overrunMemory && (d.late.IsZero() || now.Sub(d.late) < overrunTime) {
		return false
	}
	d.overran = now
	return true
}

// waitedTooLong reports whether a packet of the flow that has waited for that
// long is to be marked. A nil Flow has none to mark.
func (f *Flow) waitedTooLong(now time.Time, waited time.Duration) bool {
	if f == nil {
		return false
	}
	d := &f.delay
	if waited < overrunDelay {
		d.late = time.Time{}
	} else if d.late.IsZero() {
		d.late = now
	}
	if waited < longestDelay {
		d.above = time.Time{}
		return false
	}
	if now.Sub(d.refreshed) >= delayRefresh {
		rtt := f.conn.ConnectionStats().MinRTT
		d.longest, d.burst, d.refreshed = max(longestDelay, rtt/4), max(burstTime, 2*rtt), now
	}
	switch {
	case waited < d.longest:
		d.above = time.Time{}
	case d.above.IsZero():
		d.above = now
	case now.Sub(d.above) >= d.burst:
		d.above = now
		return true
	}
	return false
}
