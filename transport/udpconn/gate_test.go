// SPDX-License-Identifier: Apache-2.0

package udpconn_test

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/quic-go/quic-go"

	"github.com/l2bridge/l2bridge/transport/udpconn"
)

var gateKey = [16]byte{7, 7, 7}

// issue returns a connection ID of a gate's.
func issue(t testing.TB, g *udpconn.Gate) []byte {
	t.Helper()
	id, err := g.GenerateConnectionID()
	if err != nil || id.Len() != g.ConnectionIDLen() {
		t.Fatalf("connection id %v, %v", id, err)
	}
	return id.Bytes()
}

// longHeader returns a packet with a long header, filled up to length.
func longHeader(first byte, version quic.Version, id []byte, length int) []byte {
	b := binary.BigEndian.AppendUint32([]byte{first}, uint32(version))
	b = append(append(b, byte(len(id))), id...)
	return append(b, make([]byte, max(0, length-len(b)))...)
}

func shortHeader(id []byte, length int) []byte {
	return append(append([]byte{0x41}, id...), make([]byte, length-1-len(id))...)
}

func TestGate(t *testing.T) {
	t.Parallel()
	g, before, other := udpconn.NewGate(gateKey), udpconn.NewGate(gateKey), udpconn.NewGate([16]byte{8})
	ours, old, alien := issue(t, g), issue(t, before), issue(t, other)
	altered := slices.Clone(ours)
	altered[9] ^= 1
	const initial, zeroRTT, handshake, retry = 0xc0, 0xd0, 0xe0, 0xf0
	for _, tt := range []struct {
		name   string
		packet []byte
		want   bool
	}{
		{"nothing", nil, false},
		{"one byte", []byte{0x41}, false},
		{"long header of one byte", []byte{0xc0}, false},
		{"a packet of a connection", shortHeader(ours, 100), true},
		{"the next one of it", shortHeader(ours, 1200), true},
		{"a packet of one before a restart", shortHeader(old, 100), true},
		{"the shortest", shortHeader(ours, 38), true},
		{"one too short to be decrypted", shortHeader(ours, 37), false},
		{"another's connection", shortHeader(alien, 1200), false},
		{"an ID altered", shortHeader(altered, 100), false},
		{"what may be a stateless reset", shortHeader(alien, 42), true},
		{"what is too long for one", shortHeader(alien, 43), false},
		{"what is too short for one", shortHeader(alien, 20), false},
		{"without the fixed bit", append([]byte{0x01}, shortHeader(ours, 100)[1:]...), false},
		{"a first Initial", longHeader(initial, quic.Version1, alien[:8], 1200), true},
		{"one too short", longHeader(initial, quic.Version1, alien[:8], 1199), false},
		{"one with too short an ID", longHeader(initial, quic.Version1, alien[:7], 1200), false},
		{"one with an ID too long", longHeader(initial, quic.Version1, make([]byte, 21), 1200), false},
		{"one without the fixed bit", longHeader(0x80, quic.Version1, alien[:8], 1200), false},
		{"a later Initial", longHeader(initial, quic.Version1, ours, 60), true},
		{"a Handshake too short to be decrypted", longHeader(handshake, quic.Version1, ours, 37), false},
		{"a Handshake", longHeader(handshake, quic.Version1, ours, 60), true},
		{"a Handshake of nobody", longHeader(handshake, quic.Version1, alien, 1200), false},
		{"a Retry", longHeader(retry, quic.Version1, ours, 150), true},
		{"a Retry that was not asked for", longHeader(retry, quic.Version1, alien, 150), false},
		{"0-RTT", longHeader(zeroRTT, quic.Version1, ours, 1200), false},
		{"QUIC version 2", longHeader(initial, quic.Version2, alien[:8], 1200), false},
		{"a version that there is not", longHeader(initial, 0x1a2a3a4a, ours, 1200), false},
		{"version negotiation", longHeader(initial, 0, ours, 60), false},
		{"an ID that ends behind the packet", longHeader(initial, quic.Version1, ours, 0)[:22], false},
	} {
		if got := g.Admits(tt.packet); got != tt.want {
			t.Errorf("%s: admitted %v, want %v", tt.name, got, tt.want)
		}
	}
}

// IDs of one gate have nothing in common that others could see, and none comes twice.
func TestGateIDs(t *testing.T) {
	t.Parallel()
	g := udpconn.NewGate(gateKey)
	const count = 4096
	seen := make(map[string]bool)
	var ones [8 * 17]int
	for range count {
		id := issue(t, g)
		seen[string(id)] = true
		for i := range ones {
			ones[i] += int(id[i/8] >> (i % 8) & 1)
		}
	}
	if len(seen) != count {
		t.Errorf("%d different IDs of %d", len(seen), count)
	}
	for i, n := range ones {
		const sigma = 32 // of a fair coin thrown that often
		if n < count/2-6*sigma || n > count/2+6*sigma {
			t.Errorf("bit %d is set in %d of %d IDs", i, n, count)
		}
	}
}

func TestGateAllocatesNothing(t *testing.T) {
	g := udpconn.NewGate(gateKey)
	packets := [][]byte{shortHeader(issue(t, g), 1200), shortHeader(issue(t, g), 1200), shortHeader(make([]byte, 17), 1200)}
	if n := testing.AllocsPerRun(100, func() {
		for _, p := range packets {
			g.Admits(p)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// Whatever is made up is an Initial of full length, or short enough for a stateless
// reset.
func FuzzGate(f *testing.F) {
	g := udpconn.NewGate(gateKey)
	f.Add([]byte{0x41}, uint16(1200))
	f.Add(longHeader(0xc0, quic.Version1, make([]byte, 17), 60), uint16(1300))
	f.Fuzz(func(t *testing.T, head []byte, length uint16) {
		packet := append(head, make([]byte, max(0, min(int(length), 1500)-len(head)))...)
		if !g.Admits(packet) {
			return
		}
		if long := packet[0]&0x80 != 0; long && len(packet) < 1200 || !long && len(packet) > 42 {
			t.Errorf("admitted: %d bytes, %x", len(packet), packet[:30])
		}
	})
}

func BenchmarkGate(b *testing.B) {
	g := udpconn.NewGate(gateKey)
	one, two := shortHeader(issue(b, g), 1200), shortHeader(issue(b, g), 1200)
	junk := make([]byte, 1200)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range junk {
		junk[i] = byte(rng.Uint32())
	}
	junk[0] = 0x41
	for name, packets := range map[string][][]byte{"same": {one, one}, "another": {one, two}, "junk": {junk, junk}} {
		b.Run(name, func(b *testing.B) {
			for i := range b.N {
				g.Admits(packets[i&1])
			}
		})
	}
}
