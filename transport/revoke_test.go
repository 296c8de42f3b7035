// SPDX-License-Identifier: Apache-2.0

package transport_test

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/l2bridge/l2bridge/internal/frame"
	"github.com/l2bridge/l2bridge/transport"
	"github.com/l2bridge/l2bridge/transport/identity"
	"github.com/l2bridge/l2bridge/transport/wire"
)

var awayFlag = flag.Int("away", 6, "how many times a member comes back after another was revoked, each time with another seed")

// network is sites with home as the founder. What each learns of the others it
// knows again when it is started again.
type network struct {
	*world
	t       *testing.T
	members []*identity.Member
	nodes   map[string]*node
	addrs   map[string]string

	mu   sync.Mutex // guards what follows
	kept map[string][][]byte
	from map[string]map[string]int // frames, by where they came to and where from
}

func newNetwork(t *testing.T, members []*identity.Member) *network {
	n := &network{
		world: newWorld(), t: t, members: members, nodes: make(map[string]*node), addrs: make(map[string]string),
		kept: make(map[string][][]byte), from: make(map[string]map[string]int),
	}
	for i, m := range members {
		n.addrs[m.Site] = fmt.Sprintf("192.0.2.%d", 10+i)
		n.start(m.Site)
	}
	return n
}

// start starts a site, which knows where home is.
func (n *network) start(site string) *node {
	m := n.members[slices.IndexFunc(n.members, func(m *identity.Member) bool { return m.Site == site })]
	peers := []string{n.addrs["home"] + ":4433"}
	if site == "home" {
		peers = nil
	}
	n.from[site] = make(map[string]int)
	n.nodes[site] = n.run(n.t, m, n.addrs[site], peers, known(n.addrs[site]), func(c *transport.Config) {
		c.Known = n.kept[site]
		c.Learned = func(all [][]byte) {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.kept[site] = all
		}
	})
	n.nodes[site].lan.mu.Lock()
	n.nodes[site].take = func(from string, _ *frame.Buf) {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.from[site][from]++
	}
	n.nodes[site].lan.mu.Unlock()
	return n.nodes[site]
}

// sites returns the running sites but some.
func (n *network) but(sites ...string) (all []*node) {
	for _, m := range n.members {
		if node := n.nodes[m.Site]; node != nil && !slices.Contains(sites, m.Site) {
			all = append(all, node)
		}
	}
	return all
}

// came returns how many frames have come from one site to another.
func (n *network) came(from, to string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.from[to][from]
}

// talks has a site, as it runs now, send a frame to all that are attached, every 10 ms until the
// test ends.
func (n *network) talks(site string) {
	stop, done := make(chan struct{}), make(chan struct{})
	from := n.nodes[site]
	go func() {
		defer close(done)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-time.After(10 * time.Millisecond):
			}
			for _, m := range n.members {
				from.send(m.Site, numbered(i, 60))
			}
		}
	}()
	n.t.Cleanup(func() { close(stop); <-done })
}

// parts takes away the direct way between two sites.
func (n *network) parts(a, b string) {
	x, y := netip.MustParseAddr(n.addrs[a]), netip.MustParseAddr(n.addrs[b])
	before := n.cut
	n.set(func() {
		n.cut = func(from, to netip.Addr) bool {
			return from == x && to == y || from == y && to == x || before != nil && before(from, to)
		}
	})
}

// A site that is revoked is out everywhere, at once and for good: also where the
// founder is reached by way of another one, and where its frames were relayed.
func TestRevoke(t *testing.T) {
	ms := members(t, "home", "attic", "barn", "cabin", "shed")
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, ms)
		until(t, "mesh", 5*time.Second, all("up", n.but()...))
		n.parts("home", "attic")
		n.parts("barn", "shed")
		until(t, "relays", 8*time.Second, func() bool {
			return n.nodes["attic"].state("home").State == "relayed" && n.nodes["barn"].state("shed").State == "relayed" &&
				all("up", n.nodes["cabin"], n.nodes["shed"], n.nodes["home"])() && all("up", n.nodes["barn"], n.nodes["attic"])()
		})
		n.talks("shed")
		time.Sleep(5 * time.Second)
		for _, site := range []string{"home", "attic", "barn", "cabin"} {
			if n.came("shed", site) == 0 {
				t.Fatalf("nothing comes to %s before", site)
			}
		}

		news, known, err := n.nodes["home"].Revoke("shed")
		if err != nil || !known || len(news) != 1 || news[0].ID != ms[4].ID {
			t.Fatalf("Revoke: %v, %v, %v", news, known, err)
		}
		others := n.but("shed")
		took := until(t, "out everywhere", 2*time.Second, func() bool {
			return !slices.ContainsFunc(others, func(o *node) bool {
				return o.peer("shed") != nil || o.state("shed").State != "" || !o.member.Revoked(ms[4].ID)
			})
		})
		t.Logf("out everywhere after %v", took)
		before := make(map[string]int)
		for _, o := range others {
			before[o.member.Site] = n.came("shed", o.member.Site)
		}
		packets, _ := n.count()
		time.Sleep(time.Minute)
		shed := n.nodes["shed"]
		for _, st := range shed.Peers() {
			if st.State == "up" || st.State == "relayed" || !strings.Contains(st.Error, "revoked") && st.Site != "barn" {
				t.Errorf("shed sees %s as %s: %s", st.Site, st.State, st.Error)
			}
		}
		if lines := shed.log.lines("no member of the network any more"); len(lines) < 1 || len(lines) > 8 {
			t.Errorf("shed says it %d times", len(lines))
		}
		for _, o := range others {
			if lines := o.log.lines("site is no member any more"); len(lines) != 1 || !strings.Contains(lines[0], "peer=shed") {
				t.Errorf("%s says %q", o.member.Site, lines)
			}
			if refused := o.log.lines("peer refused"); len(refused) > 10 {
				t.Errorf("%s was tried %d times", o.member.Site, len(refused))
			}
		}
		shed.stop()
		after, _ := n.count()
		t.Logf("%d packets in a minute", after-packets)

		// Neither its own restart nor another one's lets it in.
		n.start("shed")
		n.nodes["cabin"].kill()
		n.nodes["cabin"] = nil
		for _, a := range n.kept["cabin"] {
			m, _, _, err := wire.ParseMember(a)
			if err != nil {
				t.Fatal(err)
			}
			if _, _, _, err := ms[0].Judge(m.Cert); err != nil {
				t.Errorf("cabin has kept what it learned: %v", err)
			}
		}
		n.start("cabin")
		time.Sleep(2 * time.Minute)
		for _, o := range n.but("shed") {
			if o.peer("shed") != nil || o.state("shed").State != "" {
				t.Errorf("%s has shed again", o.member.Site)
			}
			if now := n.came("shed", o.member.Site); o.member.Site != "cabin" && now != before[o.member.Site] || o.member.Site == "cabin" && now > 0 {
				t.Errorf("%d frames came to %s", now, o.member.Site)
			}
		}
		if !all("up", n.but("shed", "attic")...)() {
			t.Error("the others have lost each other")
		}
		if news, known, err := n.nodes["home"].Revoke("shed"); err != nil || len(news) != 0 || !known {
			t.Errorf("a second time: %v, %v, %v", news, known, err)
		}
		if _, known, err := n.nodes["home"].Revoke("nobody"); err != nil || known {
			t.Errorf("nobody: %v, %v", known, err)
		}
	})
}

// A member that was away lets no frame of one pass that was revoked meanwhile,
// though that tries to reach it first.
func TestRevokedWhileAway(t *testing.T) {
	for seed := range *awayFlag {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			ms := members(t, "home", "attic", "shed")
			synctest.Test(t, func(t *testing.T) {
				rng := rand.New(rand.NewPCG(uint64(seed), 3))
				n := newNetwork(t, ms)
				latency := time.Duration(1+rng.IntN(60)) * time.Millisecond
				n.set(func() { n.latency = latency })
				until(t, "mesh", 5*time.Second, all("up", n.but()...))
				n.talks("shed")
				time.Sleep(5 * time.Second)

				restarted := seed%2 == 1
				attic := netip.MustParseAddr(n.addrs["attic"])
				if restarted {
					n.nodes["attic"].kill()
				} else {
					n.set(func() { n.cut = func(from, to netip.Addr) bool { return from == attic || to == attic } })
				}
				time.Sleep(10 * time.Second)
				if _, _, err := n.nodes["home"].Revoke("shed"); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Duration(rng.Int64N(int64(90 * time.Second))))
				before := n.came("shed", "attic")
				attached := n.nodes["shed"].attaches()
				if restarted {
					n.start("attic")
					before = 0
				} else {
					n.set(func() { n.cut = nil })
				}
				for range 5 {
					n.nodes["shed"].Moved() // has it dial at once
					time.Sleep(40 * time.Millisecond)
				}
				took := until(t, "attic and home", 5*time.Second, all("up", n.but("shed")...))
				time.Sleep(5 * time.Second)
				if now := n.came("shed", "attic"); now != before || n.nodes["attic"].peer("shed") != nil {
					t.Errorf("latency %v: %d frames of shed came to attic", latency, now-before)
				}
				t.Logf("latency %v, home after %v; shed had attic %d times meanwhile", latency, took, n.nodes["shed"].attaches()-attached)
			})
		})
	}
}

// Who comes back and does not find the founder goes on without, soon.
func TestFounderAway(t *testing.T) {
	ms := members(t, "home", "attic", "shed")
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, ms)
		until(t, "mesh", 5*time.Second, all("up", n.but()...))
		time.Sleep(5 * time.Second)
		n.nodes["home"].kill()
		n.nodes["attic"].kill()
		time.Sleep(10 * time.Second)
		n.start("attic")
		took := until(t, "attic and shed", time.Second, all("up", n.but("home")...))
		t.Logf("after %v", took)
	})
}

// A list that is not the CA's ends the session of who sends it, and one that is
// old has no effect. Nor does it help to say that one has a newer one.
func TestHostileLists(t *testing.T) {
	besieged(t, func(s *siege) {
		other := s.foreign
		if _, err := other.Retire(identity.Site{ID: identity.ID{1}, Name: "x"}, identity.Rekeyed); err != nil {
			t.Error(err)
			return
		}
		// An old one, again and again.
		old := s.home.member
		if _, err := old.Retire(identity.Site{ID: identity.ID{1}, Name: "x"}, identity.Rekeyed); err != nil {
			t.Error(err)
		}
		first := wire.Revoked(old.Revocations().Bytes())
		if _, err := old.Retire(identity.Site{ID: identity.ID{2}, Name: "y"}, identity.Rekeyed); err != nil {
			t.Error(err)
		}
		now := old.Revocations()
		if c := s.say(slices.Repeat(first, 10)...); c >= 0 || old.Revocations() != now {
			t.Errorf("an old list: closed with %d, version %d", c, old.Revocations().Version)
		}
		if c := s.say(wire.Revoked(other.Revocations().Bytes())...); c != wire.CloseProtocol || old.Revocations() != now {
			t.Errorf("another network's: closed with %d", c)
		}
	})
}

// Whoever leaves is forgotten by all, and the founder puts its key on the list,
// when it hears of it, by way of others and later.
func TestLeave(t *testing.T) {
	ms := members(t, "home", "attic", "barn", "shed")
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, ms)
		until(t, "mesh", 5*time.Second, all("up", n.but()...))
		time.Sleep(5 * time.Second)
		n.nodes["home"].kill()
		n.nodes["barn"].kill()
		n.nodes["barn"] = nil
		time.Sleep(10 * time.Second)

		shed, attic := n.nodes["shed"], n.nodes["attic"]
		began := time.Now()
		told, of, err := shed.Leave(context.Background())
		if err != nil || told != 1 || of != 3 {
			t.Errorf("told %d of %d, %v", told, of, err)
		}
		t.Logf("told after %v", time.Since(began))
		shed.stop()
		if attic.state("shed").State != "" || attic.peer("shed") != nil {
			t.Errorf("attic has shed: %+v", attic.state("shed"))
		}
		packets := 0
		n.set(func() {
			n.cut = func(_, to netip.Addr) bool {
				if to.String() == n.addrs["shed"] {
					packets++
				}
				return false
			}
		})
		// Also after a restart of its own, attic knows.
		attic.kill()
		n.start("attic")
		time.Sleep(2 * time.Minute)

		home := n.start("home")
		until(t, "home and attic", 2*time.Second, all("up", n.but("barn", "shed")...))
		until(t, "on the list", time.Second, func() bool { return ms[0].Revoked(ms[3].ID) && ms[1].Revoked(ms[3].ID) })
		if list := ms[0].Revocations(); len(list.Keys) != 1 || list.Keys[0].Reason != identity.Left || list.Keys[0].Name != "shed" {
			t.Errorf("%+v", list)
		}
		if home.state("shed").State != "" {
			t.Errorf("home has shed: %+v", home.state("shed"))
		}
		// One that was away all the time hears of it when it comes back.
		barn := n.start("barn")
		until(t, "barn", 2*time.Second, func() bool { return all("up", n.but("shed")...)() && ms[2].Revoked(ms[3].ID) })
		if barn.state("shed").State != "" {
			t.Errorf("barn has shed: %+v", barn.state("shed"))
		}
		n.set(func() {
			if packets > 20 { // barn's own, before it knew
				t.Errorf("%d packets went to where shed was", packets)
			}
		})
		// Its key is good for nothing.
		n.start("shed")
		time.Sleep(time.Minute)
		for _, o := range n.but("shed") {
			if o.peer("shed") != nil {
				t.Errorf("%s has shed again", o.member.Site)
			}
		}
	})
}

// A founder whose state is that of a backup does not let in again whom it has put
// out since, and what it does before it has heard of that is not lost.
func TestRestoredFounder(t *testing.T) {
	path := t.TempDir()
	ms := membersOf(t, path, "home", "attic", "barn", "cabin", "shed")
	backup, err := identity.Open(copied(t, path))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { backup.Close() })
	restored, err := backup.Load()
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, ms)
		until(t, "mesh", 5*time.Second, all("up", n.but()...))
		time.Sleep(5 * time.Second)
		for _, site := range []string{"shed", "cabin"} {
			if _, _, err := n.nodes["home"].Revoke(site); err != nil {
				t.Fatal(err)
			}
		}
		until(t, "both are out", 2*time.Second, func() bool { return len(n.nodes["attic"].Peers()) == 2 })
		n.nodes["home"].kill()
		time.Sleep(10 * time.Second)

		n.members[0] = restored
		if _, err := restored.Revoke("barn"); err != nil {
			t.Fatal(err)
		}
		n.start("home")
		until(t, "one list", 5*time.Second, func() bool {
			for _, m := range []*identity.Member{restored, ms[1]} {
				if r := m.Revocations(); r.Version != 3 || len(r.Keys) != 3 || r.Digest() != restored.Revocations().Digest() {
					return false
				}
			}
			return n.nodes["attic"].peer("barn") == nil
		})
		time.Sleep(time.Minute)
		if !all("up", n.nodes["home"], n.nodes["attic"])() || len(n.nodes["home"].Peers()) != 1 || len(n.nodes["attic"].Peers()) != 1 {
			t.Errorf("home has %+v, attic %+v", n.nodes["home"].Peers(), n.nodes["attic"].Peers())
		}
	})
}

// copied returns a copy of a founder's state directory.
func copied(t *testing.T, from string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "state")
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"site.key", "ca.key", "membership.json"} {
		data, err := os.ReadFile(filepath.Join(from, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(path, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return path
}
