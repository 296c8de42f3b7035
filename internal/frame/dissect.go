// SPDX-License-Identifier: Apache-2.0

package frame

import "encoding/binary"

// IP protocol numbers that are looked at.
const (
	ProtoTCP = 6
	ProtoUDP = 17
)

// Layers says where the headers of a frame stand. Offsets count from the start
// of the frame; zero means that there is no such header, or not a whole one.
type Layers struct {
	Type     uint16 // EtherType behind the tags
	L3       int    // IPv4 or IPv6 header
	L4       int    // what follows the IP header; zero for a fragment
	Proto    uint8  // IP protocol at L4; IPv6 extension headers are not followed
	Fragment bool   // any fragment, the first one too
}

// Dissect finds the headers of a frame that is at least HeaderLen long. It
// trusts no length in the frame.
func Dissect(f []byte) (l Layers) {
	off := HeaderLen + TagBytes(f)
	l.Type = binary.BigEndian.Uint16(f[off-2:])
	p := f[off:]
	switch {
	case l.Type == TypeIPv4 && len(p) >= 20 && p[0]>>4 == 4:
		ihl := int(p[0]&0xf) * 4
		if ihl < 20 || ihl > len(p) {
			return l
		}
		l.L3, l.Proto = off, p[9]
		if l.Fragment = binary.BigEndian.Uint16(p[6:])&0x3fff != 0; !l.Fragment {
			l.L4 = off + ihl
		}
	case l.Type == TypeIPv6 && len(p) >= 40 && p[0]>>4 == 6:
		l.L3, l.Proto = off, p[6]
		const fragmentHeader = 44
		if l.Fragment = p[6] == fragmentHeader; !l.Fragment {
			l.L4 = off + 40
		}
	}
	return l
}
