// SPDX-License-Identifier: Apache-2.0

package wirepeer_test

import (
	"encoding/binary"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/l2bridge/l2bridge/test/wirepeer"
)

// super is a superframe under construction. TCP has 20 bytes.
type super struct {
	tags      []uint16 // EtherTypes of tags
	ether     uint16
	next      byte   // of IPv6, when extra is not nil
	extra     []byte // IPv4 options, or IPv6 extension headers
	protocol  byte
	payload   int
	flags     byte
	gsoType   byte
	gsoSize   uint16
	csumStart uint16
	csumAt    uint16
	change    func(ip []byte) []byte // the frame from the IP header on
	lie       func(ip []byte) []byte // the same, when the lengths have been written
}

func tcp4() super {
	return super{ether: 0x0800, protocol: 6, payload: 3000, flags: 1, gsoType: 1, gsoSize: 1460, csumStart: 34, csumAt: 16}
}

func tcp6() super {
	return super{ether: 0x86dd, protocol: 6, payload: 3000, flags: 1, gsoType: 4, gsoSize: 1440, csumStart: 54, csumAt: 16}
}

func udp4() super {
	return super{ether: 0x0800, protocol: 17, payload: 3000, flags: 1, gsoType: 5, gsoSize: 1472, csumStart: 34, csumAt: 6}
}

func udp6() super {
	return super{ether: 0x86dd, protocol: 17, payload: 3000, flags: 1, gsoType: 5, gsoSize: 1452, csumStart: 54, csumAt: 6}
}

// tagged is s behind tags, with its checksum where it belongs.
func (s super) tagged(tags ...uint16) super {
	s.tags = tags
	s.csumStart += uint16(4 * len(tags))
	return s
}

// plain is s as a single frame whose checksum is still to be done.
func (s super) plain() super {
	s.gsoType, s.gsoSize, s.payload = 0, 0, 100
	return s
}

// extended is s with extension headers, of which the first is of type next, or
// with IPv4 options.
func (s super) extended(next byte, extra ...byte) super {
	s.next, s.extra = next, extra
	s.csumStart += uint16(len(extra))
	return s
}

// with returns s after f changed it.
func (s super) with(f func(s *super)) super {
	f(&s)
	return s
}

func (s super) object() wirepeer.Object {
	b := make([]byte, 12)
	for _, tag := range s.tags {
		b = binary.BigEndian.AppendUint16(b, tag)
		b = append(b, 0, 7)
	}
	b = binary.BigEndian.AppendUint16(b, s.ether)
	ip := make([]byte, 20)
	ip[0], ip[9] = 0x45+byte(len(s.extra)/4), s.protocol
	if s.ether == 0x86dd {
		ip = make([]byte, 40)
		ip[0], ip[6] = 0x60, s.protocol
		if s.extra != nil {
			ip[6] = s.next
		}
	}
	ip = append(ip, s.extra...)
	transport := len(ip)
	if s.protocol == 17 {
		ip = append(ip, make([]byte, 8)...)
	} else {
		ip = append(ip, make([]byte, 20)...)
		ip[transport+12] = 5 << 4
	}
	ip = append(ip, make([]byte, s.payload)...)
	if s.change != nil {
		ip = s.change(ip)
	}
	if s.ether == 0x86dd {
		binary.BigEndian.PutUint16(ip[4:], uint16(max(40, len(ip))-40))
	} else {
		binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
	}
	if s.protocol == 17 && len(ip) >= transport+6 {
		binary.BigEndian.PutUint16(ip[transport+4:], uint16(len(ip)-transport))
	}
	if s.lie != nil {
		ip = s.lie(ip)
	}
	o := wirepeer.Object{Flags: wirepeer.VNET, Frame: append(b, ip...)}
	o.Header[0], o.Header[1] = s.flags, s.gsoType
	binary.LittleEndian.PutUint16(o.Header[4:], s.gsoSize)
	binary.LittleEndian.PutUint16(o.Header[6:], s.csumStart)
	binary.LittleEndian.PutUint16(o.Header[8:], s.csumAt)
	return o
}

func set(i int, v ...byte) func([]byte) []byte {
	return func(b []byte) []byte { copy(b[i:], v); return b }
}

func cut(n int) func([]byte) []byte { return func(b []byte) []byte { return b[:n] } }

func grow(b []byte) []byte   { return append(b, 0) }
func shrink(b []byte) []byte { return b[:len(b)-1] }

// The sentences of section 5.
const (
	listed    = "0 none, 1 TCP over IPv4, 4 TCP over IPv6, 5 UDP; 0x80 may be added to 1 and 4 (ECN)"
	ignored   = "| 2 | 2 | header length: sent 0, ignored |"
	tags      = "EtherTypes 0x8100 and 0x88a8 in any order, two at most, 4 bytes each;"
	ipv4      = "The *transport header* stands at the end of the IPv4 header (version 4, header length 20 bytes or more)"
	ipv6      = "or of the IPv6 header (version 6) and the hop-by-hop, routing and destination options headers behind it."
	fragment  = "A fragment (IPv4: offset or \"more fragments\" not zero; IPv6: with a fragment header) has none, nor has a packet whose headers are not whole."
	order     = "A receiver makes these checks in this order; the first that fails drops the frame, under the reason given."
	short     = "1. The frame is at least 14 bytes long (`malformed`)."
	flags     = "2. Flags are 0 or 1 (`bad_offload`)."
	limit     = "1. the frame is at most 14 + t + MTU bytes long (`mtu_peer`);"
	passes    = "2. without NEEDS_CSUM it passes."
	csumIP    = "if the EtherType is IP there is a transport header, its protocol is not SCTP (132), and the checksum start is not before it;"
	csumOther = "else the checksum start is at least 14 + t + 20; and checksum start + checksum offset + 2 does not go beyond the frame."
	gso       = "4. With GSO (`bad_offload`): NEEDS_CSUM is set; the type is one of those listed;"
	agree     = "the IP version is that of the type (either for UDP) and the protocol at the transport header TCP or UDP accordingly;"
	place     = "the checksum start is the transport header, and the checksum offset 16 (TCP) or 6 (UDP);"
	lengths   = "the packet ends, by the length field of the IP header, exactly where the frame does, and for UDP by that of the UDP header too;"
	inside    = "the transport header is whole (TCP data offset 20 bytes or more); at least one byte of payload follows;"
	segments  = "GSO size is not 0, and the payload divided by it, rounded up, at most 1024 (TCP) or 128 (UDP)."
	segment   = "5. With GSO: headers and the first segment's payload together are at most 14 + t + MTU bytes long (`mtu_peer`)."
	nothing   = "Offsets without NEEDS_CSUM and a GSO size without GSO mean nothing."
	single    = "A superframe that has a single segment is taken as a frame with NEEDS_CSUM only."
)

func TestFrame(t *testing.T) {
	complete := super{ether: 0x0800, protocol: 6, payload: 100}
	other := super{ether: 0x88b5, protocol: 6, payload: 100, flags: 1, csumStart: 34} // 154 bytes
	set := func(i int, v ...byte) func(*super) {
		return func(s *super) { s.change = set(i, v...) }
	}
	short := func(n int) func(*super) {
		return func(s *super) { s.change = cut(n) }
	}
	cases := []struct {
		name string
		law  string
		s    super
		drop string // "" is delivered
	}{
		{"tcp4", listed, tcp4(), ""},
		{"tcp6", listed, tcp6(), ""},
		{"udp4", listed, udp4(), ""},
		{"udp6", listed, udp6(), ""},
		{"tcp4 ecn", listed, tcp4().with(func(s *super) { s.gsoType = 0x81 }), ""},
		{"tcp6 ecn", listed, tcp6().with(func(s *super) { s.gsoType = 0x84 }), ""},
		{"udp ecn", listed, udp4().with(func(s *super) { s.gsoType = 0x85 }), "bad_offload"},
		{"none ecn", listed, tcp4().with(func(s *super) { s.gsoType = 0x80 }), "bad_offload"},
		{"ufo", listed, udp4().with(func(s *super) { s.gsoType = 3 }), "bad_offload"},
		{"unknown type", gso, tcp4().with(func(s *super) { s.gsoType = 2 }), "bad_offload"},

		{"nothing to do", passes, complete, ""},
		{"data valid", flags, complete.with(func(s *super) { s.flags = 2 }), "bad_offload"},
		{"data valid as well", flags, tcp4().with(func(s *super) { s.flags = 3 }), "bad_offload"},
		{"flags before the limit", order, complete.with(func(s *super) { s.flags, s.payload = 2, 2000 }), "bad_offload"},

		{"greatest frame", limit, complete.with(func(s *super) { s.payload = 1460 }), ""},
		{"too long", limit, complete.with(func(s *super) { s.payload = 1461 }), "mtu_peer"},
		{"greatest frame, two tags", limit, complete.with(func(s *super) { s.tags, s.payload = []uint16{0x88a8, 0x8100}, 1460 }), ""},
		{"too long, two tags", limit, complete.with(func(s *super) { s.tags, s.payload = []uint16{0x88a8, 0x8100}, 1461 }), "mtu_peer"},
		{"a third tag is payload", tags, complete.with(func(s *super) { s.tags, s.payload = []uint16{0x8100, 0x8100, 0x8100}, 1456 }), ""},
		{"too long, three tags", tags, complete.with(func(s *super) { s.tags, s.payload = []uint16{0x8100, 0x8100, 0x8100}, 1457 }), "mtu_peer"},
		{"limit before the checksum", order, tcp4().plain().with(func(s *super) { s.payload, s.csumStart = 2000, 0 }), "mtu_peer"},

		{"checksum tcp4", csumIP, tcp4().plain(), ""},
		{"checksum udp6 behind two tags", csumIP, udp6().plain().tagged(0x8100, 0x88a8), ""},
		{"checksum before the transport header", csumIP, tcp4().plain().with(func(s *super) { s.csumStart-- }), "bad_offload"},
		{"checksum behind its start", csumIP, tcp4().plain().with(func(s *super) { s.csumStart++ }), ""},
		{"checksum at the end", csumIP, tcp4().plain().with(func(s *super) { s.csumAt = 118 }), ""},
		{"checksum half inside", csumOther, tcp4().plain().with(func(s *super) { s.csumAt = 119 }), "bad_offload"},
		{"checksum of sctp", csumIP, tcp4().plain().with(set(9, 132)), "bad_offload"},
		{"checksum of sctp in ipv6", csumIP, tcp6().plain().with(set(6, 132)), "bad_offload"},
		{"checksum of icmp", csumIP, tcp4().plain().with(set(9, 1)), ""},
		{"checksum of a fragment", fragment, udp4().plain().with(set(6, 0x20)), "bad_offload"},
		{"checksum of the last fragment", fragment, udp4().plain().with(set(7, 1)), "bad_offload"},
		{"checksum of what is not to be cut", fragment, udp4().plain().with(set(6, 0x40)), ""},
		{"checksum with the reserved bit", fragment, udp4().plain().with(set(6, 0x80)), ""},
		{"checksum behind a fragment header", fragment, tcp6().plain().extended(44, 6, 0, 0, 0, 0, 0, 0, 0), "bad_offload"},
		{"checksum of ip of another version", ipv4, tcp4().plain().with(set(0, 0x65)), "bad_offload"},
		{"checksum behind a short ipv4 header", ipv4, tcp4().plain().with(set(0, 0x44)), "bad_offload"},
		{"checksum with lengths that disagree", csumIP, tcp4().plain().with(func(s *super) { s.lie = grow }), ""},
		{"checksum of anything", csumOther, other, ""},
		{"checksum of anything, too early", csumOther, other.with(func(s *super) { s.csumStart = 33 }), "bad_offload"},
		{"checksum of anything behind a tag", csumOther, other.tagged(0x88a8), ""},
		{"checksum of anything behind a tag, too early", csumOther, other.tagged(0x88a8).with(func(s *super) { s.csumStart = 37 }), "bad_offload"},
		{"checksum of anything at the end", csumOther, other.with(func(s *super) { s.csumStart = 152 }), ""},
		{"checksum of anything half inside", csumOther, other.with(func(s *super) { s.csumStart = 153 }), "bad_offload"},
		{"checksum sum above 65535", csumOther, other.with(func(s *super) { s.csumStart, s.csumAt = 0xffff, 0xffff }), "bad_offload"},

		{"gso without checksum", gso, tcp4().with(func(s *super) { s.flags = 0 }), "bad_offload"},
		{"one tag", tags, tcp4().tagged(0x8100), ""},
		{"two tags", tags, udp6().tagged(0x88a8, 0x8100), ""},
		{"two tags, other order", tags, udp6().tagged(0x8100, 0x88a8), ""},
		{"three tags", tags, tcp4().tagged(0x8100, 0x8100, 0x8100), "bad_offload"},
		{"tag of no standard", tags, tcp4().tagged(0x9100), "bad_offload"},
		{"tcp4 in ipv6", agree, tcp6().with(func(s *super) { s.gsoType = 1 }), "bad_offload"},
		{"tcp6 in ipv4", agree, tcp4().with(func(s *super) { s.gsoType = 4 }), "bad_offload"},
		{"tcp in udp", agree, udp4().with(func(s *super) { s.gsoType, s.csumAt = 1, 16 }), "bad_offload"},
		{"udp in tcp", agree, tcp6().with(func(s *super) { s.gsoType, s.csumAt = 5, 6 }), "bad_offload"},
		{"version 6 in ipv4", ipv4, tcp4().with(set(0, 0x65)), "bad_offload"},
		{"version 4 in ipv6", ipv6, tcp6().with(set(0, 0x45)), "bad_offload"},
		{"ipv4 header of 16 bytes", ipv4, udp4().with(set(0, 0x44)), "bad_offload"},
		{"ipv4 options", ipv4, udp4().extended(0, make([]byte, 40)...).with(func(s *super) { s.gsoSize = 1472 - 40 }), ""},
		{"hop-by-hop", ipv6, tcp6().extended(0, 6, 0, 0, 0, 0, 0, 0, 0).with(func(s *super) { s.gsoSize = 1432 }), ""},
		{"routing of 16 bytes", ipv6, tcp6().extended(43, append([]byte{6, 1}, make([]byte, 14)...)...).with(func(s *super) { s.gsoSize = 1424 }), ""},
		{"two of destination options", ipv6, udp6().extended(60, 60, 0, 0, 0, 0, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0, 0).with(func(s *super) { s.gsoSize = 1436 }), ""},
		{"authentication header", ipv6, tcp6().extended(51, 6, 0, 0, 0, 0, 0, 0, 0).with(func(s *super) { s.gsoSize = 1432 }), "bad_offload"},
		{"extension header beyond the frame", fragment, tcp6().extended(0, 6, 255, 0, 0, 0, 0, 0, 0).with(func(s *super) { s.payload = 1500 }), "bad_offload"},
		{"fragment of ipv4", fragment, tcp4().with(set(6, 0x20)), "bad_offload"},
		{"fragment of ipv6", fragment, udp6().extended(44, 17, 0, 0, 0, 0, 0, 0, 0).with(func(s *super) { s.gsoSize = 1400 }), "bad_offload"},
		{"fragment of ipv6 behind another header", fragment, udp6().extended(0, 44, 0, 0, 0, 0, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0, 0).with(func(s *super) { s.gsoSize = 1400 }), "bad_offload"},

		{"checksum start before", place, tcp4().with(func(s *super) { s.csumStart-- }), "bad_offload"},
		{"checksum start behind", place, udp6().with(func(s *super) { s.csumStart++ }), "bad_offload"},
		{"tcp with the offset of udp", place, tcp4().with(func(s *super) { s.csumAt = 6 }), "bad_offload"},
		{"udp with the offset of tcp", place, udp6().with(func(s *super) { s.csumAt = 16 }), "bad_offload"},
		{"longer than ipv4 says", lengths, tcp4().with(func(s *super) { s.lie = grow }), "bad_offload"},
		{"shorter than ipv4 says", lengths, tcp4().with(func(s *super) { s.lie = shrink }), "bad_offload"},
		{"longer than ipv6 says", lengths, tcp6().with(func(s *super) { s.lie = grow }), "bad_offload"},
		{"shorter than ipv6 says", lengths, tcp6().with(func(s *super) { s.lie = shrink }), "bad_offload"},
		{"no length in ipv6", lengths, tcp6().with(func(s *super) { s.lie = func(b []byte) []byte { b[4], b[5] = 0, 0; return b } }), "bad_offload"},
		{"udp length less", lengths, udp4().with(func(s *super) { s.lie = func(b []byte) []byte { b[25]--; return b } }), "bad_offload"},
		{"udp length more", lengths, udp6().with(func(s *super) { s.lie = func(b []byte) []byte { b[45]++; return b } }), "bad_offload"},

		{"tcp header of 16 bytes", inside, tcp4().with(set(32, 0x40)), "bad_offload"},
		{"tcp options", inside, tcp6().with(func(s *super) { set(52, 0xf0)(s); s.gsoSize = 1440 - 40 }), ""},
		{"no payload tcp4", inside, tcp4().with(func(s *super) { s.payload = 0 }), "bad_offload"},
		{"no payload udp6", inside, udp6().with(func(s *super) { s.payload = 0 }), "bad_offload"},
		{"tcp options beyond the frame", inside, tcp4().with(func(s *super) { set(32, 0x60)(s); s.payload = 3 }), "bad_offload"},
		{"tcp options fill the frame", inside, tcp4().with(func(s *super) { set(32, 0x60)(s); s.payload = 4 }), "bad_offload"},
		{"ipv4 cut", fragment, tcp4().with(short(19)), "bad_offload"},
		{"ipv6 cut", fragment, tcp6().with(short(39)), "bad_offload"},
		{"tcp cut", inside, tcp4().with(short(39)), "bad_offload"},
		{"udp cut", inside, udp4().with(short(27)), "bad_offload"},

		{"gso size 0", segments, tcp4().with(func(s *super) { s.gsoSize = 0 }), "bad_offload"},
		{"1024 segments", segments, tcp4().with(func(s *super) { s.gsoSize, s.payload = 10, 10240 }), ""},
		{"1025 segments", segments, tcp6().with(func(s *super) { s.gsoSize, s.payload = 10, 10241 }), "bad_offload"},
		{"128 segments", segments, udp6().with(func(s *super) { s.gsoSize, s.payload = 10, 1280 }), ""},
		{"129 segments", segments, udp4().with(func(s *super) { s.gsoSize, s.payload = 10, 1281 }), "bad_offload"},

		{"segment too long tcp4", segment, tcp4().with(func(s *super) { s.gsoSize++ }), "mtu_peer"},
		{"segment too long tcp6", segment, tcp6().with(func(s *super) { s.gsoSize++ }), "mtu_peer"},
		{"segment too long udp4", segment, udp4().with(func(s *super) { s.gsoSize++ }), "mtu_peer"},
		{"segment too long udp6", segment, udp6().with(func(s *super) { s.gsoSize++ }), "mtu_peer"},
		{"single segment too long", segment, tcp4().with(func(s *super) { s.gsoSize, s.payload = 2000, 1461 }), "mtu_peer"},
		{"segment with tags", segment, tcp4().tagged(0x8100), ""},
		{"segment too long with tags", segment, tcp4().tagged(0x8100).with(func(s *super) { s.gsoSize++ }), "mtu_peer"},
		{"bad and too long", order, tcp4().with(func(s *super) { s.gsoSize, s.csumAt = 9000, 6 }), "bad_offload"},
	}
	law := lawText(t)
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if !strings.Contains(law, c.law) {
				t.Errorf("docs/wire.md no longer says %q", c.law)
			}
			o := c.s.object()
			want, counts := events{o}, drops{}
			if c.drop != "" {
				want, counts = nil, drops{c.drop: 1}
			}
			r := wirepeer.New(1500)
			if d := cmp.Diff(want, r.Datagram(datagram(wirepeer.AppendWhole(nil, o)))); d != "" {
				t.Errorf("events (-want +got):\n%s", d)
			}
			if d := cmp.Diff(counts, r.Drops()); d != "" {
				t.Errorf("drops (-want +got):\n%s", d)
			}
		})
	}
}

// TestMeaning checks what a header is taken as that says more than it means.
func TestMeaning(t *testing.T) {
	for _, c := range []struct {
		name string
		law  string
		in   [10]byte
		s    super
		want [10]byte
	}{
		{"header length", ignored, [10]byte{1, 1, 0xff, 0xff, 0, 1, 34, 0, 16, 0}, tcp4(), [10]byte{1, 1, 0, 0, 0, 1, 34, 0, 16, 0}},
		{"offsets without checksum", nothing, [10]byte{0, 0, 1, 2, 3, 4, 0xff, 0xff, 7, 8}, tcp4().plain(), [10]byte{}},
		{"gso size without gso", nothing, [10]byte{1, 0, 1, 2, 3, 4, 34, 0, 16, 0}, tcp4().plain(), [10]byte{1, 0, 0, 0, 0, 0, 34, 0, 16, 0}},
		{"single segment", single, [10]byte{1, 0x81, 0, 0, 100, 0, 34, 0, 16, 0}, tcp4().plain(), [10]byte{1, 0, 0, 0, 0, 0, 34, 0, 16, 0}},
		{"single segment, greater size", single, [10]byte{1, 5, 0, 0, 0xff, 0xff, 54, 0, 6, 0}, udp6().plain(), [10]byte{1, 0, 0, 0, 0, 0, 54, 0, 6, 0}},
		{"two segments", single, [10]byte{1, 1, 0, 0, 99, 0, 34, 0, 16, 0}, tcp4().plain(), [10]byte{1, 1, 0, 0, 99, 0, 34, 0, 16, 0}},
	} {
		o := c.s.object()
		o.Header = c.in
		want := o
		want.Header = c.want
		testRules(t, []rule{{name: c.name, law: c.law, in: [][]byte{datagram(wirepeer.AppendWhole(nil, o))}, want: events{want}}})
	}
}

func TestPlainFrame(t *testing.T) {
	testRules(t, []rule{
		{name: "plain", law: limit, in: [][]byte{datagram(wirepeer.AppendWhole(nil, plain(frame(1514))))}, want: events{plain(frame(1514))}},
		{name: "plain too long", law: limit, in: [][]byte{datagram(wirepeer.AppendWhole(nil, plain(frame(1515))))}, drops: drops{"mtu_peer": 1}},
		{name: "other mtu", law: limit, mtu: 9000, in: [][]byte{datagram(wirepeer.AppendWhole(nil, plain(frame(9014))))}, want: events{plain(frame(9014))}},
		{name: "plain too short", law: short, in: [][]byte{datagram(record(1, 0, frame(13)...))}, drops: drops{"malformed": 1}},
		{
			name:  "verdict on a sliced frame",
			law:   "All T bytes received: closed, and the object is delivered.",
			in:    [][]byte{datagram(slice(0, 0, 0, 1515, make([]byte, 1000))), datagram(slice(0, 0, 1000, 1515, make([]byte, 515)), slice(0, 0, 0, 1515, []byte{1}))},
			drops: drops{"mtu_peer": 1, "late": 1},
		},
	})
}
