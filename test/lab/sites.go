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
}

// Sites is a WAN with sites around it. They share one LAN once l2bridge joins
// them: 10.77.0.0/24 and fd77::/64.
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

	// Uplink is the router's end of the gateway's link to the WAN.
	Uplink string

	t        testing.TB
	number   int
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
	s.A = s.site("a", 1, routerA, o)
	s.B = s.site("b", 2, routerB, o)
	if o.Narrow != 0 {
		s.narrow(o.Narrow)
	}
	s.A.waitAddrs()
	s.B.waitAddrs()
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
		dir:     shortDir(s.t),
	}
	site.Addr4, site.Addr6 = site.wan(2)
	Connect(site.Gateway, WANLink, router, site.Uplink, linkMTU)
	router4, router6 := site.wan(1)
	router.AddAddr(site.Uplink, router4+"/24")
	router.AddAddr(site.Uplink, router6+"/64")
	site.Gateway.AddAddr(WANLink, site.Addr4+"/24")
	site.Gateway.AddAddr(WANLink, site.Addr6+"/64")
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
	router4, router6 := s.wan(1)
	s.Gateway.AddRoute("0.0.0.0/0", router4)
	s.Gateway.AddRoute("::/0", router6)
}

// Unroute takes the gateway's way to the WAN.
func (s *Site) Unroute() {
	s.t.Helper()
	s.Gateway.MustRun("ip", "-4", "route", "del", "default")
	s.Gateway.MustRun("ip", "-6", "route", "del", "default")
}

// Move gives the gateway other addresses on the WAN, as a provider does over
// night. A gateway moves once.
func (s *Site) Move() {
	s.t.Helper()
	old4, old6 := s.Addr4, s.Addr6
	s.Addr4, s.Addr6 = s.wan(3)
	s.Gateway.Sysctl("net/ipv4/conf/all/promote_secondaries", "1") // else the new one goes with the old
	s.Gateway.AddAddr(WANLink, s.Addr4+"/24")
	s.Gateway.AddAddr(WANLink, s.Addr6+"/64")
	s.Gateway.DelAddr(WANLink, old4+"/24")
	s.Gateway.DelAddr(WANLink, old6+"/64")
	s.waitAddrs()
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
