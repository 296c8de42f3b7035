// SPDX-License-Identifier: Apache-2.0

package frame_test

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"pgregory.net/rapid"

	"github.com/l2bridge/l2bridge/internal/frame"
)

// A super describes a superframe. It builds the whole one and, with gopacket
// and from nothing that the package under test computes, each segment of it.
type super struct {
	Tags       []uint16 // EtherTypes of the tags, outermost first
	V6, UDP    bool
	IPOptions  int  // IPv4: router alerts; IPv6: destination option headers
	Routed     bool // IPv6: behind a routing header that holds the destination
	HopByHop   bool // IPv6: and behind a hop-by-hop header
	TCPOptions int  // 4 bytes each
	Flags      uint8
	ECN        bool
	ID         uint16
	Seq        uint32
	Size       int // GSO size
	Payload    int
	Seed       uint64
}

// TCP flags.
const (
	fin = 0x01
	psh = 0x08
	ack = 0x10
	cwr = 0x80
)

func drawSuper(t *rapid.T) super {
	s := super{
		Tags:       rapid.SliceOfN(rapid.SampledFrom([]uint16{0x8100, 0x88a8}), 0, 2).Draw(t, "tags"),
		V6:         rapid.Bool().Draw(t, "v6"),
		UDP:        rapid.Bool().Draw(t, "udp"),
		IPOptions:  rapid.IntRange(0, 3).Draw(t, "ip options"),
		TCPOptions: rapid.IntRange(0, 10).Draw(t, "tcp options"),
		Flags:      ack | rapid.Uint8Range(0, 0xff).Draw(t, "flags")&(fin|psh|cwr),
		ID:         rapid.Uint16().Draw(t, "id"),
		Seq:        rapid.Uint32().Draw(t, "seq"),
		Seed:       rapid.Uint64().Draw(t, "seed"),
	}
	s.Routed = s.V6 && rapid.Bool().Draw(t, "routed")
	s.HopByHop = s.V6 && rapid.Bool().Draw(t, "hop by hop")
	s.ECN = !s.UDP && s.Flags&cwr != 0 && rapid.Bool().Draw(t, "ecn")
	full := 1500 - s.headers()
	s.Size = rapid.OneOf(rapid.IntRange(1, full), rapid.IntRange(full-8, full)).Draw(t, "size")
	most := min(65535-s.headers(), s.Size*100)
	s.Payload = rapid.OneOf(rapid.IntRange(s.Size+1, most), rapid.IntRange(max(s.Size+1, most-s.Size), most)).Draw(t, "payload")
	return s
}

// headers returns the length of all headers, Ethernet's included.
func (s super) headers() int {
	n := 14 + 4*len(s.Tags) + 20 + 4*s.IPOptions
	if s.V6 {
		n = 14 + 4*len(s.Tags) + 40 + 8*s.IPOptions
	}
	if s.Routed {
		n += 24
	}
	if s.HopByHop {
		n += 8
	}
	if s.UDP {
		return n + 8
	}
	return n + 20 + 4*s.TCPOptions
}

func (s super) count() int { return (s.Payload + s.Size - 1) / s.Size }

func (s super) payload() []byte {
	p := make([]byte, s.Payload+8)
	r := rand.New(rand.NewPCG(s.Seed, 1))
	for i := 0; i < s.Payload; i += 8 {
		binary.LittleEndian.PutUint64(p[i:], r.Uint64())
	}
	return p[:s.Payload]
}

// segment returns segment i as the frame that Linux would send.
func (s super) segment(t testing.TB, payload []byte, i int) []byte {
	t.Helper()
	flags := s.Flags
	if i > 0 {
		flags &^= cwr
	}
	if i < s.count()-1 {
		flags &^= fin | psh
	}
	payload = payload[i*s.Size : min((i+1)*s.Size, len(payload))]
	f := s.encode(t, payload, s.ID+uint16(i), s.Seq+uint32(i*s.Size), flags)
	if at := s.csumField(); f[at] == 0 && f[at+1] == 0 {
		f[at], f[at+1] = 0xff, 0xff // the same number; see Complete
	}
	return f
}

// header returns the virtio-net header as CheckVnet should return it.
func (s super) header() frame.Vnet {
	h := frame.Vnet{
		Flags:      frame.VnetNeedsCsum,
		GSOType:    frame.GSOTCPv4,
		HdrLen:     uint16(s.headers()),
		GSOSize:    uint16(s.Size),
		CsumStart:  uint16(s.headers() - 20 - 4*s.TCPOptions),
		CsumOffset: 16,
	}
	switch {
	case s.UDP:
		h.GSOType, h.CsumStart, h.CsumOffset = frame.GSOUDP, uint16(s.headers()-8), 6
	case s.V6:
		h.GSOType = frame.GSOTCPv6
	}
	if s.ECN {
		h.GSOType |= frame.GSOECN
	}
	return h
}

func (s super) csumField() int { h := s.header(); return int(h.CsumStart + h.CsumOffset) }

// build returns the superframe.
func (s super) build(t testing.TB) *frame.Buf {
	t.Helper()
	b := frame.New(s.encode(t, s.payload(), s.ID, s.Seq, s.Flags))
	b.SetHeader(s.header())

	// What encode wrote is the complement of pseudo-header and data. Adding the
	// data leaves the pseudo-header's sum.
	f, at := b.Bytes(), s.csumField()
	sum := ^binary.BigEndian.Uint16(f[at:])
	f[at], f[at+1] = 0, 0
	data := naiveSum(f[s.header().CsumStart:], 0)
	binary.BigEndian.PutUint16(f[at:], naiveSum([]byte{^byte(data >> 8), ^byte(data)}, sum))
	return b
}

var (
	srcIP4, dstIP4 = net.IP{198, 18, 0, 1}, net.IP{198, 18, 0, 2}
	srcIP6, dstIP6 = net.ParseIP("2001:db8::1"), net.ParseIP("2001:db8::2")
	viaIP6         = net.ParseIP("2001:db8::99")
	srcMAC, dstMAC = net.HardwareAddr{2, 0, 0, 0, 0, 1}, net.HardwareAddr{2, 0, 0, 0, 0, 2}
)

// encode returns a complete packet, of any length up to that of a superframe.
func (s super) encode(t testing.TB, payload []byte, id uint16, seq uint32, flags uint8) []byte {
	t.Helper()
	etherType, proto := layers.EthernetTypeIPv4, layers.IPProtocolTCP
	if s.V6 {
		etherType = layers.EthernetTypeIPv6
	}
	if s.UDP {
		proto = layers.IPProtocolUDP
	}

	var stack []gopacket.SerializableLayer
	types := append(append([]uint16{}, s.Tags...), uint16(etherType))
	stack = append(stack, &layers.Ethernet{SrcMAC: srcMAC, DstMAC: dstMAC, EthernetType: layers.EthernetType(types[0])})
	for i, next := range types[1:] {
		stack = append(stack, &layers.Dot1Q{Priority: 3, VLANIdentifier: uint16(100 + i), Type: layers.EthernetType(next)})
	}

	var sumOver gopacket.NetworkLayer
	if s.V6 {
		ip := &layers.IPv6{Version: 6, TrafficClass: 0xb9, FlowLabel: 0x12345, HopLimit: 9, SrcIP: srcIP6, DstIP: dstIP6}
		sumOver = &layers.IPv6{SrcIP: srcIP6, DstIP: dstIP6}
		var chain []byte
		next := proto
		options := func(kind layers.IPProtocol) { // 8 bytes of padding (RFC 8200, 4.2)
			chain = append([]byte{byte(next), 0, 1, 4, 0, 0, 0, 0}, chain...)
			next = kind
		}
		for range s.IPOptions {
			options(layers.IPProtocolIPv6Destination)
		}
		if s.Routed { // type 2, RFC 6275, 6.4
			chain = append(append([]byte{byte(next), 2, 2, 1, 0, 0, 0, 0}, dstIP6...), chain...)
			next, ip.DstIP = layers.IPProtocolIPv6Routing, viaIP6
		}
		if s.HopByHop {
			options(layers.IPProtocolIPv6HopByHop)
		}
		ip.NextHeader = next
		stack = append(stack, ip, gopacket.Payload(chain))
	} else {
		ip := &layers.IPv4{Version: 4, TOS: 0xb9, Id: id, Flags: layers.IPv4DontFragment, TTL: 9, Protocol: proto, SrcIP: srcIP4, DstIP: dstIP4}
		for range s.IPOptions {
			ip.Options = append(ip.Options, layers.IPv4Option{OptionType: 0x94, OptionLength: 4, OptionData: []byte{0, 0}})
		}
		sumOver = ip
		stack = append(stack, ip)
	}

	if s.UDP {
		udp := &layers.UDP{SrcPort: 5000, DstPort: 443}
		udp.SetNetworkLayerForChecksum(sumOver)
		stack = append(stack, udp)
	} else {
		tcp := &layers.TCP{
			SrcPort: 5000, DstPort: 443, Seq: seq, Ack: 77, Window: 99, ACK: true,
			FIN: flags&fin != 0, PSH: flags&psh != 0, CWR: flags&cwr != 0,
		}
		for range s.TCPOptions {
			tcp.Options = append(tcp.Options, layers.TCPOption{OptionType: 254, OptionLength: 4, OptionData: []byte{1, 2}})
		}
		tcp.SetNetworkLayerForChecksum(sumOver)
		stack = append(stack, tcp)
	}
	stack = append(stack, gopacket.Payload(payload))

	buf := gopacket.NewSerializeBuffer()
	opts := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	if err := gopacket.SerializeLayers(buf, opts, stack...); err != nil {
		t.Fatalf("serialize: %v", err)
	}
	// Without the padding to 60 bytes, which is left to the NIC that sends.
	return bytes.Clone(buf.Bytes()[:s.headers()+len(payload)])
}

// naiveSum is RFC 1071 as its section 4.1 writes it.
func naiveSum(p []byte, partial uint16) uint16 {
	sum := uint32(partial)
	for i, c := range p {
		if i%2 == 0 {
			sum += uint32(c) << 8
		} else {
			sum += uint32(c)
		}
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum>>16 + sum&0xffff)
}
