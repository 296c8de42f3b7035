// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lab

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
)

const (
	ipv4Header = 20
	udpHeader  = 8
	protoUDP   = 17
)

// Forger is a router of the WAN that sends a gateway packets in the name of others.
type Forger struct {
	wire *Wire
	head []byte // Ethernet
	to   netip.AddrPort
}

// Forge makes a forger of the router before a gateway. What it sends goes to the
// tunnel's port there, over IPv4.
func (s *Sites) Forge(site *Site) *Forger {
	s.t.Helper()
	router := s.router(site)
	mac := func(n *Namespace, link string) []byte { return n.Link(link).Attrs().HardwareAddr }
	return &Forger{
		wire: router.Wire(site.Uplink),
		head: slices.Concat(mac(site.Gateway, WANLink), mac(router, site.Uplink), []byte{0x08, 0x00}),
		to:   netip.AddrPortFrom(netip.MustParseAddr(site.Addr4), 4433),
	}
}

// Frame returns the frame of a UDP datagram as if it came from an address.
func (f *Forger) Frame(from netip.AddrPort, payload []byte) []byte {
	length := ipv4Header + udpHeader + len(payload)
	b := make([]byte, 0, etherHeader+length)
	b = append(b, f.head...)
	b = append(b, 0x45, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(length))
	b = append(b, 0, 0, 0x40, 0, 64, protoUDP, 0, 0) // don't fragment
	b = append(append(b, from.Addr().AsSlice()...), f.to.Addr().AsSlice()...)
	header := b[etherHeader:]
	binary.BigEndian.PutUint16(header[10:], checksum(header))
	b = binary.BigEndian.AppendUint16(b, from.Port())
	b = binary.BigEndian.AppendUint16(b, f.to.Port())
	b = binary.BigEndian.AppendUint16(b, uint16(udpHeader+len(payload)))
	return append(append(b, 0, 0), payload...) // without a checksum, RFC 768
}

// Send sends a datagram as if it came from an address.
func (f *Forger) Send(from netip.AddrPort, payload []byte) error {
	return f.SendFrame(f.Frame(from, payload))
}

// SendFrame sends a frame that Frame has made.
func (f *Forger) SendFrame(frame []byte) error { return f.wire.Send(frame) }

// SendFrom sends a frame that Frame has made from another address, which it has from
// then on.
func (f *Forger) SendFrom(frame []byte, from netip.AddrPort) error {
	header := frame[etherHeader:]
	copy(header[12:], from.Addr().AsSlice())
	binary.BigEndian.PutUint16(header[10:], 0)
	binary.BigEndian.PutUint16(header[10:], checksum(header[:ipv4Header]))
	binary.BigEndian.PutUint16(header[ipv4Header:], from.Port())
	return f.SendFrame(frame)
}

// UDPPayload returns what is in a frame of UDP over IPv4, where it came from and
// where it goes.
func UDPPayload(frame []byte) (from, to netip.AddrPort, payload []byte, ok bool) {
	if len(frame) < etherHeader+ipv4Header+udpHeader || frame[12] != 0x08 || frame[13] != 0 {
		return from, to, nil, false
	}
	packet := frame[etherHeader:]
	header := int(packet[0]&0xf) * 4
	if packet[9] != protoUDP || len(packet) < header+udpHeader {
		return from, to, nil, false
	}
	udp := packet[header:]
	port := func(i int) uint16 { return binary.BigEndian.Uint16(udp[i:]) }
	length := int(port(4))
	if length < udpHeader || length > len(udp) {
		return from, to, nil, false
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte(packet[12:16])), port(0)),
		netip.AddrPortFrom(netip.AddrFrom4([4]byte(packet[16:20])), port(2)), udp[udpHeader:length], true
}

// checksum is the internet checksum (RFC 1071) of b, in which its own place is zero.
func checksum(b []byte) uint16 {
	sum := uint32(0)
	for i := range b {
		sum += uint32(b[i]) << (8 * (1 - i&1))
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// Counter is nftables counting packets, which end there.
type Counter struct {
	ns    *Namespace
	table string
}

// Count counts, and drops, what comes in by a link for addresses of a prefix of
// IPv4.
func (n *Namespace) Count(ifname string, to netip.Prefix) *Counter {
	n.t.Helper()
	c := &Counter{n, fmt.Sprintf("count_%x_%d", to.Addr().AsSlice(), to.Bits())}
	n.nft(fmt.Sprintf(`table inet %s {
	counter hits { }
	chain count {
		type filter hook prerouting priority raw;
		iifname %q ip daddr %s counter name hits drop
	}
}
`, c.table, ifname, to))
	return c
}

// Count returns how many packets there were, and the bytes of their UDP payload.
func (c *Counter) Count() (packets, payload int) {
	c.ns.t.Helper()
	var list struct {
		NFTables []struct{ Counter struct{ Packets, Bytes int } }
	}
	out := c.ns.MustRun("nft", "-j", "list", "counter", "inet", c.table, "hits")
	c.ns.must("read counter", json.Unmarshal([]byte(out), &list))
	for _, object := range list.NFTables {
		packets += object.Counter.Packets
		payload += object.Counter.Bytes
	}
	return packets, payload - packets*(ipv4Header+udpHeader)
}
