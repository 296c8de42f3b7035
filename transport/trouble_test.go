// SPDX-License-Identifier: Apache-2.0

package transport_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/l2bridge/l2bridge/transport"
	"github.com/l2bridge/l2bridge/transport/identity"
)

var runsFlag = flag.Int("runs", 3, "how often each trouble happens, each time at another moment")

// pair is two sites between which frames flow. Office names home.
type pair struct {
	*world
	*traffic
	t     *testing.T
	sites [2]*node // home and office; nil while one is not there
	nat   *nat     // that office is behind, nil without
	name  string   // the address that home's name stands for
	start func(i int, addr string)
}

const home, office = 0, 1

// passes lets frames pass between the two, or not, each way.
func (p *pair) passes(toHome, toOffice bool) {
	p.set(func() {
		p.cut = func(_, to netip.Addr) bool {
			return !toHome && to.String() == homeAddr || !toOffice && to.String() != homeAddr
		}
	})
}

// moves gives a site another address, of which it knows.
func (p *pair) moves(i int, first string) {
	p.move(first, "198.51.100.7")
	p.sites[i].Moved()
}

// load is how much flows: frames in each 100 ms, before and while the trouble
// lasts, and after it.
type load struct {
	name          string
	before, after int
}

// Whatever happens to two sites, soon after its end frames flow again; and it is
// known soon that they do not.
func TestTroubles(t *testing.T) {
	t.Parallel()
	type trouble struct {
		name  string
		limit time.Duration // for frames to flow both ways again after the end
		lasts time.Duration
		knows bool // both sites are to know of it, when it lasts 5 s
		setup func(p *pair)
		begin func(p *pair)
		end   func(p *pair)
	}
	nothing := func(*pair) {}
	const promise = 2 * time.Second
	both := func(p *pair) { p.start(home, homeAddr); p.start(office, officeAddr) }
	all := []trouble{
		{name: "both start", limit: promise, setup: nothing, begin: nothing, end: both},
		{name: "home starts 10 minutes late", limit: promise, lasts: 10 * time.Minute, setup: nothing,
			begin: func(p *pair) { p.start(office, officeAddr) }, end: func(p *pair) { p.start(home, homeAddr) }},
		{name: "office starts 10 minutes late", limit: promise, lasts: 10 * time.Minute, setup: nothing,
			begin: func(p *pair) { p.start(home, homeAddr) }, end: func(p *pair) { p.start(office, officeAddr) }},
		{name: "home moves", limit: promise, setup: both, begin: nothing, end: func(p *pair) { p.moves(home, homeAddr) }},
		{name: "office moves", limit: promise, setup: both, begin: nothing, end: func(p *pair) { p.moves(office, officeAddr) }},
		{name: "NAT forgets", limit: promise,
			setup: func(p *pair) { p.nat = p.behind(officeAddr, "192.0.2.102", true); both(p) },
			begin: nothing, end: func(p *pair) { p.set(p.nat.forget) }},
		{name: "NAT of 20 s, 2 minutes idle", limit: 200 * time.Millisecond,
			setup: func(p *pair) {
				p.nat = p.behind(officeAddr, "192.0.2.102", true)
				p.nat.timeout = 20 * time.Second
				both(p)
				time.Sleep(2 * time.Minute)
			}, begin: nothing, end: nothing},
		{name: "home's name moves", limit: 5 * time.Second, lasts: time.Second, setup: both,
			begin: func(p *pair) { p.sites[home].kill() },
			end: func(p *pair) {
				p.name = "192.0.2.77"
				p.start(home, p.name)
			}},
	}
	for i, site := range []string{"home", "office"} {
		addr := []string{homeAddr, officeAddr}[i]
		again := func(p *pair) { p.start(i, addr) }
		all = append(all,
			trouble{name: site + " is killed", limit: promise, lasts: time.Second, setup: both,
				begin: func(p *pair) { p.sites[i].kill() }, end: again},
			trouble{name: site + " says goodbye", limit: promise, setup: both,
				begin: func(p *pair) { p.sites[i].stop() }, end: again})
	}
	for _, lasts := range []time.Duration{1, 3, 10, 20, 60, 300} {
		for _, way := range []struct {
			name             string
			toHome, toOffice bool
		}{{"", false, false}, {" to home", false, true}, {" to office", true, false}} {
			all = append(all, trouble{name: fmt.Sprintf("%d s dark%s", lasts, way.name), limit: promise, lasts: lasts * time.Second, knows: true, setup: both,
				begin: func(p *pair) { p.passes(way.toHome, way.toOffice) }, end: func(p *pair) { p.passes(true, true) }})
		}
	}
	loads := []load{{"10 Hz", 1, 1}, {"quiet before", 0, 1}, {"flood", 50, 50}}
	runs := *runsFlag
	if raceEnabled {
		runs = 1 // it takes six times as long
	}
	for i, tt := range all {
		t.Run(tt.name, func(t *testing.T) {
			ms := members(t, "home", "office")
			worst, known := make([]time.Duration, len(loads)), time.Duration(0)
			for run := i; run < i+runs; run++ {
				load := loads[run%len(loads)]
				synctest.Test(t, func(t *testing.T) {
					p := newPair(t, ms, run)
					flow := func(lasts time.Duration, frames int) {
						for end := time.Now().Add(lasts); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
							for i, s := range p.sites {
								for range frames {
									if s != nil {
										p.send(s, ms[1-i].Site, 1000)
									}
								}
							}
						}
					}
					tt.setup(p)
					// The moment lies anywhere between two heartbeats.
					flow(8*time.Second+time.Duration(run)*137*time.Millisecond%time.Second, min(load.before, 1))
					flow(time.Second, load.before)
					tt.begin(p)
					lasts := tt.lasts
					if tt.knows && lasts > 5*time.Second {
						knew := knows(p, 5*time.Second)
						known = max(known, knew)
						lasts -= knew
					}
					flow(lasts-time.Second, min(load.before, 1))
					flow(min(lasts, time.Second), load.before)
					tt.end(p)
					ended := time.Now()
					flow(3*time.Second, load.after)
					flow(5*time.Second, 1)
					gap := max(p.gap("home", "office", ended), p.gap("office", "home", ended)).Round(10 * time.Millisecond)
					worst[run%len(loads)] = max(worst[run%len(loads)], gap)
					if gap > tt.limit {
						t.Errorf("%s, run %d: nothing came for %v", load.name, run, gap)
					}
				})
			}
			t.Logf("worst gaps, at 10 Hz, begun in quiet, in a flood: %v; known after %v", worst, known)
		})
	}
}

func newPair(t *testing.T, ms []*identity.Member, run int) *pair {
	p := &pair{world: newWorld(), traffic: &traffic{t: t}, t: t, name: homeAddr}
	p.rng = rand.New(rand.NewPCG(uint64(run), 0))
	if run%2 == 1 {
		p.latency = 60 * time.Millisecond
	}
	p.start = func(i int, addr string) {
		var dial []string
		if i == office {
			dial = []string{"home.example:4433"}
		}
		p.sites[i] = p.run(t, ms[i], addr, dial, func(c *transport.Config) {
			c.Addresses = func() []string { return []string{p.addressOf(addr) + ":4433"} }
			c.Resolve = func(_ context.Context, host string) ([]netip.Addr, error) {
				if host != "home.example" {
					return nil, errors.New("no such name")
				}
				return []netip.Addr{netip.MustParseAddr(p.name)}, nil
			}
		})
		p.at(p.sites[i])
	}
	return p
}

// knows waits until both sites know that they do not reach each other, and returns
// how long it took.
func knows(p *pair, limit time.Duration) time.Duration {
	return until(p.t, "known", limit, func() bool {
		for _, s := range p.sites {
			if st := s.Peers()[0].State; st != "suspect" && st != "down" {
				return false
			}
		}
		return true
	})
}
