// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lab

import (
	"fmt"
	"strconv"
	"time"

	"github.com/vishvananda/netlink"
)

const (
	natInside  = "inside"
	natOutside = "outside"
	natPorts   = 1000 // ports of the outside that a NAT uses at a time
)

// NAT is how a router translates the addresses of a site behind it. Nobody
// outside reaches the site but who was sent to, at that address and port, and
// answers before the time is out.
type NAT struct {
	// Symmetric gives each destination a port of its own, picked at random.
	// Else the port is the one inside, whatever the destination.
	Symmetric bool
	Timeout   time.Duration // of what UDP it translates; 0: two minutes
}

// NATBox is the router of a site behind NAT.
//
//	[ gw ] wan0 192.168.N.2 --- 192.168.N.1 inside [ nat ] outside 198.18.N.2 --- WAN
type NATBox struct {
	*Namespace
	// Addr4 is its address on the WAN, which the site is seen as.
	Addr4 string

	kind  NAT
	ports int // first of those in use; 0: those of inside
}

// behind puts a NAT between a site's gateway and the WAN.
func (s *Sites) behind(kind NAT, site *Site, router *Namespace) {
	s.t.Helper()
	box := &NATBox{Namespace: s.Namespace("nat-" + site.Name), kind: kind}
	site.NAT = box
	inside, own := site.inside()
	Connect(site.Gateway, WANLink, box.Namespace, natInside, linkMTU)
	site.Addr4 = own
	site.Gateway.AddAddr(WANLink, own+"/24")
	box.AddAddr(natInside, inside+"/24")

	Connect(box.Namespace, natOutside, router, site.Uplink, linkMTU)
	s.uplink(site, router)
	box.Addr4, _ = site.wan(site.machine)
	box.AddAddr(natOutside, box.Addr4+"/24")
	next, _ := site.wan(1)
	box.AddRoute("0.0.0.0/0", next)
	box.Forward()

	timeout := kind.Timeout
	if timeout == 0 {
		timeout = 2 * time.Minute
	}
	box.SetTimeout(timeout)
	box.translate()
}

// inside returns the addresses of a NAT and of the gateway behind it.
func (s *Site) inside() (nat, gateway string) {
	return fmt.Sprintf("192.168.%d.1", s.number), fmt.Sprintf("192.168.%d.2", s.number)
}

// SetTimeout sets for how long the NAT knows what has been silent.
func (b *NATBox) SetTimeout(timeout time.Duration) {
	b.t.Helper()
	seconds := strconv.Itoa(int(timeout.Seconds()))
	b.Sysctl("net/netfilter/nf_conntrack_udp_timeout", seconds)
	b.Sysctl("net/netfilter/nf_conntrack_udp_timeout_stream", seconds)
}

// translate sets the rules. A home router does not take in what it did not ask
// for; it must not even note it, or else the one inside could not use the port.
func (b *NATBox) translate() {
	b.t.Helper()
	to := ""
	if b.ports != 0 {
		to = fmt.Sprintf("to :%d-%d", b.ports, b.ports+natPorts-1)
	}
	if b.kind.Symmetric {
		to += " random,fully-random"
	}
	b.nft(fmt.Sprintf(`table ip nat
delete table ip nat
table ip nat {
	chain postrouting {
		type nat hook postrouting priority srcnat;
		oifname %[1]q meta l4proto udp masquerade %[2]s
		oifname %[1]q masquerade
	}
	chain input {
		type filter hook input priority 0;
		iifname %[1]q meta l4proto udp ct state new drop
	}
	chain forward {
		type filter hook forward priority 0;
		iifname %[1]q ct state new drop
	}
}
`, natOutside, to))
}

// Rebind has the NAT forget all that it translated, as one that was restarted,
// and use other ports from now on.
func (b *NATBox) Rebind() {
	b.t.Helper()
	const first, last = 20000, 60000
	if b.ports += natPorts; b.ports < first || b.ports > last-natPorts {
		b.ports = first
	}
	b.translate()
	b.Forget()
}

// Forget has the NAT forget all that it translated.
func (b *NATBox) Forget() {
	b.t.Helper()
	b.must("flush", b.nl.ConntrackTableFlush(netlink.ConntrackTable))
}
