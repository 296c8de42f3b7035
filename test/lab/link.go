// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lab

import (
	"errors"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	linkMTU     = 1500 // what links of the lab carry unless told otherwise
	carrierWait = 5 * time.Second
)

// Connect joins two namespaces with a veth pair, one end named in each, both
// up. Its offloads are on as the kernel has them: a host's TCP segments come
// by unsplit and with their checksums still to be done, as from a real driver.
func Connect(a *Namespace, aName string, b *Namespace, bName string, mtu int) {
	a.t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = aName, mtu
	attrs.TxQLen = 1000
	a.must("add veth "+aName, a.nl.LinkAdd(&netlink.Veth{
		LinkAttrs: attrs, PeerName: bName, PeerMTU: uint32(mtu), PeerNamespace: netlink.NsFd(b.fd),
	}))
	a.SetUp(aName)
	b.SetUp(bName)
	// The kernel notes a carrier in the background (net/core/link_watch.c), and
	// until it has, the link drops what is sent.
	a.waitCarrier(aName)
	b.waitCarrier(bName)
}

func (n *Namespace) waitCarrier(name string) {
	n.t.Helper()
	Wait(n.t, carrierWait, n.Name+": "+name+" has a carrier", func() error {
		if state := n.Link(name).Attrs().OperState; state != netlink.OperUp {
			return errors.New("operational state " + state.String())
		}
		return nil
	})
}

// Bridge makes a Linux bridge, up, with the given links of the namespace as
// its ports.
func (n *Namespace) Bridge(name string, mtu int, ports ...string) {
	n.t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = name, mtu
	n.must("add bridge "+name, n.nl.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}))
	for _, port := range ports {
		n.SetMaster(port, name)
	}
	n.SetUp(name)
}

// SetMaster puts a link into a bridge; an empty bridge takes it out of its.
func (n *Namespace) SetMaster(port, bridge string) {
	n.t.Helper()
	if bridge == "" {
		n.must("take "+port+" out", n.nl.LinkSetNoMaster(n.Link(port)))
		return
	}
	n.must("put "+port+" into "+bridge, n.nl.LinkSetMaster(n.Link(port), n.Link(bridge)))
}

// SetUp brings a link up.
func (n *Namespace) SetUp(name string) {
	n.t.Helper()
	n.must("set up "+name, n.nl.LinkSetUp(n.Link(name)))
}

// SetDown takes a link down.
func (n *Namespace) SetDown(name string) {
	n.t.Helper()
	n.must("set down "+name, n.nl.LinkSetDown(n.Link(name)))
}

// SetMAC gives a link a hardware address.
func (n *Namespace) SetMAC(name string, mac net.HardwareAddr) {
	n.t.Helper()
	n.must("set address of "+name, n.nl.LinkSetHardwareAddr(n.Link(name), mac))
}

// Delete deletes a link.
func (n *Namespace) Delete(name string) {
	n.t.Helper()
	n.must("delete "+name, n.nl.LinkDel(n.Link(name)))
}

// Link returns a link by name and ends the test when there is none.
func (n *Namespace) Link(name string) netlink.Link {
	n.t.Helper()
	link, err := n.nl.LinkByName(name)
	n.must("find "+name, err)
	return link
}

// HasLink reports whether a link of that name is there.
func (n *Namespace) HasLink(name string) bool {
	_, err := n.nl.LinkByName(name)
	return err == nil
}

// HasCarrier reports whether a link that is up has a carrier.
func (n *Namespace) HasCarrier(name string) bool {
	n.t.Helper()
	return n.Link(name).Attrs().RawFlags&unix.IFF_LOWER_UP != 0
}

// Links returns the names of the namespace's links but loopback.
func (n *Namespace) Links() []string {
	n.t.Helper()
	links, err := n.nl.LinkList()
	n.must("list links", err)
	var names []string
	for _, link := range links {
		if link.Attrs().Flags&net.FlagLoopback == 0 {
			names = append(names, link.Attrs().Name)
		}
	}
	return names
}

// Master returns the name of the bridge that a link is a port of, "" without.
func (n *Namespace) Master(name string) string {
	n.t.Helper()
	index := n.Link(name).Attrs().MasterIndex
	if index == 0 {
		return ""
	}
	link, err := n.nl.LinkByIndex(index)
	n.must("find the master of "+name, err)
	return link.Attrs().Name
}

// AddAddr gives a link an address with its prefix, as 192.0.2.1/24. It may be
// used at once, an IPv6 address too.
func (n *Namespace) AddAddr(name, prefix string) {
	n.t.Helper()
	addr, err := netlink.ParseAddr(prefix)
	n.must("parse "+prefix, err)
	addr.Flags = unix.IFA_F_NODAD
	n.must("add "+prefix+" to "+name, n.nl.AddrAdd(n.Link(name), addr))
}

// waitAddrs waits until each address may be used: that of a link's own making
// is tentative for a moment even where there is no detection of duplicates.
func (n *Namespace) waitAddrs() {
	n.t.Helper()
	Wait(n.t, carrierWait, n.Name+" has its addresses", func() error {
		addrs, err := n.nl.AddrList(nil, netlink.FAMILY_V6)
		for _, addr := range addrs {
			if addr.Flags&unix.IFA_F_TENTATIVE != 0 {
				err = errors.New(addr.String() + " is tentative")
			}
		}
		return err
	})
}

// DelAddr takes an address from a link.
func (n *Namespace) DelAddr(name, prefix string) {
	n.t.Helper()
	addr, err := netlink.ParseAddr(prefix)
	n.must("parse "+prefix, err)
	n.must("delete "+prefix+" from "+name, n.nl.AddrDel(n.Link(name), addr))
}

// AddRoute routes a prefix by a next hop.
func (n *Namespace) AddRoute(prefix, via string) {
	n.t.Helper()
	dst := netip.MustParsePrefix(prefix)
	n.must("route "+prefix+" by "+via, n.nl.RouteAdd(&netlink.Route{
		Dst: &net.IPNet{
			IP:   dst.Addr().AsSlice(),
			Mask: net.CIDRMask(dst.Bits(), dst.Addr().BitLen()),
		},
		Gw: net.ParseIP(via),
	}))
}

// Forward makes the namespace a router of IPv4 and IPv6.
func (n *Namespace) Forward() {
	n.t.Helper()
	n.Sysctl("net/ipv4/ip_forward", "1")
	n.Sysctl("net/ipv6/conf/all/forwarding", "1")
}

func (n *Namespace) must(what string, err error) {
	n.t.Helper()
	if err != nil {
		n.t.Fatalf("%s: %s: %v", n.Name, what, err)
	}
}

// Neighbour tells the namespace for good which hardware address an address of a
// link is at, so that nobody has to ask.
func (n *Namespace) Neighbour(name, addr string, mac net.HardwareAddr) {
	n.t.Helper()
	n.must("neighbour "+addr, n.nl.NeighSet(&netlink.Neigh{
		LinkIndex:    n.Link(name).Attrs().Index,
		State:        netlink.NUD_PERMANENT,
		IP:           net.ParseIP(addr),
		HardwareAddr: mac,
	}))
}
