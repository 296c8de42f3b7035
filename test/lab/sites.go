// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lab

import (
	"fmt"
	"os"
	"testing"
)

const (
	// BridgeName is the Linux bridge of each site.
	BridgeName = "br0"
	// WANLink is the link of each gateway that leads to the WAN.
	WANLink = "wan0"
	// SecondWANLink is the one that SecondLink makes.
	SecondWANLink = "wan1"
	// RelayPort is where the WAN's relay listens, instead of the product's 4433.
	RelayPort = "4400"

	hostName = "eth0"
)

// Options says what sites look like. The zero value is two gateways without
// hosts and a WAN of one router that carries 1500 bytes.
type Options struct {
	Hosts  int         // hosts of each site, behind its bridge; without any there is no bridge either
	MTU    int         // of the LANs; 0: 1500
	Narrow int         // MTU in the middle of the WAN, between two routers; 0: one router
	Impair *Impairment // the WAN routes nothing: gateways reach the first site by its relay only
	// NAT has sites, by name, behind a router that translates. They have IPv4 only.
	NAT map[string]NAT
}

// Sites is a WAN with sites around it, two as a rule. They share one LAN once
// l2bridge joins them: 10.77.0.0/24 and fd77::/64.
//
//	host  host                                         host  host
//	   \  /                                               \  /
//	   br0                                                br0
//	    |                                                  |
//	[ gw-a ] wan0 --- [ wan-a ] --- narrow --- [ wan-b ] --- wan0 [ gw-b ]
//	     198.18.1.2   198.18.1.1               198.18.2.1   198.18.2.2
//	  2001:db8:1::2   2001:db8:1::1         2001:db8:2::1   2001:db8:2::2
type Sites struct {
	*Lab
	A, B  *Site
	All   []*Site      // a, b, c and so on
	WAN   []*Namespace // the routers; with one, it stands for both
	Relay *Relay       // with Options.Impair: before site A
}

// Site is one place with a LAN: a gateway, and hosts behind its bridge.
type Site struct {
	Name    string
	Gateway *Namespace
	Hosts   []*Host
	// Addr4 and Addr6 are the gateway's addresses on the WAN.
	Addr4, Addr6 string

	// Uplink is the router's end of the site's link to the WAN.
	Uplink string

	NAT *NATBox // before the gateway; nil without

	t        testing.TB
	number   int
	machine  int    // of the gateway's address on the WAN
	instance string // -n, "" for the default
	dir      string // config, state and socket
}

// Host is a machine on a LAN, with one link, eth0.
type Host struct {
	*Namespace
	// Addr4 and Addr6 are its addresses on the LAN.
	Addr4, Addr6 string
}

// TwoSites builds two sites, a and b.
func TwoSites(t testing.TB, o Options) *Sites {
	t.Helper()
	return Around(t, 2, o)
}

// Around builds as many sites around one WAN, a, b, c and so on. A WAN that is
// narrow or impaired has two.
func Around(t testing.TB, count int, o Options) *Sites {
	t.Helper()
	if o.MTU == 0 {
		o.MTU = linkMTU
	}
	s := &Sites{Lab: New(t)}
	routerA := s.Namespace("wan-a")
	routerB := routerA
	if o.Narrow != 0 {
		routerB = s.Namespace("wan-b")
	}
	s.WAN = []*Namespace{routerA, routerB}
	for i := range count {
		router := routerA
		if i == 1 {
			router = routerB
		}
		s.All = append(s.All, s.site(string(rune('a'+i)), i+1, router, o))
	}
	s.A, s.B = s.All[0], s.All[1]
	if o.Narrow != 0 {
		s.narrow(o.Narrow)
	}
	for _, site := range s.All {
		site.waitAddrs()
	}
	if o.Impair == nil {
		routerA.Forward()
		routerB.Forward()
	} else {
		s.Relay = routerA.Relay("198.18.1.1:"+RelayPort, s.A.Addr4+":4433", *o.Impair)
	}
	return s
}

// Third builds one more site, c, at the first router.
func (s *Sites) Third(o Options) *Site {
	s.t.Helper()
	if o.MTU == 0 {
		o.MTU = linkMTU
	}
	site := s.site("c", 3, s.WAN[0], o)
	site.waitAddrs()
	return site
}

// RelayAddr is what site A advertises to be reached by its relay.
func (s *Sites) RelayAddr() string { return "198.18.1.1:" + RelayPort }

func (s *Sites) site(name string, number int, router *Namespace, o Options) *Site {
	s.t.Helper()
	site := &Site{
		Name:    name,
		Gateway: s.Namespace("gw-" + name),
		Uplink:  "to-gw-" + name,
		t:       s.t,
		number:  number,
		machine: 2,
		dir:     shortDir(s.t),
	}
	if kind, ok := o.NAT[name]; ok {
		s.behind(kind, site, router)
	} else {
		site.Addr4, site.Addr6 = site.wan(site.machine)
		s.plug(site, router)
	}
	site.Route()
	if o.Hosts == 0 {
		return site
	}
	site.Gateway.Bridge(BridgeName, o.MTU)
	for i := range o.Hosts {
		host := &Host{
			Namespace: s.Namespace(fmt.Sprintf("host-%s%d", name, i+1)),
			Addr4:     fmt.Sprintf("10.77.0.%d", 10*number+i+1),
			Addr6:     fmt.Sprintf("fd77::%d", 10*number+i+1),
		}
		port := fmt.Sprintf("to-host%d", i+1)
		Connect(host.Namespace, hostName, site.Gateway, port, o.MTU)
		site.Gateway.SetMaster(port, BridgeName)
		host.AddAddr(hostName, host.Addr4+"/24")
		host.AddAddr(hostName, host.Addr6+"/64")
		site.Hosts = append(site.Hosts, host)
	}
	return site
}

// wan returns the addresses of a machine between the site's gateway and the
// WAN.
func (s *Site) wan(machine int) (addr4, addr6 string) {
	return fmt.Sprintf("198.18.%d.%d", s.number, machine), fmt.Sprintf("2001:db8:%d::%d", s.number, machine)
}

// Route gives the gateway its way to the WAN, which it has until [Site.Unroute]
// or until its link is taken down.
func (s *Site) Route() {
	s.t.Helper()
	if s.NAT != nil {
		inside, _ := s.inside()
		s.Gateway.AddRoute("0.0.0.0/0", inside)
		return
	}
	router4, router6 := s.wan(1)
	s.Gateway.AddRoute("0.0.0.0/0", router4)
	s.Gateway.AddRoute("::/0", router6)
}

// Unroute takes the gateway's way to the WAN.
func (s *Site) Unroute() {
	s.t.Helper()
	s.Gateway.MustRun("ip", "-4", "route", "del", "default")
	if s.NAT == nil {
		s.Gateway.MustRun("ip", "-6", "route", "del", "default")
	}
}

// SecondLink gives a site's gateway another link to the WAN, with addresses of
// its own. The gateway's route stays where it was.
func (s *Sites) SecondLink(site *Site) {
	s.t.Helper()
	router := s.router(site)
	Connect(site.Gateway, SecondWANLink, router, site.SecondUplink(), linkMTU)
	router.AddAddr(site.SecondUplink(), site.second(1)+"/24")
	site.Gateway.AddAddr(SecondWANLink, site.second(2)+"/24")
}

// SecondUplink is the router's end of a site's second link.
func (s *Site) SecondUplink() string { return s.Uplink + "2" }

// second returns the address of a machine on the site's second link.
func (s *Site) second(machine int) string { return fmt.Sprintf("198.18.%d.%d", 100+s.number, machine) }

// RouteBy has the gateway's IPv4 leave by one of its links to the WAN.
func (s *Site) RouteBy(link string) {
	s.t.Helper()
	via, _ := s.wan(1)
	if link == SecondWANLink {
		via = s.second(1)
	}
	s.Gateway.MustRun("ip", "route", "replace", "default", "via", via)
}

// Unplug takes the gateway's link to the WAN out of the machine, with its
// addresses and routes. It is for sites without NAT.
func (s *Site) Unplug() {
	s.t.Helper()
	s.Gateway.Delete(WANLink)
}

// Plug puts the link back that Unplug took, as it was.
func (s *Sites) Plug(site *Site) {
	s.t.Helper()
	s.plug(site, s.router(site))
	site.Route()
}

// router returns the router of the WAN that a site is at.
func (s *Sites) router(site *Site) *Namespace {
	if site == s.B {
		return s.WAN[1]
	}
	return s.WAN[0]
}

// plug joins a gateway and a router of the WAN.
func (s *Sites) plug(site *Site, router *Namespace) {
	s.t.Helper()
	Connect(site.Gateway, WANLink, router, site.Uplink, linkMTU)
	s.uplink(site, router)
	site.Gateway.AddAddr(WANLink, site.Addr4+"/24")
	site.Gateway.AddAddr(WANLink, site.Addr6+"/64")
}

// uplink gives the router's end of a site's link its addresses.
func (s *Sites) uplink(site *Site, router *Namespace) {
	s.t.Helper()
	router4, router6 := site.wan(1)
	router.AddAddr(site.Uplink, router4+"/24")
	router.AddAddr(site.Uplink, router6+"/64")
}

// Move gives the gateway other addresses on the WAN, as a provider does over
// night.
func (s *Site) Move() {
	s.t.Helper()
	old4, old6 := s.Addr4, s.Addr6
	s.Gateway.Sysctl("net/ipv4/conf/all/promote_secondaries", "1") // else the new one goes with the old
	s.nextAddrs()
	s.delAddrs(old4, old6)
	s.waitAddrs()
}

// Unnumber takes the gateway's addresses on the WAN, and its routes with them.
func (s *Site) Unnumber() {
	s.t.Helper()
	s.delAddrs(s.Addr4, s.Addr6)
	s.Gateway.Run("ip", "-4", "route", "flush", "default") // gone already as a rule
	s.Gateway.Run("ip", "-6", "route", "flush", "default")
}

// Renumber gives a gateway that Unnumber left without addresses others.
func (s *Site) Renumber() {
	s.t.Helper()
	s.nextAddrs()
	s.waitAddrs()
	s.Route()
}

func (s *Site) nextAddrs() {
	s.t.Helper()
	if s.machine++; s.machine > 250 {
		s.machine = 2
	}
	s.Addr4, s.Addr6 = s.wan(s.machine)
	s.Gateway.AddAddr(WANLink, s.Addr4+"/24")
	s.Gateway.AddAddr(WANLink, s.Addr6+"/64")
}

func (s *Site) delAddrs(addr4, addr6 string) {
	s.t.Helper()
	s.Gateway.DelAddr(WANLink, addr4+"/24")
	s.Gateway.DelAddr(WANLink, addr6+"/64")
}

func (s *Site) waitAddrs() {
	s.t.Helper()
	s.Gateway.waitAddrs()
	for _, host := range s.Hosts {
		host.waitAddrs()
	}
}

// narrow joins the two routers by a link of that MTU, so that no gateway's own
// interface is the one that is too small.
func (s *Sites) narrow(mtu int) {
	s.t.Helper()
	a, b := s.WAN[0], s.WAN[1]
	Connect(a, "middle", b, "middle", mtu)
	a.AddAddr("middle", "198.18.255.1/30")
	b.AddAddr("middle", "198.18.255.2/30")
	a.AddAddr("middle", "2001:db8:ff::1/64")
	b.AddAddr("middle", "2001:db8:ff::2/64")
	a.AddRoute("198.18.2.0/24", "198.18.255.2")
	b.AddRoute("198.18.1.0/24", "198.18.255.1")
	a.AddRoute("2001:db8:2::/64", "2001:db8:ff::2")
	b.AddRoute("2001:db8:1::/64", "2001:db8:ff::1")
}

// shortDir is t.TempDir with a path that leaves room for a socket's name,
// which has 107 bytes at most.
func shortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "l2b-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}
