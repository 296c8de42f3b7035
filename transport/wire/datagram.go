// SPDX-License-Identifier: Apache-2.0

// Package wire puts frames into QUIC datagrams and takes them out again, and
// reads and writes control messages. docs/wire.md is the law that it mirrors;
// section numbers in comments are of that text.
package wire

import (
	"encoding/binary"

	"github.com/l2bridge/l2bridge/internal/frame"
)

// ALPN is the protocol name of lanes.
const ALPN = "l2bridge/1"

// Record kinds, the lower four bits of a tag (section 3).
const (
	kindPad = iota
	kindWhole
	kindSlice
	kindHead
	kindHeartbeat
	_ // reserved
	kindParity
)

// Object flags, the upper four bits of a tag (section 4).
const (
	flagVnet    = 0x10
	flagRelayed = 0x20
	flagStriped = 0x40
	flagTest    = 0x80
	kindMask    = 0x0f
)

// Sizes in bytes.
const (
	seqLen     = 2
	tagLen     = 3                  // tag and length of a record
	sliceLen   = tagLen + 2 + 3 + 3 // a SLICE without its bytes
	headLen    = tagLen + 2 + 3     // a HEAD without its bytes
	maxHead    = 256
	stripedLen = 6
	relayedLen = 2 * shortIDLen

	// HeartbeatLen is the least length of a datagram with a heartbeat: a
	// smaller packet draws no stateless reset (section 6).
	HeartbeatLen = 64

	// MinSize is the least datagram size that a Packer is given; QUIC packets
	// of 1200 bytes carry more.
	MinSize = 1024
)

// window is how many ids a receiver keeps, and so how many objects may be open
// on a lane (section 4, reassembly).
const window = 32

// prefixLen returns how many bytes stand before the virtio-net header and the
// frame of an object with these flags.
func prefixLen(flags byte) int {
	n := 0
	if flags&flagStriped != 0 {
		n += stripedLen
	}
	if flags&flagRelayed != 0 {
		n += relayedLen
	}
	return n
}

// partsLen returns how many bytes stand before the frame.
func partsLen(flags byte) int {
	n := prefixLen(flags)
	if flags&flagVnet != 0 {
		n += frame.VnetLen
	}
	return n
}

// objectFits reports whether an object of total bytes is neither too short nor
// too long.
func objectFits(flags byte, total int) bool {
	n := total - partsLen(flags)
	return n >= frame.HeaderLen && n <= frame.MaxLen
}

// Relayed says of an object from which member to which it goes, by way of a
// third (section 4). It stands before the virtio-net header:
//
//	0             8        16
//	| destination | source |
type Relayed struct{ Destination, Source ShortID }

func parseRelayed(p []byte) Relayed {
	return Relayed{ShortID(p), ShortID(p[shortIDLen:])}
}

func (r *Relayed) put(p []byte) int {
	copy(p, r.Destination[:])
	copy(p[shortIDLen:], r.Source[:])
	return relayedLen
}

func putU24(p []byte, v int) {
	p[0], p[1], p[2] = byte(v>>16), byte(v>>8), byte(v)
}

func u24(p []byte) int { return int(p[0])<<16 | int(p[1])<<8 | int(p[2]) }

// Mode says what a heartbeat asks for (section 6).
type Mode uint8

// The modes of a heartbeat.
const (
	Alive  Mode = iota // no answer wanted
	Ping               // answer with Pong on the same lane
	Pong               // the answer
	Probe              // answer with ProbeAck on lane 0
	nModes             // others are ignored
)

// AppendHeartbeat appends a datagram that holds nothing but a heartbeat,
// padded to size bytes, at least HeartbeatLen.
func AppendHeartbeat(p []byte, seq uint16, mode Mode, nonce uint64, size int) []byte {
	start := len(p)
	p = binary.BigEndian.AppendUint16(p, seq)
	p = append(p, kindHeartbeat, 0, 9, byte(mode))
	p = binary.BigEndian.AppendUint64(p, nonce)
	for len(p)-start < max(size, HeartbeatLen) {
		p = append(p, kindPad)
	}
	return p
}
