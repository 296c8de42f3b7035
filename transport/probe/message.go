// SPDX-License-Identifier: Apache-2.0

// Package probe measures the way to another gateway, and answers one that does:
// by frames that travel as those of the LAN do. Section 8 of docs/wire.md is the
// law that it mirrors.
package probe

import (
	"encoding/binary"

	"github.com/l2bridge/l2bridge/internal/frame"
)

// kind says what a frame of a test is.
type kind uint8

const (
	kindEcho kind = 1 + iota
	kindReply
	kindUp
	kindCount
	kindGrant
	kindDown
)

// Streams of a test: each is a flow of its own to the queues on its way.
const (
	streams    = 16
	bulk       = 4  // from 0 on: those that load the path
	sizeStream = 14 // frames of every size
	pingStream = 15 // round trips
)

const (
	headerLen = frame.HeaderLen
	leastPing = headerLen + 12 // number, time
	leastDown = 32
	pingLen   = 60 // the least frame of a real Ethernet
	shortLen  = 60 // of what carries no load
)

// fixed are the bytes of the header that are always the same.
const (
	fixedTo   = 0x026c3262 // locally administered; "l2b"
	fixedFrom = 0x0200
	etherType = 0x88b5 // IEEE 802, local experiments
)

// message is a frame of a test: those of its fields that its kind has.
type message struct {
	kind   kind
	stream uint8
	run    uint32

	number  uint32 // GRANT: the total
	time    uint64
	ask     bool
	next    uint32
	count   uint32
	length  uint16
	dropped uint32
}

// leastLen returns how long a frame of a kind is at least; 0 for no kind.
func (k kind) leastLen() int {
	switch k {
	case kindEcho, kindReply:
		return headerLen
	case kindUp:
		return headerLen + 13
	case kindCount:
		return headerLen + 20
	case kindGrant:
		return headerLen + 14
	case kindDown:
		return headerLen + 16
	}
	return 0
}

// parse reads a frame of a test and reports whether it is one. The fields of ECHO
// and REPLY are the tester's own: as we write them, or zero.
func parse(f []byte) (m message, ok bool) {
	be := binary.BigEndian
	if len(f) < headerLen || be.Uint32(f) != fixedTo || be.Uint16(f[6:]) != fixedFrom || be.Uint16(f[12:]) != etherType {
		return m, false
	}
	m.stream, m.kind, m.run = f[4], kind(f[5]), be.Uint32(f[8:])
	if least := m.kind.leastLen(); least == 0 || len(f) < least || m.stream >= streams {
		return m, false
	}
	p := f[headerLen:]
	switch m.kind {
	case kindEcho, kindReply:
		if len(f) >= leastPing {
			m.number, m.time = be.Uint32(p), be.Uint64(p[4:])
		}
	case kindUp:
		m.number, m.ask, m.time = be.Uint32(p), p[4] != 0, be.Uint64(p[5:])
	case kindCount:
		m.number, m.time, m.next, m.count = be.Uint32(p), be.Uint64(p[4:]), be.Uint32(p[12:]), be.Uint32(p[16:])
	case kindGrant:
		m.number, m.length, m.time = be.Uint32(p), be.Uint16(p[4:]), be.Uint64(p[6:])
	case kindDown:
		m.number, m.time, m.dropped = be.Uint32(p), be.Uint64(p[4:]), be.Uint32(p[12:])
	}
	return m, true
}

// frame returns the message as a frame of n bytes, at least what its kind needs.
func (m message) frame(n int) *frame.Buf {
	be := binary.BigEndian
	b := frame.Get(max(n, m.kind.leastLen()))
	b.SetTest()
	f := b.Bytes()
	be.PutUint32(f, fixedTo)
	f[4], f[5] = m.stream, byte(m.kind)
	be.PutUint16(f[6:], fixedFrom)
	be.PutUint32(f[8:], m.run)
	be.PutUint16(f[12:], etherType)
	p := f[headerLen:]
	switch m.kind {
	case kindEcho, kindReply:
		if len(f) < leastPing {
			clear(p)
			return b
		}
		be.PutUint32(p, m.number)
		be.PutUint64(p[4:], m.time)
		p = p[12:]
	case kindUp:
		be.PutUint32(p, m.number)
		p[4] = 0
		if m.ask {
			p[4] = 1
		}
		be.PutUint64(p[5:], m.time)
		p = p[13:]
	case kindCount:
		be.PutUint32(p, m.number)
		be.PutUint64(p[4:], m.time)
		be.PutUint32(p[12:], m.next)
		be.PutUint32(p[16:], m.count)
		p = p[20:]
	case kindGrant:
		be.PutUint32(p, m.number)
		be.PutUint16(p[4:], m.length)
		be.PutUint64(p[6:], m.time)
		p = p[14:]
	case kindDown:
		be.PutUint32(p, m.number)
		be.PutUint64(p[4:], m.time)
		be.PutUint32(p[12:], m.dropped)
		p = p[16:]
	}
	clear(p) // no memory of ours leaves
	return b
}

// pattern returns byte i of a frame of n bytes that is to be of every size.
func pattern(n, i int) byte { return byte(n*31 + i*7 + i>>8) }

// sizeFrame returns an ECHO of n bytes that are not alike.
func sizeFrame(run uint32, n int) *frame.Buf {
	b := message{kind: kindEcho, stream: sizeStream, run: run}.frame(n)
	f := b.Bytes()
	for i := headerLen; i < n; i++ {
		f[i] = pattern(n, i)
	}
	return b
}

// isSize reports whether a REPLY is to a sizeFrame, byte for byte.
func isSize(f []byte) bool {
	for i := headerLen; i < len(f); i++ {
		if f[i] != pattern(len(f), i) {
			return false
		}
	}
	return true
}
