// SPDX-License-Identifier: Apache-2.0

package wirepeer

import (
	"encoding/binary"
	"maps"
)

// The kinds of records (§3). Those from 5 on are reserved.
const (
	kindPad       = 0
	kindWhole     = 1
	kindSlice     = 2
	kindHead      = 3
	kindHeartbeat = 4
)

// The reasons a Receiver drops for: the code words of the text.
const (
	Malformed     = "malformed"
	UnknownRecord = "unknown_record"
	Late          = "late"
	Reassembly    = "reassembly"
	Relay         = "relay"
	BadOffload    = "bad_offload"
	MTUPeer       = "mtu_peer"
)

// Event is what one datagram brought: an [Object] that is delivered, or a
// [Heartbeat].
type Event interface{ isEvent() }

func (Object) isEvent()    {}
func (Heartbeat) isEvent() {}

// The modes of a Heartbeat (§6).
const (
	Alive  = 0 // no answer
	Ask    = 1 // answer with Answer and the same nonce on the same lane
	Answer = 2
	Probe  = 3 // answer with PROBE_ACK on lane 0
)

// Heartbeat is a record of §6. A received one has one of the four modes.
type Heartbeat struct {
	Mode  byte
	Nonce uint64
}

// heartbeatBytes is the body of a HEARTBEAT: mode u8, nonce u64.
const heartbeatBytes = 9

// Receiver is the receiving end of one lane that carries frames. Only one
// goroutine may use it at a time.
type Receiver struct {
	// Features is what this side said in its HELLO. Of these the Receiver
	// looks at STRIPE and RELAY; all are set at first, and then STRIPED and
	// RELAYED objects are delivered as they come, for the session's layer to
	// order and to forward.
	Features Features

	mtu    int
	window window
	drops  map[string]uint64
}

// New returns a Receiver in front of a LAN of the given MTU in bytes.
func New(mtu int) *Receiver {
	return &Receiver{
		Features: CSUM | TSO | USO | RELAY | STRIPE,
		mtu:      mtu,
		drops:    map[string]uint64{},
	}
}

// Drops returns a copy of the counters; a reason that never occurred has no
// entry.
func (r *Receiver) Drops() map[string]uint64 { return maps.Clone(r.drops) }

// Datagram takes the payload of one DATAGRAM frame and returns what it brings,
// in order. It keeps nothing of b.
func (r *Receiver) Datagram(b []byte) []Event {
	if len(b) < 2 {
		r.drop(Malformed)
		return nil
	}
	// The sequence shows gaps only, and gaps matter only to salvage.
	b = b[2:]

	var events []Event
	for len(b) > 0 {
		kind, flags := b[0]&0x0f, Flags(b[0]&0xf0)
		// Reading: flags of a PAD have no meaning and are not looked at.
		if kind == kindPad {
			break
		}
		if len(b) < 3 {
			r.drop(Malformed)
			break
		}
		n := int(binary.BigEndian.Uint16(b[1:]))
		if n > len(b)-3 {
			r.drop(Malformed)
			break
		}
		if e := r.record(kind, flags, b[3:3+n]); e != nil {
			events = append(events, e)
		}
		b = b[3+n:]
	}
	return events
}

func (r *Receiver) drop(reason string) { r.drops[reason]++ }

// record takes one record and returns the event it brings, or nil.
func (r *Receiver) record(kind byte, flags Flags, body []byte) Event {
	if flags&undefinedFlag != 0 {
		r.drop(UnknownRecord)
		return nil
	}
	switch kind {
	case kindWhole:
		return r.whole(flags, body)
	case kindSlice, kindHead:
		return r.part(kind, flags, body)
	case kindHeartbeat:
		return r.heartbeat(flags, body)
	default:
		r.drop(UnknownRecord)
		return nil
	}
}

func (r *Receiver) whole(flags Flags, body []byte) Event {
	if !flags.validTotal(len(body)) {
		r.drop(Malformed)
		return nil
	}
	return r.object(flags, body)
}

func (r *Receiver) part(kind byte, flags Flags, body []byte) Event {
	p, ok := parsePart(kind, flags, body)
	if !ok {
		r.drop(Malformed)
		return nil
	}
	if b := r.window.add(p, r.drop); b != nil {
		return r.object(flags, b)
	}
	return nil
}

func (r *Receiver) heartbeat(flags Flags, body []byte) Event {
	if flags != 0 {
		r.drop(UnknownRecord)
		return nil
	}
	// Reading: bytes behind the nonce are ignored, as on the control stream.
	if len(body) < heartbeatBytes {
		r.drop(Malformed)
		return nil
	}
	h := Heartbeat{Mode: body[0], Nonce: binary.BigEndian.Uint64(body[1:])}
	// Reading: to ignore a mode is not a drop, and brings nothing.
	if h.Mode > Probe {
		return nil
	}
	return h
}

// object gives the verdict on a whole object of a lawful length.
func (r *Receiver) object(flags Flags, b []byte) Event {
	// Reading: objects are dropped here, not records, so that an object in
	// many slices counts once; and before its frame is looked at.
	if flags&Striped != 0 && r.Features&STRIPE == 0 {
		r.drop(UnknownRecord)
		return nil
	}
	if flags&Relayed != 0 && r.Features&RELAY == 0 {
		r.drop(Relay)
		return nil
	}
	o := parseObject(flags, b)
	if reason := checkFrame(o, r.mtu); reason != "" {
		r.drop(reason)
		return nil
	}
	return o
}
