// SPDX-License-Identifier: Apache-2.0

package udpconn_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/l2bridge/l2bridge/transport/udpconn"
)

// refuser is a network whose way to some addresses takes no batches.
type refuser struct {
	refuses        func(netip.Addr) bool
	tried, singles int // batches to those, and packets
}

func (r *refuser) send(b, oob []byte, to netip.AddrPort) (int, int, error) {
	switch {
	case !r.refuses(to.Addr()):
	case bytes.Contains(oob, segmentSize(100)):
		r.tried++
		return 0, 0, errnoError(unix.EIO)
	default:
		r.singles++
	}
	return len(b), len(oob), nil
}

// A way that refuses batches is asked three times and then once a minute, and
// every packet goes. Other ways keep theirs.
func TestRefusedBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad, good := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
		way := refuser{refuses: func(a netip.Addr) bool { return a == bad }}
		c := listen(t, "127.0.0.1:0")
		udpconn.SetSend(c, func(udpconn.SendFunc) udpconn.SendFunc { return way.send })
		send := func(a netip.Addr) {
			t.Helper()
			to := net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, 4433))
			if n, _, err := c.WriteMsgUDP(make([]byte, 250), segmentSize(100), to); n != 250 || err != nil {
				t.Fatalf("WriteMsgUDP = %d, %v", n, err)
			}
		}
		check := func(batches, tried int, given ...netip.Addr) {
			t.Helper()
			s := c.Stats()
			if way.tried != tried || way.singles != 3*batches {
				t.Errorf("%d batches tried, %d packets; want %d, %d", way.tried, way.singles, tried, 3*batches)
			}
			if s.TxRefused != uint64(tried) || len(s.TxErrors) != 0 || !s.GSO {
				t.Errorf("stats %+v, want %d refused and no error", s, tried)
			}
			if diff := cmp.Diff(given, s.GSORefused, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
				t.Errorf("addresses that refuse (-want +got):\n%s", diff)
			}
		}

		send(good)
		for range udpconn.RefusalLimit - 1 {
			send(bad)
		}
		check(2, 2)
		send(good) // says nothing of the other one
		send(bad)
		check(3, 3, bad)
		for range 10 {
			send(bad)
			send(good)
		}
		check(13, 3, bad)

		time.Sleep(udpconn.RefusalPause)
		for range 10 {
			send(bad)
		}
		check(23, 4, bad)

		time.Sleep(udpconn.RefusalPause)
		way.refuses = func(netip.Addr) bool { return false } // another route
		send(bad)
		check(23, 4)
		way.refuses = func(a netip.Addr) bool { return a == bad }
		send(bad)
		check(24, 5) // counted anew
		send(bad)
		send(bad)
		check(26, 7, bad)

		time.Sleep(2 * udpconn.RefusalPause)
		check(26, 7) // nobody sends there any more
	})
}

// What is remembered is bounded.
func TestRefusalsAreBounded(t *testing.T) {
	t.Parallel()
	way := refuser{refuses: func(netip.Addr) bool { return true }}
	c := listen(t, "127.0.0.1:0")
	udpconn.SetSend(c, func(udpconn.SendFunc) udpconn.SendFunc { return way.send })
	for i := range 2*udpconn.MaxRefusals + 1 {
		to := &net.UDPAddr{IP: binary.BigEndian.AppendUint32(nil, 10<<24|uint32(i)), Port: 1}
		for range udpconn.RefusalLimit {
			if _, _, err := c.WriteMsgUDP(make([]byte, 250), segmentSize(100), to); err != nil {
				t.Fatal(err)
			}
		}
	}
	if n := len(c.Stats().GSORefused); n == 0 || n > udpconn.MaxRefusals {
		t.Errorf("%d addresses remembered, want %d at most", n, udpconn.MaxRefusals)
	}
}

// A connection runs over a way that refuses batches, and loses nothing. Several
// goroutines send and look meanwhile, for the race detector.
func TestQUICOverRefusingWay(t *testing.T) {
	var tried atomic.Int64
	p := newPairWith(t, func(c *udpconn.Conn) {
		udpconn.SetSend(c, func(send udpconn.SendFunc) udpconn.SendFunc {
			return func(b, oob []byte, to netip.AddrPort) (int, int, error) {
				if bytes.Contains(oob, segmentSize(packetSize)) {
					tried.Add(1)
					return 0, 0, errnoError(unix.EIO)
				}
				return send(b, oob, to)
			}
		})
	})
	if !p.clientSock.Stats().GSO {
		t.Skip("no UDP_SEGMENT in this kernel")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	f := p.serverSock.Flow(ctx, p.server)
	defer f.Close()

	const count = 5000
	size := p.greatest(t)
	sent := make(chan error, 1)
	go func() { sent <- p.send(count, size) }()
	received := p.receive(t, f.Receive, count)
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	s := p.clientSock.Stats()
	if len(s.GSORefused) != 1 || s.TxRefused != uint64(tried.Load()) || tried.Load() > 2*udpconn.RefusalLimit {
		t.Errorf("%d batches tried, stats %+v; want %d tries", tried.Load(), s, udpconn.RefusalLimit)
	}
	if drops := p.serverSock.Stats().RxKernelDrops; received < count && drops == 0 && p.serverSock.Stats().HoldTimeouts == 0 {
		t.Errorf("%d of %d datagrams arrived", received, count)
	}

	// Another connection may send to the same address at the same time.
	c := p.clientSock
	to := target(p.serverSock, "127.0.0.1")
	var g sync.WaitGroup
	for range 4 {
		g.Go(func() {
			for range 50 {
				if _, _, err := c.WriteMsgUDP(make([]byte, 2*packetSize), segmentSize(packetSize), to); err != nil {
					t.Error(err)
				}
				c.Stats()
			}
		})
	}
	g.Wait()
}
