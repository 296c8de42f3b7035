// SPDX-License-Identifier: Apache-2.0

package frame

import (
	"encoding/binary"
	"math/bits"
	"math/rand/v2"
)

// flowKeys differ in every process, so that nobody can choose flows that meet.
var flowKeys = [2]uint64{rand.Uint64(), rand.Uint64()}

// FlowHash returns the same number for all frames of one flow, within this
// process: of an IP packet it hashes VLAN, addresses, protocol and TCP or UDP
// ports; of a fragment VLAN and addresses, since only the first one has ports;
// of anything else VLAN, MACs and EtherType. f must be at least HeaderLen long.
func FlowHash(f []byte) uint32 {
	be := binary.BigEndian
	l := Dissect(f)
	dst, src := Stations(f)

	kind, ports := uint64(dst.VLAN())<<48|uint64(l.Type)<<32, uint64(0)
	if l.L4 != 0 {
		kind |= uint64(l.Proto)
		if (l.Proto == ProtoTCP || l.Proto == ProtoUDP) && len(f) >= l.L4+4 {
			ports = uint64(be.Uint32(f[l.L4:]))
		}
	}

	h := mix(kind, ports)
	switch {
	case l.L3 == 0:
		h = mix(h^uint64(dst), uint64(src))
	case l.Type == TypeIPv4:
		h = mix(h, be.Uint64(f[l.L3+12:])) // both addresses
	default:
		p := f[l.L3+8:]
		h = mix(h^be.Uint64(p), be.Uint64(p[8:]))
		h = mix(h^be.Uint64(p[16:]), be.Uint64(p[24:]))
	}
	return uint32(h ^ h>>32)
}

// mix makes one number of two, under the keys: the step of wyhash.
func mix(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a^flowKeys[0], b^flowKeys[1])
	return hi ^ lo
}
