// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/l2bridge/l2bridge/internal/portmap"
)

// outside is an address of the internet, of a root name server, whose route is
// asked for. Nothing is sent to it.
var outside = netip.AddrFrom4([4]byte{198, 41, 0, 4})

// neighbourTries is how often a neighbour is looked for, neighbourPause apart,
// after the kernel was told to find it.
const (
	neighbourTries = 5
	neighbourPause = 100 * time.Millisecond
)

// wayOut returns the way to the router that is to forward our port. There is none
// where the internet reaches this machine without, and where the router is at
// another site or may be.
func (s *site) wayOut(ctx context.Context) (way portmap.Way, ok bool) {
	listen := s.cfg.Listen.Addr()
	if !listen.IsUnspecified() && !(listen.Is4() && listen.IsPrivate()) || isPublic() {
		return way, false
	}
	routes, err := netlink.RouteGet(outside.AsSlice())
	if err != nil || len(routes) == 0 {
		return way, false
	}
	router, _ := netip.AddrFromSlice(routes[0].Gw.To4())
	local, _ := netip.AddrFromSlice(routes[0].Src.To4())
	if !router.Is4() || !local.Is4() || !listen.IsUnspecified() && local != listen {
		return way, false
	}
	way = portmap.Way{Router: router, Local: local, Device: routes[0].LinkIndex}
	// A VLAN of a bridge leads where the bridge does.
	const most = 8
	index := way.Device
	for range most {
		link, err := netlink.LinkByIndex(index)
		if err != nil {
			return way, false
		}
		name := link.Attrs().Name
		if link.Attrs().RawFlags&unix.IFF_LOWER_UP == 0 {
			return way, false // a router that is restarted takes its link down
		}
		switch kind := link.Type(); {
		case name == s.cfg.TAP:
			return way, false
		case name == s.cfg.Bridge:
			way.Shared = true
			return way, index == way.Device && s.isHere(ctx, index, routes[0].Gw)
		case slices.Contains([]string{"vlan", "macvlan", "ipvlan"}, kind) && link.Attrs().ParentIndex != 0:
			index = link.Attrs().ParentIndex
		default:
			way.Shared = kind == "bridge" // another network's TAP may be in it
			return way, true
		}
	}
	return way, false
}

// isPublic reports whether this machine has an address of IPv4 that the internet
// reaches.
func isPublic() bool {
	addrs, err := net.InterfaceAddrs()
	return err == nil && slices.ContainsFunc(addrs, func(a net.Addr) bool {
		ipnet, ok := a.(*net.IPNet)
		if !ok {
			return false
		}
		ip, _ := netip.AddrFromSlice(ipnet.IP)
		return portmap.Public(ip.Unmap())
	})
}

// isHere reports whether a neighbour on our bridge is known, and is not at another
// site.
func (s *site) isHere(ctx context.Context, link int, ip net.IP) bool {
	for try := range neighbourTries {
		behind, known := s.behindPeer(link, ip)
		if known {
			return !behind
		}
		if try == 0 {
			// As "ip neighbour replace IP dev BRIDGE use": an ARP request. If it
			// cannot be had, there is no answer either.
			_ = netlink.NeighSet(&netlink.Neigh{LinkIndex: link, Family: unix.AF_INET, Flags: unix.NTF_USE, IP: ip})
		}
		select {
		case <-time.After(neighbourPause):
		case <-ctx.Done():
			return false
		}
	}
	return false
}
