// SPDX-License-Identifier: Apache-2.0

package transport_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/testutils/simnet"

	"github.com/l2bridge/l2bridge/transport"
	"github.com/l2bridge/l2bridge/transport/wire"
)

// A flood of handshakes from forged addresses, those of members among them, takes
// what it may and no more. A session goes on, and a new member joins.
func TestForgedHandshakes(t *testing.T) {
	const (
		cottageAddr = "192.0.2.3"
		pause       = 2 * time.Millisecond
	)
	founder, dir := members(t, "home", "office"), newDir(t)
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		home := w.run(t, founder[0], homeAddr, nil)
		other := w.run(t, founder[1], officeAddr, []string{homePort})
		until(t, "up", time.Second, connected(home, other))
		attached := home.peer("office")

		stop := make(chan struct{})
		var flood sync.WaitGroup
		flood.Go(func() {
			rng := rand.New(rand.NewPCG(1, 2))
			to := &net.UDPAddr{IP: net.ParseIP(homeAddr).To4(), Port: 4433}
			for {
				select {
				case <-stop:
					return
				case <-time.After(pause):
				}
				from := &net.UDPAddr{IP: binary.BigEndian.AppendUint32(nil, 0xc6120000|rng.Uint32N(1<<16)), Port: 4433}
				if rng.IntN(4) == 0 {
					from.IP = net.ParseIP([]string{officeAddr, cottageAddr}[rng.IntN(2)]).To4()
				}
				packet := make([]byte, 1200)
				for i := range packet {
					packet[i] = byte(rng.Uint32())
				}
				copy(packet, []byte{0xc3, 0, 0, 0, 1, 8}) // Initial, version 1, 8 bytes of ID
				copy(packet[14:], []byte{0, 0, 0x44, 0x9a})
				w.SendPacket(simnet.Packet{From: from, To: to, Data: packet})
			}
		})
		most := 0
		for range 50 {
			time.Sleep(100 * time.Millisecond)
			halfOpen, _ := home.Waiting()
			most = max(most, halfOpen)
		}
		if most != transport.MaxUnproven {
			t.Errorf("%d handshakes were half open, want %d", most, transport.MaxUnproven)
		}
		began := time.Now()
		m, _, err := w.enrol(t.Context(), cottageAddr, dir, invite(t, founder[0], "cottage", homePort), "cottage")
		if err != nil {
			t.Fatal(err)
		}
		cottage := w.run(t, m, cottageAddr, []string{homePort})
		until(t, "new member up", 10*time.Second, connected(home, cottage))
		t.Logf("a new member is up after %v", time.Since(began))
		exchange(t, home, other, 10)
		if home.peer("office") != attached || len(home.log.lines("peer suspect")) != 0 {
			t.Error("the session of before did not go on")
		}
		close(stop)
		flood.Wait()
		time.Sleep(6 * time.Second)
		if halfOpen, _ := home.Waiting(); halfOpen != 0 {
			t.Errorf("%d handshakes are half open after the flood", halfOpen)
		}
	})
}

// A handshake that is forged in a member's name does not hold up our dials there.
func TestForgedHandshakeAndDial(t *testing.T) {
	ms := members(t, "home", "office")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		initial := w.initial(t, "198.51.100.7")
		home := w.run(t, ms[0], homeAddr, []string{officePort})
		time.Sleep(time.Second)
		w.SendPacket(simnet.Packet{
			From: &net.UDPAddr{IP: net.ParseIP(officeAddr).To4(), Port: 4433},
			To:   &net.UDPAddr{IP: net.ParseIP(homeAddr).To4(), Port: 4433}, Data: initial,
		})
		time.Sleep(time.Second)
		if halfOpen, _ := home.Waiting(); halfOpen != 1 {
			t.Fatalf("%d handshakes are half open, want the forged one", halfOpen)
		}
		office := w.run(t, ms[1], officeAddr, nil)
		until(t, "up", 2500*time.Millisecond, connected(home, office))
		if halfOpen, _ := home.Waiting(); halfOpen == 0 {
			t.Error("the forged one was over before")
		}
	})
}

// initial returns the packet with which a stranger begins a handshake.
func (w *world) initial(t *testing.T, addr string) []byte {
	t.Helper()
	sock := &recorder{socket: w.listen(addr)}
	defer sock.Close()
	tr := &quic.Transport{Conn: sock}
	defer tr.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	cfg := &tls.Config{NextProtos: []string{wire.ALPN}, InsecureSkipVerify: true, CurvePreferences: []tls.CurveID{tls.X25519}}
	tr.Dial(ctx, &net.UDPAddr{IP: net.ParseIP("203.0.113.99").To4(), Port: 4433}, cfg, &quic.Config{InitialPacketSize: 1200})
	if len(sock.first) != 1200 {
		t.Fatalf("the first packet has %d bytes", len(sock.first))
	}
	return sock.first
}

// recorder keeps the first packet that is sent.
type recorder struct {
	*socket
	first []byte
}

func (r *recorder) WriteTo(b []byte, to net.Addr) (int, error) {
	if r.first == nil {
		r.first = bytes.Clone(b)
	}
	return r.socket.WriteTo(b, to)
}

// The door keeps a place for a member where that was last, whatever its port is now,
// until it is none.
func TestMembersPlace(t *testing.T) {
	ms := members(t, "home", "office")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		home := w.run(t, ms[0], homeAddr, nil)
		expected := func(when, addr string, want bool) {
			t.Helper()
			if home.Expects(addr) != want {
				t.Errorf("%s: a place for %s: %v, want %v", when, addr, !want, want)
			}
		}
		expected("before", officePort, false)
		office := w.run(t, ms[1], officeAddr, []string{homePort})
		until(t, "up", 5*time.Second, connected(home, office))
		expected("up", officeAddr+":1", true)
		expected("up", "192.0.2.77:4433", false)
		office.stop()
		time.Sleep(time.Hour)
		expected("gone for an hour", officePort, true)
		if _, _, err := home.Revoke("office"); err != nil {
			t.Fatal(err)
		}
		expected("revoked", officePort, false)
	})
}
