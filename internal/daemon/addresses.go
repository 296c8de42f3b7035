// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"net"
	"net/netip"
	"slices"
	"strconv"

	"github.com/vishvananda/netlink"

	"github.com/l2bridge/l2bridge/bridge"
	"github.com/l2bridge/l2bridge/internal/frame"
)

// advertised returns the addresses that new members are told of: those given by
// hand, then the router's that forwards our port, then global ones of this machine,
// then private ones. Addresses of the
// bridge are left out: once the sites share a LAN they answer through the
// tunnel itself.
func (s *site) advertised() []string {
	all := slices.Clone(s.cfg.Advertise)
	port := strconv.Itoa(int(s.port()))
	if outside := s.ports.Mapping().Addr; outside.IsValid() && !slices.Contains(all, outside.String()) {
		all = append(all, outside.String())
	}
	var global, private []string
	for _, a := range s.ownAddresses() {
		text := net.JoinHostPort(a.String(), port)
		if a.IsPrivate() {
			private = append(private, text)
		} else {
			global = append(global, text)
		}
	}
	for _, text := range append(global, private...) {
		if !slices.Contains(all, text) {
			all = append(all, text)
		}
	}
	return all
}

// port returns the UDP port that we listen on.
func (s *site) port() uint16 {
	if u, ok := s.conn.LocalAddr().(*net.UDPAddr); ok {
		return uint16(u.Port)
	}
	return s.cfg.Listen.Port()
}

// ownAddresses returns the addresses that a peer may reach us at. One with a zone is
// none, as the zone is of this machine.
func (s *site) ownAddresses() (all []netip.Addr) {
	listen := s.cfg.Listen.Addr()
	if listen.Zone() != "" {
		return nil
	}
	if !listen.IsUnspecified() {
		return []netip.Addr{listen}
	}
	links, err := net.Interfaces()
	if err != nil {
		return nil
	}
	for _, link := range links {
		if link.Name == s.cfg.Bridge || link.Name == s.cfg.TAP || link.Flags&net.FlagUp == 0 {
			continue
		}
		addrs, err := link.Addrs()
		if err != nil {
			continue
		}
		for _, a := range addrs {
			ipnet, ok := a.(*net.IPNet)
			if !ok {
				continue
			}
			ip, ok := netip.AddrFromSlice(ipnet.IP)
			if ip = ip.Unmap(); !ok || !ip.IsGlobalUnicast() || listen.Is4() && !ip.Is4() {
				continue
			}
			all = append(all, ip)
		}
	}
	return all
}

// setOuter tells the switch which packets are the tunnel's own.
func (s *site) setOuter(ports []uint16, peers []netip.AddrPort) {
	s.outer.Set(append(ports[:len(ports):len(ports)], s.port()), peers)
}

// through reports whether packets to an address would leave through the tunnel:
// the route leads into our TAP, or into our bridge to a station that is behind
// a peer. What cannot be told is let pass; the switch drops the tunnel's own
// packets whatever way they come.
func (s *site) through(to netip.Addr) bool {
	routes, err := netlink.RouteGet(to.AsSlice())
	if err != nil || len(routes) == 0 {
		return false
	}
	route := routes[0]
	if link, err := net.InterfaceByName(s.cfg.TAP); err == nil && link.Index == route.LinkIndex {
		return true
	}
	link, err := net.InterfaceByName(s.cfg.Bridge)
	if err != nil || link.Index != route.LinkIndex {
		return false
	}
	hop := net.IP(to.AsSlice())
	if route.Gw != nil {
		hop = route.Gw
	}
	behind, _ := s.behindPeer(link.Index, hop)
	return behind
}

// behindPeer reports whether a neighbour on our bridge is at another site, and
// whether its MAC is known at all.
func (s *site) behindPeer(link int, ip net.IP) (behind, known bool) {
	neighbours, err := netlink.NeighList(link, 0)
	if err != nil {
		return false, false
	}
	for _, n := range neighbours {
		if n.IP.Equal(ip) && len(n.HardwareAddr) == 6 {
			_, group, ok := s.sw.Behind(frame.NewStation(n.HardwareAddr, 0))
			return ok && group == bridge.Mesh, true
		}
	}
	return false, false
}
