// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/l2bridge/l2bridge/internal/frame"
)

// Service is something that a LAN has one of, as a rule: a second one at another
// site gives hosts an address, or a way out, of the wrong site.
type Service uint8

// The services.
const (
	DHCP   Service = iota // DHCPv4 (RFC 2131)
	Router                // IPv6 router advertisements (RFC 4861, 4.2)
)

// Server is one that gives a service.
type Server struct {
	Service Service
	VLAN    uint16           // 0 when untagged
	Port    string           // of the switch: where it is
	Addr    netip.Addr       // DHCP: its server identifier (RFC 2132, 9.7); Router: its source
	MAC     net.HardwareAddr // nil when only its clients were heard
}

const (
	// serverShown is how long a server counts after its latest answer.
	serverShown = 10 * time.Minute
	// maxServers is how many servers are remembered. More are made up, and push
	// out those that have been silent for longest.
	maxServers = 64
)

// Servers knows which servers have answered lately, and where. It only looks: no
// frame is held up or changed. Its zero value knows none, and its methods may be
// called from any goroutine.
type Servers struct {
	mu  sync.Mutex
	all []known
}

type known struct {
	Server
	last time.Time
}

// offsets in an Ethernet frame without tags, with an IPv4 header without
// options, or an IPv6 header alone.
const (
	ip4Proto  = 23
	ip4Ports  = 34
	ip6Next   = 20
	ip6Type   = 54
	icmpv6    = 58
	typeRA    = 134
	dhcpServe = 67
	dhcpAsk   = 68
)

// IsService reports whether a frame f of at least frame.HeaderLen bytes may be
// one that [Servers.Heard] wants to see. It is asked for each frame, so it looks
// at a few fixed places: behind one tag at most, and at no IPv4 options or IPv6
// extension headers, which neither DHCP nor advertisements have.
func IsService(f []byte) bool {
	t := binary.BigEndian.Uint16(f[12:])
	if t == frame.TypeVLAN && len(f) > frame.TagLen+frame.HeaderLen {
		f = f[frame.TagLen:]
		t = binary.BigEndian.Uint16(f[12:])
	}
	switch t {
	case frame.TypeIPv4:
		return len(f) > ip4Ports+4 && f[ip4Proto] == frame.ProtoUDP &&
			binary.BigEndian.Uint16(f[ip4Ports:])-dhcpServe <= dhcpAsk-dhcpServe
	case frame.TypeIPv6:
		return len(f) > ip6Type && f[ip6Next] == icmpv6 && f[ip6Type] == typeRA
	}
	return false
}

// Heard takes a frame that came in by a port of the switch, and notes the server
// that sent it, if it is one's. local says that the port is this site's LAN.
//
// On its own LAN a server's answer goes straight to the client, past our TAP. But
// the client says by broadcast whose offer it takes, and an offer from elsewhere
// would have come by here. So the request of a client on our LAN for a server
// that no peer has is word of one on our LAN.
func (s *Servers) Heard(port string, local bool, f []byte) {
	l := frame.Dissect(f)
	_, src := frame.Stations(f)
	n := Server{VLAN: src.VLAN(), Port: port, MAC: src.MAC()}
	switch {
	case l.L4 == 0:
	case l.Type == frame.TypeIPv6:
		if addr, ok := parseRA(f, l); ok {
			n.Service, n.Addr = Router, addr
			s.note(n)
		}
	case l.Type == frame.TypeIPv4 && l.Proto == frame.ProtoUDP:
		m, ok := parseDHCP(f[l.L4:])
		n.Service, n.Addr = DHCP, m.server
		switch {
		case !ok:
		case m.answer:
			s.note(n)
		case local:
			n.MAC = nil
			s.note(n)
		}
	}
}

// dhcpMessage is what matters of a DHCP message.
type dhcpMessage struct {
	answer bool // a server's, else a client's that has chosen one
	server netip.Addr
}

// parseDHCP reads a UDP datagram from its header on. It reports false for what is
// neither an OFFER, ACK or NAK to a client nor the REQUEST of a client that has
// chosen (RFC 2131, table 5).
func parseDHCP(p []byte) (m dhcpMessage, ok bool) {
	const (
		udp     = 8
		cookie  = udp + 236
		options = cookie + 4
		// RFC 2132: 3.1, 3.2, 9.6, 9.7.
		pad, end, messageType, serverID = 0, 255, 53, 54
		request, offer, ack, nak        = 3, 2, 5, 6
		fromClient, fromServer          = 1, 2 // op, RFC 2131, 2
	)
	be := binary.BigEndian
	if len(p) < options || be.Uint32(p[cookie:]) != 0x63825363 {
		return m, false
	}
	src, dst, op := be.Uint16(p), be.Uint16(p[2:]), p[udp]
	var kind byte
	for o := p[options:]; len(o) >= 2 && o[0] != end; {
		if o[0] == pad {
			o = o[1:]
			continue
		}
		n := int(o[1])
		if len(o) < 2+n {
			break
		}
		switch v := o[2 : 2+n]; {
		case o[0] == messageType && n == 1:
			kind = v[0]
		case o[0] == serverID && n == 4:
			m.server = netip.AddrFrom4([4]byte(v))
		}
		o = o[2+n:]
	}
	switch {
	case !m.server.IsValid():
	case op == fromServer && src == dhcpServe && dst == dhcpAsk:
		m.answer = true
		return m, kind == offer || kind == ack || kind == nak
	case op == fromClient && src == dhcpAsk && dst == dhcpServe:
		return m, kind == request
	}
	return dhcpMessage{}, false
}

// parseRA returns the router that an advertisement is from. One with a lifetime of
// zero is no way out (RFC 4861, 4.2), and one that was forwarded none at all (6.1.2).
func parseRA(f []byte, l frame.Layers) (addr netip.Addr, ok bool) {
	const lifetime = 6
	if l.Proto != icmpv6 || len(f) < l.L4+16 || f[l.L4] != typeRA || f[l.L3+7] != 255 ||
		binary.BigEndian.Uint16(f[l.L4+lifetime:]) == 0 {
		return addr, false
	}
	addr = netip.AddrFrom16([16]byte(f[l.L3+8:]))
	return addr, addr.IsLinkLocalUnicast()
}

// isSame reports whether two servers are one, which may have moved. Two routers
// of one maker have the same address, so where a MAC is known it decides.
func (s Server) isSame(t Server) bool {
	return s.Service == t.Service && s.VLAN == t.VLAN && (bytes.Equal(s.MAC, t.MAC) && s.Addr == t.Addr ||
		s.Addr == t.Addr && (s.MAC == nil || t.MAC == nil))
}

func (s *Servers) note(n Server) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = slices.DeleteFunc(s.all, func(k known) bool { return now.Sub(k.last) > serverShown })
	for i := range s.all {
		k := &s.all[i]
		switch {
		case !k.isSame(n):
			continue
		case n.MAC != nil:
			k.Server = n
		case k.Port != n.Port:
			return // its clients do not know better than we where it is
		}
		k.last = now
		return
	}
	if len(s.all) == maxServers {
		oldest := slices.MinFunc(s.all, func(a, b known) int { return a.last.Compare(b.last) })
		s.all = slices.DeleteFunc(s.all, func(k known) bool { return k.isSame(oldest.Server) })
	}
	s.all = append(s.all, known{n, now})
}

// Rivals returns the servers of a service that have answered in the last ten
// minutes, in those VLANs where they are at more ports than one. They are ordered
// by VLAN, port and address.
func (s *Servers) Rivals(of Service) (all []Server) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	first := make(map[uint16]string) // port, by VLAN
	rivals := make(map[uint16]bool)
	for _, k := range s.all {
		if k.Service == of && now.Sub(k.last) <= serverShown {
			all = append(all, k.Server)
			if port, ok := first[k.VLAN]; !ok {
				first[k.VLAN] = k.Port
			} else if port != k.Port {
				rivals[k.VLAN] = true
			}
		}
	}
	all = slices.DeleteFunc(all, func(v Server) bool { return !rivals[v.VLAN] })
	if len(all) == 0 {
		return nil
	}
	slices.SortFunc(all, func(a, b Server) int {
		return cmp.Or(cmp.Compare(a.VLAN, b.VLAN), cmp.Compare(a.Port, b.Port), a.Addr.Compare(b.Addr), bytes.Compare(a.MAC, b.MAC))
	})
	return all
}
