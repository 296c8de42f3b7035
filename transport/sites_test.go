// SPDX-License-Identifier: Apache-2.0

package transport_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/l2bridge/l2bridge/internal/frame"
	"github.com/l2bridge/l2bridge/transport"
	"github.com/l2bridge/l2bridge/transport/identity"
)

// three runs home, and office and cabin that dial it, until each has both others.
func (w *world) three(t *testing.T, ms []*identity.Member) (home, office, cabin *node) {
	t.Helper()
	home = w.run(t, ms[0], homeAddr, nil, known(homeAddr))
	office = w.run(t, ms[1], officeAddr, []string{homePort}, known(officeAddr))
	cabin = w.run(t, ms[2], "192.0.2.3", []string{homePort}, known("192.0.2.3"))
	until(t, "up", 5*time.Second, all("up", home, office, cabin))
	return home, office, cabin
}

// known gives a site an address to tell others.
func known(addr string) func(*transport.Config) {
	return func(c *transport.Config) { c.Addresses = func() []string { return []string{addr + ":4433"} } }
}

// state returns how a site sees another.
func (n *node) state(site string) transport.Status {
	for _, st := range n.Peers() {
		if st.Site == site {
			return st
		}
	}
	return transport.Status{}
}

// all reports whether each site sees each other one in a state.
func all(state string, nodes ...*node) func() bool {
	return func() bool {
		for _, a := range nodes {
			for _, b := range nodes {
				if a != b && a.state(b.member.Site).State != state {
					return false
				}
			}
		}
		return true
	}
}

// To name one member joins a site to all, and what changes is known to all soon.
func TestOneNameJoinsAll(t *testing.T) {
	t.Parallel()
	names := []string{"home", "a", "b", "c", "d"}
	ms := members(t, names...)
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		nodes := []*node{w.run(t, ms[0], homeAddr, nil, known(homeAddr))}
		for i, m := range ms[1:] {
			addr := fmt.Sprintf("192.0.2.%d", 10+i)
			nodes = append(nodes, w.run(t, m, addr, []string{homePort}, known(addr)))
		}
		took := until(t, "full mesh", 2*time.Second, all("up", nodes...))
		t.Logf("full mesh after %v", took)
		time.Sleep(5 * time.Second)
		for i, a := range nodes {
			for _, b := range nodes[:i] {
				exchange(t, a, b, 5)
			}
			if n := a.attaches(); n != len(nodes)-1 {
				t.Errorf("%s: %d attached, want %d", a.member.Site, n, len(nodes)-1)
			}
		}
		// The one that was named goes; the others stay.
		nodes[0].stop()
		time.Sleep(time.Minute)
		if !all("up", nodes[1:]...)() {
			t.Error("sites have lost each other with the one that they named")
		}
		if st := nodes[1].state("home"); st.State != "down" {
			t.Errorf("a site that left is %+v", st)
		}
		// It comes back, and nobody need name anybody.
		home := w.run(t, ms[0], homeAddr, nil, known(homeAddr))
		until(t, "home back", 2*time.Second, all("up", append(nodes[1:], home)...))
	})
}

// What was learned outlives a restart.
func TestLearnedIsKept(t *testing.T) {
	ms := members(t, "home", "office", "cabin")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		var mu sync.Mutex
		var kept [][]byte
		keep := func(c *transport.Config) {
			mu.Lock()
			defer mu.Unlock()
			c.Known = kept
			c.Learned = func(all [][]byte) {
				mu.Lock()
				defer mu.Unlock()
				kept = all
			}
		}
		home := w.run(t, ms[0], homeAddr, nil, known(homeAddr))
		office := w.run(t, ms[1], officeAddr, []string{homePort}, known(officeAddr), keep)
		cabin := w.run(t, ms[2], "192.0.2.3", []string{homePort}, known("192.0.2.3"))
		until(t, "mesh", 2*time.Second, all("up", home, office, cabin))
		home.kill()
		office.kill()
		if len(kept) != 2 {
			t.Fatalf("%d announcements kept, want 2", len(kept))
		}
		office = w.run(t, ms[1], officeAddr, []string{homePort}, known(officeAddr), keep)
		until(t, "office and cabin", time.Second, all("up", office, cabin))
	})
}

// Another address of ours is announced, and costs no session a ping.
func TestReaddress(t *testing.T) {
	ms := members(t, "home", "office")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		const mapped = "203.0.113.7:4433"
		var mu sync.Mutex
		var addrs []string
		var kept [][]byte
		home := w.run(t, ms[0], homeAddr, nil, known(homeAddr), func(c *transport.Config) {
			c.Learned = func(all [][]byte) {
				mu.Lock()
				defer mu.Unlock()
				kept = all
			}
		})
		office := w.run(t, ms[1], officeAddr, []string{homePort}, func(c *transport.Config) {
			c.Addresses = func() []string {
				mu.Lock()
				defer mu.Unlock()
				return addrs
			}
		})
		until(t, "up", 2*time.Second, all("up", home, office))
		time.Sleep(10 * time.Second)
		mu.Lock()
		addrs = []string{mapped}
		mu.Unlock()
		office.Readdress()
		until(t, "the address is known", 2*time.Minute, func() bool {
			mu.Lock()
			defer mu.Unlock()
			return len(kept) == 1 && bytes.Contains(kept[0], []byte(mapped))
		})
		if n := len(office.log.lines("suspect")); n != 0 || office.lan.attaches() != 1 {
			t.Errorf("suspect %d times, attached %d times", n, office.lan.attaches())
		}
	})
}

// numbers checks that numbered frames that a site sends to another arrive, none
// twice.
type numbers struct {
	mu   sync.Mutex
	next uint32
	seen map[uint32]int
}

func count(to *node) *numbers {
	n := &numbers{seen: make(map[uint32]int)}
	to.lan.mu.Lock()
	to.take = func(_ string, b *frame.Buf) {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.seen[binary.BigEndian.Uint32(b.Bytes()[14:])]++
	}
	to.lan.mu.Unlock()
	return n
}

// send sends one frame each interval for so long, and returns how many came of
// them, and the longest time in which none did.
func (n *numbers) send(t *testing.T, from *node, to string, interval, lasts time.Duration) (sent, came int, gap time.Duration) {
	t.Helper()
	first := n.next
	var lost time.Duration
	for range lasts / interval {
		from.send(to, numbered(int(n.next), 600))
		n.next++
		time.Sleep(interval)
	}
	time.Sleep(2 * time.Second)
	synctest.Wait()
	n.mu.Lock()
	defer n.mu.Unlock()
	for i := first; i < n.next; i++ {
		switch n.seen[i] {
		case 0:
			lost += interval
			gap = max(gap, lost)
		case 1:
			came++
			lost = 0
		default:
			t.Errorf("frame %d came %d times", i, n.seen[i])
		}
	}
	return int(n.next - first), came, gap
}

// Two sites that cannot reach each other go by way of a third, by another one
// when that dies, and directly as soon as they can.
func TestRelay(t *testing.T) {
	t.Parallel()
	ms := members(t, "home", "office", "cabin", "vps")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		const cabinAddr, vpsAddr = "192.0.2.3", "192.0.2.4"
		apart := func(a, b netip.Addr) bool {
			x, y := netip.MustParseAddr(officeAddr), netip.MustParseAddr(cabinAddr)
			return a == x && b == y || a == y && b == x
		}
		w.cut = apart
		home := w.run(t, ms[0], homeAddr, nil, known(homeAddr))
		vps := w.run(t, ms[3], vpsAddr, []string{homePort}, known(vpsAddr))
		office := w.run(t, ms[1], officeAddr, []string{homePort}, known(officeAddr))
		cabin := w.run(t, ms[2], cabinAddr, []string{homePort}, known(cabinAddr))
		until(t, "relayed", 2*time.Second, all("relayed", office, cabin))
		time.Sleep(5 * time.Second)
		exchange(t, office, cabin, 30)
		if n := home.received(); n != nil {
			t.Errorf("%d relayed frames came to the LAN of the relay", len(n))
		}

		relay := map[string]*node{"home": home, "vps": vps}
		in := count(cabin)
		via := relay[office.state("cabin").Via]
		if via == nil {
			t.Fatalf("relayed by %q", office.state("cabin").Via)
		}
		attached := office.attaches()
		go func() {
			time.Sleep(5 * time.Second)
			via.kill()
		}()
		sent, came, gap := in.send(t, office, "cabin", 10*time.Millisecond, 15*time.Second)
		t.Logf("the relay dies: %d of %d came, longest gap %v", came, sent, gap)
		if gap > 2*time.Second {
			t.Errorf("the relay died: a gap of %v", gap)
		}
		go func() {
			time.Sleep(5 * time.Second)
			w.set(func() { w.cut = nil })
		}()
		sent, came, gap = in.send(t, office, "cabin", 10*time.Millisecond, 2*time.Minute)
		t.Logf("direct: %d of %d came, longest gap %v", came, sent, gap)
		if sent-came > 20 {
			t.Errorf("changed to direct: %d of %d frames lost", sent-came, sent)
		}
		if !all("up", office, cabin)() {
			t.Errorf("not direct: %+v", office.state("cabin"))
		}
		go func() {
			time.Sleep(5 * time.Second)
			w.set(func() { w.cut = apart })
		}()
		sent, came, gap = in.send(t, office, "cabin", 10*time.Millisecond, 15*time.Second)
		t.Logf("relayed again: %d of %d came, longest gap %v", came, sent, gap)
		if gap > 2*time.Second || !all("relayed", office, cabin)() {
			t.Errorf("the direct path went: a gap of %v, %+v", gap, office.state("cabin"))
		}
		if n := office.attaches(); n != attached+1 && n != attached { // the relay that died may have come and gone
			t.Errorf("attached %d times, %d before", n, attached)
		}
	})
}

// What is on its way by a relay when there is a direct path arrives too.
func TestRelayToDirect(t *testing.T) {
	t.Parallel()
	ms := members(t, "home", "office", "cabin")
	for run := range 5 {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			w.latency += time.Duration(run) * 3 * time.Millisecond
			const cabinAddr = "192.0.2.3"
			w.cut = func(a, b netip.Addr) bool { return a.String() != homeAddr && b.String() != homeAddr }
			w.run(t, ms[0], homeAddr, nil, known(homeAddr))
			office := w.run(t, ms[1], officeAddr, []string{homePort}, known(officeAddr))
			cabin := w.run(t, ms[2], cabinAddr, []string{homePort}, known(cabinAddr))
			until(t, "relayed", 2*time.Second, all("relayed", office, cabin))
			time.Sleep(5 * time.Second)
			f := &traffic{t: t}
			f.at(office)
			f.at(cabin)
			began := time.Now()
			w.set(func() { w.cut = nil })
			for time.Since(began) < 4*time.Second {
				f.send(office, "cabin", 100)
				f.send(cabin, "office", 100)
				time.Sleep(time.Millisecond)
			}
			time.Sleep(time.Second)
			if !all("up", office, cabin)() {
				t.Error("not direct")
			}
			if lost := f.lost(began); len(lost) > 0 || len(office.Drops())+len(cabin.Drops()) > 0 {
				t.Errorf("%d frames are lost: %v; %v %v", len(lost), lost[:min(5, len(lost))], office.Drops(), cabin.Drops())
			}
		})
	}
}

// Holes are punched where NATs let them be.
func TestHolePunch(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		a, b   bool // symmetric
		natB   bool
		want   string
		within time.Duration
	}{
		{"cones", false, false, true, "up", 3 * time.Second},
		{"symmetric", true, true, true, "relayed", 3 * time.Second},
		{"symmetric and public", true, false, false, "up", 3 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ms := members(t, "vps", "a", "b")
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				w.behind("10.0.1.1", "192.0.2.101", tt.a)
				addrB := "192.0.2.102"
				if tt.natB {
					addrB = "10.0.2.1"
					w.behind(addrB, "192.0.2.102", tt.b)
				}
				w.cut = func(from, to netip.Addr) bool { return to.IsPrivate() && from.IsPrivate() }
				w.run(t, ms[0], homeAddr, nil, known(homeAddr))
				a := w.run(t, ms[1], "10.0.1.1", []string{homePort}, known("10.0.1.1"))
				b := w.run(t, ms[2], addrB, []string{homePort}, known(addrB))
				took := until(t, tt.want, tt.within, all(tt.want, a, b))
				t.Logf("%s after %v", tt.want, took)
				time.Sleep(2 * time.Minute)
				exchange(t, a, b, 20)
				if !all(tt.want, a, b)() {
					t.Errorf("%+v", a.state("b"))
				}
			})
		})
	}
}

// A member whose clock was set back since it last said where it is says it anew, as
// the newest.
func TestClockSetBack(t *testing.T) {
	ms := members(t, "home", "office", "cabin")
	var future [][]byte // what home knows of office
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(24 * time.Hour)
		w := newWorld()
		home := w.run(t, ms[0], homeAddr, nil, known(homeAddr), func(c *transport.Config) {
			c.Learned = func(all [][]byte) { future = all }
		})
		office := w.run(t, ms[1], "192.0.2.20", []string{homePort}, known("192.0.2.20"))
		until(t, "up", time.Second, all("up", home, office))
		time.Sleep(time.Second) // until they have told each other
		office.stop()
		home.stop()
	})
	if len(future) != 1 {
		t.Fatalf("%d announcements kept, want 1", len(future))
	}
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		home := w.run(t, ms[0], homeAddr, nil, known(homeAddr), func(c *transport.Config) { c.Known = future })
		office := w.run(t, ms[1], officeAddr, []string{homePort}, known(officeAddr))
		until(t, "up", 2*time.Second, all("up", home, office))
		time.Sleep(5 * time.Second)
		// Cabin hears of office from home alone, and office not of cabin.
		w.set(func() {
			w.cut = func(from, to netip.Addr) bool { return from.String() == officeAddr && to.String() == "192.0.2.3" }
		})
		cabin := w.run(t, ms[2], "192.0.2.3", []string{homePort}, known("192.0.2.3"))
		until(t, "cabin knows where office is", 3*time.Second, func() bool {
			return cabin.state("office").State != "" && strings.Contains(cabin.dials(), officeAddr)
		})
	})
}

// Another member at an address that was given by hand is dialled like any other.
func TestAnotherAtTheAddress(t *testing.T) {
	ms := members(t, "home", "office", "cabin")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		home := w.run(t, ms[0], homeAddr, nil)
		office := w.run(t, ms[1], officeAddr, []string{homePort})
		until(t, "up", time.Second, connected(home, office))
		home.kill()
		cabin := w.run(t, ms[2], homeAddr, nil)
		until(t, "cabin at home's address", 10*time.Second, connected(cabin, office))
		time.Sleep(10 * time.Second)
		if st := office.state("home"); st.State != "down" {
			t.Errorf("home is %+v", st)
		}
	})
}
