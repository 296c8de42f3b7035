// SPDX-License-Identifier: Apache-2.0

package frame_test

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/l2bridge/l2bridge/internal/frame"
)

func TestDissect(t *testing.T) {
	t.Parallel()
	plain := func(s super) []byte {
		s.Size, s.Payload = 10, 10
		return s.segment(t, s.payload(), 0)
	}
	set := func(f []byte, at int, c byte) []byte {
		f = bytes.Clone(f)
		f[at] = c
		return f
	}
	v4, v6 := plain(super{IPOptions: 1}), plain(super{V6: true, UDP: true})
	const ip4, ip6 = frame.TypeIPv4, frame.TypeIPv6
	for _, tt := range []struct {
		name string
		f    []byte
		want frame.Layers
	}{
		{"IPv4 with options", v4, frame.Layers{Type: ip4, L3: 14, L4: 38, Proto: frame.ProtoTCP}},
		{"IPv4 behind a tag", plain(super{Tags: []uint16{0x8100}}), frame.Layers{Type: ip4, L3: 18, L4: 38, Proto: frame.ProtoTCP}},
		{"IPv4, header only", v4[:38], frame.Layers{Type: ip4, L3: 14, L4: 38, Proto: frame.ProtoTCP}},
		{"IPv4, options cut", v4[:37], frame.Layers{Type: ip4}},
		{"IPv4, header cut", v4[:33], frame.Layers{Type: ip4}},
		{"IPv4, no header", v4[:14], frame.Layers{Type: ip4}},
		{"IPv4, header of 16 bytes", set(v4, 14, 0x44), frame.Layers{Type: ip4}},
		{"IPv4, version 6", set(v4, 14, 0x65), frame.Layers{Type: ip4}},
		{"IPv4, do not fragment", set(v4, 14+6, 0x40), frame.Layers{Type: ip4, L3: 14, L4: 38, Proto: frame.ProtoTCP}},
		{"IPv4, first fragment", set(v4, 14+6, 0x20), frame.Layers{Type: ip4, L3: 14, Proto: frame.ProtoTCP, Fragment: true}},
		{"IPv4, later fragment", set(v4, 14+7, 1), frame.Layers{Type: ip4, L3: 14, Proto: frame.ProtoTCP, Fragment: true}},
		{"IPv6", v6, frame.Layers{Type: ip6, L3: 14, L4: 54, Proto: frame.ProtoUDP}},
		{"IPv6, header only", v6[:54], frame.Layers{Type: ip6, L3: 14, L4: 54, Proto: frame.ProtoUDP}},
		{"IPv6, header cut", v6[:53], frame.Layers{Type: ip6}},
		{"IPv6, version 4", set(v6, 14, 0x40), frame.Layers{Type: ip6}},
		{"IPv6, fragment", set(v6, 14+6, 44), frame.Layers{Type: ip6, L3: 14, Proto: 44, Fragment: true}},
		{"IPv6, options are not followed", plain(super{V6: true, IPOptions: 1}), frame.Layers{Type: ip6, L3: 14, L4: 54, Proto: 60}},
		{"IPv4 said to be IPv6", set(set(v4, 12, 0x86), 13, 0xdd), frame.Layers{Type: ip6}},
		{"ARP", set(v4, 13, 0x06), frame.Layers{Type: frame.TypeARP}},
	} {
		if diff := cmp.Diff(tt.want, frame.Dissect(tt.f)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}
