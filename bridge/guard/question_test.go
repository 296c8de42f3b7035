// SPDX-License-Identifier: Apache-2.0

package guard_test

import (
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"

	"github.com/l2bridge/l2bridge/bridge/guard"
	"github.com/l2bridge/l2bridge/internal/frame"
)

// What a question is made of, but for its target.
const (
	self6   = "fa0200000000" // of guard.ID{2}
	arpHead = "ffffffffffff" + self6
	arpBody = "0806" + "0001" + "0800" + "06" + "04" + "0001" + self6 + "00000000" + "000000000000"
)

func TestQuestion(t *testing.T) {
	t.Parallel()
	from4, from6 := netip.MustParseAddrPort("10.77.0.1:1"), netip.MustParseAddrPort("[fd77::1]:1")
	ip := func(to string, tags ...uint16) []byte {
		dst := netip.AddrPortFrom(netip.MustParseAddr(to), 9)
		src := from4
		if dst.Addr().Is6() {
			src = from6
		}
		return packet{src: src, dst: dst, tags: tags}.frame()
	}
	arp, err := hex.DecodeString("020000000001" + "020000000002" + "0806" + "0001" + "0800" + "0604" + "0001" +
		"020000000002" + "0a4d0002" + "020000000001" + "0a4d0001")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		f    []byte
		want string // without what fills it up, "" for no question
	}{
		{"IPv4", ip("10.77.0.2"), arpHead + arpBody + "0a4d0002"},
		{"IPv4, tagged", ip("10.77.0.2", frame.TypeVLAN), arpHead + "8100a007" + arpBody + "0a4d0002"},
		{"IPv4, two tags", ip("10.77.0.2", frame.TypeQinQ, frame.TypeVLAN), arpHead + "88a8a0078100a007" + arpBody + "0a4d0002"},
		{"ARP", arp, arpHead + arpBody + "0a4d0001"},
		{"ARP, cut", arp[:41], ""},
		{"IPv4 multicast", ip("224.0.0.251"), ""},
		{"IPv4 broadcast", ip("255.255.255.255"), ""},
		{"IPv4 to nobody", ip("0.0.0.0"), ""},
		// The checksum is that of an independent sum over RFC 8200's pseudo-header.
		{"IPv6", ip("fd77::1234:5678"), "3333ff345678" + self6 + "86dd" + "60000000" + "0018" + "3a" + "ff" +
			strings.Repeat("00", 16) + "ff0200000000000000000001ff345678" +
			"8700" + "CCCC" + "00000000" + "fd770000000000000000000012345678"},
		{"IPv6 multicast", ip("ff02::1"), ""},
		{"nothing of IP", []byte("\x02\x00\x00\x00\x00\x01\x02\x00\x00\x00\x00\x02\x88\xb5abc"), ""},
		{"header only", ip("10.77.0.2")[:14], ""},
	} {
		l := guard.NewLoop("net", mid)
		b := l.Question(tt.f)
		if b == nil || tt.want == "" {
			if (b == nil) != (tt.want == "") {
				t.Errorf("%s: question %v, want %q", tt.name, b, tt.want)
			}
			continue
		}
		got := hex.EncodeToString(b.Bytes())
		if at := strings.Index(tt.want, "CCCC"); at >= 0 {
			if !sumsUp(b.Bytes()) {
				t.Errorf("%s: the checksum is wrong: %s", tt.name, got)
			}
			got = got[:at] + "CCCC" + got[at+4:]
		}
		if want := tt.want + strings.Repeat("00", max(0, 60-len(tt.want)/2)); got != want {
			t.Errorf("%s: question\n%s, want\n%s", tt.name, got, want)
		}
		if _, src := frame.Stations(b.Bytes()); src.Address() != l.Own().Address() {
			t.Errorf("%s: from %v, want %v", tt.name, src, l.Own())
		}
		b.Release()
	}
}

// sumsUp reports whether the ICMPv6 checksum of an untagged frame is right, word
// by word.
func sumsUp(f []byte) bool {
	sum := uint32(len(f)-54) + 58
	for p := f[22:]; len(p) > 0; p = p[2:] { // both addresses, and the message
		sum += uint32(p[0])<<8 | uint32(p[1])
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return sum == 0xffff
}

func FuzzQuestion(f *testing.F) {
	f.Add(packet{src: own4, dst: peer4}.frame())
	f.Add(packet{src: own6, dst: peer6, tags: []uint16{frame.TypeVLAN}}.frame())
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) < frame.HeaderLen {
			return
		}
		l := guard.NewLoop("net", mid)
		if b := l.Question(in); b != nil {
			if _, src := frame.Stations(b.Bytes()); src.Address() != l.Own().Address() || b.Len() < 60 {
				t.Errorf("question %x", b.Bytes())
			}
			b.Release()
		}
	})
}
