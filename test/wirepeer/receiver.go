// SPDX-License-Identifier: Apache-2.0

package wirepeer

import (
	"encoding/binary"
	"maps"
)

// The kinds of records (§3). The others are reserved.
const (
	kindPad       = 0
	kindWhole     = 1
	kindSlice     = 2
	kindHead      = 3
	kindHeartbeat = 4
	kindParity    = 6
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
	TestRefused   = "test"
)

// Event is what one datagram brought: an [Object] that is delivered, one that
// is [Forwarded], or a [Heartbeat].
type Event interface{ isEvent() }

func (Object) isEvent()    {}
func (Forwarded) isEvent() {}
func (Heartbeat) isEvent() {}

// Forwarded is a RELAYED object that the receiver sends on to its destination.
type Forwarded Object

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

// Receiver is the receiving end of one lane. Only one goroutine may use it at
// a time.
type Receiver struct {
	// Features is what this side said in its HELLO, and takes. The Receiver
	// looks at STRIPE, RELAY, VIA and TEST; all are set at first. STRIPED
	// objects are delivered as they come: to order them is the session's. What
	// TEST objects say is the test's.
	Features Features
	// Control says that this is lane 0, which carries no frames.
	Control bool
	// Self is this side, and Peer the other side of the session.
	Self, Peer Member
	// Links is what Peer said in its last LINKS.
	Links map[Member]bool
	// Sessions has the members with which this side has a session, and what
	// they said that they take.
	Sessions map[Member]Features

	mtu    int
	window window
	drops  map[string]uint64
}

// New returns a Receiver in front of a LAN of the given MTU in bytes.
func New(mtu int) *Receiver {
	return &Receiver{
		Features: CSUM | TSO | USO | RELAY | STRIPE | VIA | TEST,
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
	switch kind {
	case kindWhole, kindSlice, kindHead:
		// Reading: each record, since no object ever becomes whole there.
		if r.Control {
			r.drop(Malformed)
			return nil
		}
		if kind == kindWhole {
			return r.object(flags, body)
		}
		return r.part(kind, flags, body)
	case kindHeartbeat:
		return r.heartbeat(flags, body)
	case kindParity:
		// What it is for happens before records are read.
		if flags != 0 {
			r.drop(UnknownRecord)
		}
		return nil
	default:
		r.drop(UnknownRecord)
		return nil
	}
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
	if len(body) < heartbeatBytes {
		r.drop(Malformed)
		return nil
	}
	h := Heartbeat{Mode: body[0], Nonce: binary.BigEndian.Uint64(body[1:])}
	if h.Mode > Probe {
		return nil
	}
	return h
}

// object gives the verdict on a whole object.
func (r *Receiver) object(flags Flags, b []byte) Event {
	// Reading: "before anything else" is also before its length.
	if flags&Striped != 0 && r.Features&STRIPE == 0 {
		r.drop(UnknownRecord)
		return nil
	}
	if flags&Relayed != 0 && r.Features&(RELAY|VIA) == 0 {
		r.drop(Relay)
		return nil
	}
	if !flags.lawful() || flags == Test && r.Features&TEST == 0 {
		r.drop(TestRefused)
		return nil
	}
	if !flags.validTotal(len(b)) {
		r.drop(Malformed)
		return nil
	}
	o := parseObject(flags, b)
	meaning, reason := parseVNET(o.Header).check(o.Frame, r.limit(o))
	if reason != "" {
		r.drop(reason)
		return nil
	}
	o.Header = meaning.bytes()
	switch {
	case flags&Relayed == 0:
		return o
	case o.Source == o.Destination:
	case r.accepts(o):
		return o
	case r.forwards(o):
		return Forwarded(o)
	}
	r.drop(Relay)
	return nil
}

// relayMTU is the MTU of §5 for what does not go to the receiver's LAN.
const relayMTU = 9000

// limit is the MTU of §5.
func (r *Receiver) limit(o Object) int {
	if o.Flags&Relayed != 0 && o.Destination != r.Self {
		return relayMTU
	}
	return r.mtu
}

// accepts reports whether this side is the destination of o, and it came the
// right way.
func (r *Receiver) accepts(o Object) bool {
	_, direct := r.Sessions[o.Source]
	return o.Destination == r.Self && r.Features&VIA != 0 && !direct && r.Links[o.Source]
}

// forwards reports whether this side is the relay of o.
func (r *Receiver) forwards(o Object) bool {
	return o.Destination != r.Self && r.Features&RELAY != 0 && o.Source == r.Peer && r.Sessions[o.Destination]&VIA != 0
}
