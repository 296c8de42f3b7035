// SPDX-License-Identifier: Apache-2.0

package transport_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/l2bridge/l2bridge/internal/frame"
	"github.com/l2bridge/l2bridge/transport"
	"github.com/l2bridge/l2bridge/transport/identity"
	"github.com/l2bridge/l2bridge/transport/wire"
)

// Addresses of the sites.
const (
	homeAddr, officeAddr = "192.0.2.1", "192.0.2.2"
	homePort, officePort = "192.0.2.1:4433", "192.0.2.2:4433"
)

func TestTwoSites(t *testing.T) {
	for _, latency := range []time.Duration{0, 10 * time.Millisecond, 300 * time.Millisecond} {
		t.Run(latency.String(), func(t *testing.T) {
			ms := members(t, "home", "office")
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				w.latency = latency
				home := w.run(t, ms[0], homeAddr, nil)
				office := w.run(t, ms[1], officeAddr, []string{homePort})
				// Two handshakes and two hellos, at a round trip each.
				until(t, "up", 8*latency+10*time.Millisecond, connected(home, office))
				exchange(t, home, office, 30) // what the first window carries: CoDel judges the rest
				st := office.Peers()[0]
				if st.State != "up" || st.Site != "home" || st.Kex != "X25519MLKEM768" || st.Error != "" || st.ID != ms[0].ID {
					t.Errorf("status %+v", st)
				}
				office.stop()
				time.Sleep(latency + time.Millisecond)
				synctest.Wait()
				if home.peer("office") != nil {
					t.Error("a site that said goodbye is still attached")
				}
				home.stop()
			})
		})
	}
}

// Both sites dial each other at the same moment; one session stays.
func TestCrossedDials(t *testing.T) {
	t.Parallel()
	for _, latency := range []time.Duration{0, time.Millisecond, 50 * time.Millisecond, 400 * time.Millisecond} {
		for _, lead := range []time.Duration{0, 1, 2, 3, 4, 5, 7} { // half round trips
			t.Run(fmt.Sprintf("%v lead %d", latency, lead), func(t *testing.T) {
				ms := members(t, "home", "office")
				synctest.Test(t, func(t *testing.T) {
					w := newWorld()
					w.latency = latency
					home := w.run(t, ms[0], homeAddr, []string{officePort})
					time.Sleep(lead * latency)
					office := w.run(t, ms[1], officeAddr, []string{homePort})
					time.Sleep(20 * time.Second)
					exchange(t, home, office, 10)
					attaches := home.attaches() + office.attaches()
					time.Sleep(time.Minute)
					exchange(t, home, office, 10)
					if n := home.attaches() + office.attaches() - attaches; n != 0 {
						t.Errorf("the sites came and went %d times in a minute of quiet", n)
					}
					if attaches > 6 {
						t.Errorf("it took %d times until the sites agreed", attaches)
					}
					for _, n := range []*node{home, office} {
						if lines := n.log.lines("peer not connected"); len(lines) > 2 {
							t.Errorf("noise: %q", lines)
						}
						if st := n.Peers(); len(st) != 1 || st[0].State != "up" || st[0].Error != "" {
							t.Errorf("status %+v", st)
						}
					}
				})
			})
		}
	}
}

// However two dials cross: once the sites have each other for peers all that they
// send arrives.
func TestCrossedDialsLoseNothing(t *testing.T) {
	t.Parallel()
	ms := members(t, "home", "office")
	for _, latency := range []time.Duration{time.Millisecond, 20 * time.Millisecond} {
		for lead := range 9 { // half latencies
			for first := range 2 {
				t.Run(fmt.Sprintf("%v, lead %d of %d", latency, lead, first), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						w := newWorld()
						w.latency = latency
						f := &traffic{t: t}
						sites := make([]*node, 2)
						start := func(i int) {
							n := w.run(t, ms[i], []string{homeAddr, officeAddr}[i], []string{[]string{officePort, homePort}[i]})
							f.at(n)
							sites[i] = n
						}
						start(first)
						began := time.Now()
						for now := time.Duration(0); now < 60*latency; now += latency / 4 {
							if now == time.Duration(lead)*latency/2 {
								start(1 - first)
							}
							if sites[1-first] != nil && connected(sites[0], sites[1])() {
								f.send(sites[0], ms[1].Site, 100)
								f.send(sites[1], ms[0].Site, 100)
							}
							time.Sleep(latency / 4)
						}
						time.Sleep(time.Second)
						if lost := f.lost(began); len(lost) > 0 || len(f.sent) == 0 {
							t.Errorf("%d of %d frames are lost: %v; %v %v",
								len(lost), len(f.sent), lost[:min(5, len(lost))], sites[0].Drops(), sites[1].Drops())
						}
					})
				})
			}
		}
	}
}

// One site is dialled by two of its addresses, as two peers and as one.
func TestTwoAddresses(t *testing.T) {
	const other = "192.0.2.9:4433" // nobody is there
	for name, dial := range map[string][][]string{
		"same twice":         {{homePort}, {homePort}},
		"one is dead":        {{other, homePort}},
		"one is dead, twice": {{other, homePort}, {homePort}},
		"one is ourselves":   {{officePort, homePort}},
	} {
		t.Run(name, func(t *testing.T) {
			ms := members(t, "home", "office")
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				home := w.run(t, ms[0], homeAddr, nil)
				office := w.run(t, ms[1], officeAddr, nil, func(c *transport.Config) { c.Dial = dial })
				until(t, "up", 4*time.Second, connected(home, office))
				time.Sleep(time.Minute)
				exchange(t, home, office, 10)
				if n := home.attaches(); n != 1 {
					t.Errorf("attached %d times, want once", n)
				}
				if st := office.Peers(); len(st) != 1 || st[0].State != "up" {
					t.Errorf("status %+v", st)
				}
			})
		})
	}
}

// The founder's address of when this site joined is nobody's any more: it is no peer
// beside the members that are known.
func TestFounderMoved(t *testing.T) {
	ms := members(t, "home", "office")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		office := w.run(t, ms[1], officeAddr, nil, func(c *transport.Config) { c.Founder = []string{"192.0.2.9:4433"} })
		time.Sleep(time.Minute)
		if st := office.Peers(); len(st) != 1 || !st[0].Unknown || st[0].Site != "192.0.2.9:4433" || st[0].State != "connecting" {
			t.Errorf("status before it is met: %+v", st)
		}
		home := w.run(t, ms[0], homeAddr, []string{officePort})
		until(t, "up", 4*time.Second, connected(home, office))
		if st := office.Peers(); len(st) != 1 || st[0].Site != "home" || st[0].State != "up" {
			t.Errorf("status %+v", st)
		}
	})
}

// Two dialers of one site agree on a session, whatever order its parts come in.
func TestTwoDialers(t *testing.T) {
	t.Parallel()
	ms := members(t, "home", "office")
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			w.reorder = 3
			w.rng = rand.New(rand.NewPCG(seed, 0))
			home := w.run(t, ms[0], homeAddr, nil)
			office := w.run(t, ms[1], officeAddr, []string{homePort, homePort, homePort})
			until(t, "up", time.Second, connected(home, office))
			time.Sleep(500 * time.Millisecond) // until each dialer knows whom it has reached
			since := office.Peers()[0].Since
			time.Sleep(10 * time.Second)
			if st := office.Peers()[0]; st.Since != since || home.attaches()+office.attaches() != 2 {
				t.Errorf("seed %d: attached %d and %d times, since %v and %v", seed, home.attaches(), office.attaches(), since, st.Since)
			}
		})
	}
}

func TestDialSelf(t *testing.T) {
	ms := members(t, "home")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		home := w.run(t, ms[0], homeAddr, []string{homePort})
		time.Sleep(10 * time.Minute)
		if n := len(home.log.lines("peer not connected")); n != 1 {
			t.Errorf("%d lines tell of it, want one", n)
		}
		if st := home.Peers(); len(st) != 1 || st[0].State != "connecting" || !strings.Contains(st[0].Error, "this site itself") {
			t.Errorf("status %+v", st)
		}
		if home.attaches() != 0 {
			t.Error("a site is its own peer")
		}
		if n, _ := w.count(); n > 10*100 {
			t.Errorf("%d packets in ten minutes", n)
		}
	})
}

// refusal is a reason for which a site is not let in.
func TestRefused(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name          string
		want, founder string // what the refused site, and the refusing one, say
		cfg           func(t *testing.T) []*identity.Member
		pause         time.Duration // between tries, at most
		most          int           // tries
	}{
		{
			name: "foreign network",
			want: "not a member of this network", founder: "", // the one that dials sees it first
			cfg: func(t *testing.T) []*identity.Member {
				return append(members(t, "home"), members(t, "office")...)
			},
			pause: 2 * time.Second, most: 140,
		},
		{
			name: "revoked",
			want: "refused us", founder: "membership is revoked",
			cfg: func(t *testing.T) []*identity.Member {
				ms := members(t, "home", "office")
				if _, err := ms[0].Revoke("office"); err != nil {
					t.Fatal(err)
				}
				return ms
			},
			pause: time.Minute, most: 5,
		},
		{
			name: "revoked there",
			want: "membership is revoked", founder: "",
			cfg: func(t *testing.T) []*identity.Member {
				ms := members(t, "home", "attic", "office")
				if _, err := ms[0].Revoke("attic"); err != nil {
					t.Fatal(err)
				}
				if _, err := ms[2].TakeRevocations(ms[0].Revocations().Bytes()); err != nil {
					t.Fatal(err)
				}
				return ms[1:]
			},
			pause: time.Minute, most: 5,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ms := tt.cfg(t)
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				home := w.run(t, ms[0], homeAddr, nil)
				var tries []time.Time
				office := w.run(t, ms[1], officeAddr, []string{"home.example:4433"}, func(c *transport.Config) {
					c.Resolve = func(context.Context, string) ([]netip.Addr, error) {
						tries = append(tries, time.Now())
						return []netip.Addr{netip.MustParseAddr(homeAddr)}, nil
					}
				})
				time.Sleep(2 * time.Minute)
				st := office.Peers()
				lines := office.log.lines("peer not connected")
				refusals := home.log.lines("peer refused")
				office.stop()
				home.stop()

				if len(st) != 1 || st[0].State != "connecting" || !strings.Contains(st[0].Error, tt.want) {
					t.Errorf("status %+v, want %q", st, tt.want)
				}
				if len(lines) != 1 || !strings.Contains(lines[0], tt.want) {
					t.Errorf("log of the refused: %q", lines)
				}
				if tt.founder != "" && (len(refusals) == 0 || len(refusals) > 10 || !strings.Contains(refusals[0], tt.founder)) {
					t.Errorf("%d lines of log at the refusing site: %q", len(refusals), refusals)
				}
				for i, at := range tries {
					const stands = 900 * time.Millisecond // that long what was looked up serves
					if i > 0 && at.Sub(tries[i-1]) > stands+tt.pause+tt.pause/10 {
						t.Errorf("try %d came after %v", i, at.Sub(tries[i-1]))
					}
				}
				if n := len(tries); n < int(2*time.Minute/tt.pause)-2 || n > tt.most {
					t.Errorf("%d tries in two minutes", n)
				}
			})
		})
	}
}

// A name is looked up for each dial: the peer moves to another address.
func TestNamesAnew(t *testing.T) {
	ms := members(t, "home", "office")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		var at atomic.Value
		at.Store(homeAddr)
		home := w.run(t, ms[0], homeAddr, nil)
		office := w.run(t, ms[1], officeAddr, []string{"home.example:4433"}, func(c *transport.Config) {
			c.Resolve = func(_ context.Context, host string) ([]netip.Addr, error) {
				if host != "home.example" {
					t.Errorf("looks %q up", host)
				}
				if at.Load() == "" {
					return nil, fmt.Errorf("no answer")
				}
				return []netip.Addr{netip.MustParseAddr(at.Load().(string))}, nil
			}
		})
		until(t, "up", time.Second, connected(home, office))
		home.kill()
		at.Store("")
		time.Sleep(time.Minute)
		if st := office.Peers(); len(st) != 1 || !strings.Contains(st[0].Error, `peer "home.example:4433": no answer`) {
			t.Errorf("status %+v", st)
		}
		const moved = "192.0.2.77"
		home = w.run(t, ms[0], moved, nil)
		at.Store(moved)
		until(t, "up at the new address", 3*time.Second, connected(home, office))
		if st := office.Peers(); st[0].Addr != moved+":4433" {
			t.Errorf("status %+v", st)
		}
	})
}

// What is reached through the tunnel is not dialled; where packets go is told.
func TestThrough(t *testing.T) {
	ms := members(t, "home", "office")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		home := w.run(t, ms[0], homeAddr, nil)
		var through atomic.Bool
		var outer atomic.Value
		through.Store(true)
		var mesh atomic.Pointer[transport.Mesh]
		office := w.run(t, ms[1], officeAddr, []string{homePort}, func(c *transport.Config) {
			c.Through = func(a netip.Addr) bool { return through.Load() && a.String() == homeAddr }
			c.Outer = func(_ []uint16, all []netip.AddrPort) {
				if m := mesh.Load(); m != nil {
					m.Up() // may be called from here
				}
				outer.Store(fmt.Sprint(all))
			}
		})
		mesh.Store(office.Mesh)
		time.Sleep(time.Minute)
		if st := office.Peers(); !strings.Contains(st[0].Error, "through the tunnel itself") {
			t.Errorf("status %+v", st)
		}
		if n, _ := w.count(); n != 0 {
			t.Errorf("%d packets were sent", n)
		}
		through.Store(false)
		until(t, "up", 3*time.Second, connected(home, office))
		if got := outer.Load(); got != "["+homePort+"]" {
			t.Errorf("outer addresses %v", got)
		}
	})
}

// A site that is restarted has its traffic back within a second, whether it
// said goodbye or was killed, and whoever dials.
func TestRestart(t *testing.T) {
	for _, clean := range []bool{true, false} {
		for _, dialler := range []bool{true, false} {
			t.Run(fmt.Sprintf("clean=%v dialler=%v", clean, dialler), func(t *testing.T) {
				ms := members(t, "home", "office")
				synctest.Test(t, func(t *testing.T) {
					w := newWorld()
					home := w.run(t, ms[0], homeAddr, nil)
					office := w.run(t, ms[1], officeAddr, []string{homePort})
					until(t, "up", time.Second, connected(home, office))
					for i := range 5 {
						time.Sleep(time.Duration(i) * 3 * time.Second)
						switch {
						case dialler && clean:
							office.stop()
						case dialler:
							office.kill()
						case clean:
							home.stop()
						default:
							home.kill()
						}
						if dialler {
							office = w.run(t, ms[1], officeAddr, []string{homePort})
						} else {
							home = w.run(t, ms[0], homeAddr, nil)
						}
						took := until(t, "traffic", 1300*time.Millisecond, func() bool {
							office.send("home", numbered(i, 100))
							home.send("office", numbered(i, 100))
							return len(home.received()) > 0 && len(office.received()) > 0
						})
						t.Logf("back after %v", took)
					}
				})
			})
		}
	}
}

// A killed site that comes back under another session replaces its old one
// before that is found dead: the port stays where it is, and no frame that is
// in flight comes twice or altered.
func TestReplaced(t *testing.T) {
	ms := members(t, "home", "office")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		home := w.run(t, ms[0], homeAddr, nil)
		office := w.run(t, ms[1], officeAddr, []string{homePort})
		until(t, "up", time.Second, connected(home, office))
		port := home.peer("office")
		office.kill()
		for i := range 100 {
			home.send("office", numbered(i, 1514))
		}
		office = w.run(t, ms[1], "192.0.2.3", []string{homePort})
		until(t, "replaced", time.Second, func() bool { return office.peer("home") != nil })
		for i := range 100 {
			home.send("office", numbered(100+i, 1514))
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Second)
		if home.peer("office") != port || home.attaches() != 1 {
			t.Errorf("the port was attached %d times", home.attaches())
		}
		checkNumbers(t, office.received(), 100, 200)
	})
}

// The site that comes back takes less than what waits for it: it is not sent
// that.
func TestReplacedByLesser(t *testing.T) {
	ms := members(t, "home", "office")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		home := w.run(t, ms[0], homeAddr, nil)
		office := w.run(t, ms[1], officeAddr, []string{homePort})
		until(t, "up", time.Second, connected(home, office))
		office.kill()
		for i := range 60 {
			home.send("office", superframe(i, 45))
		}
		office = w.run(t, ms[1], "192.0.2.3", []string{homePort}, func(c *transport.Config) { c.Features = 0 })
		var mu sync.Mutex
		segments := 0
		office.mu.Lock()
		office.take = func(_ string, b *frame.Buf) {
			mu.Lock()
			defer mu.Unlock()
			if h := b.Header(); h != (frame.Vnet{}) {
				t.Errorf("was sent %+v", h)
			}
			segments++
		}
		office.mu.Unlock()
		until(t, "replaced", time.Second, func() bool { return office.peer("home") != nil })
		home.send("office", superframe(100, 10))
		time.Sleep(time.Second)
		mu.Lock()
		defer mu.Unlock()
		if segments != 10 {
			t.Errorf("%d segments came, want 10", segments)
		}
		if home.attaches() != 1 || dropped(home, "peer_down") == 0 {
			t.Errorf("attached %d times, drops %v", home.attaches(), home.Drops())
		}
	})
}

// A session delivers when the one that it replaces has done so.
func TestHandOver(t *testing.T) {
	ms := members(t, "home", "office")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		var busy, came atomic.Int32
		release := make(chan struct{})
		home := w.run(t, ms[0], homeAddr, nil, func(c *transport.Config) {
			c.Serve = func(ctx context.Context, p *transport.Peer) error {
				return p.Run(ctx, func([]*frame.Buf) {
					if busy.Add(1) != 1 {
						t.Error("two sessions deliver at once")
					}
					<-release
					busy.Add(-1)
					came.Add(1)
				})
			}
		})
		office := w.run(t, ms[1], officeAddr, []string{homePort})
		until(t, "up", time.Second, func() bool { return home.Up() == 1 && office.peer("home") != nil })
		office.send("home", numbered(1, 100))
		until(t, "delivering", time.Second, func() bool { return busy.Load() == 1 })
		office.kill()
		office = w.run(t, ms[1], "192.0.2.3", []string{homePort})
		until(t, "replaced", time.Second, func() bool { return office.peer("home") != nil })
		office.send("home", numbered(2, 100))
		time.Sleep(time.Second)
		synctest.Wait()
		close(release)
		until(t, "delivered", time.Second, func() bool { return came.Load() == 2 })
	})
}

// checkNumbers checks that frames are as numbered makes them, each at most once
// and in order, and that those from first to end have all come.
func checkNumbers(t *testing.T, frames [][]byte, first, end int) {
	t.Helper()
	last, n := -1, 0
	for _, f := range frames {
		num := int(f[14])<<24 | int(f[15])<<16 | int(f[16])<<8 | int(f[17])
		want := numbered(num, len(f))
		if string(want.Bytes()) != string(f) {
			t.Fatalf("frame %d is altered", num)
		}
		want.Release()
		if num <= last {
			t.Fatalf("frame %d came after %d", num, last)
		}
		last = num
		if num >= first && num < end {
			n++
		}
	}
	if n != end-first {
		t.Errorf("%d frames of %d came", n, end-first)
	}
}

// A site whose LAN has changed says so by new sessions.
func TestSetLAN(t *testing.T) {
	for _, dialler := range []bool{false, true} {
		t.Run(fmt.Sprintf("dialler=%v", dialler), func(t *testing.T) {
			ms := members(t, "home", "office")
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				home := w.run(t, ms[0], homeAddr, nil)
				office := w.run(t, ms[1], officeAddr, []string{homePort})
				until(t, "up", time.Second, connected(home, office))
				time.Sleep(10 * time.Second)
				changed, other := home, office
				if dialler {
					changed, other = office, home
				}
				changed.SetLAN(1500, wire.FeatureCsum|wire.FeatureTSO|wire.FeatureUSO) // as it was
				time.Sleep(time.Second)
				if n := home.attaches() + office.attaches(); n != 2 {
					t.Errorf("attached %d times for nothing", n)
				}
				for _, mtu := range []int{9000, 1400} {
					changed.SetLAN(mtu, 0)
					until(t, "told", time.Second, func() bool {
						st := other.Peers()
						return connected(home, office)() && st[0].MTU == mtu
					})
					other.send(changed.member.Site, numbered(1, 14+mtu))
					other.send(changed.member.Site, numbered(2, 14+mtu+1))
					time.Sleep(time.Second)
					checkNumbers(t, changed.received(), 1, 2)
					if got := dropped(changed, "mtu_peer"); got == 0 {
						t.Errorf("a frame above the MTU of %d was not counted: %v", mtu, changed.Drops())
					}
				}
				for _, n := range []*node{home, office} {
					if lines := n.log.lines("level=WARN"); len(lines) > 2 {
						t.Errorf("noise: %q", lines)
					}
				}
			})
		})
	}
}

// dropped returns what a site counts under a reason.
func dropped(n *node, reason string) (count uint64) {
	for _, d := range n.Drops() {
		if d.Reason == reason {
			count += d.Count
		}
	}
	return count
}

// A path that is narrow in its middle from the start carries all frames.
func TestNarrowPath(t *testing.T) {
	ms := members(t, "home", "office")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.mtu = 1200
		jumbo := func(c *transport.Config) { c.MTU = 9000 }
		home := w.run(t, ms[0], homeAddr, nil, jumbo)
		office := w.run(t, ms[1], officeAddr, []string{homePort}, jumbo)
		until(t, "up", time.Second, connected(home, office))
		time.Sleep(10 * time.Second)
		exchange(t, home, office, 30) // what the first window carries: CoDel judges the rest
		for i := range 10 {
			office.send("home", numbered(i, 9014))
		}
		time.Sleep(time.Second)
		checkNumbers(t, home.received(), 0, 10)
		if st := office.Peers(); st[0].PathMTU != 1200 {
			t.Errorf("path MTU %d, want 1200", st[0].PathMTU)
		}
	})
}

// A path that is dark in one direction is not a narrow one.
func TestOneWayIsNotNarrow(t *testing.T) {
	ms := members(t, "home", "office")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		home := w.run(t, ms[0], homeAddr, nil)
		var narrow atomic.Int32
		office := w.run(t, ms[1], officeAddr, []string{homePort}, func(c *transport.Config) {
			c.Event = func(e transport.Event) {
				if e.Kind == transport.EventNarrow {
					narrow.Add(1)
				}
			}
		})
		until(t, "up", time.Second, connected(home, office))
		for _, lasts := range []time.Duration{2, 4, 10} {
			for tick := range 100 {
				for range 5 {
					office.send("home", numbered(1, 1400)) // datagrams are filled
				}
				dark := time.Duration(tick)*100*time.Millisecond < lasts*time.Second
				w.set(func() { w.cut = func(_, to netip.Addr) bool { return dark && to.String() == homeAddr } })
				time.Sleep(100 * time.Millisecond)
			}
			time.Sleep(3 * time.Second)
		}
		if n := narrow.Load(); n > 0 {
			t.Errorf("was taken for narrow %d times", n)
		}
	})
}

// superframe returns a TCP segment train that tells its number in each segment.
func superframe(n, segments int) *frame.Buf {
	const hdr, size = 14 + 20 + 20, 1400
	b := frame.Get(hdr + segments*size)
	b.SetHeader(frame.Vnet{Flags: frame.VnetNeedsCsum, GSOType: frame.GSOTCPv4, GSOSize: size, CsumStart: 34, CsumOffset: 16})
	f := b.Bytes()
	clear(f)
	copy(f, []byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0})
	ip := f[14:]
	copy(ip, []byte{0x45, 0, byte(len(ip) >> 8), byte(len(ip)), byte(n >> 8), byte(n), 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2})
	sum := ^frame.Sum(ip[:20], 0)
	ip[10], ip[11] = byte(sum>>8), byte(sum)
	tcp := ip[20:]
	copy(tcp, []byte{0, 80, 0, 81, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n), 0, 0, 0, 0, 0x50, 0x10, 0xff, 0xff})
	for s := range segments {
		p := tcp[20+s*size:][:size]
		for i := range p {
			p[i] = byte(n*13 + s*5 + i*3 + i>>8)
		}
		copy(p, []byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n), byte(s)})
	}
	// The pseudo header's sum, as the kernel leaves it (virtio 1.2, 5.1.6.2).
	pseudo := frame.Sum([]byte{10, 0, 0, 1, 10, 0, 0, 2, 0, 6, byte(len(tcp) >> 8), byte(len(tcp))}, 0)
	tcp[16], tcp[17] = byte(pseudo>>8), byte(pseudo)
	return b
}

// segmentsOf returns the number and the segments that a frame holds, after
// checking every byte and checksum of them.
func segmentsOf(b *frame.Buf) (n int, segments []int, err error) {
	bad := frame.Split(b, func(plain *frame.Buf) {
		f := plain.Bytes()
		if len(f) != 54+1400 {
			err = errors.Join(err, fmt.Errorf("segment of %d bytes", len(f)))
			return
		}
		p := f[54:]
		n = int(p[0])<<24 | int(p[1])<<16 | int(p[2])<<8 | int(p[3])
		s := int(p[4])
		for i := 5; i < len(p); i++ {
			if p[i] != byte(n*13+s*5+i*3+i>>8) {
				err = errors.Join(err, fmt.Errorf("segment %d of %d is altered at byte %d", s, n, i))
				return
			}
		}
		if seq := int(f[38])<<24 | int(f[39])<<16 | int(f[40])<<8 | int(f[41]); seq != n+s*1400 {
			err = errors.Join(err, fmt.Errorf("segment %d of %d has sequence %d", s, n, seq))
		}
		if frame.Sum(f[14:34], 0) != 0xffff {
			err = errors.Join(err, fmt.Errorf("segment %d of %d: IP checksum", s, n))
		}
		pseudo := frame.Sum([]byte{10, 0, 0, 1, 10, 0, 0, 2, 0, 6, byte((len(f) - 34) >> 8), byte(len(f) - 34)}, 0)
		if frame.Sum(f[34:], pseudo) != 0xffff {
			err = errors.Join(err, fmt.Errorf("segment %d of %d: TCP checksum", s, n))
		}
		segments = append(segments, s)
	})
	return n, segments, errors.Join(err, bad)
}

// A peer is sent what it takes: superframes, or the frames they stand for.
func TestFeatures(t *testing.T) {
	for _, takes := range []wire.Features{0, wire.FeatureCsum, wire.FeatureCsum | wire.FeatureTSO, wire.FeatureCsum | wire.FeatureTSO | wire.FeatureUSO} {
		t.Run(fmt.Sprint(takes), func(t *testing.T) {
			ms := members(t, "home", "office")
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				home := w.run(t, ms[0], homeAddr, nil, func(c *transport.Config) { c.Features = takes })
				office := w.run(t, ms[1], officeAddr, []string{homePort})
				until(t, "up", time.Second, connected(home, office))
				var frames, segments int
				home.take = func(_ string, b *frame.Buf) {
					h := b.Header()
					if super := h.GSOType != frame.GSONone; super && takes&wire.FeatureTSO == 0 || h.Flags != 0 && takes&wire.FeatureCsum == 0 {
						t.Errorf("was sent %+v", h)
					}
					frames++
					_, ss, err := segmentsOf(b)
					if err != nil {
						t.Error(err)
					}
					segments += len(ss)
				}
				office.send("home", superframe(1, 40))
				time.Sleep(time.Second)
				synctest.Wait()
				want := 40
				if takes&wire.FeatureTSO != 0 {
					want = 1
				}
				if segments != 40 || frames != want {
					t.Errorf("%d segments in %d frames, want 40 in %d", segments, frames, want)
				}
				// One that no kernel hands out is counted, and breaks nothing.
				bad := superframe(2, 3)
				h := bad.Header()
				h.CsumStart = 60000
				bad.SetHeader(h)
				office.send("home", bad)
				time.Sleep(time.Second)
				if n := dropped(home, "bad_offload") + dropped(office, "peer_offload"); n != 1 {
					t.Errorf("a bad frame was counted %d times", n)
				}
			})
		})
	}
}

// A switch that cannot take a peer is asked again, not in a spin, and says so
// once.
func TestNotServed(t *testing.T) {
	t.Parallel()
	for _, dialler := range []bool{false, true} {
		t.Run(fmt.Sprintf("dialler=%v", dialler), func(t *testing.T) {
			ms := members(t, "home", "office")
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				var mu sync.Mutex
				calls, full := 0, true
				serve := func(c *transport.Config) {
					serve := c.Serve
					c.Serve = func(ctx context.Context, p *transport.Peer) error {
						mu.Lock()
						calls++
						full := full
						mu.Unlock()
						if full {
							return errors.New("no room for another port")
						}
						return serve(ctx, p)
					}
				}
				other := func(*transport.Config) {}
				at, dial := serve, other
				if dialler {
					at, dial = other, serve
				}
				home := w.run(t, ms[0], homeAddr, nil, at)
				office := w.run(t, ms[1], officeAddr, []string{homePort}, dial)
				time.Sleep(time.Minute)
				mu.Lock()
				if calls < 20 || calls > 100 { // both sides dial
					t.Errorf("asked %d times in a minute", calls)
				}
				full = false
				mu.Unlock()
				until(t, "served", 3*time.Second, connected(home, office))
				exchange(t, home, office, 10)
				if n := len(home.log.lines("peer not attached")) + len(office.log.lines("peer not attached")); n != 1 {
					t.Errorf("%d lines tell of it, want one", n)
				}
			})
		})
	}
}

// What is told last of a peer is how it is, though who hears of its going is slow
// and it is back meanwhile.
func TestEventsInOrder(t *testing.T) {
	ms := members(t, "home", "office")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		var mu sync.Mutex
		var told []transport.EventKind
		home := w.run(t, ms[0], homeAddr, nil, known(homeAddr), func(c *transport.Config) {
			c.Event = func(e transport.Event) {
				if e.Kind == transport.EventDown {
					time.Sleep(5 * time.Second)
				}
				mu.Lock()
				told = append(told, e.Kind)
				mu.Unlock()
			}
		})
		office := w.run(t, ms[1], officeAddr, []string{homePort})
		until(t, "up", 2*time.Second, all("up", home, office))
		office.stop()
		office = w.run(t, ms[1], officeAddr, []string{homePort})
		until(t, "up again", 2*time.Second, all("up", home, office))
		time.Sleep(10 * time.Second)
		mu.Lock()
		defer mu.Unlock()
		if got, want := fmt.Sprint(told), "[up down up]"; got != want {
			t.Errorf("told %s, want %s", got, want)
		}
	})
}

// Nor is a peer said to be reached directly again that has gone since.
func TestGoneIsToldLast(t *testing.T) {
	ms := members(t, "home", "office", "cabin", "shed")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		var mu sync.Mutex
		told, slow, first := make(map[string]transport.EventKind), false, ""
		home := w.run(t, ms[0], homeAddr, nil, known(homeAddr), func(c *transport.Config) {
			c.Event = func(e transport.Event) {
				mu.Lock()
				told[e.Site] = e.Kind
				wait := slow && e.Kind == transport.EventUp
				if wait {
					slow, first = false, e.Site
				}
				mu.Unlock()
				if wait {
					time.Sleep(5 * time.Second)
				}
			}
		})
		var others []*node
		for i, m := range ms[1:] {
			addr := fmt.Sprintf("192.0.2.%d", 20+i)
			others = append(others, w.run(t, m, addr, []string{homePort}, known(addr)))
		}
		until(t, "up", 5*time.Second, all("up", append(others, home)...))
		kinds := func(want transport.EventKind) func() bool {
			return func() bool {
				mu.Lock()
				defer mu.Unlock()
				return told["office"] == want && told["cabin"] == want
			}
		}
		w.set(func() {
			w.cut = func(from, to netip.Addr) bool {
				far := []string{"192.0.2.20", "192.0.2.21"}
				return from.String() == homeAddr && slices.Contains(far, to.String()) || to.String() == homeAddr && slices.Contains(far, from.String())
			}
		})
		until(t, "relayed", 10*time.Second, kinds(transport.EventRelayed))
		mu.Lock()
		slow = true
		mu.Unlock()
		w.set(func() { w.cut = nil })
		until(t, "one direct", 10*time.Second, func() bool {
			mu.Lock()
			defer mu.Unlock()
			return !slow
		})
		time.Sleep(time.Second)
		for _, n := range others {
			if n.member.Site != first {
				n.stop()
			}
		}
		time.Sleep(10 * time.Second)
		mu.Lock()
		defer mu.Unlock()
		for site, kind := range told {
			if site != first && kind != transport.EventDown {
				t.Errorf("site %s has gone, told last is %q", site, kind)
			}
		}
	})
}

// What stands in the way of a peer is said once, though its name stands for its
// addresses in another order each time.
func TestTroubleToldOnce(t *testing.T) {
	ms := members(t, "home")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		turn := 0
		home := w.run(t, ms[0], homeAddr, []string{"office.example:4433"}, func(c *transport.Config) {
			c.Resolve = func(context.Context, string) ([]netip.Addr, error) {
				turn++
				all := []netip.Addr{netip.MustParseAddr(officeAddr), netip.MustParseAddr("192.0.2.3")}
				return []netip.Addr{all[turn%2], all[(turn+1)%2]}, nil
			}
		})
		time.Sleep(time.Minute)
		if lines := home.log.lines("not connected"); len(lines) != 2 {
			t.Errorf("%d lines, want one for each address:\n%s", len(lines), strings.Join(lines, ""))
		}
	})
}

// A peer that comes and goes all the time does not fill the log.
func TestComesAndGoes(t *testing.T) {
	ms := members(t, "home", "office")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		home := w.run(t, ms[0], homeAddr, []string{officePort})
		const times = 60
		began := time.Now()
		for range times {
			office := w.run(t, ms[1], officeAddr, nil)
			until(t, "up", 5*time.Second, all("up", home, office))
			office.stop()
		}
		// 40 at once, and then one in 3 s.
		if n, most := len(home.log.lines("peer=office")), 40+int(time.Since(began)/(3*time.Second)); n > most {
			t.Errorf("%d lines for a peer that has come %d times, want %d at most", n, times, most)
		}
	})
}

// Nor does one that answers and does not in turns, and is relayed meanwhile.
func TestDoubtsAllTheTime(t *testing.T) {
	t.Parallel()
	ms := members(t, "home", "office", "cabin")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		home, _, _ := w.three(t, ms)
		began := time.Now()
		for range 80 {
			w.set(func() {
				w.cut = func(from, to netip.Addr) bool { return from.String() == officeAddr && to.String() == homeAddr }
			})
			until(t, "relayed", 5*time.Second, func() bool { return home.state("office").State == "relayed" })
			w.set(func() { w.cut = nil })
			until(t, "direct", 5*time.Second, func() bool { return home.state("office").State == "up" })
		}
		if n, most := len(home.log.lines("peer=office")), 40+int(time.Since(began)/(3*time.Second)); n > most {
			t.Errorf("%d lines within %v, want %d at most", n, time.Since(began), most)
		}
	})
}
