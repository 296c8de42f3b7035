// SPDX-License-Identifier: Apache-2.0

package frame

import (
	"encoding/binary"
	"fmt"
	"net"
)

// EtherTypes that are looked at.
const (
	TypeIPv4 = 0x0800
	TypeARP  = 0x0806
	TypeVLAN = 0x8100 // 802.1Q customer tag
	TypeIPv6 = 0x86dd
	TypeQinQ = 0x88a8 // 802.1ad service tag
)

// Station is an address on the LAN: the VLAN in the upper 16 bits (0 for
// untagged), the MAC in the lower 48.
type Station uint64

const macMask = 1<<48 - 1

// NewStation returns the station of a MAC in a VLAN. It panics when mac is not
// six bytes long.
func NewStation(mac net.HardwareAddr, vlan uint16) Station {
	_ = mac[5]
	return station(mac, vlan)
}

func station(mac []byte, vlan uint16) Station {
	hi, lo := binary.BigEndian.Uint16(mac), binary.BigEndian.Uint32(mac[2:])
	return Station(vlan)<<48 | Station(hi)<<32 | Station(lo)
}

// MAC returns the station's address.
func (s Station) MAC() net.HardwareAddr {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], uint64(s))
	return net.HardwareAddr(b[2:])
}

// VLAN returns the station's VLAN identifier, 0 when untagged.
func (s Station) VLAN() uint16 { return uint16(s >> 48) }

// Address returns the station's MAC as a number, without its VLAN.
func (s Station) Address() uint64 { return uint64(s) & macMask }

// IsGroup reports whether the address is a multicast or broadcast one
// (IEEE 802, the least significant bit of the first byte).
func (s Station) IsGroup() bool { return s>>40&1 != 0 }

// IsZero reports whether the address is 00:00:00:00:00:00, which no station has.
func (s Station) IsZero() bool { return s&macMask == 0 }

func (s Station) String() string {
	if v := s.VLAN(); v != 0 {
		return fmt.Sprintf("%s vlan %d", s.MAC(), v)
	}
	return s.MAC().String()
}

// Stations returns who a frame is for and who it is from. f must be at least
// HeaderLen long. The VLAN is that of the outermost tag; a priority tag (VLAN
// 0) counts as untagged (IEEE 802.1Q-2022, 6.9.1).
func Stations(f []byte) (dst, src Station) {
	var vlan uint16
	if t := binary.BigEndian.Uint16(f[12:]); (t == TypeVLAN || t == TypeQinQ) && len(f) >= HeaderLen+2 {
		vlan = binary.BigEndian.Uint16(f[14:]) & 0xfff
	}
	return station(f, vlan), station(f[6:], vlan)
}

// TagBytes returns how many bytes of 802.1Q and 802.1ad tags stand before the
// EtherType of the payload, two tags at most.
func TagBytes(f []byte) int {
	n := 0
	for n < MaxTags*TagLen && len(f) >= HeaderLen+n+TagLen {
		t := binary.BigEndian.Uint16(f[12+n:])
		if t != TypeVLAN && t != TypeQinQ {
			break
		}
		n += TagLen
	}
	return n
}
