// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lab

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"net"
)

const (
	etherHeader = 14
	tagLen      = 4

	// EtherTypeTest is the EtherType of numbered frames: local experimental
	// use, IEEE 802 clause 9.2.4.
	EtherTypeTest = 0x88b5
)

// A numbered frame's payload, where it has room for more than filler:
//
//	 0               1               2               3
//	+---------------+---------------+---------------+---------------+
//	|                           number                              |
//	+---------------------------------------------------------------+
//	|                      length of the frame                      |
//	+---------------------------------------------------------------+
//	|        CRC-32 of the whole frame, with zero in this place     |
//	+---------------------------------------------------------------+
//	|  filler from the number ...
const numberedHeader = 12

// NumberedMin is the length of the shortest untagged frame that carries its
// number.
const NumberedMin = etherHeader + numberedHeader

// Numbered describes a test frame whose receiver can tell whether it is whole,
// and which one it is.
type Numbered struct {
	Dst, Src net.HardwareAddr
	Tags     []Tag
	Number   uint32
	Length   int // bytes from destination address to end, tags counted
}

// Tag is a VLAN tag.
type Tag struct {
	TPID uint16 // 0x8100 or 0x88a8
	TCI  uint16 // priority, DEI and VLAN
}

// Bytes returns the frame. Length must be that of the headers at least; a
// frame with no room for its number holds filler only.
func (f Numbered) Bytes() []byte {
	b := append(append(make([]byte, 0, f.Length), f.Dst...), f.Src...)
	for _, tag := range f.Tags {
		b = binary.BigEndian.AppendUint16(b, tag.TPID)
		b = binary.BigEndian.AppendUint16(b, tag.TCI)
	}
	b = binary.BigEndian.AppendUint16(b, EtherTypeTest)
	start := len(b)
	b = b[:f.Length]
	filler := f.Number*2654435761 + 1
	for i := start; i < len(b); i++ {
		filler ^= filler << 13
		filler ^= filler >> 17
		filler ^= filler << 5
		b[i] = byte(filler)
	}
	if payload := b[start:]; len(payload) >= numberedHeader {
		binary.BigEndian.PutUint32(payload, f.Number)
		binary.BigEndian.PutUint32(payload[4:], uint32(f.Length))
		binary.BigEndian.PutUint32(payload[8:], 0)
		binary.BigEndian.PutUint32(payload[8:], crc32.ChecksumIEEE(b))
	}
	return b
}

// IsNumbered reports whether a frame has the EtherType of numbered ones,
// behind any tags.
func IsNumbered(frame []byte) bool {
	_, ok := testPayload(frame)
	return ok
}

// ParseNumber returns the number of a numbered frame, or an error when the
// frame is not as it was sent.
func ParseNumber(frame []byte) (uint32, error) {
	start, ok := testPayload(frame)
	if !ok {
		return 0, errors.New("not a numbered frame")
	}
	frame = bytes.Clone(frame)
	payload := frame[start:]
	if len(payload) < numberedHeader {
		return 0, fmt.Errorf("frame of %d bytes has no room for a number", len(frame))
	}
	if n := binary.BigEndian.Uint32(payload[4:]); int64(n) != int64(len(frame)) {
		return 0, fmt.Errorf("frame has %d bytes, was sent with %d", len(frame), n)
	}
	sum := binary.BigEndian.Uint32(payload[8:])
	binary.BigEndian.PutUint32(payload[8:], 0)
	if crc32.ChecksumIEEE(frame) != sum {
		return 0, fmt.Errorf("frame of %d bytes was altered", len(frame))
	}
	return binary.BigEndian.Uint32(payload), nil
}

// testPayload returns where the payload of a numbered frame begins.
func testPayload(frame []byte) (start int, ok bool) {
	for at := etherHeader; at <= len(frame); at += tagLen {
		switch binary.BigEndian.Uint16(frame[at-2:]) {
		case 0x8100, 0x88a8:
		case EtherTypeTest:
			return at, true
		default:
			return 0, false
		}
	}
	return 0, false
}

// Record tells what became of a row of numbered frames.
type Record struct {
	Received   int // frames that came whole, each number once
	Duplicates int // whole frames whose number had come before
	Altered    int // frames that were not as sent
	Late       int // whole frames that came after a higher number

	seen    map[uint32]bool
	highest uint32
	twice   [][2]uint32 // the first duplicates, each with the highest number so far
}

// Add takes one received frame; frames that are not numbered are passed over.
func (r *Record) Add(frame []byte) {
	if !IsNumbered(frame) {
		return
	}
	number, err := ParseNumber(frame)
	switch {
	case err != nil:
		r.Altered++
	case r.seen[number]:
		r.Duplicates++
		if len(r.twice) < 8 {
			r.twice = append(r.twice, [2]uint32{number, r.highest})
		}
	default:
		if r.seen == nil {
			r.seen = make(map[uint32]bool)
		}
		r.seen[number] = true
		r.Received++
		if number < r.highest {
			r.Late++
		}
		r.highest = max(r.highest, number)
	}
}

// Missing returns the numbers from one to before another that have not come whole.
func (r *Record) Missing(from, to uint32) (all []uint32) {
	for number := from; number < to; number++ {
		if !r.seen[number] {
			all = append(all, number)
		}
	}
	return all
}

// String says it in one line.
func (r *Record) String() string {
	text := fmt.Sprintf("%d received, %d duplicates, %d altered, %d late", r.Received, r.Duplicates, r.Altered, r.Late)
	if len(r.twice) > 0 {
		text += fmt.Sprintf("; twice, when the highest was: %v", r.twice)
	}
	return text
}
