// SPDX-License-Identifier: Apache-2.0

//go:build linux

package test_test

import (
	"bytes"
	"encoding/binary"
	"net"
	"slices"
)

// oddFrame is a frame that a bridge may be tempted to mend, to judge or to eat.
type oddFrame struct {
	name    string
	frame   []byte
	mayDrop bool // a bridge has reason not to pass it on
}

func oddFrames() []oddFrame {
	var odd []oddFrame
	add := func(name string, frame []byte) { odd = append(odd, oddFrame{name: name, frame: frame}) }
	mayDrop := func(name string, frame []byte) { odd = append(odd, oddFrame{name: name, frame: frame, mayDrop: true}) }

	// Length field instead of an EtherType.
	add("LLC", ether(macB, macA, 0x0003, []byte{0xf0, 0xf0, 0x03}, zeros(43)))
	add("SNAP", ether(macB, macA, 40, []byte{0xaa, 0xaa, 0x03, 0, 0, 0x0c, 0x20, 0x00}, ramp(32)))
	add("LLC longer than the frame", ether(macB, macA, 1500, ramp(46)))
	add("LLC length zero", ether(macB, macA, 0, zeros(46)))
	add("EtherType between length and type", ether(macB, macA, 0x05ff, ramp(46)))

	// Tags.
	add("VLAN 0", ether(macB, macA, 0x8100, u16(0x6000, 0x88b5), ramp(46)))
	add("VLAN 100", ether(macB, macA, 0x8100, u16(100, 0x88b5), ramp(46)))
	add("VLAN 4095", ether(macB, macA, 0x8100, u16(4095, 0x88b5), ramp(46)))
	add("drop eligible", ether(macB, macA, 0x8100, u16(0x1000|100, 0x88b5), ramp(46)))
	add("Q-in-Q", ether(macB, macA, 0x88a8, u16(10, 0x8100, 20, 0x88b5), ramp(46)))
	add("Q-in-Q with 8100 twice", ether(macB, macA, 0x8100, u16(10, 0x8100, 20, 0x88b5), ramp(46)))
	add("Q-in-Q with 9100", ether(macB, macA, 0x9100, u16(10, 0x8100, 20, 0x88b5), ramp(46)))
	mayDrop("three tags", ether(macB, macA, 0x88a8, u16(1, 0x88a8, 2, 0x8100, 3, 0x88b5), ramp(46)))

	// Other protocols.
	add("PPPoE discovery", ether(broadcast, macA, 0x8863, []byte{0x11, 0x09, 0, 0, 0, 4, 1, 1, 0, 0}, zeros(36)))
	add("PPPoE session", ether(macB, macA, 0x8864, []byte{0x11, 0, 0, 1, 0, 30, 0, 0x21}, ipv4(nil, ramp(8))))
	add("MPLS", ether(macB, macA, 0x8847, []byte{0, 1, 0x01, 64}, ipv4(nil, ramp(20))))
	add("Wake-on-LAN", ether(broadcast, macA, 0x0842, bytes.Repeat([]byte{0xff}, 6), bytes.Repeat(macB, 16)))
	add("PROFINET", ether(net.HardwareAddr{0x01, 0x0e, 0xcf, 0, 0, 0}, macA, 0x8892, ramp(46)))
	add("EtherType ffff", ether(macB, macA, 0xffff, ramp(46)))
	add("macsec", ether(macB, macA, 0x88e5, ramp(60)))

	// IPv4.
	add("IPv4 wrong header checksum", ether(macB, macA, 0x0800, ipv4(func(h []byte) { h[10] ^= 0xff }, ramp(40))))
	add("IPv4 longer than the frame", ether(macB, macA, 0x0800, ipv4(func(h []byte) { h[2], h[3] = 0x05, 0xdc }, ramp(40))))
	add("IPv4 shorter than its header", ether(macB, macA, 0x0800, ipv4(func(h []byte) { h[2], h[3] = 0, 8 }, ramp(40))))
	add("IPv4 version 7", ether(macB, macA, 0x0800, ipv4(func(h []byte) { h[0] = 0x75 }, ramp(40))))
	add("IPv4 header of 12 bytes", ether(macB, macA, 0x0800, ipv4(func(h []byte) { h[0] = 0x43 }, ramp(40))))
	add("IPv4 header beyond the frame", ether(macB, macA, 0x0800, ipv4(func(h []byte) { h[0] = 0x4f }, ramp(2))))
	add("IPv4 first fragment", ether(macB, macA, 0x0800, ipv4(func(h []byte) { h[6] = 0x20 }, ramp(64))))
	add("IPv4 last fragment", ether(macB, macA, 0x0800, ipv4(func(h []byte) { h[6], h[7] = 0x00, 0x08 }, ramp(8))))
	add("IPv4 fragment past 64 KB", ether(macB, macA, 0x0800, ipv4(func(h []byte) { h[6], h[7] = 0x1f, 0xff }, ramp(64))))
	add("IPv4 congestion experienced", ether(macB, macA, 0x0800, ipv4(func(h []byte) { h[1] = 0x03 }, ramp(40))))
	add("IPv4 expedited forwarding, ECT(1)", ether(macB, macA, 0x0800, ipv4(func(h []byte) { h[1] = 0xb9 }, ramp(40))))
	add("IPv4 time to live 0", ether(macB, macA, 0x0800, ipv4(func(h []byte) { h[8] = 0 }, ramp(40))))
	add("IPv4 padded", ether(macB, macA, 0x0800, ipv4(nil, ramp(1)), ramp(25)))
	add("IPv4 with nothing", ether(macB, macA, 0x0800))
	add("IPv4 source is loopback", ether(macB, macA, 0x0800, ipv4(func(h []byte) { h[12] = 127 }, ramp(40))))
	add("UDP wrong checksum", ether(macB, macA, 0x0800, ipv4(nil, u16(5000, 5001, 40, 0xdead), ramp(32))))
	add("UDP no checksum", ether(macB, macA, 0x0800, ipv4(nil, u16(5000, 5001, 40, 0), ramp(32))))
	add("UDP longer than the packet", ether(macB, macA, 0x0800, ipv4(nil, u16(5000, 5001, 1400, 0), ramp(32))))
	add("TCP wrong checksum", ether(macB, macA, 0x0800, ipv4(func(h []byte) { h[9] = 6 },
		u16(5000, 80, 0, 1, 0, 1, 0x5018, 0xffff, 0xdead, 0), ramp(32))))
	add("TCP header beyond the packet", ether(macB, macA, 0x0800, ipv4(func(h []byte) { h[9] = 6 },
		u16(5000, 80, 0, 1, 0, 1, 0xf002, 0xffff, 0, 0))))
	add("VXLAN", ether(macB, macA, 0x0800, ipv4(nil, u16(5000, 4789, 58, 0, 0x0800, 0, 0, 0x100), ether(macA, macB, 0x88b5, ramp(28)))))

	// IPv6.
	add("IPv6 hop by hop", ether(macB, macA, 0x86dd, ipv6(nil, []byte{17, 0, 5, 2, 0, 0, 1, 0}, u16(5000, 5001, 16, 1), ramp(8))))
	add("IPv6 longer than the frame", ether(macB, macA, 0x86dd, ipv6(func(h []byte) { h[4], h[5] = 0xff, 0xff }, ramp(8))))
	add("IPv6 cut off", ether(macB, macA, 0x86dd, ipv6(nil)[:20]))
	add("IPv6 fragment", ether(macB, macA, 0x86dd, ipv6(func(h []byte) { h[6] = 44 }, []byte{17, 0, 0, 1, 0, 0, 0, 9}, ramp(16))))
	add("IPv6 congestion experienced", ether(macB, macA, 0x86dd, ipv6(func(h []byte) { h[1] |= 0x30 }, ramp(16))))

	// ARP.
	add("ARP with long addresses", ether(broadcast, macA, 0x0806, []byte{0, 1, 8, 0, 255, 255, 0, 1}, ramp(38)))
	add("ARP cut off", ether(broadcast, macA, 0x0806, []byte{0, 1, 8}))

	// Addresses.
	add("broadcast", ether(broadcast, macA, 0x88b6, ramp(46)))
	add("multicast", ether(net.HardwareAddr{0x33, 0x33, 0x12, 0x34, 0x56, 0x78}, macA, 0x88b6, ramp(46)))
	mayDrop("to nobody", ether(make(net.HardwareAddr, 6), macA, 0x88b6, ramp(46)))
	mayDrop("to itself", ether(macA, macA, 0x88b6, ramp(46)))
	mayDrop("from a group", ether(macB, net.HardwareAddr{0x03, 0x77, 0, 0, 0, 0xa}, 0x88b6, ramp(46)))
	mayDrop("from nobody", ether(macB, make(net.HardwareAddr, 6), 0x88b6, ramp(46)))

	// Between neighbours only (IEEE 802.1D, 7.12.6), or a bridge's own business.
	mayDrop("spanning tree", ether(reserved(0x00), macA, 0x0026, []byte{0x42, 0x42, 0x03}, zeros(43)))
	mayDrop("PVST", ether(net.HardwareAddr{0x01, 0x00, 0x0c, 0xcc, 0xcc, 0xcd}, macA, 0x0032,
		[]byte{0xaa, 0xaa, 0x03, 0, 0, 0x0c, 0x01, 0x0b}, zeros(42)))
	mayDrop("PAUSE", ether(reserved(0x01), macA, 0x8808, u16(1, 0xffff), zeros(42)))
	mayDrop("LACP", ether(reserved(0x02), macA, 0x8809, []byte{1, 1}, zeros(108)))
	mayDrop("802.1X", ether(reserved(0x03), macA, 0x888e, []byte{1, 1, 0, 0}, zeros(42)))
	mayDrop("LLDP", ether(reserved(0x0e), macA, 0x88cc, ramp(46)))
	return odd
}

func ether(dst, src net.HardwareAddr, etherType uint16, payload ...[]byte) []byte {
	b := slices.Concat(dst, src)
	b = binary.BigEndian.AppendUint16(b, etherType)
	return append(b, slices.Concat(payload...)...)
}

func reserved(last byte) net.HardwareAddr {
	return net.HardwareAddr{0x01, 0x80, 0xc2, 0x00, 0x00, last}
}

// ipv4 builds a packet that is right but for what spoil does to its header
// afterwards.
func ipv4(spoil func(header []byte), payload ...[]byte) []byte {
	body := slices.Concat(payload...)
	h := []byte{0x45, 0, 0, 0, 0, 1, 0, 0, 64, 17, 0, 0, 10, 77, 0, 11, 10, 77, 0, 21}
	binary.BigEndian.PutUint16(h[2:], uint16(len(h)+len(body)))
	var sum uint32
	for i := 0; i < len(h); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(h[i:]))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	binary.BigEndian.PutUint16(h[10:], ^uint16(sum))
	if spoil != nil {
		spoil(h)
	}
	return append(h, body...)
}

// ipv6 is as ipv4.
func ipv6(spoil func(header []byte), payload ...[]byte) []byte {
	body := slices.Concat(payload...)
	h := make([]byte, 40)
	h[0], h[6], h[7] = 0x60, 0, 64
	binary.BigEndian.PutUint16(h[4:], uint16(len(body)))
	copy(h[8:], net.ParseIP("fd77::11"))
	copy(h[24:], net.ParseIP("fd77::21"))
	if spoil != nil {
		spoil(h)
	}
	return append(h, body...)
}

func u16(words ...uint16) []byte {
	var b []byte
	for _, w := range words {
		b = binary.BigEndian.AppendUint16(b, w)
	}
	return b
}

func zeros(n int) []byte { return make([]byte, n) }

func ramp(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i + 1)
	}
	return b
}
