// SPDX-License-Identifier: Apache-2.0

package transport_test

import (
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/l2bridge/l2bridge/internal/frame"
	"github.com/l2bridge/l2bridge/transport"
	"github.com/l2bridge/l2bridge/transport/identity"
	"github.com/l2bridge/l2bridge/transport/udpconn"
	"github.com/l2bridge/l2bridge/transport/wire"
)

// real is a site on a real socket of the loopback.
type real struct {
	*transport.Mesh
	*lan
	conn *udpconn.Conn
}

// runReal starts a site that dials peers, until the test ends.
func runReal(t *testing.T, m *identity.Member, peers ...string) *real {
	t.Helper()
	conn, err := udpconn.Listen(netip.MustParseAddrPort("127.0.0.1:0"), udpconn.Options{})
	if err != nil {
		t.Fatal(err)
	}
	r := &real{lan: &lan{peers: make(map[string]*transport.Peer)}, conn: conn}
	cfg := transport.Config{
		Member: m, Conn: conn, MTU: 1500,
		Features: wire.FeatureCsum | wire.FeatureTSO | wire.FeatureUSO,
		Serve:    r.serve,
		Log:      slog.New(slog.NewTextHandler(t.Output(), nil)).With("at", m.Site),
	}
	for _, p := range peers {
		cfg.Dial = append(cfg.Dial, []string{p})
	}
	r.Mesh = transport.New(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		conn.Close()
	})
	return r
}

// The lanes as they are, over real sockets, under load: each send call carries
// ten packets and more, and what is sent arrives, unless a queue of ours has
// dropped and counted it. As in package udpconn, whose test of the same is
// without lanes, the best stretch of the run counts: at other times a busy
// machine may put no load on it.
func TestLoopbackFullRate(t *testing.T) {
	const (
		count    = 30_000 // frames
		burst    = 64     // of them at a time
		ahead    = 6      // bursts that may be on their way
		stretch  = 10     // calls
		patience = 200    // ticks of 100 ms in which nothing happens
	)
	ms := members(t, "home", "office")
	home := runReal(t, ms[0])
	arrived := make(chan struct{}, count)
	home.take = func(_ string, b *frame.Buf) {
		if b.Len() == 1514 {
			arrived <- struct{}{}
		}
	}
	office := runReal(t, ms[1], home.conn.LocalAddr().String())
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	quiet := 0
	for ; office.peer("home") == nil || home.peer("office") == nil; quiet++ {
		if <-tick.C; quiet == patience {
			t.Fatal("the sites have not found each other")
		}
	}
	peer := office.peer("home")

	type sample struct{ packets, calls uint64 }
	var samples []sample
	var sent, received, given int // given up, since a queue of ours dropped them
	frames := make([]*frame.Buf, burst)
	lost := func() (n int) {
		for _, d := range office.Drops() {
			n += int(d.Count)
		}
		return n
	}
	for received+given < count {
		for sent < count && sent-received-given <= (ahead-1)*burst {
			for i := range frames {
				frames[i] = frame.Get(1514)
				frames[i].SetHeader(frame.Vnet{})
				f := frames[i].Bytes()
				clear(f)
				copy(f, []byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb5})
				binary.BigEndian.PutUint32(f[14:], uint32(sent+i))
			}
			peer.Send(frames)
			for _, b := range frames {
				b.Release()
			}
			sent += burst
			s := office.conn.Stats()
			samples = append(samples, sample{s.TxPackets, s.TxSyscalls})
		}
		select {
		case <-arrived:
			received++
			quiet = 0
		case <-tick.C:
			given = lost()
			if quiet++; quiet < patience {
				continue
			}
			if home.conn.Stats().RxKernelDrops > 0 {
				t.Skip("this machine was too busy to read its sockets")
			}
			t.Fatalf("%d frames of %d arrived, %d dropped by us; at home %v", received, sent, given, home.Drops())
		}
	}

	tx, rx := office.conn.Stats(), home.conn.Stats()
	best := 0.0
	for i, from := 0, 0; i < len(samples); i++ {
		for from < i && samples[i].calls-samples[from+1].calls >= stretch {
			from++
		}
		if calls := samples[i].calls - samples[from].calls; calls >= stretch {
			best = max(best, float64(samples[i].packets-samples[from].packets)/float64(calls))
		}
	}
	t.Logf("%d frames arrived, %d dropped in our queue; %d packets in %d calls, %.1f a call at best; received in %d; %d kernel drops, %d holds to the end",
		received, given, tx.TxPackets, tx.TxSyscalls, best, rx.RxSyscalls, rx.RxKernelDrops, rx.HoldTimeouts)
	if tx.GSO && best < 10 {
		t.Errorf("%.1f packets a send call at best, want 10", best)
	}
	if drops := home.Drops(); len(drops) > 0 && rx.RxKernelDrops == 0 && rx.HoldTimeouts == 0 {
		t.Errorf("datagrams were lost inside the process: %v", drops)
	}
}

// A site whose socket is no more says so, and ends.
func TestSocketGone(t *testing.T) {
	ms := members(t, "home")
	conn, err := udpconn.Listen(netip.MustParseAddrPort("127.0.0.1:0"), udpconn.Options{})
	if err != nil {
		t.Fatal(err)
	}
	l := &lan{peers: make(map[string]*transport.Peer)}
	m := transport.New(transport.Config{Member: ms[0], Conn: conn, MTU: 1500, Serve: l.serve, Log: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx) }()
	conn.Close()
	if err := <-ended; err == nil || !strings.Contains(err.Error(), conn.LocalAddr().String()) || !errors.Is(err, net.ErrClosed) {
		t.Errorf("Run: %v, want that the socket was closed", err)
	}
}
