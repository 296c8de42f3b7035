// SPDX-License-Identifier: Apache-2.0

package guard_test

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/l2bridge/l2bridge/bridge/guard"
	"github.com/l2bridge/l2bridge/internal/frame"
)

// packet is a UDP packet in a frame, as far as it matters here.
type packet struct {
	tags     []uint16 // EtherTypes of the tags
	src, dst netip.AddrPort
	options  int    // bytes of IPv4 options
	proto    uint8  // 0 for UDP
	fragment uint16 // IPv4 flags and offset
	payload  []byte
}

func (p packet) frame() []byte {
	be := binary.BigEndian
	f := []byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2}
	for _, t := range p.tags {
		f = append(be.AppendUint16(f, t), 0xa0, 7)
	}
	proto := cmp.Or(p.proto, frame.ProtoUDP)
	if p.dst.Addr().Is4() {
		f = be.AppendUint16(f, frame.TypeIPv4)
		f = append(f, byte(0x45+p.options/4), 0)
		f = be.AppendUint16(f, uint16(28+p.options+len(p.payload)))
		f = be.AppendUint16(f, 1)
		f = be.AppendUint16(f, p.fragment)
		f = append(f, 64, proto, 0, 0)
	} else {
		f = be.AppendUint16(f, frame.TypeIPv6)
		f = append(f, 0x60, 0, 0, 0)
		f = be.AppendUint16(f, uint16(8+len(p.payload)))
		f = append(f, proto, 64)
	}
	f = append(f, p.src.Addr().AsSlice()...)
	f = append(f, p.dst.Addr().AsSlice()...)
	f = append(f, make([]byte, p.options)...)
	f = be.AppendUint16(f, p.src.Port())
	f = be.AppendUint16(f, p.dst.Port())
	f = be.AppendUint16(f, uint16(8+len(p.payload)))
	return append(append(f, 0, 0), p.payload...)
}

var (
	own4, own6   = netip.MustParseAddrPort("198.51.100.1:4433"), netip.MustParseAddrPort("[2001:db8::1]:4433")
	peer4, peer6 = netip.MustParseAddrPort("192.0.2.7:5000"), netip.MustParseAddrPort("[2001:db8::7]:5000")
	linkLocal    = netip.MustParseAddrPort("[fe80::7%eth0]:4433")
)

func outer() *guard.Outer {
	o := new(guard.Outer)
	o.Set([]uint16{4433, 65535}, []netip.AddrPort{peer4, peer6, linkLocal})
	return o
}

func withPort(a netip.AddrPort, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr(), port)
}

func TestOuter(t *testing.T) {
	t.Parallel()
	const dontFragment, moreFragments = 0x4000, 0x2000
	own := packet{src: own4, dst: peer4, fragment: dontFragment}
	portsFirst := binary.BigEndian.AppendUint32(nil, 4433<<16|5000)
	for _, tt := range []struct {
		name  string
		frame []byte
		want  bool
	}{
		{"IPv4", own.frame(), true},
		{"IPv6", packet{src: own6, dst: peer6}.frame(), true},
		{"IPv6 without its zone", packet{src: own6, dst: netip.AddrPortFrom(linkLocal.Addr().WithZone(""), 4433)}.frame(), true},
		{"from another socket of ours", packet{src: withPort(own4, 65535), dst: peer4}.frame(), true},
		{"with payload", packet{src: own4, dst: peer4, payload: make([]byte, 1252)}.frame(), true},
		{"superframe", packet{src: own4, dst: peer4, payload: make([]byte, 60000)}.frame(), true},
		{"IPv4 options", packet{src: own4, dst: peer4, options: 40}.frame(), true},
		{"tagged", packet{tags: []uint16{frame.TypeVLAN}, src: own4, dst: peer4}.frame(), true},
		{"tagged IPv6", packet{tags: []uint16{frame.TypeVLAN}, src: own6, dst: peer6}.frame(), true},
		{"tagged twice", packet{tags: []uint16{frame.TypeQinQ, frame.TypeVLAN}, src: own6, dst: peer6}.frame(), true},
		{"ports only", own.frame()[:38], true},

		{"from another port", packet{src: withPort(own4, 4434), dst: peer4}.frame(), false},
		{"to another port", packet{src: own4, dst: withPort(peer4, 5001)}.frame(), false},
		{"to another host", packet{src: own4, dst: withPort(own4, 5000)}.frame(), false},
		{"to another host, IPv6", packet{src: own6, dst: withPort(own6, 5000)}.frame(), false},
		{"from a peer to us", packet{src: peer4, dst: own4}.frame(), false},
		{"TCP", packet{src: own4, dst: peer4, proto: frame.ProtoTCP}.frame(), false},
		{"first fragment", packet{src: own4, dst: peer4, fragment: moreFragments}.frame(), false},
		{"later fragment", packet{src: own4, dst: peer4, fragment: 100}.frame(), false},
		{"fragment of IPv6", packet{src: own6, dst: peer6, proto: 44}.frame(), false},
		{"destination options", packet{src: own6, dst: peer6, proto: 60}.frame(), false},
		{"ICMP error about it", packet{src: own4, dst: peer4, proto: 1, payload: own.frame()[14:]}.frame(), false},
		{"ports cut", own.frame()[:37], false},
		{"IP header cut", own.frame()[:33], false},
		{"header only", own.frame()[:14], false},
		{"tag cut", append(own.frame()[:12:12], 0x81, 0, 0), false},
		{"fragment with our ports for addresses", append(portsFirst, packet{src: own4, dst: peer4, fragment: 100}.frame()[4:]...), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := outer().Match(tt.frame); got != tt.want {
				t.Errorf("Match(%x) = %v", tt.frame[:min(len(tt.frame), 60)], got)
			}
		})
	}
}

func TestOuterSetReplaces(t *testing.T) {
	t.Parallel()
	var o guard.Outer
	to4, to6 := packet{src: own4, dst: peer4}.frame(), packet{src: own6, dst: peer6}.frame()
	check := func(when string, want4, want6 bool) {
		t.Helper()
		if got4, got6 := o.Match(to4), o.Match(to6); got4 != want4 || got6 != want6 {
			t.Errorf("%s: Match = %v, %v", when, got4, got6)
		}
	}
	check("before Set", false, false)
	// Sockets for both families give IPv4 addresses in this form.
	mapped := netip.AddrPortFrom(netip.AddrFrom16(peer4.Addr().As16()), peer4.Port())
	o.Set([]uint16{4433}, []netip.AddrPort{mapped})
	check("IPv4", true, false)
	o.Set([]uint16{4433}, []netip.AddrPort{peer6})
	check("IPv6", false, true)
	o.Set([]uint16{1, 64, 4432, 4434}, []netip.AddrPort{peer4, peer6})
	check("other ports", false, false)
	o.Set(nil, nil)
	check("nothing", false, false)
}

// TestOuterMatchesWhatWasSet draws sets and packets: one matches when its ends
// are in the set, and for no other reason.
func TestOuterMatchesWhatWasSet(t *testing.T) {
	t.Parallel()
	port := rapid.Uint16Range(4430, 4436)
	addr := rapid.OneOf(
		rapid.Map(rapid.ByteRange(0, 4), func(n byte) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, n}) }),
		rapid.Map(rapid.ByteRange(0, 4), func(n byte) netip.Addr {
			return netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 15: n})
		}),
	)
	end := rapid.Custom(func(t *rapid.T) netip.AddrPort {
		return netip.AddrPortFrom(addr.Draw(t, "addr"), port.Draw(t, "port"))
	})
	rapid.Check(t, func(t *rapid.T) {
		ports, peers := rapid.SliceOfN(port, 0, 3).Draw(t, "ports"), rapid.SliceOfN(end, 0, 8).Draw(t, "peers")
		var o guard.Outer
		o.Set(ports, peers)
		p := packet{
			tags: rapid.SliceOfN(rapid.SampledFrom([]uint16{frame.TypeVLAN, frame.TypeQinQ}), 0, 2).Draw(t, "tags"),
			src:  end.Draw(t, "src"), dst: end.Draw(t, "dst"),
			payload: rapid.SliceOfN(rapid.Byte(), 0, 20).Draw(t, "payload"),
		}
		if p.dst.Addr().Is4() {
			p.options = 4 * rapid.IntRange(0, 10).Draw(t, "options")
		}
		p.src = netip.AddrPortFrom(p.dst.Addr().Next(), p.src.Port()) // of the same family
		want := slices.Contains(ports, p.src.Port()) && slices.Contains(peers, p.dst)
		if got := o.Match(p.frame()); got != want {
			t.Errorf("Match = %v, want %v", got, want)
		}
	})
}

// FuzzOuter: no bytes make Match panic or read beyond the frame, and what
// matches holds both ends of a packet of ours.
func FuzzOuter(f *testing.F) {
	for _, p := range []packet{
		{src: own4, dst: peer4}, {src: own6, dst: peer6}, {src: own4, dst: peer4, options: 40},
		{tags: []uint16{frame.TypeQinQ, frame.TypeVLAN}, src: own6, dst: peer6},
	} {
		f.Add(p.frame())
		f.Add(p.frame()[:len(p.frame())-5])
	}
	o := outer()
	f.Fuzz(func(t *testing.T, p []byte) {
		if len(p) < frame.HeaderLen || !o.Match(slices.Clip(p)) {
			return
		}
		for _, peer := range []netip.AddrPort{peer4, peer6, linkLocal} {
			to := peer.Addr().WithZone("").AsSlice()
			for _, port := range []uint16{4433, 65535} {
				ends := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, port), peer.Port())
				if i := bytes.Index(p, to); i >= 0 && bytes.Contains(p[i:], ends) {
					return
				}
			}
		}
		t.Errorf("%x matches", p)
	})
}

func TestMatchDoesNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	o := outer()
	for _, p := range []packet{{src: own4, dst: peer4}, {src: own6, dst: peer6}, {src: own6, dst: own6}, {src: peer4, dst: own4}} {
		f := p.frame()
		if n := testing.AllocsPerRun(100, func() { o.Match(f) }); n != 0 {
			t.Errorf("Match(%x) allocates %v times", f, n)
		}
	}
}

func BenchmarkMatch(b *testing.B) {
	o := outer()
	for name, p := range map[string]packet{"own": {src: own6, dst: peer6}, "other": {src: own6, dst: own6}, "none": {src: peer6, dst: own6}} {
		b.Run(name, func(b *testing.B) {
			f := p.frame()
			for b.Loop() {
				o.Match(f)
			}
		})
	}
}
