// SPDX-License-Identifier: Apache-2.0

package transport_test

import (
	"encoding/binary"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go/testutils/simnet"

	"github.com/l2bridge/l2bridge/transport"
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
