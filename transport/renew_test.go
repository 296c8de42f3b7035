// SPDX-License-Identifier: Apache-2.0

package transport_test

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/l2bridge/l2bridge/transport"
	"github.com/l2bridge/l2bridge/transport/identity"
	"github.com/l2bridge/l2bridge/transport/wire"
)

// three runs a founder and two members, of which the last knows the founder only.
func three(t *testing.T, w *world) (home, office, cabin *node, up func(limit time.Duration)) {
	t.Helper()
	ms := members(t, "home", "office", "cabin")
	at := func(addr string) func(*transport.Config) {
		return func(c *transport.Config) { c.Addresses = func() []string { return []string{addr} } }
	}
	const cabinAddr = "192.0.2.4"
	home = w.run(t, ms[0], homeAddr, nil, at(homePort))
	office = w.run(t, ms[1], officeAddr, []string{homePort}, at(officePort))
	cabin = w.run(t, ms[2], cabinAddr, []string{homePort}, at(cabinAddr+":4433"))
	up = func(limit time.Duration) {
		t.Helper()
		until(t, "all are up", limit, func() bool {
			return connected(home, office)() && connected(home, cabin)() && connected(office, cabin)()
		})
	}
	up(10 * time.Second)
	return home, office, cabin, up
}

// renew has a site change its key, and its name.
func renew(t *testing.T, n *node, site string) {
	t.Helper()
	m, err := n.Renew(t.Context(), site)
	if err != nil {
		t.Fatal(err)
	}
	n.Become(m)
	n.member = m
}

// A site changes its key, and its name, while all runs. Its former key is out a
// moment later, at all, and it is listed once.
func TestRenew(t *testing.T) {
	for _, name := range []string{"office", "bureau"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				home, office, cabin, up := three(t, w)
				was := office.member.ID
				renew(t, office, name)
				up(time.Second)
				for _, n := range []*node{home, cabin} {
					until(t, "the former key is out at "+n.member.Site, 5*time.Second, func() bool { return n.member.Revoked(was) })
					for _, p := range n.Peers() {
						if p.State != "up" || p.ID == was {
							t.Errorf("%s: peer %s %s is %s", n.member.Site, p.Site, p.ID, p.State)
						}
					}
				}
				exchange(t, office, cabin, 10)
			})
		})
	}
}

// Who was named by address is dialled there under its new key as well, though the
// former one is out before anybody there has been met with it. It is the only way
// to it.
func TestRenewNamed(t *testing.T) {
	ms := members(t, "home", "office", "cabin")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		home := w.run(t, ms[0], homeAddr, nil, known(homeAddr))
		w.behind("10.0.0.2", officeAddr, true).forwards = netip.MustParseAddrPort("10.0.0.2:4433")
		office := w.run(t, ms[1], "10.0.0.2", []string{homePort})
		ways := w.behind("10.1.0.2", "192.0.2.4", true)
		cabin := w.run(t, ms[2], "10.1.0.2", []string{homePort, officePort})
		up := all("up", home, office, cabin)
		until(t, "all are up", 5*time.Second, up)
		was := office.member.ID
		w.set(func() {
			w.cut = func(from, to netip.Addr) bool {
				return to == netip.MustParseAddr("10.0.0.2") && from != netip.MustParseAddr(homeAddr)
			}
		})
		renew(t, office, "office")
		until(t, "the former key is out", 5*time.Second, func() bool { return cabin.member.Revoked(was) })
		w.set(func() {
			w.cut = nil
			ways.forget()
		})
		until(t, "office and cabin", time.Minute, up)
	})
}

// So does the founder.
func TestRenewFounder(t *testing.T) {
	for _, name := range []string{"home", "house"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				home, office, cabin, up := three(t, w)
				was := home.member.ID
				renew(t, home, name)
				up(2 * time.Second)
				until(t, "the former key is out", time.Second, func() bool {
					return office.member.Revoked(was) && cabin.member.Revoked(was)
				})
				exchange(t, home, office, 10)
				// The others know whom to ask.
				renew(t, office, "bureau")
				up(2 * time.Second)
				if got := cabin.member.FounderSite(); got != name {
					t.Errorf("the founder is %s, want %s", got, name)
				}
			})
		})
	}
}

// A site that has got a key and does not use it, as after a crash, goes on with
// the one that it has.
func TestRenewNotTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		home, office, _, up := three(t, w)
		was := office.member.ID
		m, err := office.Renew(t.Context(), "office")
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute)
		up(time.Second)
		if home.member.Revoked(was) {
			t.Error("its key is out")
		}
		office.Become(m)
		office.member = m
		up(time.Second)
		until(t, "the former key is out", 5*time.Second, func() bool { return home.member.Revoked(was) })
	})
}

func TestRenewRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		home, office, _, up := three(t, w)
		if _, err := office.Renew(t.Context(), "cabin"); !errors.Is(err, identity.ErrSiteTaken) {
			t.Errorf("a name that is taken: %v", err)
		}
		up(time.Second)
		time.Sleep(time.Second) // the founder sees the connection close
		if lines := home.log.lines(`msg="key not changed"`); len(lines) != 1 || !strings.Contains(lines[0], "peer=office") {
			t.Errorf("log: %q", lines)
		}
		home.stop()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if _, err := office.Renew(ctx, "office"); err == nil || !strings.Contains(err.Error(), "site home, which holds the network's CA key, does not answer directly") {
			t.Errorf("without the founder: %v", err)
		}
	})
}

// A site that is cut off does not come back at once under another key.
func TestRenewCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		home, office, _, up := three(t, w)
		time.Sleep(2 * time.Second)
		for range 3 {
			home.peer("office").CountDropped(wire.Malformed, 101)
			time.Sleep(time.Second)
		}
		if st := home.state("office"); !strings.Contains(st.Error, "cut off") {
			t.Fatalf("not cut off: %+v", st)
		}
		if _, err := office.Renew(t.Context(), "bureau"); err == nil || !strings.Contains(err.Error(), "cut off for") || !strings.Contains(err.Error(), "malformed 101") {
			t.Errorf("another key: %v", err)
		}
		time.Sleep(time.Second) // the founder sees the connection close
		if lines := home.log.lines(`msg="key not changed"`); len(lines) != 1 || !strings.Contains(lines[0], "cut off for") {
			t.Errorf("log: %q", lines)
		}
		up(15 * time.Second)
		renew(t, office, "bureau")
		up(2 * time.Second)
	})
}

// A founder whose CA key is used at another site, from a backup, is none any more
// once it meets that one, and says so.
func TestFounderElsewhere(t *testing.T) {
	homeDir, cabinDir, officeDir := newDir(t), newDir(t), newDir(t)
	founder, err := homeDir.Found("home")
	if err != nil {
		t.Fatal(err)
	}
	cabinMember, err := enrolByPipe(founder, cabinDir, "cabin")
	if err != nil {
		t.Fatal(err)
	}
	officeMember, err := enrolByPipe(founder, officeDir, "office")
	if err != nil {
		t.Fatal(err)
	}
	backup, err := identity.ReadAuthority(homeDir.Path(), "learned.json")
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		home := w.run(t, founder, homeAddr, nil)
		cabin := w.run(t, cabinMember, officeAddr, []string{homePort})
		office := w.run(t, officeMember, "192.0.2.4", []string{homePort, officePort})
		up := func() {
			t.Helper()
			until(t, "up", 5*time.Second, func() bool { return connected(home, cabin)() && connected(cabin, office)() })
		}
		up()
		m, _, err := cabinDir.AdoptAuthority(backup.Data, "")
		if err != nil {
			t.Fatal(err)
		}
		cabin.Become(m)
		cabin.member = m
		time.Sleep(time.Second)
		up()
		if founder.Founder() || !m.Founder() {
			t.Errorf("founder: home %v, cabin %v", founder.Founder(), m.Founder())
		}
		if n := len(home.log.lines(`msg="the ca key is used at another site now" at=home site=cabin`)); n != 1 {
			t.Errorf("%d lines of log say so", n)
		}
		renew(t, office, "bureau") // there
		up()
	})
}

// A site that leaves counts each other one once, whatever keys that one, or the site
// itself, has had a moment before.
func TestLeaveAfterRenew(t *testing.T) {
	for _, who := range []string{"office", "cabin"} {
		for _, pause := range []time.Duration{0, 100 * time.Millisecond, 5 * time.Second} {
			t.Run(who+" "+pause.String(), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld()
					_, office, cabin, _ := three(t, w)
					changes := map[string]*node{"office": office, "cabin": cabin}[who]
					for range 2 {
						renew(t, changes, who)
						until(t, "office has both", 5*time.Second, func() bool { return office.Up() == 2 })
						time.Sleep(pause)
					}
					synctest.Wait()
					sites := make(map[string]bool)
					for _, p := range office.Peers() {
						sites[p.Site] = true
					}
					delete(sites, "office")
					told, of, err := office.Leave(context.Background())
					if of != len(sites) || told > of || err != nil {
						t.Errorf("%d of %d sites told, %v; there are %v", told, of, err, sites)
					}
					if pause >= time.Second && told != 2 {
						t.Errorf("%d sites told, want 2", told)
					}
				})
			})
		}
	}
}
