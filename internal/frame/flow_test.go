// SPDX-License-Identifier: Apache-2.0

package frame_test

import (
	"bytes"
	"testing"

	"github.com/l2bridge/l2bridge/internal/frame"
)

// change returns a copy of f with one byte changed.
func change(f []byte, at int) []byte {
	f = bytes.Clone(f)
	f[at] ^= 0x01
	return f
}

func TestFlowHash(t *testing.T) {
	t.Parallel()
	plain := func(s super) []byte {
		s.Size, s.Payload = 100, 100
		return s.segment(t, s.payload(), 0)
	}
	tcp4, udp6 := plain(super{}), plain(super{V6: true, UDP: true})
	tagged := plain(super{Tags: []uint16{0x8100}})
	fragment := change(tcp4, 14+6+1) // offset 8
	arp := append(bytes.Clone(tcp4[:12]), 0x08, 0x06, 0, 1, 8, 0)

	for _, tt := range []struct {
		name string
		f    []byte
		at   int
		same bool
	}{
		{"MAC of an IP packet", tcp4, 0, true},
		{"TOS", tcp4, 14 + 1, true},
		{"ID", tcp4, 14 + 5, true},
		{"IPv4 source", tcp4, 14 + 12, false},
		{"IPv4 destination", tcp4, 14 + 19, false},
		{"protocol", tcp4, 14 + 9, false},
		{"TCP source port", tcp4, 34, false},
		{"TCP destination port", tcp4, 37, false},
		{"TCP sequence", tcp4, 41, true},
		{"EtherType", tcp4, 13, false},

		{"priority", tagged, 14, true}, // bit 8 of the identifier is in this byte; see below
		{"VLAN", tagged, 15, false},

		{"IPv6 flow label", udp6, 14 + 3, true},
		{"IPv6 source", udp6, 14 + 8, false},
		{"IPv6 destination", udp6, 14 + 39, false},
		{"next header", udp6, 14 + 6, false},
		{"UDP port", udp6, 14 + 40 + 1, false},

		{"protocol of a fragment", fragment, 14 + 9, true},
		{"ports of a fragment", fragment, 34, true},
		{"address of a fragment", fragment, 14 + 12, false},

		{"destination MAC of ARP", arp, 5, false},
		{"source MAC of ARP", arp, 6, false},
		{"EtherType of ARP", arp, 13, false},
		{"payload of ARP", arp, 16, true},
	} {
		changed := change(tt.f, tt.at)
		if tt.name == "priority" {
			changed = bytes.Clone(tt.f)
			changed[tt.at] ^= 0xf0
		}
		if same := frame.FlowHash(tt.f) == frame.FlowHash(changed); same != tt.same {
			t.Errorf("%s changed: same hash %t, want %t", tt.name, same, tt.same)
		}
	}

	firstFragment := bytes.Clone(tcp4)
	firstFragment[14+6] |= 0x20
	if frame.FlowHash(firstFragment) != frame.FlowHash(fragment) {
		t.Error("fragments of one packet differ")
	}
}

func TestFlowHashOfShortFrames(t *testing.T) {
	t.Parallel()
	for _, s := range []super{{}, {V6: true, UDP: true}, {Tags: []uint16{0x88a8, 0x8100}}} {
		s.Size, s.Payload = 1, 1
		f := s.segment(t, s.payload(), 0)
		for n := 14; n <= len(f); n++ {
			frame.FlowHash(f[:n:n]) // must not read on
		}
	}
}

// Lanes and queues are picked with the low bits: they must spread.
func TestFlowHashSpreads(t *testing.T) {
	t.Parallel()
	s := super{Size: 100, Payload: 100}
	f := s.segment(t, s.payload(), 0)
	var buckets [8]int
	const flows = 8000
	for port := range flows {
		f[34], f[35] = byte(port>>8), byte(port)
		buckets[frame.FlowHash(f)%8]++
	}
	for i, n := range buckets {
		if n < flows/16 || n > flows*3/16 { // 500 is 16 sigma off
			t.Errorf("bucket %d has %d of %d flows", i, n, flows)
		}
	}
}

func TestFlowHashDoesNotAllocate(t *testing.T) {
	s := super{Size: 100, Payload: 100}
	f := s.segment(t, s.payload(), 0)
	if n := testing.AllocsPerRun(100, func() { frame.FlowHash(f) }); n != 0 {
		t.Errorf("allocates %v times", n)
	}
}

func BenchmarkFlowHash(b *testing.B) {
	s := super{V6: true, Tags: []uint16{0x8100}, Size: 100, Payload: 100}
	f := s.segment(b, s.payload(), 0)
	for b.Loop() {
		frame.FlowHash(f)
	}
}
