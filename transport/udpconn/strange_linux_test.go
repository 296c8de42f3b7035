// SPDX-License-Identifier: Apache-2.0

package udpconn_test

import (
	"bytes"
	"net/netip"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"golang.org/x/sys/unix"

	"github.com/l2bridge/l2bridge/transport/udpconn"
)

// What a gate does not admit is not handed up, also out of the middle of what GRO
// has joined.
func TestGuard(t *testing.T) {
	t.Parallel()
	g := udpconn.NewGate(gateKey)
	ours := shortHeader(issue(t, g), 100)
	junk := shortHeader(make([]byte, 17), 100)
	to := listen(t, "127.0.0.1:0")
	to.Guard(g)
	from := listen(t, "127.0.0.1:0")
	batch := bytes.Join([][]byte{junk, ours, junk, junk, ours, junk}, nil)
	if _, _, err := from.WriteMsgUDP(batch, segmentSize(100), target(to, "127.0.0.1")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := from.WriteMsgUDP(ours, nil, target(to, "127.0.0.1")); err != nil {
		t.Fatal(err)
	}
	packets, _ := readPackets(t, to, 3)
	for _, p := range packets {
		if !bytes.Equal(p, ours) {
			t.Errorf("handed up: %x", p)
		}
	}
	if n := to.Stats().RxStrange; n != 4 {
		t.Errorf("%d counted, want 4", n)
	}
}

// What belongs to no connection is bounded, once it is known that quic-go marks
// what does.
func TestAnswersAreBounded(t *testing.T) {
	t.Parallel()
	reset, retry, probe := make([]byte, 42), bytes.Repeat([]byte{0xf1}, 150), make([]byte, 1200)
	tos := control(unix.IPPROTO_IP, unix.IP_TOS, []byte{0, 0, 0, 0})
	var a udpconn.Answers
	now := time.Unix(1e9, 0)
	sent := func(packet []byte, times int) (n int) {
		for range times {
			if a.Admits(packet, now) {
				n++
			}
		}
		return n
	}
	if n := sent(reset, 1000); n != 1000 {
		t.Errorf("%d of 1000 sent before quic-go has marked any", n)
	}
	a.IsMarked()
	for _, tt := range []struct {
		name   string
		packet []byte
		want   int
	}{{"reset", reset, udpconn.MaxAnswers}, {"retry", retry, 2000}, {"path probe", probe, 2000}, {"long farewell", make([]byte, 115), 0}} {
		if n := sent(tt.packet, 2000); n != tt.want {
			t.Errorf("%s: %d of 2000 sent, want %d", tt.name, n, tt.want)
		}
	}
	now = now.Add(time.Second)
	if n := sent(reset, 2000); n != udpconn.MaxAnswers {
		t.Errorf("a second later: %d, want %d", n, udpconn.MaxAnswers)
	}

	c := listen(t, "127.0.0.1:0")
	to := target(listen(t, "127.0.0.1:0"), "127.0.0.1")
	for range udpconn.MaxAnswers + 100 {
		for _, oob := range [][]byte{tos, nil} {
			if _, _, err := c.WriteMsgUDP(reset, oob, to); err != nil {
				t.Fatal(err)
			}
		}
	}
	s := c.Stats()
	if s.TxPackets < 2*udpconn.MaxAnswers+100 || s.TxPackets+s.TxAnswersDropped != 2*udpconn.MaxAnswers+200 {
		t.Errorf("%d sent, %d not", s.TxPackets, s.TxAnswersDropped)
	}
}

// Who begins a handshake gets three times as much as came from that address, until
// it is proven; others, and packets of connections, are not held up.
func TestUnproven(t *testing.T) {
	t.Parallel()
	g := udpconn.NewGate(gateKey)
	c, peer := listen(t, "127.0.0.1:0"), listen(t, "127.0.0.1:0")
	c.Guard(g)
	to, here := target(peer, "127.0.0.1"), target(c, "127.0.0.1")
	ours := issue(t, g)
	const handshake = 0xe0
	sent := func(packet []byte, times int) int {
		t.Helper()
		before := c.Stats().TxPackets
		for range times {
			if _, _, err := c.WriteMsgUDP(packet, nil, to); err != nil {
				t.Fatal(err)
			}
		}
		return int(c.Stats().TxPackets - before)
	}
	long, short := longHeader(handshake, quic.Version1, ours, 1000), shortHeader(ours, 1000)
	if n := sent(long, 10); n != 10 {
		t.Errorf("%d of 10 sent where nothing is held back", n)
	}
	proven := g.Unproven(to.AddrPort())
	second := g.Unproven(netip.AddrPortFrom(netip.AddrFrom16(to.AddrPort().Addr().As16()), to.AddrPort().Port()))
	if n := sent(long, 10); n != 3 {
		t.Errorf("%d of 1000 bytes sent to 1200, want 3", n)
	}
	if n := sent(short, 10); n != 10 {
		t.Errorf("%d of 10 packets of a connection sent", n)
	}
	if _, _, err := peer.WriteMsgUDP(long, nil, here); err != nil {
		t.Fatal(err)
	}
	readPackets(t, c, 1)
	if n := sent(long, 10); n != 3 {
		t.Errorf("%d sent to 1000 bytes more, want 3", n)
	}
	done := g.Dials(to.AddrPort())
	if n := sent(long, 10); n != 10 {
		t.Errorf("%d of 10 sent while we dial the address", n)
	}
	done()
	if n := sent(long, 10); n != 0 {
		t.Errorf("%d sent when we do so no more", n)
	}
	proven()
	if n := sent(long, 10); n != 0 {
		t.Errorf("%d sent while another handshake from there is not proven", n)
	}
	second()
	if n := sent(long, 10); n != 10 {
		t.Errorf("%d of 10 sent to a proven address", n)
	}
	// One that is dialled first has no more credit by that.
	done = g.Dials(to.AddrPort())
	sent(long, 10)
	third := g.Unproven(to.AddrPort())
	done()
	if n := sent(long, 10); n != 3 {
		t.Errorf("%d of 1000 bytes sent to 1200 where we had dialled, want 3", n)
	}
	third()
	if n := c.Stats().TxUnproven; n != 7+7+10+10+7 {
		t.Errorf("%d counted, want 41", n)
	}
}

// A flood from many addresses makes the cache of them begin anew, and what the gate
// drops takes no place there.
func TestSourcesAreBounded(t *testing.T) {
	t.Parallel()
	g := udpconn.NewGate(gateKey)
	c, from := listen(t, "127.0.0.1:0"), listen(t, "0.0.0.0:0")
	c.Guard(g)
	ours, junk := shortHeader(issue(t, g), 50), shortHeader(make([]byte, 17), 50)
	send := func(n int, packet []byte) {
		t.Helper()
		// struct in_pktinfo: interface, source, destination
		source := control(unix.IPPROTO_IP, unix.IP_PKTINFO, []byte{0, 0, 0, 0, 127, 1, byte(n >> 8), byte(n), 0, 0, 0, 0})
		if _, _, err := from.WriteMsgUDP(packet, source, target(c, "127.0.0.1")); err != nil {
			t.Fatal(err)
		}
	}
	last := 0
	for n := range 2 * udpconn.MaxAddrs {
		send(n, junk)
		send(n, ours)
		readPackets(t, c, 1)
		now := udpconn.Sources(c)
		if now > udpconn.MaxAddrs || now > last+1 {
			t.Fatalf("%d addresses cached, %d before, %d at most", now, last, udpconn.MaxAddrs)
		}
		last = now
	}
	if n := c.Stats().RxStrange; n != 2*udpconn.MaxAddrs {
		t.Errorf("%d dropped, want %d", n, 2*udpconn.MaxAddrs)
	}
}
