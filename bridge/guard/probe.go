// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"bytes"
	"encoding/binary"
	"errors"

	"github.com/l2bridge/l2bridge/internal/frame"
)

// ID names a site: SHA-256 of its public key.
type ID [32]byte

// Compare orders sites. The lowest one of a joined LAN forwards for it.
func (id ID) Compare(other ID) int { return bytes.Compare(id[:], other[:]) }

// mac returns the address that a gateway's own frames on its LAN are from. The
// TAP's would be taken for a loop by the very bridge that the TAP is a port of
// (net/bridge/br_fdb.c, "received packet with own address as source address").
// It is locally administered, and the same after each start.
func (id ID) mac() []byte { return []byte{0xfa, id[0], id[1], id[2], id[3], id[4]} }

// Kind says what a Probe is for.
type Kind uint8

// The kinds.
const (
	// KindLoop goes out of a TAP into the LAN, and no further than a gateway's
	// TAP. Where it comes in again, the two LANs are one.
	KindLoop Kind = 1
	// KindFlush goes to peers: what they have learned behind the sender has
	// become wrong.
	KindFlush Kind = 2
)

// Probe is a frame from gateway to gateway, in the clear and signed by nobody:
//
//	 0                 6                 12     14      18  19  20        24
//	+-----------------+-----------------+-------+-------+---+---+---------+
//	|ff:ff:ff:ff:ff:ff| sender          | 88 b6 |"l2br" | 1 | k | counter |
//	+-----------------+-----------------+-------+-------+---+---+---------+
//	| id of the site, 32 bytes                  | n | network, n bytes    |
//	+-------------------------------------------+---+---------------------+
//	| zero up to 60 bytes in all
//
// Integers are big-endian; 1 is the version, k the kind. The EtherType is the
// second one for local experiments (IEEE 802-2014, 9.2.4): no device forwards
// it in another way than any other frame, and none answers it. It is broadcast
// since that passes every switch, whatever that makes of multicast groups
// that it has not seen anybody join.
type Probe struct {
	Kind    Kind
	Counter uint32 // counts the sender's probes, for people who look at a LAN
	ID      ID
	Network string // at most 255 bytes
}

const (
	probeType    = 0x88b6
	probeVersion = 1
	probeHead    = 57 // up to the network
	shortest     = 60 // an Ethernet frame without its FCS (IEEE 802.3-2022, 4A.4.2)
)

var (
	probeMagic = [4]byte{'l', '2', 'b', 'r'}

	errProbe = errors.New("not a probe of this version")
)

// IsProbe reports whether the frame f, at least frame.HeaderLen long, is a Probe
// of any version.
func IsProbe(f []byte) bool {
	return binary.BigEndian.Uint16(f[12:]) == probeType && len(f) >= frame.HeaderLen+len(probeMagic) &&
		[4]byte(f[14:]) == probeMagic && [6]byte(f) == [6]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
}

// ParseProbe reads a frame. Bytes behind the network are ignored.
func ParseProbe(f []byte) (p Probe, err error) {
	if len(f) < probeHead || !IsProbe(f) || f[18] != probeVersion || len(f) < probeHead+int(f[probeHead-1]) {
		return p, errProbe
	}
	p.Kind = Kind(f[19])
	p.Counter = binary.BigEndian.Uint32(f[20:])
	p.ID = ID(f[24:])
	p.Network = string(f[probeHead : probeHead+int(f[probeHead-1])])
	return p, nil
}

// Frame returns the probe as an Ethernet frame.
func (p Probe) Frame() *frame.Buf {
	b := frame.Get(max(shortest, probeHead+len(p.Network)))
	f := b.Bytes()
	clear(f)
	copy(f, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	copy(f[6:], p.ID.mac())
	binary.BigEndian.PutUint16(f[12:], probeType)
	copy(f[14:], probeMagic[:])
	f[18], f[19] = probeVersion, byte(p.Kind)
	binary.BigEndian.PutUint32(f[20:], p.Counter)
	copy(f[24:], p.ID[:])
	f[probeHead-1] = byte(len(p.Network))
	copy(f[probeHead:], p.Network)
	return b
}
