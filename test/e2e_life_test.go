// SPDX-License-Identifier: Apache-2.0

//go:build linux

package test_test

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/l2bridge/l2bridge/test/lab"
)

// A link comes back by itself, soon, whatever happened to it, and a TCP
// connection between hosts lives through it.
func TestFaults(t *testing.T) {
	for _, g := range faultGroups() {
		spread := 1
		if *faultFull {
			spread = max(1, min(g.spread, *faultRuns))
		}
		for range spread {
			t.Run(g.name, func(t *testing.T) {
				t.Parallel()
				g.run(t, (*faultRuns+spread-1)/spread)
			})
		}
	}
}

func faultGroups() []faultGroup {
	groups := []faultGroup{
		{name: "process", faults: processFaults()},
		{name: "blackout", faults: blackouts(time.Second, 3*time.Second, 10*time.Second)},
		{name: "address", faults: addressFaults()},
		{name: "two links", network: networkOptions{prepare: twoLinks}, faults: linkFaults()},
		{name: "nat", network: networkOptions{Options: natted}, faults: natFaults()},
		{name: "name", network: networkOptions{Options: natted, prepare: named}, faults: nameFaults()},
		{name: "path", network: networkOptions{Options: lab.Options{Narrow: 1500}, echoSize: 1500}, faults: pathFaults()},
		{name: "start", faults: startFaults(5 * time.Second)},
		{name: "machine", faults: machineFaults()},
	}
	// What lasts long goes on side by side.
	for _, lasts := range []time.Duration{20 * time.Second, time.Minute, 5 * time.Minute} {
		faults := blackouts(lasts)
		for i := range faults {
			faults[i].full = true
		}
		groups = append(groups, faultGroup{name: fmt.Sprintf("blackout of %v", lasts), faults: faults, spread: 10})
	}
	late := startFaults(10 * time.Minute)[:2]
	for i := range late {
		late[i].full = true
	}
	groups = append(groups, faultGroup{name: "late start", faults: late, spread: 10})
	return append(groups, meshGroups()...)
}

// natted has the site that dials behind NAT.
var natted = lab.Options{NAT: map[string]lab.NAT{"b": {}}}

// sides are the two sites by what they do.
var sides = []struct {
	name string
	site func(n *network) *lab.Site
}{
	{"dialler", func(n *network) *lab.Site { return n.B }},
	{"listener", func(n *network) *lab.Site { return n.A }},
}

// processFaults are ends of one of the two programs. Site b dials site a.
func processFaults() (faults []fault) {
	for _, side := range sides {
		for _, end := range []struct {
			name string
			sig  syscall.Signal
		}{{"killed", syscall.SIGKILL}, {"stopped", syscall.SIGTERM}} {
			for _, lasts := range []time.Duration{0, 4 * time.Second, 20 * time.Second} {
				name := side.name + " " + end.name
				if lasts > 0 {
					name += fmt.Sprintf(" for %v", lasts)
				}
				faults = append(faults, fault{
					name:   name,
					begin:  func(t *testing.T, n *network) { n.up[side.site(n)].End(end.sig) },
					lasts:  lasts,
					end:    func(t *testing.T, n *network) { n.start(side.site(n)) },
					within: time.Second,
					whole:  lasts == 0 && end.sig == syscall.SIGTERM,
					full:   lasts > 5*time.Second,
					load:   lasts == 0 && end.sig == syscall.SIGKILL,
				})
			}
		}
	}
	return faults
}

// blackouts are times in which the WAN carries nothing, in both directions or in
// one. Who hears nothing must know.
func blackouts(times ...time.Duration) (faults []fault) {
	for _, lasts := range times {
		for _, way := range []struct {
			name  string
			drop  func(n *network) []string
			tells []string
		}{
			{"both ways", func(n *network) []string { return []string{from(n.A), from(n.B)} }, []string{"a", "b"}},
			{"to the listener", func(n *network) []string { return []string{from(n.B)} }, []string{"a"}},
			{"to the dialler", func(n *network) []string { return []string{from(n.A)} }, []string{"b"}},
		} {
			f := fault{
				name:   fmt.Sprintf("%v %s", lasts, way.name),
				begin:  func(t *testing.T, n *network) { n.WAN[0].Filter("forward", "drop", way.drop(n)...) },
				lasts:  lasts,
				end:    func(t *testing.T, n *network) { n.WAN[0].Unfilter() },
				within: 2 * time.Second,
				load:   lasts == 3*time.Second && len(way.tells) == 2,
				full:   lasts < 2*time.Second && len(way.tells) == 1,
			}
			if lasts > tellWithin {
				f.tells = way.tells
			}
			faults = append(faults, f)
		}
	}
	return faults
}

// from matches what a site sends.
func from(site *lab.Site) string { return fmt.Sprintf("iifname %q", site.Uplink) }

const roamWithin = 2 * time.Second

// addressFaults are changes of a gateway's address. Nobody tells the other site.
func addressFaults() (faults []fault) {
	for _, side := range sides {
		faults = append(faults, fault{
			name:   side.name + " has another address",
			end:    func(t *testing.T, n *network) { side.site(n).Move() },
			within: roamWithin,
			load:   true,
		}, fault{
			name:   side.name + " has none for a while and then another",
			begin:  func(t *testing.T, n *network) { side.site(n).Unnumber() },
			lasts:  4 * time.Second,
			end:    func(t *testing.T, n *network) { side.site(n).Renumber() },
			within: roamWithin,
		})
	}
	return faults
}

// twoLinks gives each site another link to the WAN.
func twoLinks(n *network) func(site *lab.Site) []string {
	n.SecondLink(n.A)
	n.SecondLink(n.B)
	return n.advertise
}

// linkFaults are changes from one link to the WAN to another, and back.
func linkFaults() (faults []fault) {
	for _, side := range sides {
		lose := func(t *testing.T, n *network) {
			site := side.site(n)
			site.Gateway.SetDown(lab.WANLink)
			site.RouteBy(lab.SecondWANLink)
		}
		find := func(t *testing.T, n *network) {
			site := side.site(n)
			site.Gateway.SetUp(lab.WANLink)
			site.Gateway.AddAddr(lab.WANLink, site.Addr6+"/64") // which went with the link
			site.RouteBy(lab.WANLink)
		}
		kill := func(t *testing.T, n *network) {
			uplink := side.site(n).Uplink
			n.WAN[0].Filter("forward", "drop", fmt.Sprintf("iifname %q", uplink), fmt.Sprintf("oifname %q", uplink))
		}
		round := func(t *testing.T, n *network) { side.site(n).RouteBy(lab.SecondWANLink) }
		back := func(t *testing.T, n *network) {
			n.WAN[0].Unfilter()
			side.site(n).RouteBy(lab.WANLink)
		}
		// first has something happen and waits until the link has come over it.
		first := func(steps ...func(t *testing.T, n *network)) func(t *testing.T, n *network) {
			return func(t *testing.T, n *network) {
				for _, step := range steps {
					step(t, n)
				}
				n.steady(t, 2*time.Second)
			}
		}
		faults = append(faults,
			fault{name: side.name + " loses a link and takes another", end: lose, mend: find, within: roamWithin},
			fault{name: side.name + " goes back to its first link", prepare: first(lose), end: find, within: roamWithin},
			fault{
				name: side.name + " routes round a dead link", begin: kill, lasts: 3 * time.Second, end: round, mend: back,
				within: roamWithin,
			},
			fault{name: side.name + " routes back when the link is well", prepare: first(kill, round), end: back, within: roamWithin})
	}
	return faults
}

// natFaults are losses of what a NAT before the site that dials knows.
func natFaults() []fault {
	return []fault{
		{
			name: "rebinds",
			end: func(t *testing.T, n *network) {
				before := peerAddr(t, n.A)
				n.B.NAT.Rebind()
				t.Cleanup(func() {
					if after := peerAddr(t, n.A); after == before {
						t.Errorf("site b is seen at %s as before", after)
					}
				})
			},
			within: roamWithin,
			load:   true,
		},
		{
			name:   "forgets",
			end:    func(t *testing.T, n *network) { n.B.NAT.Forget() },
			within: roamWithin,
		},
	}
}

// peerAddr returns the address at which a site has its peer.
func peerAddr(t *testing.T, site *lab.Site) string {
	t.Helper()
	peers, err := site.Peers()
	if err != nil || len(peers) != 1 {
		t.Fatalf("peers of site %s: %+v, %v", site.Name, peers, err)
	}
	return peers[0].Addr
}

const namedPeer = "site-a.example"

// named has site b know site a by name only.
func named(n *network) func(site *lab.Site) []string {
	const resolver = "198.18.1.1"
	n.zone = startResolver(n.T(), n.Sites, resolver)
	n.zone.set(namedPeer, n.A.Addr4)
	n.zone.serve(n.B)
	peer := namedPeer + ":4433"
	return func(site *lab.Site) []string {
		if site == n.A {
			return []string{"--advertise", peer}
		}
		return []string{"--peer", peer}
	}
}

// nameFaults are changes of a gateway's address, and of its name with it. It
// cannot tell the other site, which is behind NAT.
func nameFaults() []fault {
	return []fault{{
		name: "moves",
		end: func(t *testing.T, n *network) {
			n.A.Move()
			n.zone.set(namedPeer, n.A.Addr4)
		},
		within: 5 * time.Second,
		load:   true,
	}}
}

// pathFaults are changes of what the path carries, in its middle, of which no
// router says a word.
func pathFaults() []fault {
	set := func(mtu int) func(t *testing.T, n *network) {
		return func(t *testing.T, n *network) {
			for _, router := range n.WAN {
				router.MustRun("ip", "link", "set", "dev", "middle", "mtu", fmt.Sprint(mtu))
			}
		}
	}
	return []fault{
		{name: "narrows to 1280", prepare: widePath, end: set(1280), within: 10 * time.Second},
		{
			name: "widens again",
			prepare: func(t *testing.T, n *network) {
				set(1280)(t, n)
				n.steady(t, 2*time.Second)
			},
			end:    set(1500),
			within: 10 * time.Second,
		},
	}
}

// widePath makes the path wide, with routers that say nothing, and waits until
// both sites know. Sites that found it narrow lately are started anew.
func widePath(t *testing.T, n *network) {
	t.Helper()
	for _, router := range n.WAN {
		router.Filter("output", "drop",
			"icmp type destination-unreachable icmp code frag-needed", "icmpv6 type packet-too-big")
		router.MustRun("ip", "link", "set", "dev", "middle", "mtu", "1500")
	}
	if n.measured() != nil {
		for _, site := range n.All {
			n.up[site].Stop()
			n.start(site)
		}
	}
	n.waitMeasured(t)
	n.steady(t, time.Second)
}

// waitMeasured waits until both sites have found out what the path carries.
func (n *network) waitMeasured(t *testing.T) {
	t.Helper()
	lab.Wait(t, 30*time.Second, "the path has been measured", n.measured)
}

func (n *network) measured() error {
	for _, site := range n.All {
		peers, err := site.Peers()
		if err != nil {
			return err
		}
		if len(peers) != 1 || peers[0].PathMTU <= 1400 {
			return fmt.Errorf("peers of site %s: %+v", site.Name, peers)
		}
	}
	return nil
}

// startFaults are starts of both sites, one late, or both at once.
func startFaults(late time.Duration) (faults []fault) {
	stop := func(t *testing.T, n *network) {
		for _, site := range n.All {
			n.up[site].Stop()
		}
	}
	for i, side := range sides {
		other := sides[1-i]
		faults = append(faults, fault{
			name: fmt.Sprintf("%s %v late", side.name, late),
			begin: func(t *testing.T, n *network) {
				stop(t, n)
				n.start(other.site(n))
			},
			lasts:  late,
			end:    func(t *testing.T, n *network) { n.start(side.site(n)) },
			within: 2 * time.Second,
		})
	}
	return append(faults, fault{
		name:  "both at once",
		begin: stop,
		end: func(t *testing.T, n *network) {
			for _, site := range n.All {
				n.start(site)
			}
		},
		within: 2 * time.Second,
	})
}
