// SPDX-License-Identifier: Apache-2.0

package frame_test

import (
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/l2bridge/l2bridge/internal/frame"
)

func TestCheckVnetAcceptsSuperframes(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		s := drawSuper(r)
		b := s.build(t)
		defer b.Release()
		want := b.Header()

		h := want
		h.HdrLen = rapid.Uint16().Draw(r, "lie")
		mtu := s.headers() + s.Size - 14 - 4*len(s.Tags)
		got, err := frame.CheckVnet(h, b.Bytes(), mtu)
		if err != nil {
			r.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			r.Fatalf("(-want +got):\n%s", diff)
		}

		// The headers alone tell the same, and not one byte less does.
		if got, err = frame.CheckHead(h, b.Bytes()[:s.headers()], b.Len(), mtu); err != nil || got != want {
			r.Fatalf("CheckHead = %+v, %v, want %+v", got, err, want)
		}
		if _, err = frame.CheckHead(h, b.Bytes()[:s.headers()-1], b.Len(), mtu); !errors.Is(err, frame.ErrVnet) {
			r.Fatalf("CheckHead of headers cut short: %v", err)
		}

		if _, err = frame.CheckVnet(h, b.Bytes(), mtu-1); err != frame.ErrMTU {
			r.Fatalf("with an MTU one lower: %v", err)
		}
	})
}

func TestCheckVnetTakesGSOFromOneSegment(t *testing.T) {
	t.Parallel()
	s := super{TCPOptions: 3, Size: 1000, Payload: 1000}
	b := s.build(t)
	defer b.Release()
	want := frame.Vnet{Flags: frame.VnetNeedsCsum, CsumStart: 34, CsumOffset: 16}
	for _, size := range []uint16{1000, 1001, 0xffff} {
		h := b.Header()
		h.GSOSize = size
		if got, err := frame.CheckVnet(h, b.Bytes(), 1500); err != nil || got != want {
			t.Errorf("gso size %d: %+v, %v, want %+v", size, got, err, want)
		}
	}
}

func TestCheckVnetOfPlainFrames(t *testing.T) {
	t.Parallel()
	tags := func(n int, f []byte) []byte {
		for range n {
			f = append(append(append([]byte{}, f[:12]...), 0x81, 0, 0, 7), f[12:]...)
		}
		return f
	}
	junk := func(n int) []byte { return append(make([]byte, 12), make([]byte, n-12)...) }
	rubbish := frame.Vnet{HdrLen: 1, GSOSize: 2, CsumStart: 3, CsumOffset: 4}
	for _, tt := range []struct {
		name string
		h    frame.Vnet
		f    []byte
		want error
	}{
		{"shortest", frame.Vnet{}, junk(14), nil},
		{"too short", frame.Vnet{}, junk(13), frame.ErrVnet},
		{"nothing", frame.Vnet{}, nil, frame.ErrVnet},
		{"longest", frame.Vnet{}, junk(1514), nil},
		{"too long", frame.Vnet{}, junk(1515), frame.ErrMTU},
		{"longest with a tag", frame.Vnet{}, tags(1, junk(1514)), nil},
		{"too long with a tag", frame.Vnet{}, tags(1, junk(1515)), frame.ErrMTU},
		{"longest with two tags", frame.Vnet{}, tags(2, junk(1514)), nil},
		{"too long with two tags", frame.Vnet{}, tags(2, junk(1515)), frame.ErrMTU},
		{"longest with three tags", frame.Vnet{}, tags(3, junk(1510)), nil},
		{"too long with three tags", frame.Vnet{}, tags(3, junk(1511)), frame.ErrMTU},
		{"fields that say nothing without a flag", rubbish, junk(60), nil},
	} {
		got, err := frame.CheckVnet(tt.h, tt.f, 1500)
		if !errors.Is(err, tt.want) || err != nil && tt.want == nil {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
		if got != (frame.Vnet{}) {
			t.Errorf("%s: header %+v, want none", tt.name, got)
		}
	}
}

// TestCheckVnetRefuses breaks one rule at a time in a header that is good.
func TestCheckVnetRefuses(t *testing.T) {
	t.Parallel()
	put16 := binary.BigEndian.PutUint16
	tcp4 := super{TCPOptions: 3, Size: 1000, Payload: 5000}
	tcp6 := super{V6: true, IPOptions: 1, Size: 1000, Payload: 5000}
	udp4 := super{UDP: true, Tags: []uint16{0x8100}, Size: 1000, Payload: 5000}
	const l3, l4 = 14, 34 // of tcp4

	for _, tt := range []struct {
		name  string
		s     super
		spoil func(h *frame.Vnet, f []byte)
		want  string
	}{
		{"flag DATA_VALID", tcp4, func(h *frame.Vnet, _ []byte) { h.Flags |= 2 }, "flag"},
		{"unknown flag", tcp4, func(h *frame.Vnet, _ []byte) { h.Flags |= 0x80 }, "flag"},
		{"no checksum wanted", tcp4, func(h *frame.Vnet, _ []byte) { h.Flags = 0 }, "without a checksum"},
		{"UFO", udp4, func(h *frame.Vnet, _ []byte) { h.GSOType = 3 }, "type"},
		{"ECN alone", tcp4, func(h *frame.Vnet, _ []byte) { h.GSOType = frame.GSOECN }, "type"},
		{"ECN with UDP", udp4, func(h *frame.Vnet, _ []byte) { h.GSOType |= frame.GSOECN }, "type"},
		{"TCPv6 over IPv4", tcp4, func(h *frame.Vnet, _ []byte) { h.GSOType = frame.GSOTCPv6 }, "headers"},
		{"TCPv4 over IPv6", tcp6, func(h *frame.Vnet, _ []byte) { h.GSOType = frame.GSOTCPv4 }, "headers"},
		{"UDP for TCP", tcp4, func(h *frame.Vnet, _ []byte) { h.GSOType, h.CsumOffset = frame.GSOUDP, 6 }, "headers"},
		{"TCP for UDP", udp4, func(h *frame.Vnet, _ []byte) { h.GSOType, h.CsumOffset = frame.GSOTCPv4, 16 }, "headers"},
		{"not IP", tcp4, func(_ *frame.Vnet, f []byte) { put16(f[12:], frame.TypeARP) }, "headers"},
		{"tag in between", tcp4, func(_ *frame.Vnet, f []byte) { put16(f[12:], frame.TypeVLAN) }, "headers"},

		{"version 5", tcp4, func(_ *frame.Vnet, f []byte) { f[l3] = 0x55 }, "headers"},
		{"header of 16 bytes", tcp4, func(_ *frame.Vnet, f []byte) { f[l3] = 0x44 }, "headers"},
		{"header of 24 bytes", tcp4, func(_ *frame.Vnet, f []byte) { f[l3] = 0x46 }, "checksum outside"},
		{"first fragment", tcp4, func(_ *frame.Vnet, f []byte) { put16(f[l3+6:], 0x2000) }, "headers"},
		{"later fragment", tcp4, func(_ *frame.Vnet, f []byte) { put16(f[l3+6:], 1) }, "headers"},
		{"packet shorter than the frame", tcp4, func(_ *frame.Vnet, f []byte) { f[l3+3]-- }, "length"},
		{"packet longer than the frame", tcp4, func(_ *frame.Vnet, f []byte) { f[l3+3]++ }, "length"},
		{"packet of no length", tcp4, func(_ *frame.Vnet, f []byte) { put16(f[l3+2:], 0) }, "length"},

		{"IPv6 version 4", tcp6, func(_ *frame.Vnet, f []byte) { f[l3] = 0x40 }, "headers"},
		{"IPv6 payload length", tcp6, func(_ *frame.Vnet, f []byte) { f[l3+5]++ }, "length"},
		{"IPv6 fragment", tcp6, func(_ *frame.Vnet, f []byte) { f[l3+6] = 44 }, "headers"},
		{"IPv6 fragment behind options", tcp6, func(_ *frame.Vnet, f []byte) { f[l3+40] = 44 }, "headers"},
		{"IPv6 authentication header", tcp6, func(_ *frame.Vnet, f []byte) { f[l3+40] = 51 }, "headers"},
		{"TCP said to begin at options", tcp6, func(h *frame.Vnet, _ []byte) { h.CsumStart -= 8 }, "checksum outside"},
		{"options longer than said", tcp6, func(_ *frame.Vnet, f []byte) { f[l3+41] = 1 }, "checksum outside"},
		{"options without end", tcp6, func(_ *frame.Vnet, f []byte) {
			for i := l3 + 40; i < len(f); i += 8 {
				f[i], f[i+1] = 60, 0
			}
		}, "headers"},
		{"options beyond the end", tcp6, func(_ *frame.Vnet, f []byte) {
			f[l3+40], f[l3+41] = 60, 255
			for i := l3 + 48; i < len(f); i++ {
				f[i] = 60 // each leads 488 bytes on
			}
		}, "headers"},

		{"sum begins in the IP header", tcp4, func(h *frame.Vnet, _ []byte) { h.CsumStart -= 2 }, "checksum outside"},
		{"sum begins in the data", tcp4, func(h *frame.Vnet, _ []byte) { h.CsumStart += 32 }, "checksum outside"},
		{"sum goes elsewhere", tcp4, func(h *frame.Vnet, _ []byte) { h.CsumOffset = 6 }, "checksum outside"},
		{"sum goes beyond 64 KB", tcp4, func(h *frame.Vnet, _ []byte) { h.CsumOffset = 0xffff }, "checksum outside"},
		{"TCP header of 16 bytes", tcp4, func(_ *frame.Vnet, f []byte) { f[l4+12] = 4 << 4 }, "headers"},
		{"UDP length", udp4, func(_ *frame.Vnet, f []byte) { f[4+l4+5]-- }, "length"},

		{"segments of nothing", tcp4, func(h *frame.Vnet, _ []byte) { h.GSOSize = 0 }, "size is zero"},
		{"129 UDP segments", udp4, func(h *frame.Vnet, _ []byte) { h.GSOSize = 5000 / 129 }, "size is zero, or too small"},
	} {
		b := tt.s.build(t)
		h := b.Header()
		if _, err := frame.CheckVnet(h, b.Bytes(), 1500); err != nil {
			t.Fatalf("%s: refused before it is spoilt: %v", tt.name, err)
		}
		tt.spoil(&h, b.Bytes())
		_, err := frame.CheckVnet(h, b.Bytes(), 1500)
		if !errors.Is(err, frame.ErrVnet) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
		b.Release()
	}
}

func TestCheckVnetCountsUDPSegments(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]error{127*38 + 1: nil, 128 * 38: nil, 128*38 + 1: frame.ErrVnet, 129 * 38: frame.ErrVnet} {
		s := super{UDP: true, Size: 38, Payload: n}
		b := s.build(t)
		if _, err := frame.CheckVnet(b.Header(), b.Bytes(), 1500); !errors.Is(err, want) || err != nil && want == nil {
			t.Errorf("%d bytes in segments of 38: %v, want %v", n, err, want)
		}
		b.Release()
	}
}

func TestCheckVnetOfExtensionBeyondTheEnd(t *testing.T) {
	t.Parallel()
	s := super{V6: true, IPOptions: 1, Size: 1000, Payload: 1100}
	b := s.build(t)
	defer b.Release()
	h, f := b.Header(), b.Bytes()
	const options = 14 + 40
	f[options+1] = 255
	h.CsumStart = options + 8 + 255*8
	for n := range 2 { // as a superframe, and as a frame without its checksum
		if _, err := frame.CheckVnet(h, f, 1500); !errors.Is(err, frame.ErrVnet) || !strings.Contains(err.Error(), "headers") {
			t.Errorf("%d: TCP header said to be %d bytes behind the end: %v", n, int(h.CsumStart)-len(f), err)
		}
		h.GSOType = frame.GSONone
	}
}

func TestCheckHeadLongerThanFrame(t *testing.T) {
	t.Parallel()
	f := make([]byte, 60)
	if _, err := frame.CheckHead(frame.Vnet{}, f, 60, 1500); err != nil {
		t.Error(err)
	}
	if _, err := frame.CheckHead(frame.Vnet{}, f, 59, 1500); !errors.Is(err, frame.ErrVnet) {
		t.Errorf("60 bytes of a frame of 59: %v", err)
	}
}

func TestCheckVnetRefusesShortSuperframes(t *testing.T) {
	t.Parallel()
	for name, s := range map[string]super{
		"TCPv4": {IPOptions: 2, TCPOptions: 2, Size: 1},
		"TCPv6": {V6: true, IPOptions: 2, Size: 1},
		"UDP":   {UDP: true, Size: 1},
	} {
		b := s.build(t)
		for n := b.Len(); n >= 0; n-- {
			f := b.Bytes()[:n]
			if n >= 14+40 { // the packet says so too
				if s.V6 {
					binary.BigEndian.PutUint16(f[18:], uint16(n-14-40))
				} else {
					binary.BigEndian.PutUint16(f[16:], uint16(n-14))
				}
			}
			if _, err := frame.CheckVnet(b.Header(), f, 1500); !errors.Is(err, frame.ErrVnet) {
				t.Errorf("%s of %d bytes, headers are %d: %v", name, n, s.headers(), err)
			}
		}
		b.Release()
	}
}

func TestCheckVnetOfChecksumsOnly(t *testing.T) {
	t.Parallel()
	tcp4 := super{IPOptions: 1, Size: 100, Payload: 100}
	tcp6 := super{V6: true, IPOptions: 1, Tags: []uint16{0x88a8, 0x8100}, Size: 100, Payload: 100}
	at := func(f []byte, i int, c byte) []byte { f[i] = c; return f }
	frame4 := func() []byte { return tcp4.segment(t, tcp4.payload(), 0) }
	frame6 := func() []byte { return tcp6.segment(t, tcp6.payload(), 0) }
	const l4v4, l4v6 = 14 + 24, 14 + 8 + 40 + 8
	pppoe := at(at(frame4(), 12, 0x88), 13, 0x64)
	end4 := len(frame4())

	for _, tt := range []struct {
		name          string
		f             []byte
		start, offset int
		ok            bool
	}{
		{"IPv4", frame4(), l4v4, 16, true},
		{"IPv4, at the start", frame4(), l4v4, 0, true},
		{"IPv4, in its options", frame4(), l4v4 - 1, 16, false},
		{"IPv4, inner packet of a tunnel", frame4(), l4v4 + 30, 6, true},
		{"IPv4, the last two bytes", frame4(), end4 - 2, 0, true},
		{"IPv4, beyond the end", frame4(), end4 - 2, 1, false},
		{"IPv4, far beyond the end", frame4(), 0xffff, 0xffff, false},
		{"IPv4, fragment", at(frame4(), 14+6, 0x20), l4v4, 16, false},
		{"IPv4, version 6", at(frame4(), 14, 0x66), l4v4, 16, false},
		{"IPv4, ICMP", at(frame4(), 14+9, 1), l4v4, 2, true},
		{"IPv4, SCTP", at(frame4(), 14+9, 132), l4v4, 8, false},
		{"IPv6", frame6(), l4v6, 16, true},
		{"IPv6, in the options", frame6(), l4v6 - 1, 16, false},
		{"IPv6, SCTP behind options", at(frame6(), l4v6-8, 132), l4v6, 8, false},
		{"IPv6, fragment behind options", at(frame6(), l4v6-8, 44), l4v6, 16, false},
		{"PPPoE", pppoe, 14 + 8 + 20, 16, true},
		{"PPPoE, before an IP header could end", pppoe, 14 + 19, 16, false},
	} {
		h := frame.Vnet{Flags: frame.VnetNeedsCsum, HdrLen: 9, GSOSize: 9, CsumStart: uint16(tt.start), CsumOffset: uint16(tt.offset)}
		got, err := frame.CheckVnet(h, tt.f, 1500)
		if !tt.ok {
			if !errors.Is(err, frame.ErrVnet) {
				t.Errorf("%s: %v, want it refused", tt.name, err)
			}
			continue
		}
		h.HdrLen, h.GSOSize = 0, 0
		if err != nil || got != h {
			t.Errorf("%s: %+v, %v, want %+v", tt.name, got, err, h)
		}
		if _, err := frame.CheckVnet(h, tt.f, len(tt.f)-14-9); err != frame.ErrMTU {
			t.Errorf("%s, too long: %v", tt.name, err)
		}
	}
}

func TestCheckVnetDoesNotAllocate(t *testing.T) {
	s := super{V6: true, IPOptions: 3, Tags: []uint16{0x8100}, Size: 1000, Payload: 5000}
	b := s.build(t)
	defer b.Release()
	h, f := b.Header(), b.Bytes()
	bad := h
	bad.GSOSize = 0
	if n := testing.AllocsPerRun(100, func() {
		frame.CheckVnet(h, f, 1500)
		frame.CheckVnet(h, f, 500)
		frame.CheckVnet(bad, f, 1500)
	}); n != 0 {
		t.Errorf("allocates %v times", n)
	}
}

func BenchmarkCheckVnet(b *testing.B) {
	s := super{V6: true, Tags: []uint16{0x8100}, Size: 1000, Payload: 5000}
	buf := s.build(b)
	defer buf.Release()
	h, f := buf.Header(), buf.Bytes()
	for b.Loop() {
		if _, err := frame.CheckVnet(h, f, 1500); err != nil {
			b.Fatal(err)
		}
	}
}
