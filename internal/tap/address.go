// SPDX-License-Identifier: Apache-2.0

package tap

import (
	"crypto/sha256"
	"encoding/binary"
	"net"
)

// Address returns a locally administered MAC for a TAP that depends on the
// seeds alone, so that a site has the same one after each start. It begins
// with fe: because a bridge whose MAC nobody has set takes the lowest of its
// ports' (net/bridge/br_stp_if.c, br_stp_recalculate_bridge_id).
func Address(seeds ...[]byte) net.HardwareAddr { return hashedAddress(0xfe, seeds...) }

// hashedAddress returns first and five bytes of SHA-256 over the seeds, each
// behind its length so that ("ab", "c") and ("a", "bc") differ.
func hashedAddress(first byte, seeds ...[]byte) net.HardwareAddr {
	var b []byte
	for _, s := range seeds {
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(s))), s...)
	}
	sum := sha256.Sum256(b)
	return append(net.HardwareAddr{first}, sum[:5]...)
}
