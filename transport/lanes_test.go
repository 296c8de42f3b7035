// SPDX-License-Identifier: Apache-2.0

package transport_test

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/l2bridge/l2bridge/internal/frame"
	"github.com/l2bridge/l2bridge/transport"
)

// flowFrame returns a frame of 1514 bytes of one of several flows, with a number.
func flowFrame(flow, number int) *frame.Buf {
	b := frame.Get(1514)
	f := b.Bytes()
	clear(f)
	copy(f, []byte{2, 0, 0, 0, 1, byte(flow), 2, 0, 0, 0, 0, byte(flow), 0x88, 0xb5})
	binary.BigEndian.PutUint32(f[14:], uint32(number))
	return b
}

// On a long path that loses packets lanes come while flows have to wait, of the
// side that dialled and of the one that did not; no flow is overtaken by itself;
// and lanes go when they are idle.
func TestLanesComeAndGo(t *testing.T) {
	t.Parallel()
	const flows = 6
	for _, from := range []string{"office", "home"} { // office dials
		t.Run(from, func(t *testing.T) {
			ms := members(t, "home", "office")
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				w.loss = 0.002
				home := w.run(t, ms[0], homeAddr, nil)
				office := w.run(t, ms[1], officeAddr, []string{homePort})
				until(t, "up", 5*time.Second, connected(home, office))
				sender, receiver := office, home
				if from == "home" {
					sender, receiver = home, office
				}
				var (
					mu   sync.Mutex
					last [flows]int
					came int
				)
				receiver.mu.Lock()
				receiver.take = func(_ string, b *frame.Buf) {
					mu.Lock()
					defer mu.Unlock()
					flow, n := int(b.Bytes()[5]), int(binary.BigEndian.Uint32(b.Bytes()[14:]))
					if n <= last[flow] {
						t.Errorf("flow %d: frame %d came after %d", flow, n, last[flow])
					}
					last[flow] = n
					came++
				}
				receiver.mu.Unlock()
				most, number := 0, 0
				for range 4000 { // 8 seconds, 36 Mbit/s
					number++
					for flow := range flows {
						sender.send(receiver.member.Site, flowFrame(flow, number))
					}
					time.Sleep(2 * time.Millisecond)
					if number%100 == 0 {
						most = max(most, sender.Peers()[0].Lanes)
					}
				}
				if most < 3 {
					t.Errorf("%d lanes for %d flows that have to wait", most, flows)
				}
				mu.Lock()
				if came < number*flows/2 {
					t.Errorf("%d frames came of %d: more than one lane would carry, and not enough for several", came, number*flows)
				}
				mu.Unlock()
				time.Sleep(40 * time.Second)
				if n := sender.Peers()[0].Lanes; n != 1 {
					t.Errorf("%d lanes are left when all is idle", n)
				}
				receiver.mu.Lock()
				receiver.take = nil
				receiver.mu.Unlock()
				w.set(func() { w.loss = 0 })
				exchange(t, home, office, 10)
				home.stop()
				office.stop()
			})
		})
	}
}

// A number of lanes that is set is there from the start, and stays.
func TestLanesFixed(t *testing.T) {
	t.Parallel()
	ms := members(t, "home", "office")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		home := w.run(t, ms[0], homeAddr, nil, func(c *transport.Config) { c.Lanes = 3 })
		office := w.run(t, ms[1], officeAddr, []string{homePort})
		until(t, "three lanes", 20*time.Second, func() bool {
			p := office.Peers()
			return len(p) == 1 && p[0].Lanes == 3
		})
		time.Sleep(time.Minute)
		if n := home.Peers()[0].Lanes; n != 3 {
			t.Errorf("%d lanes after a minute, want 3", n)
		}
		exchange(t, home, office, 10)
		home.stop()
		office.stop()
	})
}

// Where packets go, and by which ports, is told when that has changed and else never:
// whoever is told makes a table of it.
func TestOuterWhenChanged(t *testing.T) {
	t.Parallel()
	ms := members(t, "home", "office", "cabin")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		var mu sync.Mutex
		var told, next int
		var from []uint16
		home := w.run(t, ms[0], homeAddr, []string{officePort, "192.0.2.3:4433"}, func(c *transport.Config) {
			c.Lanes = 3
			c.Listen = func() (net.PacketConn, error) {
				mu.Lock()
				defer mu.Unlock()
				next++
				return w.listen(fmt.Sprintf("%s:%d", homeAddr, 5000+next)), nil
			}
			c.Outer = func(ports []uint16, _ []netip.AddrPort) {
				mu.Lock()
				defer mu.Unlock()
				told, from = told+1, ports
			}
		})
		office := w.run(t, ms[1], officeAddr, nil)
		cabin := w.run(t, ms[2], "192.0.2.3", nil)
		until(t, "three lanes to each", 20*time.Second, func() bool {
			return office.state("home").Lanes == 3 && cabin.state("home").Lanes == 3
		})
		time.Sleep(time.Minute)
		mu.Lock()
		before := told
		mu.Unlock()
		time.Sleep(time.Minute)
		mu.Lock()
		if len(from) != 4 || told != before {
			t.Errorf("told %d times in a minute in which nothing changed, in the end of ports %v", told-before, from)
		}
		mu.Unlock()
		home.stop()
		office.stop()
		cabin.stop()
	})
}
