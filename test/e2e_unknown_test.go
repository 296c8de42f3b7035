// SPDX-License-Identifier: Apache-2.0

//go:build linux

package test_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/l2bridge/l2bridge/test/lab"
)

// forged is an address of the WAN that nobody has, of 65,536.
func forged(n uint16, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 19, byte(n >> 8), byte(n)}), port)
}

// firstFlight returns the datagrams with which a client begins a connection.
func firstFlight(t testing.TB, alpn string) [][]byte {
	t.Helper()
	const datagrams = 2 // a ClientHello with X25519MLKEM768 is too long for one
	c := &mouth{said: make(chan []byte, 16), closed: make(chan struct{})}
	tr := &quic.Transport{Conn: c, ConnectionIDLength: 17}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		tr.Dial(ctx, &net.UDPAddr{IP: net.IPv4(198, 18, 1, 2), Port: 4433},
			&tls.Config{NextProtos: []string{alpn}, InsecureSkipVerify: true}, &quic.Config{InitialPacketSize: 1200})
	}()
	var flight [][]byte
	for len(flight) < datagrams {
		flight = append(flight, <-c.said)
	}
	cancel()
	<-done
	tr.Close()
	return flight
}

// mouth is a socket that hears nothing.
type mouth struct {
	said   chan []byte
	closed chan struct{}
}

func (m *mouth) WriteTo(b []byte, _ net.Addr) (int, error) {
	select {
	case m.said <- slices.Clone(b):
	default:
	}
	return len(b), nil
}

func (m *mouth) ReadFrom([]byte) (int, net.Addr, error) {
	<-m.closed
	return 0, nil, os.ErrDeadlineExceeded
}

func (m *mouth) SetReadDeadline(at time.Time) error {
	if !at.IsZero() && !at.After(time.Now()) {
		select {
		case <-m.closed:
		default:
			close(m.closed)
		}
	}
	return nil
}

func (m *mouth) Close() error                     { return m.SetReadDeadline(time.Now()) }
func (m *mouth) LocalAddr() net.Addr              { return &net.UDPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1} }
func (m *mouth) SetReadBuffer(int) error          { return nil }
func (m *mouth) SetWriteBuffer(int) error         { return nil }
func (m *mouth) SetDeadline(time.Time) error      { return nil }
func (m *mouth) SetWriteDeadline(time.Time) error { return nil }

// refused returns the connection ID of a connection that site a has just refused.
func refused(t *testing.T, s *lab.Sites) (id []byte) {
	t.Helper()
	c := &recorder{PacketConn: s.WAN[0].ListenUDP("198.18.1.1:0")}
	defer c.Close()
	tr := &quic.Transport{Conn: c, ConnectionIDLength: 17}
	defer tr.Close()
	ctx, cancel := context.WithTimeout(t.Context(), recvWait)
	defer cancel()
	conn, err := tr.Dial(ctx, net.UDPAddrFromAddrPort(netip.MustParseAddrPort(s.A.Addr4+":4433")),
		&tls.Config{NextProtos: []string{"l2bridge/1"}, InsecureSkipVerify: true}, &quic.Config{InitialPacketSize: 1200})
	if err == nil {
		select {
		case <-conn.Context().Done():
		case <-ctx.Done():
			t.Fatal("who has no certificate is not refused")
		}
	}
	said := c.said()
	const at, length = 6, 17
	last := said[len(said)-1]
	if last[0]&0x80 == 0 { // a short header has it behind the first byte
		return last[1 : 1+length]
	}
	return last[at : at+length]
}

// recorder is a socket that keeps what is sent.
type recorder struct {
	net.PacketConn
	mu   sync.Mutex
	sent [][]byte
}

func (r *recorder) WriteTo(b []byte, to net.Addr) (int, error) {
	r.mu.Lock()
	r.sent = append(r.sent, slices.Clone(b))
	r.mu.Unlock()
	return r.PacketConn.WriteTo(b, to)
}

func (r *recorder) said() [][]byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.sent)
}

func (r *recorder) SetReadBuffer(int) error  { return nil }
func (r *recorder) SetWriteBuffer(int) error { return nil }

// noise returns random bytes, the first of which are given.
func noise(rng *rand.Rand, length int, first ...byte) []byte {
	b := make([]byte, length)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	copy(b, first)
	return b
}

// Nobody gets more than three times what was sent in its name, and nobody who sends
// what is less than 1200 bytes and for no connection anything at all.
func TestAmplification(t *testing.T) {
	t.Parallel()
	s := lab.TwoSites(t, lab.Options{Hosts: 1})
	wan := s.WAN[0].Wire(s.B.Uplink)
	upA, upB := link(t, s)
	ping(t, s.A.Hosts[0].Namespace, s.B.Hosts[0].Addr4, recvWait)
	s.A.Hosts[0].MustRun("ping", "-n", "-q", "-c20", "-i0.02", "-s1000", s.B.Hosts[0].Addr4)
	// All that B has said to A since it dialled, and what there may be of it later.
	real := overheard(t, wan, s.A.Addr4)
	short, long := splitAt(real, 1200)
	if len(short) < 20 || len(long) == 0 {
		t.Fatalf("overheard %d short datagrams and %d long ones", len(short), len(long))
	}

	rng := rand.New(rand.NewPCG(3, 5))
	const times = 20
	random := func(length int, first ...byte) (all [][]byte) {
		for range times {
			all = append(all, noise(rng, length, first...))
		}
		return all
	}
	var joins, hellos [][]byte
	for range 4 {
		hellos = append(hellos, firstFlight(t, "l2bridge/1")...)
		joins = append(joins, firstFlight(t, "l2bridge-join/1")...)
	}
	cut := func(all [][]byte, length int) (shorter [][]byte) {
		for _, b := range all {
			shorter = append(shorter, b[:length])
		}
		return shorter
	}
	forge := s.Forge(s.A)
	probe := func(number uint16, payloads [][]byte) (counter *lab.Counter, sent int) {
		counter = s.WAN[0].Count(s.A.Uplink, netip.PrefixFrom(forged(number, 0).Addr(), 32))
		for i, b := range payloads {
			if err := forge.Send(forged(number, uint16(1024+i)), b); err != nil {
				t.Fatal(err)
			}
			sent += len(b)
		}
		return counter, sent
	}

	type attack struct {
		name     string
		payloads [][]byte
		most     int // times as many bytes
		counter  *lab.Counter
		sent     int
	}
	probes := []attack{
		{name: "1 random byte", payloads: random(1)},
		{name: "100 random bytes", payloads: random(100)},
		{name: "1199 random bytes", payloads: random(1199)},
		{name: "1200 random bytes", payloads: random(1200), most: 3},
		{name: "random short headers of 30 bytes", payloads: random(30, 0x40)},
		{name: "random short headers of 42 bytes", payloads: random(42, 0x41)},
		{name: "random short headers of 100 bytes", payloads: random(100, 0x43)},
		{name: "random short headers of 1200 bytes", payloads: random(1200, 0x5f)},
		{name: "an unknown version, 1200 bytes", payloads: random(1200, 0xc0, 0x1a, 0x2a, 0x3a, 0x4a, 8)},
		{name: "an unknown version, 1199 bytes", payloads: random(1199, 0xc0, 0x1a, 0x2a, 0x3a, 0x4a, 8)},
		{name: "version negotiation", payloads: random(1200, 0xc0, 0, 0, 0, 0, 8)},
		{name: "0-RTT", payloads: random(1200, 0xd0, 0, 0, 0, 1, 8)},
		{name: "Handshake", payloads: random(1200, 0xe0, 0, 0, 0, 1, 17)},
		{name: "Retry", payloads: random(150, 0xf0, 0, 0, 0, 1, 17)},
		{name: "Initial that is noise", payloads: random(1200, 0xc0, 0, 0, 0, 1, 8), most: 3},
		{name: "Initial", payloads: hellos, most: 3},
		{name: "Initial of a joiner", payloads: joins, most: 3},
		{name: "Initial cut to 1199 bytes", payloads: cut(hellos, 1199)},
		{name: "overheard, short", payloads: short, most: 3},
		{name: "overheard, long", payloads: long, most: 3},
	}
	for i := range probes {
		probes[i].counter, probes[i].sent = probe(uint16(i), probes[i].payloads)
	}
	// Who was just refused cannot have that said to others more than three times, either.
	for i, length := range []int{21, 37, 38, 45, 100} {
		id := refused(t, s)
		var payloads [][]byte
		for _, first := range [][]byte{slices.Concat([]byte{0x41}, id), slices.Concat([]byte{0xe0, 0, 0, 0, 1, 17}, id)} {
			for range 4 {
				payloads = append(payloads, noise(rng, max(length, len(first)), first...))
			}
		}
		p := attack{name: fmt.Sprintf("of one that was refused, %d bytes", length), payloads: payloads, most: 3}
		p.counter, p.sent = probe(2000+uint16(i), payloads)
		probes = append(probes, p)
	}
	time.Sleep(6 * time.Second) // handshakes are given up
	answered := 0
	for _, p := range probes {
		packets, bytes := p.counter.Count()
		t.Logf("%-36s %5d bytes in %2d datagrams: %5d bytes in %d answers, %.2f times", p.name, p.sent, len(p.payloads), bytes, packets, float64(bytes)/float64(p.sent))
		if bytes > p.most*p.sent {
			t.Errorf("%s: %d bytes were answered to %d, want %d times as many at most", p.name, bytes, p.sent, p.most)
		}
		answered += bytes
	}
	if answered == 0 {
		t.Error("nothing was answered, not even honest handshakes")
	}

	// To what is for a connection of before a restart the answer is that it is gone,
	// and never as long.
	upA.Kill()
	upA = s.A.Start("up")
	lab.Wait(t, backWait, "site a is up", func() error { return isWell(s.A, 1) })
	counter, sent := probe(1000, short)
	lab.Wait(t, recvWait, "a stateless reset", func() error {
		if packets, _ := counter.Count(); packets == 0 {
			return os.ErrDeadlineExceeded
		}
		return nil
	})
	time.Sleep(time.Second)
	packets, bytes := counter.Count()
	t.Logf("%-36s %5d bytes in %2d datagrams: %5d bytes in %d answers", "of before a restart", sent, len(short), bytes, packets)
	if bytes > sent {
		t.Errorf("to %d bytes of before a restart %d were answered", sent, bytes)
	}
	alive(t, upA, upB)
}

// overheard returns the datagrams that a wire has seen on their way to an address.
func overheard(t *testing.T, w *lab.Wire, to string) (payloads [][]byte) {
	for frame := range arrivals(t, w, time.Now()) {
		if _, dst, payload, ok := lab.UDPPayload(frame); ok && dst == netip.MustParseAddrPort(to+":4433") && len(payload) <= 1472 {
			payloads = append(payloads, slices.Clone(payload))
		}
	}
	return payloads
}

// splitAt splits datagrams by their length.
func splitAt(all [][]byte, length int) (shorter, others [][]byte) {
	for _, b := range all {
		if len(b) < length {
			shorter = append(shorter, b)
		} else {
			others = append(others, b)
		}
	}
	return shorter, others
}
