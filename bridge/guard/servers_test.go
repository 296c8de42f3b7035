// SPDX-License-Identifier: Apache-2.0

package guard_test

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/l2bridge/l2bridge/bridge/guard"
	"github.com/l2bridge/l2bridge/internal/frame"
)

// DHCP message types (RFC 2132, 9.6).
const (
	discover = 1
	offer    = 2
	request  = 3
	ack      = 5
	nak      = 6
)

var (
	serverA, serverB = net.HardwareAddr{2, 0, 0, 0, 0, 0xa}, net.HardwareAddr{2, 0, 0, 0, 0, 0xb}
	addrA, addrB     = netip.MustParseAddr("10.77.0.1"), netip.MustParseAddr("10.77.0.2")
)

// dhcp returns a message in a frame. Of a client's, server is whom it has chosen;
// an invalid one leaves the option out.
func dhcp(kind byte, from net.HardwareAddr, server netip.Addr, tags ...uint16) []byte {
	op, src, dst := byte(2), uint16(67), uint16(68)
	if kind == discover || kind == request {
		op, src, dst = 1, 68, 67
	}
	p := make([]byte, 236, 300)
	p[0] = op
	p = append(p, 0x63, 0x82, 0x53, 0x63, 0, 53, 1, kind)
	if server.IsValid() {
		p = append(append(p, 54, 4), server.AsSlice()...)
	}
	p = append(p, 51, 4, 0, 0, 14, 16, 255)
	any4 := netip.MustParseAddr("10.77.0.9")
	f := packet{tags: tags, src: netip.AddrPortFrom(any4, src), dst: netip.AddrPortFrom(any4, dst), payload: p}.frame()
	copy(f[6:12], from)
	return f
}

// advert returns a router advertisement.
func advert(from net.HardwareAddr, router string, lifetime uint16) []byte {
	f := append(bytes.Clone([]byte{0x33, 0x33, 0, 0, 0, 1}), from...)
	f = append(f, 0x86, 0xdd, 0x60, 0, 0, 0, 0, 16, 58, 255)
	f = append(f, netip.MustParseAddr(router).AsSlice()...)
	f = append(f, netip.MustParseAddr("ff02::1").AsSlice()...)
	f = append(f, 134, 0, 0, 0, 64, 0)
	f = binary.BigEndian.AppendUint16(f, lifetime)
	return append(f, make([]byte, 8)...)
}

// heard is a frame that comes in by a port.
type heard struct {
	port string
	f    []byte
}

var sameServer = cmpopts.EquateComparable(netip.Addr{})

func TestServers(t *testing.T) {
	t.Parallel()
	a, b := guard.Server{Port: "local", Addr: addrA, MAC: serverA}, guard.Server{Port: "cabin", Addr: addrB, MAC: serverB}
	none := netip.Addr{}
	patch := func(f []byte, at int, v ...byte) []byte { copy(f[at:], v); return f }
	for _, tt := range []struct {
		name string
		in   []heard
		want []guard.Server
	}{
		{"nothing", nil, nil},
		{"one", []heard{{"local", dhcp(offer, serverA, addrA)}}, nil},
		{"offer and ack", []heard{{"local", dhcp(offer, serverA, addrA)}, {"cabin", dhcp(ack, serverB, addrB)}}, []guard.Server{b, a}},
		{"nak", []heard{{"local", dhcp(nak, serverA, addrA)}, {"cabin", dhcp(offer, serverB, addrB)}}, []guard.Server{b, a}},
		{"in a VLAN", []heard{{"local", dhcp(nak, serverA, addrA, frame.TypeVLAN)}, {"cabin", dhcp(offer, serverB, addrB, frame.TypeVLAN)}},
			[]guard.Server{{VLAN: 7, Port: "cabin", Addr: addrB, MAC: serverB}, {VLAN: 7, Port: "local", Addr: addrA, MAC: serverA}}},
		{"in two VLANs", []heard{{"local", dhcp(nak, serverA, addrA, frame.TypeVLAN)}, {"cabin", dhcp(offer, serverB, addrB)}}, nil},
		{"two at one site", []heard{{"local", dhcp(offer, serverA, addrA)}, {"local", dhcp(offer, serverB, addrB)}}, nil},
		{"both with one address", []heard{{"local", dhcp(offer, serverA, addrA)}, {"cabin", dhcp(offer, serverB, addrA)}},
			[]guard.Server{{Port: "cabin", Addr: addrA, MAC: serverB}, a}},
		{"one that moved", []heard{{"local", dhcp(offer, serverA, addrA)}, {"cabin", dhcp(ack, serverA, addrA)}}, nil},
		{"a client on the LAN that chose", []heard{{"cabin", dhcp(offer, serverB, addrB)}, {"local", dhcp(request, serverA, addrA)}},
			[]guard.Server{b, {Port: "local", Addr: addrA}}},
		{"a client that chose the other site's", []heard{{"cabin", dhcp(offer, serverB, addrB)}, {"local", dhcp(request, serverA, addrB)}}, nil},
		{"a client whose choice is heard later", []heard{{"local", dhcp(request, serverA, addrB)}, {"cabin", dhcp(offer, serverB, addrB)}}, nil},
		{"a client of a peer", []heard{{"local", dhcp(offer, serverA, addrA)}, {"cabin", dhcp(request, serverB, addrB)}}, nil},
		{"a client that renews", []heard{{"cabin", dhcp(offer, serverB, addrB)}, {"local", dhcp(request, serverA, none)}}, nil},
		{"a client that looks", []heard{{"cabin", dhcp(offer, serverB, addrB)}, {"local", dhcp(discover, serverA, addrA)}}, nil},
		{"no identifier", []heard{{"cabin", dhcp(offer, serverB, addrB)}, {"local", dhcp(offer, serverA, none)}}, nil},
		{"no cookie", []heard{{"cabin", dhcp(offer, serverB, addrB)}, {"local", patch(dhcp(offer, serverA, addrA), 278, 0)}}, nil},
		{"to a relay agent", []heard{{"cabin", dhcp(offer, serverB, addrB)}, {"local", patch(dhcp(offer, serverA, addrA), 36, 0, 67)}}, nil},
		{"a client that answers", []heard{{"cabin", dhcp(offer, serverB, addrB)}, {"local", patch(dhcp(offer, serverA, addrA), 42, 1)}}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var s guard.Servers
			for _, h := range tt.in {
				if !guard.IsService(h.f) {
					t.Errorf("%x is passed over", h.f)
				}
				s.Heard(h.port, h.port == "local", h.f)
			}
			if diff := cmp.Diff(tt.want, s.Rivals(guard.DHCP), sameServer); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if got := s.Rivals(guard.Router); got != nil {
				t.Errorf("routers %v", got)
			}
		})
	}
}

func TestRouters(t *testing.T) {
	t.Parallel()
	here := heard{"local", advert(serverA, "fe80::a", 1800)}
	for _, tt := range []struct {
		name string
		in   []byte
		want bool
	}{
		{"another", advert(serverB, "fe80::b", 1800), true},
		{"another with the same address", advert(serverB, "fe80::a", 1800), true},
		{"the same", advert(serverA, "fe80::a", 1800), false},
		{"no way out", advert(serverB, "fe80::b", 0), false},
		{"from no link-local address", advert(serverB, "2001:db8::1", 1800), false},
		{"forwarded", func() []byte { f := advert(serverB, "fe80::b", 1800); f[21] = 64; return f }(), false},
		{"cut", advert(serverB, "fe80::b", 1800)[:69], false},
	} {
		var s guard.Servers
		s.Heard(here.port, true, here.f)
		s.Heard("cabin", false, tt.in)
		if got := s.Rivals(guard.Router); (got != nil) != tt.want {
			t.Errorf("%s: rivals %v, want some: %v", tt.name, got, tt.want)
		}
		if got := s.Rivals(guard.DHCP); got != nil {
			t.Errorf("%s: DHCP servers %v", tt.name, got)
		}
	}
}

// TestServersAreForgotten: ten minutes after its latest answer a server is none,
// and more than there can be push out only each other.
func TestServersAreForgotten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var s guard.Servers
		s.Heard("local", true, dhcp(offer, serverA, addrA))
		time.Sleep(5 * time.Minute)
		s.Heard("cabin", false, dhcp(offer, serverB, addrB))
		time.Sleep(5 * time.Minute)
		if len(s.Rivals(guard.DHCP)) != 2 {
			t.Error("a server is forgotten after ten minutes")
		}
		time.Sleep(time.Second)
		if got := s.Rivals(guard.DHCP); got != nil {
			t.Errorf("rivals %v, one of which was silent for longer", got)
		}
		for n := range uint16(1000) {
			mac := binary.BigEndian.AppendUint16(net.HardwareAddr{2, 1, 1, 1}, n)
			s.Heard("attic", false, dhcp(offer, mac, addrB))
			if n%50 == 0 {
				s.Heard("local", true, dhcp(ack, serverA, addrA)) // one that is asked
			}
			time.Sleep(time.Millisecond)
		}
		got := s.Rivals(guard.DHCP)
		if len(got) != 64 {
			t.Errorf("%d servers are remembered, want 64", len(got))
		}
		if last := got[len(got)-1]; last.Port != "local" {
			t.Errorf("the last one is %v, want the one that is asked", last)
		}
	})
}

// TestIsService holds that nearly nothing is looked at twice.
func TestIsService(t *testing.T) {
	t.Parallel()
	tcp := packet{src: own4, dst: peer4, proto: frame.ProtoTCP, payload: make([]byte, 40)}.frame()
	for name, f := range map[string][]byte{
		"header only":   tcp[:14],
		"TCP":           tcp,
		"UDP":           packet{src: own4, dst: peer4, payload: make([]byte, 40)}.frame(),
		"UDP of IPv6":   packet{src: own6, dst: peer6, payload: make([]byte, 40)}.frame(),
		"port 66":       packet{src: withPort(own4, 66), dst: peer4, payload: make([]byte, 40)}.frame(),
		"port 69":       packet{src: withPort(own4, 69), dst: peer4, payload: make([]byte, 40)}.frame(),
		"tag only":      packet{src: own4, dst: peer4, tags: []uint16{frame.TypeVLAN}}.frame()[:18],
		"solicitation":  func() []byte { f := advert(serverA, "fe80::a", 9); f[54] = 133; return f }(),
		"cut in the IP": dhcp(offer, serverA, addrA)[:36],
	} {
		if guard.IsService(f) {
			t.Errorf("%s may be a service", name)
		}
	}
	if !guard.IsService(advert(serverA, "fe80::a", 9)) {
		t.Error("an advertisement is none")
	}
}

func FuzzServers(f *testing.F) {
	f.Add(dhcp(offer, serverA, addrA))
	f.Add(dhcp(request, serverA, addrA, frame.TypeVLAN))
	f.Add(dhcp(nak, serverA, netip.Addr{}))
	f.Add(advert(serverB, "fe80::b", 1800))
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) < frame.HeaderLen {
			return
		}
		guard.IsService(in)
		var s guard.Servers
		s.Heard("local", true, dhcp(offer, serverA, addrA))
		s.Heard("local", true, advert(serverA, "fe80::a", 1800))
		s.Heard("cabin", false, in)
		for _, service := range []guard.Service{guard.DHCP, guard.Router} {
			for _, r := range s.Rivals(service) {
				if r.Port == "cabin" && (!r.Addr.IsValid() || !bytes.Equal(r.MAC, in[6:12])) {
					t.Errorf("a server that is none: %v", r)
				}
			}
		}
	})
}
