// SPDX-License-Identifier: Apache-2.0

package frame

import (
	"encoding/binary"
	"hash/maphash"
)

// flowSeed differs in every process, so that nobody can choose flows that meet.
var flowSeed = maphash.MakeSeed()

// FlowHash returns the same number for all frames of one flow, within this
// process: of an IP packet it hashes VLAN, addresses, protocol and TCP or UDP
// ports; of a fragment VLAN and addresses, since only the first one has ports;
// of anything else VLAN, MACs and EtherType. f must be at least HeaderLen long.
func FlowHash(f []byte) uint32 {
	var key [48]byte
	l := Dissect(f)
	dst, src := Stations(f)
	binary.BigEndian.PutUint16(key[0:], dst.VLAN())
	binary.BigEndian.PutUint16(key[2:], l.Type)

	switch {
	case l.L3 == 0:
		binary.BigEndian.PutUint64(key[4:], uint64(dst))
		binary.BigEndian.PutUint64(key[12:], uint64(src))
	case l.Type == TypeIPv4:
		copy(key[4:], f[l.L3+12:l.L3+20])
	default:
		copy(key[4:], f[l.L3+8:l.L3+40])
	}
	if l.L4 != 0 {
		key[36] = l.Proto
		if (l.Proto == ProtoTCP || l.Proto == ProtoUDP) && len(f) >= l.L4+4 {
			copy(key[37:], f[l.L4:l.L4+4])
		}
	}
	sum := maphash.Bytes(flowSeed, key[:])
	return uint32(sum ^ sum>>32)
}
