// SPDX-License-Identifier: Apache-2.0

package wirepeer

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// Auditor watches the datagrams of one lane as they are sent, from the first,
// for what the text asks of a sender and a receiver does not look at. The zero
// value is ready.
type Auditor struct {
	sequence uint16
	id       uint16 // of the next object that is cut
	open     map[uint16]*sent
	due      *sent // of which the first slice was in the datagram with objects before
	first    *sent // and in this one
}

// sent is an object of which a part has been sent.
type sent struct {
	flags Flags
	total int
	bytes []byte
	head  []byte // of its HEAD; nil without
}

// maxOpen is how many objects a sender may have begun and not ended (§4).
const maxOpen = 8

// Datagram returns what is wrong with the next datagram, or nil. After an error
// the Auditor is of no more use.
func (a *Auditor) Datagram(b []byte) error {
	if len(b) < 2 {
		return errors.New("no sequence")
	}
	if n := binary.BigEndian.Uint16(b); n != a.sequence {
		return fmt.Errorf("sequence %d, want %d", n, a.sequence)
	}
	a.sequence++
	a.due, a.first = a.first, nil

	size, place, objects := len(b), 0, false
	for b = b[2:]; len(b) > 0 && b[0]&0x0f != kindPad; place++ {
		if len(b) < recordHeader || u16(b[1:]) > len(b)-recordHeader {
			return errors.New("record goes beyond the datagram")
		}
		kind, flags, body := b[0]&0x0f, Flags(b[0]&0xf0), b[recordHeader:recordHeader+u16(b[1:])]
		if err := a.record(kind, flags, body, place, size); err != nil {
			return fmt.Errorf("record %d: %w", place, err)
		}
		b = b[recordHeader+len(body):]
		objects = objects || kind != kindHeartbeat && kind != kindParity
	}
	// Reading: a heartbeat that goes by itself may come between the first
	// slice and the HEAD.
	if !objects {
		a.first = a.due
	}
	return nil
}

// End returns what is wrong when nothing else will be sent, or nil.
func (a *Auditor) End() error {
	if len(a.open) > 0 {
		return fmt.Errorf("%d objects were not ended", len(a.open))
	}
	return nil
}

func (a *Auditor) record(kind byte, flags Flags, body []byte, place, size int) error {
	switch kind {
	case kindWhole:
		if !flags.lawful() || !flags.validTotal(len(body)) {
			return fmt.Errorf("flags %#x, object of %d bytes", flags, len(body))
		}
		return checkSent(parseObject(flags, body))
	case kindSlice, kindHead:
		p, ok := parsePart(kind, flags, body)
		if !ok || !flags.lawful() || !flags.validTotal(p.total) {
			return fmt.Errorf("flags %#x, part of %d bytes of an object of %d", flags, len(body), p.total)
		}
		if p.head {
			return a.head(p, place)
		}
		return a.slice(p)
	case kindHeartbeat:
		if flags != 0 || len(body) < heartbeatBytes || body[0] > Probe || size < minHeartbeatDatagram {
			return fmt.Errorf("flags %#x, heartbeat %x in a datagram of %d bytes", flags, body, size)
		}
		return nil
	case kindParity:
		if flags != 0 || place != 0 || len(body) < 8 || body[5]&1 == 0 {
			return fmt.Errorf("flags %#x, parity of %d bytes in place %d", flags, len(body), place)
		}
		return nil
	}
	return fmt.Errorf("reserved kind %d", kind)
}

// slice: ids count up by one from 0, and the slices of an object in rising
// order, each once.
func (a *Auditor) slice(p part) error {
	s := a.open[p.id]
	if s == nil {
		if p.id != a.id || p.offset != 0 {
			return fmt.Errorf("object %d begins at %d, want object %d at 0", p.id, p.offset, a.id)
		}
		if len(a.open) == maxOpen {
			return fmt.Errorf("more than %d objects begun and not ended", maxOpen)
		}
		if a.open == nil {
			a.open = map[uint16]*sent{}
		}
		s = &sent{flags: p.flags, total: p.total}
		a.open[p.id] = s
		a.id++
		a.first = s
	}
	if p.flags != s.flags || p.total != s.total || p.offset != len(s.bytes) || p.offset+len(p.bytes) > s.total {
		return fmt.Errorf("object %d: flags %#x, total %d, bytes from %d to %d; want %#x, %d, from %d",
			p.id, p.flags, p.total, p.offset, p.offset+len(p.bytes), s.flags, s.total, len(s.bytes))
	}
	s.bytes = append(s.bytes, p.bytes...)
	if len(s.bytes) < s.total {
		return nil
	}
	delete(a.open, p.id)
	return s.ended()
}

// head: the first record of the datagram after the one with the first slice.
func (a *Auditor) head(p part, place int) error {
	s := a.open[p.id]
	if s == nil || s != a.due || place != 0 {
		return fmt.Errorf("object %d: HEAD in the wrong place", p.id)
	}
	if p.flags != s.flags || p.total != s.total {
		return fmt.Errorf("object %d: HEAD with flags %#x, total %d; want %#x, %d", p.id, p.flags, p.total, s.flags, s.total)
	}
	s.head = append([]byte{}, p.bytes...)
	return nil
}

// ended checks a whole object that was cut: it has the HEAD that it should.
func (s *sent) ended() error {
	o := parseObject(s.flags, s.bytes)
	if err := checkSent(o); err != nil {
		return err
	}
	if !o.salvageable() {
		if s.head != nil {
			return errors.New("HEAD of what is not a superframe, or has longer headers")
		}
		return nil
	}
	headers, _ := parseVNET(o.Header).superframe(o.Frame)
	if len(s.head) < s.flags.partsBytes()+headers {
		return fmt.Errorf("HEAD of %d bytes of a superframe with headers of %d", len(s.head), headers)
	}
	if !bytes.HasPrefix(s.bytes, s.head) {
		return errors.New("HEAD that is not the beginning of its object")
	}
	return nil
}

// checkSent checks what is ignored of a virtio-net header but sent 0 (§5).
func checkSent(o Object) error {
	if n := parseVNET(o.Header).headerBytes; n != 0 {
		return fmt.Errorf("header length %d, which is sent 0", n)
	}
	return nil
}
