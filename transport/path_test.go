// SPDX-License-Identifier: Apache-2.0

package transport_test

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/l2bridge/l2bridge/transport"
)

// A path that becomes narrow and is wide again later is used as such: ten minutes
// after it had become narrow, or else after twenty more.
func TestWidensAgain(t *testing.T) {
	t.Parallel()
	udp, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	for _, tt := range []struct {
		sender         int // who sees it
		narrow, wideBy time.Duration
	}{
		{office, 5 * time.Minute, 11 * time.Minute},
		{home, 15 * time.Minute, 31 * time.Minute},
	} {
		t.Run(tt.narrow.String(), func(t *testing.T) {
			ms := members(t, "home", "office")
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				sites := []*node{
					w.run(t, ms[home], homeAddr, nil, unfragmented(udp)),
					w.run(t, ms[office], officeAddr, []string{homePort}, unfragmented(udp)),
				}
				until(t, "up", time.Second, connected(sites[home], sites[office]))
				f := &traffic{t: t}
				f.at(sites[home])
				f.at(sites[office])
				from, to := sites[tt.sender], ms[1-tt.sender].Site
				flow := func(lasts time.Duration) {
					for end := time.Now().Add(lasts); time.Now().Before(end); time.Sleep(time.Second) {
						for range 3 { // of which some fill datagrams
							f.send(from, to, 1400)
						}
					}
				}
				size := func() int { return from.state(to).PathMTU }
				flow(10 * time.Second)
				if size() < 1400 {
					t.Fatalf("path MTU %d at first", size())
				}
				w.set(func() { w.mtu = 1280 })
				narrow := time.Now()
				flow(10 * time.Second)
				calm := time.Now()
				flow(20 * time.Second)
				if lost := f.lost(calm); size() > 1280 || len(lost) > 0 {
					t.Fatalf("path MTU %d, %d frames lost after 10 s", size(), len(lost))
				}
				for time.Since(narrow) < tt.wideBy-90*time.Second {
					flow(time.Minute)
					if time.Since(narrow) > tt.narrow {
						w.set(func() { w.mtu = 1500 })
					}
					if size() > 1280 {
						t.Fatalf("path MTU %d after %v", size(), time.Since(narrow))
					}
				}
				calm = time.Now()
				attached := sites[home].attaches() + sites[office].attaches()
				flow(time.Until(narrow.Add(tt.wideBy)))
				if size() < 1400 {
					t.Errorf("path MTU %d after %v", size(), time.Since(narrow))
				}
				if lost := f.lost(calm); len(lost) > 0 {
					t.Errorf("%d frames are lost with the session before: %v", len(lost), lost)
				}
				if n := sites[home].attaches() + sites[office].attaches() - attached; n != 0 {
					t.Errorf("attached %d times for a wider path", n)
				}
			})
		})
	}
}

// unfragmented has quic-go believe that packets of a site's socket are never cut up,
// so that it finds out how much its paths carry: it asks a socket of the kernel,
// which has nothing else to do.
func unfragmented(udp *net.UDPConn) func(*transport.Config) {
	return func(c *transport.Config) { c.Conn = whole{c.Conn, udp} }
}

type whole struct {
	net.PacketConn
	udp *net.UDPConn
}

func (w whole) SetReadBuffer(bytes int) error         { return w.udp.SetReadBuffer(bytes) }
func (w whole) SyscallConn() (syscall.RawConn, error) { return w.udp.SyscallConn() }

// What is said on the control lane comes though the path has become narrower, and no
// frames pass that would show it. The side that has accepted it has found that it
// carries more than 1200 bytes; what it says at length is lost, and pings wait behind
// that, so that the session is made anew.
func TestNarrowControl(t *testing.T) {
	t.Parallel()
	udp, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	ms := members(t, "home", "office", "cabin")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		home := w.run(t, ms[0], homeAddr, nil, unfragmented(udp))
		office := w.run(t, ms[1], officeAddr, []string{homePort}, unfragmented(udp))
		until(t, "up", 5*time.Second, all("up", home, office))
		time.Sleep(time.Minute)
		w.set(func() {
			w.mtu = 1300
			w.cut = func(from, to netip.Addr) bool {
				a, b := from.String(), to.String()
				return a == officeAddr && b == "192.0.2.3" || a == "192.0.2.3" && b == officeAddr
			}
		})
		w.run(t, ms[2], "192.0.2.3", []string{homePort}, unfragmented(udp), func(c *transport.Config) {
			c.Addresses = func() (all []string) {
				for i := range 12 {
					all = append(all, fmt.Sprintf("%s-%d.example:4433", strings.Repeat("long", 50), i))
				}
				return all
			}
		})
		until(t, "office knows cabin", 10*time.Second, func() bool { return office.state("cabin").State != "" })
	})
}
