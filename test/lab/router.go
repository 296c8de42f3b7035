// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lab

import (
	"fmt"
	"os"
	"path/filepath"
)

const (
	routerLAN = "lan0"
	routerWAN = "wan0"
)

// Router is a home router before a site's gateway: it translates addresses, each
// flow to a port of its own, and lets nothing in that was not asked for.
//
//	gateway 192.168.N.2 -- 192.168.N.1 router 11.0.N.2 -- 11.0.N.1 WAN
//
// The addresses outside are ones that miniupnpd takes for the internet's, unlike
// those of benchmarks; nobody hears of them.
type Router struct {
	*Namespace
	// Inside and Outside are its addresses.
	Inside, Outside string
}

// PutBehind puts a site's gateway behind a router, with IPv4 alone.
func (s *Sites) PutBehind(site *Site) *Router {
	s.t.Helper()
	n := site.number
	r := &Router{
		Namespace: s.Namespace("router-" + site.Name),
		Inside:    fmt.Sprintf("192.168.%d.1", n),
		Outside:   fmt.Sprintf("11.0.%d.2", n),
	}
	wan := s.WAN[0]
	site.Gateway.Delete(WANLink)
	site.Uplink = "to-router-" + site.Name
	Connect(site.Gateway, WANLink, r.Namespace, routerLAN, linkMTU)
	Connect(r.Namespace, routerWAN, wan, site.Uplink, linkMTU)
	site.Addr4, site.Addr6 = fmt.Sprintf("192.168.%d.2", n), ""
	site.Gateway.AddAddr(WANLink, site.Addr4+"/24")
	r.AddAddr(routerLAN, r.Inside+"/24")
	r.AddAddr(routerWAN, r.Outside+"/24")
	wan.AddAddr(site.Uplink, fmt.Sprintf("11.0.%d.1/24", n))
	site.Gateway.AddRoute("0.0.0.0/0", r.Inside)
	r.AddRoute("0.0.0.0/0", fmt.Sprintf("11.0.%d.1", n))
	r.Forward()
	r.translate(routerWAN)
	return r
}

// translate has the namespace translate addresses by nftables, with the chains that
// miniupnpd fills.
func (n *Namespace) translate(wan string) {
	n.t.Helper()
	path := filepath.Join(n.t.TempDir(), "nat.nft")
	n.must("write rules", os.WriteFile(path, fmt.Appendf(nil, `table inet filter {
	chain forward {
		type filter hook forward priority filter; policy accept;
		jump miniupnpd
		iifname %[1]q ct state new drop
	}
	chain prerouting {
		type nat hook prerouting priority dstnat; policy accept;
		jump prerouting_miniupnpd
	}
	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		jump postrouting_miniupnpd
		oifname %[1]q masquerade fully-random
	}
	chain miniupnpd { }
	chain prerouting_miniupnpd { }
	chain postrouting_miniupnpd { }
}
`, wan), 0o644))
	n.MustRun("nft", "-f", path)
}

// NATPMP is the option by which a port mapper speaks that beside UPnP.
const NATPMP = "enable_natpmp=yes"

// Mapper starts a port mapper on the router, with options of miniupnpd.conf.
func (r *Router) Mapper(options ...string) *Process {
	r.t.Helper()
	return r.mapper(routerLAN, routerWAN, options...)
}

// HostRouter makes a namespace, such as a host, a router with a port mapper to a
// WAN that is not there, whose address is 11.0.9.2.
func (n *Namespace) HostRouter(lan string, options ...string) *Process {
	n.t.Helper()
	n.Bridge(routerWAN, linkMTU) // without ports: any device will do
	n.AddAddr(routerWAN, "11.0.9.2/24")
	n.translate(routerWAN)
	return n.mapper(lan, routerWAN, options...)
}

func (n *Namespace) mapper(lan, wan string, options ...string) *Process {
	n.t.Helper()
	dir := n.t.TempDir()
	path := filepath.Join(dir, "miniupnpd.conf")
	text := fmt.Sprintf("listening_ip=%s\next_ifname=%s\nhttp_port=5000\nsecure_mode=yes\nuuid=11111111-2222-3333-4444-555555555555\n", lan, wan)
	for _, option := range append([]string{"enable_upnp=yes"}, options...) {
		text += option + "\n"
	}
	n.must("write config", os.WriteFile(path, []byte(text+"allow 1024-65535 0.0.0.0/0 1024-65535\n"), 0o644))
	p := n.Start("miniupnpd", "-d", "-f", path, "-P", filepath.Join(dir, "pid"))
	p.WaitOutput(readyWait, "HTTP listening")
	return p
}

// Forwards returns the rules by which the router forwards ports.
func (r *Router) Forwards() string {
	r.t.Helper()
	return r.MustRun("nft", "list", "chain", "inet", "filter", "prerouting_miniupnpd")
}
