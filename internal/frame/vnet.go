// SPDX-License-Identifier: Apache-2.0

package frame

import "encoding/binary"

// Flags and GSO types of the virtio-net header (virtio 1.2, 5.1.6.2;
// include/uapi/linux/virtio_net.h).
const (
	VnetNeedsCsum = 1

	GSONone  = 0
	GSOTCPv4 = 1
	GSOTCPv6 = 4
	GSOUDP   = 5    // USO: datagrams of equal size, the last may be shorter
	GSOECN   = 0x80 // with a TCP type: CWR is set on the first segment only
)

// Vnet is the virtio-net header of a frame: what is still to be done to it.
// The zero value says nothing is. On the wire and towards the TAP it is 10
// bytes, little-endian:
//
//	0      1         2         4          6            8
//	| flags | gso type | hdr len | gso size | csum start | csum offset |
type Vnet struct {
	Flags      uint8
	GSOType    uint8
	HdrLen     uint16 // bytes of headers before the payload; true only once CheckVnet has set it
	GSOSize    uint16 // payload bytes of each segment
	CsumStart  uint16 // from the start of the frame; sum from here to the end
	CsumOffset uint16 // the sum goes here, counted from CsumStart
}

// ParseVnet reads the header at the start of p, which holds at least VnetLen bytes.
func ParseVnet(p []byte) Vnet {
	_ = p[VnetLen-1]
	le := binary.LittleEndian
	return Vnet{p[0], p[1], le.Uint16(p[2:]), le.Uint16(p[4:]), le.Uint16(p[6:]), le.Uint16(p[8:])}
}

// Put writes the header to the first VnetLen bytes of p.
func (v Vnet) Put(p []byte) {
	_ = p[VnetLen-1]
	le := binary.LittleEndian
	p[0], p[1] = v.Flags, v.GSOType
	le.PutUint16(p[2:], v.HdrLen)
	le.PutUint16(p[4:], v.GSOSize)
	le.PutUint16(p[6:], v.CsumStart)
	le.PutUint16(p[8:], v.CsumOffset)
}
