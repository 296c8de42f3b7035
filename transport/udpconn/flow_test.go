// SPDX-License-Identifier: Apache-2.0

package udpconn_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"
	"pgregory.net/rapid"

	"github.com/l2bridge/l2bridge/transport/udpconn"
)

var errConnClosed = errors.New("closed")

// fakeConn is a QUIC connection's way from the socket to ReceiveDatagram:
// a queue of packets, a run loop, a queue of datagrams. Both queues drop what
// is too much, as quic-go's do.
type fakeConn struct {
	remote   atomic.Pointer[net.UDPAddr]
	perWork  time.Duration // what the run loop takes for a packet
	received atomic.Uint64
	dropped  atomic.Int64

	packets chan int // datagrams in each
	mu      sync.Mutex
	queue   int
	rcvd    chan struct{}
	closed  chan struct{}
}

func newFakeConn(remote string) *fakeConn {
	c := &fakeConn{packets: make(chan int, 256), rcvd: make(chan struct{}, 1), closed: make(chan struct{})}
	c.remote.Store(net.UDPAddrFromAddrPort(netip.MustParseAddrPort(remote)))
	return c
}

func (c *fakeConn) handle(datagrams int) {
	select {
	case c.packets <- datagrams:
	default:
		c.dropped.Add(1)
	}
}

func (c *fakeConn) run() {
	for n := range c.packets {
		time.Sleep(c.perWork)
		c.mu.Lock()
		for range n {
			if c.queue == 128 {
				c.dropped.Add(1)
				continue
			}
			c.queue++
		}
		c.mu.Unlock()
		if n > 0 {
			select {
			case c.rcvd <- struct{}{}:
			default:
			}
		}
		c.received.Add(1)
	}
	close(c.closed)
}

func (c *fakeConn) ReceiveDatagram(ctx context.Context) ([]byte, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	for {
		c.mu.Lock()
		if c.queue > 0 {
			c.queue--
			c.mu.Unlock()
			return []byte{}, nil
		}
		c.mu.Unlock()
		select {
		case <-c.rcvd:
		case <-c.closed:
			return nil, errConnClosed
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func (c *fakeConn) RemoteAddr() net.Addr { return c.remote.Load() }

func (c *fakeConn) ConnectionStats() quic.ConnectionStats {
	return quic.ConnectionStats{PacketsReceived: c.received.Load()}
}

const peer = "192.0.2.1:4433"

// Whatever the packets carry, however slow each part is, and whatever comes for
// another connection from the same address, no datagram is dropped, nobody waits
// forever, and no hold has to be ended by time.
func TestFlowLosesNothing(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		micros := rapid.IntRange(0, 200)
		runLoop := time.Duration(micros.Draw(rt, "run loop")) * time.Microsecond
		consumer := time.Duration(micros.Draw(rt, "consumer")) * time.Microsecond
		const others = 2 // in place of a number of datagrams
		packets := rapid.SliceOfN(rapid.IntRange(0, others), 1, 2000).Draw(rt, "datagrams in each packet")
		pauses := rapid.SliceOfN(rapid.IntRange(0, len(packets)-1), 0, 5).Draw(rt, "pauses before")
		synctest.Test(t, func(t *testing.T) {
			conn, table := newFakeConn(peer), new(udpconn.Flows)
			conn.perWork = runLoop
			beside := newFakeConn(peer)
			f := table.Open(t.Context(), conn, beside)
			defer f.Close()
			var group sync.WaitGroup
			group.Go(conn.run)
			group.Go(beside.run)
			var got int
			group.Go(func() {
				for {
					if _, err := f.Receive(); err != nil {
						return
					}
					got++
					time.Sleep(consumer)
				}
			})
			want := 0
			for i, n := range packets {
				for _, p := range pauses {
					if p == i {
						time.Sleep(time.Second)
					}
				}
				f.HandUp()
				if n == others {
					beside.handle(0)
					continue
				}
				conn.handle(n)
				want += n
			}
			time.Sleep(10 * time.Second)
			close(conn.packets)
			close(beside.packets)
			group.Wait()
			if d := conn.dropped.Load(); d != 0 || got != want {
				rt.Errorf("received %d of %d datagrams, %d dropped", got, want, d)
			}
			if n := table.HoldTimeouts(); n != 0 {
				rt.Errorf("%d holds ended by time", n)
			}
		})
	})
}

// Once a flow knows how many datagrams its packets carry, it keeps to that.
func TestFlowLearnsManyDatagramsAPacket(t *testing.T) {
	for _, n := range []int{2, 16, 40} {
		synctest.Test(t, func(t *testing.T) {
			conn, table := newFakeConn(peer), new(udpconn.Flows)
			f := table.Open(t.Context(), conn)
			defer f.Close()
			var group sync.WaitGroup
			group.Go(conn.run)
			group.Go(func() {
				for {
					if _, err := f.Receive(); err != nil {
						return
					}
					time.Sleep(time.Microsecond)
				}
			})
			for range 5000 {
				f.HandUp()
				conn.handle(n)
			}
			synctest.Wait()
			time.Sleep(time.Second)
			close(conn.packets)
			group.Wait()
			if d := conn.dropped.Load(); d != 0 {
				t.Errorf("%d datagrams a packet: %d dropped", n, d)
			}
		})
	}
}

// Packets that the connection never sees, and a consumer that hangs, cost no
// more than a hold, and a fifth of the time where others wait too.
func TestFlowNeverStalls(t *testing.T) {
	for _, tt := range []struct {
		name   string
		hangs  bool
		shared bool
		share  float64 // of the time held, at most
	}{
		{"miscount", false, false, 0.35},
		{"miscount, shared", false, true, 0.25},
		{"consumer hangs", true, false, 0.35},
		{"consumer hangs, shared", true, true, 0.25},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				conn, table := newFakeConn(peer), new(udpconn.Flows)
				ctx, cancel := context.WithCancel(t.Context())
				f := table.Open(ctx, conn)
				defer f.Close()
				longest := udpconn.MaxHold
				if tt.shared {
					defer table.Open(ctx, newFakeConn("192.0.2.2:4433")).Close()
					longest = udpconn.SharedHold
				}
				var group sync.WaitGroup
				if !tt.hangs {
					group.Go(func() {
						if _, err := f.Receive(); !errors.Is(err, context.Canceled) {
							t.Errorf("Receive: %v, want %v", err, context.Canceled)
						}
					})
				}
				var held time.Duration
				start := time.Now()
				for range 100_000 {
					time.Sleep(10 * time.Microsecond)
					before := time.Now()
					f.HandUp() // and quic-go drops it
					wait := time.Since(before)
					if wait > longest {
						t.Fatalf("held for %v, longer than %v", wait, longest)
					}
					held += wait
				}
				if share := held.Seconds() / time.Since(start).Seconds(); share > tt.share {
					t.Errorf("held for %.2f of the time, want at most %.2f", share, tt.share)
				}
				if table.HoldTimeouts() == 0 {
					t.Error("never held to the end: this test shows nothing")
				}
				cancel()
				group.Wait()
				if !tt.hangs && table.Of(netip.MustParseAddrPort(peer)) != nil {
					t.Error("still registered after Receive has ended")
				}
			})
		})
	}
}

// A closed flow lets the reader go at once.
func TestFlowCloseEndsHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn, table := newFakeConn(peer), new(udpconn.Flows)
		f := table.Open(t.Context(), conn)
		start := time.Now()
		var group sync.WaitGroup
		group.Go(func() {
			for range 2 * udpconn.CreditLimit {
				f.HandUp()
			}
		})
		synctest.Wait()
		f.Close()
		group.Wait()
		if d := time.Since(start); d != 0 {
			t.Errorf("held for %v", d)
		}
		if got := table.Of(netip.MustParseAddrPort(peer)); got != nil {
			t.Error("still registered")
		}
	})
}

// A flow follows its connection to another address, and an older flow does
// not put out a newer one when it ends.
func TestFlowIsFoundByAddress(t *testing.T) {
	t.Parallel()
	old, other := netip.MustParseAddrPort(peer), netip.MustParseAddrPort("[2001:db8::1]:1000")
	conn, table := newFakeConn(peer), new(udpconn.Flows)
	f := table.Open(t.Context(), conn)
	if table.Of(old) != f || table.Of(other) != nil {
		t.Error("not found by its address alone")
	}
	conn.remote.Store(net.UDPAddrFromAddrPort(other))
	conn.queue = 1
	if _, err := f.Receive(); err != nil {
		t.Fatal(err)
	}
	if table.Of(old) != nil || table.Of(other) != f {
		t.Error("did not move")
	}
	newer := table.Open(t.Context(), conn)
	f.Close()
	if table.Of(other) != newer {
		t.Error("the older flow put out the newer one")
	}
	newer.Close()
	if table.Of(other) != nil {
		t.Error("still found after Close")
	}
}

// The kernel stamps packets by the clock that somebody may set: what was in the socket
// then passes for one that has waited for years, or that comes from the future. That is
// over with the next one, and no congestion.
func TestClockIsSet(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var flows udpconn.Flows
		f := flows.Open(t.Context(), newFakeConn(peer))
		defer f.Close()
		const years = 30 * 365 * 24 * time.Hour
		for _, waited := range []time.Duration{years, 10 * time.Microsecond, -years, years, -years, 10 * time.Microsecond} {
			if f.WaitedTooLong(time.Now(), waited) {
				t.Errorf("a packet that waited for %v is marked", waited)
			}
			time.Sleep(time.Second)
		}
	})
}

// A flow that has no credit, and whose packets wait all the same, is no longer waited
// for once it has been told by marks for long enough; until it has had credit for a
// while. With nobody else there it harms nobody.
func TestFlowOverruns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const long, short = 20 * time.Millisecond, time.Millisecond
		for _, alone := range []bool{false, true} {
			var flows udpconn.Flows
			f := flows.Open(t.Context(), newFakeConn(peer))
			if !alone {
				defer flows.Open(t.Context(), newFakeConn("192.0.2.2:4433")).Close()
			}
			for i, step := range []struct {
				after, waited time.Duration
				noCredit      bool
				want          bool
			}{
				{0, long, true, false},
				{90 * time.Millisecond, long, true, false},
				{5 * time.Millisecond, short, false, false}, // caught up in between
				{5 * time.Millisecond, long, true, false},
				{99 * time.Millisecond, long, true, false},
				{time.Millisecond, long, true, true},
				{900 * time.Millisecond, short, true, true}, // again, and so at once
				{900 * time.Millisecond, short, false, false},
				{200 * time.Millisecond, long, true, false}, // had credit for over a second
			} {
				time.Sleep(step.after)
				f.WaitedTooLong(time.Now(), step.waited)
				if want := step.want && !alone; step.noCredit && f.Overruns(time.Now()) != want {
					t.Errorf("alone %t, step %d: overruns %t, want %t", alone, i, !want, want)
				}
			}
			f.Close()
		}
	})
}
