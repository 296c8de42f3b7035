// SPDX-License-Identifier: Apache-2.0

package transport_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/l2bridge/l2bridge/internal/frame"
	"github.com/l2bridge/l2bridge/transport"
	"github.com/l2bridge/l2bridge/transport/identity"
	"github.com/l2bridge/l2bridge/transport/wire"
)

const evilAddr = "192.0.2.66"

// evil is a member that does as it likes: a QUIC client with a certificate.
type evil struct {
	t      *testing.T
	member *identity.Member
	tr     *quic.Transport
}

func (w *world) evil(t *testing.T, m *identity.Member, addr string) *evil {
	sock := w.listen(addr)
	e := &evil{t, m, &quic.Transport{Conn: sock, ConnectionIDLength: wire.MaxConnIDLen}}
	t.Cleanup(func() {
		e.tr.Close()
		sock.Close()
	})
	return e
}

// dial connects to home.
func (e *evil) dial(settings ...func(*quic.Config)) *quic.Conn {
	e.t.Helper()
	cfg := &quic.Config{EnableDatagrams: true, InitialPacketSize: 1200, MaxIdleTimeout: time.Minute}
	for _, set := range settings {
		set(cfg)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	conn, err := e.tr.Dial(ctx, &net.UDPAddr{IP: net.ParseIP(homeAddr).To4(), Port: 4433}, e.member.TLSConfig(wire.ALPN), cfg)
	if err != nil {
		e.t.Fatal(err)
	}
	return conn
}

func (e *evil) hello(session, lane byte) wire.Hello {
	return wire.Hello{ID: e.member.ID, Session: [8]byte{session}, Lane: lane, ConnIDLen: 17, MTU: 1500, Features: wire.FeatureRelay | wire.FeatureVia}
}

// say opens the control stream and writes to it.
func (e *evil) say(conn *quic.Conn, messages ...[]byte) *quic.Stream {
	e.t.Helper()
	stream, err := conn.OpenStream()
	if err != nil {
		e.t.Fatal(err)
	}
	for _, m := range messages {
		if _, err := stream.Write(m); err != nil {
			e.t.Logf("write: %v", err)
		}
	}
	return stream
}

// session makes a session as a gateway does.
func (e *evil) session(number byte) (control, data *quic.Conn, stream *quic.Stream) {
	e.t.Helper()
	control, data = e.dial(), e.dial()
	stream = e.say(control, e.hello(number, 0).Append(nil))
	if _, _, err := wire.ReadMessage(stream, nil); err != nil {
		e.t.Fatal(err)
	}
	s := e.say(data, e.hello(number, 1).Append(nil))
	if _, _, err := wire.ReadMessage(s, nil); err != nil {
		e.t.Fatal(err)
	}
	return control, data, stream
}

// code returns what a connection was closed with, after at most so long; -1 when
// it was not, -2 when it timed out, 1000 and more for QUIC's own errors.
func code(conn *quic.Conn, within time.Duration) int {
	select {
	case <-conn.Context().Done():
	case <-time.After(within):
		return -1
	}
	var app *quic.ApplicationError
	var transport *quic.TransportError
	switch err := context.Cause(conn.Context()); {
	case errors.As(err, &app):
		return int(app.ErrorCode)
	case errors.As(err, &transport):
		return 1000 + int(transport.ErrorCode)
	}
	return -2
}

// evilWorld runs home with an innocent peer and a member that is evil, and
// checks that in the end home works as before and holds no more than before.
func evilWorld(t *testing.T, f func(t *testing.T, w *world, home *node, e *evil)) {
	ms := members(t, "home", "office", "evil")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		home := w.run(t, ms[0], homeAddr, nil, func(c *transport.Config) {
			// It does not dial the evil one of its own accord.
			c.Through = func(a netip.Addr) bool { return a == netip.MustParseAddr(evilAddr) }
		})
		office := w.run(t, ms[1], officeAddr, []string{homePort})
		until(t, "up", time.Second, connected(home, office))
		time.Sleep(time.Second)
		e := w.evil(t, ms[2], evilAddr)
		attached := home.peer("office")
		synctest.Wait()
		before := len(bubbled())
		f(t, w, home, e)
		time.Sleep(10 * time.Second)
		exchange(t, home, office, 10)
		if home.peer("office") != attached {
			t.Error("the innocent peer was cut off")
		}
		e.tr.Close()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		const keeper = 1 // of a member that has been seen
		if now := bubbled(); len(now) > before+keeper {
			t.Errorf("%d goroutines, %d before:\n\n%s", len(now), before, strings.Join(now, "\n\n"))
		}
	})
}

// bubbled returns the stacks of the goroutines of this test, blocked for good as
// they are after synctest.Wait. Those of the runtime and of other tests, which
// come and go as they like, are not among them.
func bubbled() (stacks []string) {
	buf := make([]byte, 1<<20)
	for {
		n := runtime.Stack(buf, true)
		if n < len(buf) {
			buf = buf[:n]
			break
		}
		buf = make([]byte, 2*len(buf))
	}
	all := strings.Split(string(buf), "\n\n")
	// The first is who asks: "goroutine 7 [running, synctest bubble 3]:".
	_, bubble, ok := strings.Cut(all[0][:strings.IndexByte(all[0], '\n')], "synctest bubble ")
	if !ok {
		panic("not in a bubble: " + all[0])
	}
	for _, stack := range all {
		if head, _, _ := strings.Cut(stack, "\n"); strings.HasSuffix(head, "synctest bubble "+bubble) {
			stacks = append(stacks, stack)
		}
	}
	return stacks
}

func TestBrokenGreeting(t *testing.T) {
	t.Parallel()
	long := make([]byte, 3+16385)
	copy(long, []byte{9, 0x40, 0x01})
	for name, say := range map[string]func(e *evil) [][]byte{
		"no hello":               func(e *evil) [][]byte { return [][]byte{wire.ProbeAck{}.Append(nil)} },
		"unknown message first":  func(e *evil) [][]byte { return [][]byte{{99, 0, 1, 0}} },
		"message too long":       func(e *evil) [][]byte { return [][]byte{long} },
		"hello too short":        func(e *evil) [][]byte { return [][]byte{{1, 0, 3, 1, 2, 3}} },
		"connection id too long": func(e *evil) [][]byte { h := e.hello(1, 0); h.ConnIDLen = 18; return [][]byte{h.Append(nil)} },
		"another member's name":  func(e *evil) [][]byte { h := e.hello(1, 0); h.ID[5]++; return [][]byte{h.Append(nil)} },
		"lane of no session":     func(e *evil) [][]byte { return [][]byte{e.hello(1, 1).Append(nil)} },
	} {
		t.Run(name, func(t *testing.T) {
			evilWorld(t, func(t *testing.T, _ *world, home *node, e *evil) {
				conn := e.dial()
				e.say(conn, say(e)...)
				if got := code(conn, 6*time.Second); got != wire.CloseProtocol {
					t.Errorf("closed with %d, want %d", got, wire.CloseProtocol)
				}
				if home.peer("evil") != nil {
					t.Error("is attached all the same")
				}
			})
		})
	}
	t.Run("cut hello", func(t *testing.T) {
		evilWorld(t, func(t *testing.T, _ *world, _ *node, e *evil) {
			conn := e.dial()
			e.say(conn, e.hello(1, 0).Append(nil)[:30]).Close()
			if got := code(conn, time.Second); got != wire.CloseProtocol {
				t.Errorf("closed with %d, want %d", got, wire.CloseProtocol)
			}
		})
	})
	t.Run("no datagrams", func(t *testing.T) {
		evilWorld(t, func(t *testing.T, _ *world, _ *node, e *evil) {
			conn := e.dial(func(c *quic.Config) { c.EnableDatagrams = false })
			e.say(conn, e.hello(1, 0).Append(nil))
			if got := code(conn, time.Second); got != wire.CloseProtocol {
				t.Errorf("closed with %d, want %d", got, wire.CloseProtocol)
			}
		})
	})
	for name, say := range map[string]func(e *evil, conn *quic.Conn){
		"silence":      func(*evil, *quic.Conn) {},
		"no data lane": func(e *evil, conn *quic.Conn) { e.say(conn, e.hello(1, 0).Append(nil)) },
	} {
		t.Run(name, func(t *testing.T) {
			evilWorld(t, func(t *testing.T, _ *world, _ *node, e *evil) {
				conn := e.dial(func(c *quic.Config) { c.KeepAlivePeriod = time.Second })
				say(e, conn)
				if got := code(conn, 6*time.Second); got != wire.CloseProtocol && got != wire.CloseGoodbye {
					t.Errorf("who says no more is kept, or closed with %d", got)
				}
			})
		})
	}
}

func TestBrokenSession(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		code int // -1: it stays
		f    func(e *evil, control, data *quic.Conn, stream *quic.Stream)
	}{
		{"second hello", wire.CloseProtocol, func(e *evil, _, _ *quic.Conn, s *quic.Stream) { s.Write(e.hello(1, 0).Append(nil)) }},
		{"short probe ack", wire.CloseProtocol, func(_ *evil, _, _ *quic.Conn, s *quic.Stream) { s.Write([]byte{3, 0, 1, 0}) }},
		{"probe acks nobody asked for", -1, func(_ *evil, _, _ *quic.Conn, s *quic.Stream) {
			for lane := range byte(3) {
				s.Write(wire.ProbeAck{Lane: lane, Nonce: 1 << 60}.Append(nil))
			}
		}},
		{"ends in a message", wire.CloseProtocol, func(_ *evil, _, _ *quic.Conn, s *quic.Stream) { s.Write([]byte{3, 0}); s.Close() }},
		{"ends between messages", -1, func(_ *evil, _, _ *quic.Conn, s *quic.Stream) { s.Close() }},
		{"unknown messages", -1, func(_ *evil, _, _ *quic.Conn, s *quic.Stream) {
			for range 100 {
				s.Write(append([]byte{200, 0x40, 0}, make([]byte, 16384)...))
			}
		}},
		{"a flood of streams", 1000 + int(quic.StreamLimitError), nil},
		{"frames on the control lane", -1, func(_ *evil, control, _ *quic.Conn, _ *quic.Stream) {
			control.SendDatagram(append([]byte{0, 0, 1, 0, 14}, make([]byte, 14)...))
		}},
		{"junk", -1, func(e *evil, control, data *quic.Conn, _ *quic.Stream) {
			rng := rand.New(rand.NewPCG(3, 4))
			for range 3000 {
				d := make([]byte, rng.IntN(1100))
				for i := range d {
					d[i] = byte(rng.Uint32())
				}
				if len(d) > 3 && rng.IntN(2) == 0 {
					d[2] &= 0x17
					d[3] = 0
				}
				data.SendDatagram(d)
				control.SendDatagram(d)
			}
		}},
		{"a flood of probes", -1, func(_ *evil, _, data *quic.Conn, _ *quic.Stream) {
			for i := range 3000 {
				data.SendDatagram(wire.AppendHeartbeat(nil, uint16(i), wire.Probe, uint64(i), 0))
				data.SendDatagram(wire.AppendHeartbeat(nil, uint16(i), wire.Ping, uint64(i), 0))
			}
		}},
		{"closed at once", wire.CloseGoodbye, func(_ *evil, _, data *quic.Conn, _ *quic.Stream) {
			data.CloseWithError(77, "")
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			evilWorld(t, func(t *testing.T, _ *world, home *node, e *evil) {
				control, data, stream := e.session(1)
				// Frames wait for it all the time.
				for i := range 10 {
					time.Sleep(time.Millisecond)
					home.send("evil", numbered(i, 1500))
				}
				if tt.f != nil {
					tt.f(e, control, data, stream)
				} else {
					for range 100 {
						if s, err := data.OpenStream(); err == nil {
							s.Write([]byte{1})
						}
					}
					tt.code = -1 // the limit is QUIC's; our client keeps it
				}
				if got := code(control, 4*time.Second); got != tt.code {
					t.Errorf("closed with %d, want %d", got, tt.code)
				}
				if up := home.peer("evil") != nil; up != (tt.code < 0) {
					t.Errorf("attached: %v", up)
				}
			})
		})
	}
}

// Who accepts a session and does not say that it is in use is given up, and has the
// session as soon as it says something.
func TestMuteAcceptor(t *testing.T) {
	t.Parallel()
	ms := members(t, "home", "evil")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		e := w.evil(t, ms[1], evilAddr)
		listener, err := e.tr.Listen(ms[1].TLSConfig(wire.ALPN), &quic.Config{EnableDatagrams: true, InitialPacketSize: 1200})
		if err != nil {
			t.Fatal(err)
		}
		var mute atomic.Bool
		mute.Store(true)
		var controls atomic.Int32 // control lanes at present
		var conns sync.WaitGroup
		answer := func(conn *quic.Conn) {
			stream, err := conn.AcceptStream(t.Context())
			if err != nil {
				return
			}
			_, body, err := wire.ReadMessage(stream, nil)
			if err != nil {
				return
			}
			hello, _ := wire.ParseHello(body)
			hello.ID = ms[1].ID
			stream.Write(hello.Append(nil))
			if hello.Lane == 0 {
				controls.Add(1)
				defer controls.Add(-1)
				if !mute.Load() {
					stream.Write(wire.Have{}.Append(nil))
				}
			}
			<-conn.Context().Done()
		}
		conns.Go(func() {
			for {
				conn, err := listener.Accept(context.Background())
				if err != nil {
					return
				}
				conns.Go(func() { answer(conn) })
			}
		})
		home := w.run(t, ms[0], homeAddr, []string{evilAddr + ":4433"})
		for range 60 {
			time.Sleep(time.Second)
			if n := controls.Load(); n > 4 {
				t.Fatalf("%d control lanes are open at once", n)
			}
		}
		if st := home.state("evil"); home.attaches() != 0 || st.State != "connecting" || !strings.Contains(st.Error, "does not answer") {
			t.Errorf("attached %d times, %+v", home.attaches(), st)
		}
		mute.Store(false)
		until(t, "attached", 5*time.Second, func() bool { return home.peer("evil") != nil })
		home.stop()
		listener.Close()
		e.tr.Close()
		conns.Wait()
	})
}

// A lane that is closed as it joins, while frames wait for the peer.
func TestClosedAsItJoins(t *testing.T) {
	evilWorld(t, func(t *testing.T, _ *world, home *node, e *evil) {
		for i := range byte(50) {
			control, data := e.dial(), e.dial()
			e.say(control, e.hello(i, 0).Append(nil))
			time.Sleep(50 * time.Millisecond)
			e.say(data, e.hello(i, 1).Append(nil))
			time.Sleep(time.Duration(i) * time.Millisecond / 2)
			data.CloseWithError(0, "")
			if p := home.peer("evil"); p != nil {
				f := numbered(1, 1000)
				p.Send([]*frame.Buf{f})
				f.Release()
			}
			control.CloseWithError(0, "")
		}
	})
}

// What is half open is bounded, and does not keep others out.
func TestHalfOpen(t *testing.T) {
	t.Parallel()
	evilWorld(t, func(t *testing.T, w *world, home *node, e *evil) {
		before := len(bubbled())
		var conns sync.WaitGroup
		var mu sync.Mutex
		refused, proven := 0, 0
		for i := range 200 {
			conns.Go(func() {
				time.Sleep(time.Duration(i) * 5 * time.Millisecond)
				began := time.Now()
				ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
				defer cancel()
				conn, err := e.tr.Dial(ctx, &net.UDPAddr{IP: net.ParseIP(homeAddr).To4(), Port: 4433}, e.member.TLSConfig(wire.ALPN), &quic.Config{EnableDatagrams: true, InitialPacketSize: 1200})
				if err != nil {
					return
				}
				mu.Lock()
				if took := time.Since(began); took >= 4*w.latency {
					proven++
				} else if i > 150 {
					t.Errorf("connection %d took %v: it did not prove its address", i, took)
				}
				mu.Unlock()
				if i%2 == 0 { // greets, and makes no session
					stream, err := conn.OpenStream()
					if err == nil {
						stream.Write(e.hello(byte(i), 0).Append(nil))
						io.ReadAll(stream)
					}
				}
				if code(conn, 7*time.Second) == wire.CloseGoodbye {
					mu.Lock()
					refused++
					mu.Unlock()
				}
			})
		}
		time.Sleep(2 * time.Second)
		// A connection is a few goroutines at each end, and two of the test.
		if n := len(bubbled()) - before; n > 200*14 {
			t.Errorf("%d goroutines for 200 connections", n)
		}
		conns.Wait()
		if refused == 0 {
			t.Error("nobody was told to try again")
		}
		if proven > 180 {
			t.Errorf("%d of 200 had to prove their address, want none of the first", proven)
		}
	})
}

// More sessions than one are for replacing; more lanes than agreed are not.
func TestTooMany(t *testing.T) {
	evilWorld(t, func(t *testing.T, _ *world, home *node, e *evil) {
		control, _, _ := e.session(1)
		extra := e.dial()
		e.say(extra, e.hello(1, transport.MaxLanes+1).Append(nil))
		if got := code(extra, time.Second); got != wire.CloseProtocol {
			t.Errorf("a lane too many: %d, want %d", got, wire.CloseProtocol)
		}
		again := e.dial()
		e.say(again, e.hello(1, 0).Append(nil))
		if got := code(again, time.Second); got != wire.CloseProtocol {
			t.Errorf("a session twice: %d, want %d", got, wire.CloseProtocol)
		}
		port := home.peer("evil")
		newer, _, _ := e.session(2)
		if got := code(control, 2*time.Second); got != wire.CloseReplaced {
			t.Errorf("the session before: %d, want %d", got, wire.CloseReplaced)
		}
		if got := code(newer, time.Second); got != -1 || home.peer("evil") != port {
			t.Errorf("the newer session: %d", got)
		}
		var open int
		for i := range byte(20) {
			conn := e.dial()
			e.say(conn, e.hello(100+i, 0).Append(nil))
			if code(conn, 100*time.Millisecond) == -1 {
				open++
			}
		}
		if open == 0 || open > 8 {
			t.Errorf("%d sessions are open at once", open)
		}
	})
}

// A stranger without a certificate, or with somebody's own, gets nowhere.
func TestStranger(t *testing.T) {
	strangers := members(t, "stranger")
	evilWorld(t, func(t *testing.T, _ *world, home *node, e *evil) {
		for range 30 {
			for _, certs := range [][]tls.Certificate{nil, {strangers[0].Leaf}} {
				ctx, cancel := context.WithTimeout(context.Background(), time.Second)
				conn, err := e.tr.Dial(ctx, &net.UDPAddr{IP: net.ParseIP(homeAddr).To4(), Port: 4433},
					&tls.Config{NextProtos: []string{wire.ALPN}, InsecureSkipVerify: true, Certificates: certs}, &quic.Config{EnableDatagrams: true, InitialPacketSize: 1200})
				cancel()
				if err != nil {
					continue
				}
				if got := code(conn, time.Second); got < 1000 {
					t.Fatalf("a stranger's connection: %d", got)
				}
			}
		}
		if n := len(home.log.lines("level=WARN")); n == 0 || n > 20 {
			t.Errorf("%d lines of log about strangers", n)
		}
	})
}
