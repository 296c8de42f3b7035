// SPDX-License-Identifier: Apache-2.0

package wirepeer_test

import (
	"encoding/binary"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/l2bridge/l2bridge/test/wirepeer"
)

// super is a superframe under construction. Its IP header is without options;
// TCP has 20 bytes.
type super struct {
	tags      []uint16 // EtherTypes of tags
	ether     uint16
	protocol  byte
	payload   int
	flags     byte
	gsoType   byte
	gsoSize   uint16
	csumStart uint16
	csumAt    uint16
	change    func(ip []byte) []byte // the frame from the IP header on
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

func (s super) object() wirepeer.Object {
	b := make([]byte, 12)
	for _, tag := range s.tags {
		b = binary.BigEndian.AppendUint16(b, tag)
		b = append(b, 0, 7)
	}
	b = binary.BigEndian.AppendUint16(b, s.ether)
	ip := make([]byte, 20)
	ip[0], ip[9] = 0x45, s.protocol
	if s.ether == 0x86dd {
		ip = make([]byte, 40)
		ip[0], ip[6] = 0x60, s.protocol
	}
	if s.protocol == 17 {
		ip = append(ip, make([]byte, 8)...)
	} else {
		ip = append(ip, make([]byte, 20)...)
		ip[len(ip)-8] = 5 << 4
	}
	ip = append(ip, make([]byte, s.payload)...)
	if s.change != nil {
		ip = s.change(ip)
	}
	o := wirepeer.Object{Flags: wirepeer.VNET, Frame: append(b, ip...)}
	o.Header[0], o.Header[1] = s.flags, s.gsoType
	binary.LittleEndian.PutUint16(o.Header[4:], s.gsoSize)
	binary.LittleEndian.PutUint16(o.Header[6:], s.csumStart)
	binary.LittleEndian.PutUint16(o.Header[8:], s.csumAt)
	return o
}

// with returns s after f changed it.
func (s super) with(f func(s *super)) super {
	f(&s)
	return s
}

func set(i int, v byte) func([]byte) []byte {
	return func(b []byte) []byte { b[i] = v; return b }
}

func cut(n int) func([]byte) []byte { return func(b []byte) []byte { return b[:n] } }

func TestFrame(t *testing.T) {
	const (
		flags   = "flags is 0 or 1, the GSO type is one of those listed;"
		listed  = "0 none, 1 TCP over IPv4, 4 TCP over IPv6, 5 UDP; 0x80 may be added to 1 and 4 (ECN)"
		csum    = "with NEEDS_CSUM: checksum start >= 14, and checksum start + checksum offset + 2 does not go beyond the frame;"
		gso     = "with a GSO type other than none: NEEDS_CSUM is set, GSO size > 0, the checksum offset is that of the protocol (TCP 16, UDP 6)"
		agree   = "the EtherType behind at most two tags and the IP header agree with the type"
		inside  = "all headers are inside the frame, and at least one byte of payload follows them."
		ignored = "| 2 | 2 | header length: sent 0, ignored |"
		limit   = "with t bytes of tags (802.1Q and 802.1ad, two at most are counted), a frame longer than 14 + t + MTU;"
		segment = "for a superframe, headers plus GSO size longer than that."
		short   = "It drops a frame shorter than 14 bytes (`malformed`)."
	)
	none := super{ether: 0x0800, protocol: 6, payload: 100}
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
		{"none ecn", listed, none.with(func(s *super) { s.gsoType = 0x80 }), "bad_offload"},
		{"ufo", listed, udp4().with(func(s *super) { s.gsoType = 3 }), "bad_offload"},
		{"unknown type", flags, none.with(func(s *super) { s.gsoType = 2 }), "bad_offload"},
		{"nothing to do", flags, none, ""},
		{"data valid", flags, none.with(func(s *super) { s.flags = 2 }), "bad_offload"},
		{"data valid as well", flags, none.with(func(s *super) { s.flags, s.csumStart = 3, 14 }), "bad_offload"},

		{"checksum of anything", csum, none.with(func(s *super) { s.flags, s.csumStart, s.ether = 1, 14, 0x88b5 }), ""},
		{"checksum in the addresses", csum, none.with(func(s *super) { s.flags, s.csumStart = 1, 13 }), "bad_offload"},
		{"checksum at the end", csum, none.with(func(s *super) { s.flags, s.csumStart, s.csumAt = 1, 14, 138 }), ""},
		{"checksum at the end, start", csum, none.with(func(s *super) { s.flags, s.csumStart = 1, 152 }), ""},
		{"checksum half inside", csum, none.with(func(s *super) { s.flags, s.csumStart, s.csumAt = 1, 14, 139 }), "bad_offload"},
		{"checksum sum above 65535", csum, none.with(func(s *super) { s.flags, s.csumStart, s.csumAt = 1, 0xffff, 0xffff }), "bad_offload"},
		{"no checksum, any place", csum, none.with(func(s *super) { s.csumStart, s.csumAt, s.gsoSize = 0xffff, 3, 9 }), ""},

		{"gso without checksum", gso, tcp4().with(func(s *super) { s.flags = 0 }), "bad_offload"},
		{"gso size 0", gso, tcp4().with(func(s *super) { s.gsoSize = 0 }), "bad_offload"},
		{"gso size 1", gso, tcp4().with(func(s *super) { s.gsoSize = 1 }), ""},
		{"tcp with the offset of udp", gso, tcp4().with(func(s *super) { s.csumAt = 6 }), "bad_offload"},
		{"udp with the offset of tcp", gso, udp6().with(func(s *super) { s.csumAt = 16 }), "bad_offload"},

		{"one tag", agree, tcp4().with(func(s *super) { s.tags = []uint16{0x8100} }), ""},
		{"two tags", agree, udp6().with(func(s *super) { s.tags = []uint16{0x88a8, 0x8100} }), ""},
		{"two tags, other order", agree, udp6().with(func(s *super) { s.tags = []uint16{0x8100, 0x88a8} }), ""},
		{"three tags", agree, tcp4().with(func(s *super) { s.tags = []uint16{0x8100, 0x8100, 0x8100} }), "bad_offload"},
		{"tag of no standard", agree, tcp4().with(func(s *super) { s.tags = []uint16{0x9100} }), "bad_offload"},
		{"tcp4 in ipv6", agree, tcp6().with(func(s *super) { s.gsoType = 1 }), "bad_offload"},
		{"tcp6 in ipv4", agree, tcp4().with(func(s *super) { s.gsoType = 4 }), "bad_offload"},
		{"tcp4 in ipv6 with ether type of ipv4", agree, tcp6().with(func(s *super) { s.gsoType, s.ether, s.change = 1, 0x0800, set(0, 0x60) }), "bad_offload"},
		{"tcp in udp", agree, udp4().with(func(s *super) { s.gsoType, s.csumAt = 1, 16 }), "bad_offload"},
		{"udp in tcp", agree, tcp6().with(func(s *super) { s.gsoType, s.csumAt = 5, 6 }), "bad_offload"},
		{"version 6 in ipv4", agree, tcp4().with(func(s *super) { s.change = set(0, 0x65) }), "bad_offload"},
		{"version 4 in ipv6", agree, tcp6().with(func(s *super) { s.change = set(0, 0x45) }), "bad_offload"},
		{"extension header", agree, tcp6().with(func(s *super) { s.change = set(6, 0) }), "bad_offload"},

		{"ipv4 header of 16 bytes", inside, udp4().with(func(s *super) { s.change = set(0, 0x44) }), "bad_offload"},
		{"ipv4 options", inside, udp4().with(func(s *super) { s.gsoSize, s.change = 1472-40, set(0, 0x4f) }), ""},
		{"tcp header of 16 bytes", inside, tcp4().with(func(s *super) { s.change = set(32, 0x40) }), "bad_offload"},
		{"tcp options", inside, tcp6().with(func(s *super) { s.gsoSize, s.change = 1440-40, set(52, 0xf0) }), ""},
		{"no payload tcp4", inside, tcp4().with(func(s *super) { s.payload = 0 }), "bad_offload"},
		{"no payload udp6", inside, udp6().with(func(s *super) { s.payload = 0 }), "bad_offload"},
		{"one byte of payload tcp6", inside, tcp6().with(func(s *super) { s.payload = 1 }), ""},
		{"one byte of payload udp4", inside, udp4().with(func(s *super) { s.payload = 1 }), ""},
		{"tcp options beyond the frame", inside, tcp4().with(func(s *super) { s.payload, s.change = 3, set(32, 0x60) }), "bad_offload"},
		{"tcp options fill the frame", inside, tcp4().with(func(s *super) { s.payload, s.change = 4, set(32, 0x60) }), "bad_offload"},
		{"ipv4 cut", inside, tcp4().with(func(s *super) { s.csumStart, s.change = 14, cut(19) }), "bad_offload"},
		{"ipv6 cut", inside, tcp6().with(func(s *super) { s.csumStart, s.change = 14, cut(39) }), "bad_offload"},
		{"tcp cut", inside, tcp4().with(func(s *super) { s.csumStart, s.change = 14, cut(39) }), "bad_offload"},
		{"udp cut", inside, udp4().with(func(s *super) { s.csumStart, s.change = 14, cut(27) }), "bad_offload"},
		{"tag cut", inside, tcp4().with(func(s *super) { s.ether, s.change = 0x8100, cut(18) }), "bad_offload"},

		{"greatest frame", limit, none.with(func(s *super) { s.payload = 1460 }), ""},
		{"too long", limit, none.with(func(s *super) { s.payload = 1461 }), "mtu_peer"},
		{"greatest frame, two tags", limit, none.with(func(s *super) { s.tags, s.payload = []uint16{0x88a8, 0x8100}, 1460 }), ""},
		{"too long, two tags", limit, none.with(func(s *super) { s.tags, s.payload = []uint16{0x88a8, 0x8100}, 1461 }), "mtu_peer"},
		{"a third tag is payload", limit, none.with(func(s *super) { s.tags, s.payload = []uint16{0x8100, 0x8100, 0x8100}, 1456 }), ""},
		{"too long, three tags", limit, none.with(func(s *super) { s.tags, s.payload = []uint16{0x8100, 0x8100, 0x8100}, 1457 }), "mtu_peer"},
		{"segment too long tcp4", segment, tcp4().with(func(s *super) { s.gsoSize++ }), "mtu_peer"},
		{"segment too long tcp6", segment, tcp6().with(func(s *super) { s.gsoSize++ }), "mtu_peer"},
		{"segment too long udp4", segment, udp4().with(func(s *super) { s.gsoSize++ }), "mtu_peer"},
		{"segment too long udp6", segment, udp6().with(func(s *super) { s.gsoSize++ }), "mtu_peer"},
		{"segment of one byte in a frame that fits", segment, tcp4().with(func(s *super) { s.payload, s.gsoSize = 1, 0xffff }), "mtu_peer"},
		{"segment with tags", segment, tcp4().with(func(s *super) { s.tags = []uint16{0x8100} }), ""},
		{"segment too long with tags", segment, tcp4().with(func(s *super) { s.tags, s.gsoSize = []uint16{0x8100}, 1461 }), "mtu_peer"},
		{"bad and too long", segment, tcp4().with(func(s *super) { s.gsoSize, s.csumAt = 9000, 6 }), "bad_offload"},
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

	// Without a header the limit holds too, and the header length is ignored.
	ignore := tcp4().object()
	ignore.Header[2], ignore.Header[3] = 0xff, 0xff
	testRules(t, []rule{
		{name: "plain", law: limit, in: [][]byte{datagram(wirepeer.AppendWhole(nil, plain(frame(1514))))}, want: events{plain(frame(1514))}},
		{name: "plain too long", law: limit, in: [][]byte{datagram(wirepeer.AppendWhole(nil, plain(frame(1515))))}, drops: drops{"mtu_peer": 1}},
		{name: "other mtu", law: limit, mtu: 9000, in: [][]byte{datagram(wirepeer.AppendWhole(nil, plain(frame(9014))))}, want: events{plain(frame(9014))}},
		{name: "plain too short", law: short, in: [][]byte{datagram(record(1, 0, frame(13)...))}, drops: drops{"malformed": 1}},
		{name: "header length", law: ignored, in: [][]byte{datagram(wirepeer.AppendWhole(nil, ignore))}, want: events{ignore}},
		{
			name:  "verdict on a sliced frame",
			law:   "All T bytes received: closed, and the object is delivered.",
			in:    [][]byte{datagram(slice(0, 0, 0, 1515, make([]byte, 1000))), datagram(slice(0, 0, 1000, 1515, make([]byte, 515)), slice(0, 0, 0, 1515, []byte{1}))},
			drops: drops{"mtu_peer": 1, "late": 1},
		},
	})
}
