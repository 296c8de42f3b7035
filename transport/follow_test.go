// SPDX-License-Identifier: Apache-2.0

package transport_test

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/l2bridge/l2bridge/internal/frame"
	"github.com/l2bridge/l2bridge/transport"
	"github.com/l2bridge/l2bridge/transport/wire"
)

// inOrder has it checked that what comes to a site comes in the order of numbers, each
// once, and returns how many have come.
func inOrder(t *testing.T, n *node) *atomic.Uint32 {
	var next atomic.Uint32
	n.lan.mu.Lock()
	defer n.lan.mu.Unlock()
	n.take = func(_ string, b *frame.Buf) {
		if number := binary.BigEndian.Uint32(b.Bytes()[14:]); number != next.Load() {
			t.Errorf("frame %d came to %s, want %d", number, n.member.Site, next.Load())
			next.Store(number)
		}
		next.Add(1)
	}
	return &next
}

// A session that takes the place of one that answers loses no frame, and overtakes
// none, and the port stays attached: here since a LAN has changed.
func TestFollowed(t *testing.T) {
	t.Parallel()
	ms := members(t, "home", "office")
	for _, latency := range []time.Duration{0, 10 * time.Millisecond, 80 * time.Millisecond} {
		for _, changes := range []int{home, office} {
			for _, length := range []int{100, 1514} {
				t.Run(fmt.Sprintf("latency=%v,changes=%s,length=%d", latency, ms[changes].Site, length), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						w := newWorld()
						w.latency = latency
						sites := []*node{w.run(t, ms[home], homeAddr, nil), w.run(t, ms[office], officeAddr, []string{homePort})}
						until(t, "up", 2*time.Second, connected(sites[home], sites[office]))
						time.Sleep(10 * time.Second)
						toHome, toOffice := inOrder(t, sites[home]), inOrder(t, sites[office])
						const count = 600 // in 3 s
						for i := range count {
							if i == count/2 {
								sites[changes].SetLAN(1501, wire.FeatureCsum|wire.FeatureTSO|wire.FeatureUSO)
							}
							sites[home].send("office", numbered(i, length))
							sites[office].send("home", numbered(i, length))
							time.Sleep(5 * time.Millisecond)
						}
						time.Sleep(2 * time.Second)
						if a, b := toHome.Load(), toOffice.Load(); a != count || b != count {
							t.Errorf("%d came to home and %d to office, of %d; %v %v", a, b, count, sites[home].Drops(), sites[office].Drops())
						}
						if st := sites[1-changes].Peers()[0]; st.MTU != 1501 {
							t.Errorf("the other knows %+v", st)
						}
						if n := sites[home].attaches() + sites[office].attaches(); n != 2 {
							t.Errorf("attached %d times, want 2", n)
						}
					})
				})
			}
		}
	}
}

// A session that is to be followed, and cannot be, ends all the same.
func TestNotFollowed(t *testing.T) {
	ms := members(t, "home", "office")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		var apart atomic.Bool
		undialled := func(c *transport.Config) { c.Through = func(netip.Addr) bool { return apart.Load() } }
		home := w.run(t, ms[0], homeAddr, nil, undialled)
		office := w.run(t, ms[1], officeAddr, []string{homePort}, undialled)
		until(t, "up", 2*time.Second, connected(home, office))
		time.Sleep(10 * time.Second)
		apart.Store(true)
		office.SetLAN(1400, 0)
		time.Sleep(2 * time.Second)
		if !all("up", home, office)() {
			t.Error("a session that may be followed soon has ended")
		}
		until(t, "the end", 2*time.Second, all("down", home, office))
		apart.Store(false)
		until(t, "up again", 2*time.Second, func() bool { return all("up", home, office)() && home.Peers()[0].MTU == 1400 })
	})
}

// When a path has become narrower full frames pass again soon, and the port stays
// attached.
func TestNarrowsAttached(t *testing.T) {
	udp, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	ms := members(t, "home", "office")
	for _, sender := range []int{home, office} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			sites := []*node{
				w.run(t, ms[home], homeAddr, nil, unfragmented(udp)),
				w.run(t, ms[office], officeAddr, []string{homePort}, unfragmented(udp)),
			}
			until(t, "up", 2*time.Second, connected(sites[home], sites[office]))
			from, to := sites[sender], ms[1-sender].Site
			f := &traffic{t: t}
			f.at(sites[home])
			f.at(sites[office])
			flow := func(lasts time.Duration) {
				for end := time.Now().Add(lasts); time.Now().Before(end); time.Sleep(time.Second) {
					for range 3 {
						f.send(from, to, 1400)
					}
				}
			}
			flow(10 * time.Second)
			w.set(func() { w.mtu = 1280 })
			flow(6 * time.Second)
			calm := time.Now()
			flow(10 * time.Second)
			time.Sleep(time.Second)
			if lost := f.lost(calm); len(lost) > 0 {
				t.Errorf("%d frames are lost 6 s after the path became narrow", len(lost))
			}
			if n := sites[home].attaches() + sites[office].attaches(); n != 2 {
				t.Errorf("attached %d times, want 2", n)
			}
		})
	}
}
