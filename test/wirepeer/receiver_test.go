// SPDX-License-Identifier: Apache-2.0

package wirepeer_test

import (
	"testing"

	"github.com/l2bridge/l2bridge/test/wirepeer"
)

// beat is a HEARTBEAT that brings an event of mode 0.
var (
	beat  = wirepeer.AppendHeartbeat(nil, wirepeer.Heartbeat{Nonce: 9})
	beats = wirepeer.Heartbeat{Nonce: 9}
)

func record(kind byte, flags wirepeer.Flags, body ...byte) []byte {
	return wirepeer.AppendRecord(nil, kind, flags, body)
}

func TestDatagram(t *testing.T) {
	f := plain(frame(60))
	testRules(t, []rule{
		{
			name:  "empty",
			law:   "A datagram of fewer than 2 bytes is dropped (`malformed`).",
			in:    [][]byte{nil},
			drops: drops{"malformed": 1},
		},
		{
			name:  "half a sequence",
			law:   "A datagram of fewer than 2 bytes is dropped (`malformed`).",
			in:    [][]byte{{1}},
			drops: drops{"malformed": 1},
		},
		{
			name: "no record",
			law:  "at the end of the datagram, or at kind 0, stop.",
			in:   [][]byte{{0, 0}},
		},
		{
			name: "any order, any sequence",
			law:  "they deliver whatever order datagrams come in.",
			in:   [][]byte{append([]byte{0, 9}, beat...), append([]byte{0, 3}, beat...), append([]byte{0, 3}, beat...)},
			want: events{beats, beats, beats},
		},
		{
			name: "records in order",
			law:  "| sequence u16 | record | record | | padding |",
			in:   [][]byte{datagram(wirepeer.AppendWhole(nil, f), beat, wirepeer.AppendWhole(nil, f))},
			want: events{f, beats, f},
		},
		{
			name: "padding of one byte",
			law:  "It has no length field",
			in:   [][]byte{datagram(beat, []byte{0})},
			want: events{beats},
		},
		{
			name: "padding ends the records whatever it holds",
			law:  "this byte and the rest of the datagram are padding, whatever the flags.",
			in:   [][]byte{datagram(beat, []byte{0}, beat, []byte{0xff})},
			want: events{beats},
		},
		{
			name: "padding with flags",
			law:  "this byte and the rest of the datagram are padding, whatever the flags.",
			in:   [][]byte{datagram([]byte{0x10}), datagram([]byte{0x80, 0, 0})},
		},
		{
			name:  "header cut off",
			law:   "If fewer than 3 bytes are left, or the length goes beyond the datagram, the rest is dropped (`malformed`) and what came before it stands.",
			in:    [][]byte{datagram(beat, []byte{1}), datagram(beat, []byte{9, 0})},
			want:  events{beats, beats},
			drops: drops{"malformed": 2},
		},
		{
			name:  "body cut off",
			law:   "the length goes beyond the datagram",
			in:    [][]byte{datagram(beat, beat[:len(beat)-1]), datagram([]byte{5, 0, 1})},
			want:  events{beats},
			drops: drops{"malformed": 2},
		},
		{
			name:  "reserved kinds",
			law:   "A record of a reserved kind is skipped (`unknown_record`)",
			in:    [][]byte{datagram(record(5, 0), record(15, 0x70, 1, 2), beat)},
			want:  events{beats},
			drops: drops{"unknown_record": 2},
		},
		{
			name:  "test",
			law:   "**TEST** objects have no other flag.",
			in:    [][]byte{datagram(record(1, 0x80, frame(14)...), record(1, 0x90, frame(30)...), record(4, 0x80), record(7, 0x80), beat)},
			want:  events{wirepeer.Object{Flags: wirepeer.Test, Frame: frame(14)}, beats},
			drops: drops{"unknown_record": 2, "test": 1},
		},
		{
			name: "test to a receiver that did not say so",
			law:  "STRIPED (`unknown_record`) before RELAYED (`relay`) before TEST (`test`).",
			side: func(r *wirepeer.Receiver) { r.Features &^= wirepeer.TEST | wirepeer.RELAY | wirepeer.VIA },
			in: [][]byte{datagram(record(1, 0x80, frame(13)...), record(1, 0xa0, frame(60)...)),
				datagram(slice(wirepeer.Test, 0, 0, 20, make([]byte, 10)), slice(wirepeer.Test, 0, 10, 20, make([]byte, 10)))},
			drops: drops{"test": 2, "relay": 1},
		},
		{
			name:  "test beyond the MTU",
			law:   "They are cut, put together and checked (section 5) like any other",
			in:    [][]byte{datagram(record(1, 0x80, frame(1515)...))},
			drops: drops{"mtu_peer": 1},
		},
		{
			name:  "heartbeat with a flag",
			law:   "and so is a HEARTBEAT or a PARITY with any flag.",
			in:    [][]byte{datagram(record(4, 0x10, make([]byte, 9)...), record(4, 0x40))},
			drops: drops{"unknown_record": 2},
		},
		{
			name:  "heartbeat too short",
			law:   "Body: `mode u8, nonce u64`. Shorter: dropped (`malformed`).",
			in:    [][]byte{datagram(record(4, 0, make([]byte, 8)...), record(4, 0), beat)},
			want:  events{beats},
			drops: drops{"malformed": 2},
		},
		{
			name: "heartbeat longer",
			law:  "Other modes are ignored, and so are bytes behind the nonce.",
			in:   [][]byte{datagram(record(4, 0, 2, 0, 0, 0, 0, 0, 0, 1, 0, 77))},
			want: events{wirepeer.Heartbeat{Mode: wirepeer.Answer, Nonce: 256}},
		},
		{
			name: "heartbeat modes",
			law:  "Other modes are ignored, and so are bytes behind the nonce.",
			in: [][]byte{datagram(
				wirepeer.AppendHeartbeat(nil, wirepeer.Heartbeat{Mode: 3}),
				wirepeer.AppendHeartbeat(nil, wirepeer.Heartbeat{Mode: 4}),
				wirepeer.AppendHeartbeat(nil, wirepeer.Heartbeat{Mode: 255}))},
			want: events{wirepeer.Heartbeat{Mode: wirepeer.Probe}},
		},
	})
}

func TestWhole(t *testing.T) {
	all := wirepeer.Object{
		Flags:       wirepeer.Striped | wirepeer.Relayed | wirepeer.VNET,
		Stripe:      0x0102,
		Position:    0x03040506,
		Destination: wirepeer.Member{1, 2, 3, 4, 5, 6, 7, 8},
		Source:      wirepeer.Member{9, 10, 11, 12, 13, 14, 15, 16},
		Frame:       frame(14),
	}
	parts := []byte{1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	striped := wirepeer.Object{Flags: wirepeer.Striped, Stripe: 1, Frame: frame(14)}
	vnet := wirepeer.Object{Flags: wirepeer.VNET, Frame: frame(14)}
	testRules(t, []rule{
		{
			name: "parts in their order",
			law:  "The flags say which parts it has, in this order:",
			side: func(r *wirepeer.Receiver) {
				r.Self, r.Links = all.Destination, map[wirepeer.Member]bool{all.Source: true}
			},
			in:   [][]byte{datagram(record(1, 0x70, append(parts, frame(14)...)...))},
			want: events{all},
		},
		{
			name: "least objects",
			law:  "| 14 to 65,597 |",
			in: [][]byte{datagram(wirepeer.AppendWhole(nil, plain(frame(14))), wirepeer.AppendWhole(nil, striped),
				wirepeer.AppendWhole(nil, vnet))},
			want: events{plain(frame(14)), striped, vnet},
		},
		{
			name: "shorter than its parts and a frame",
			law:  "it is dropped (`malformed`) when it is shorter than its parts and a frame of 14 bytes",
			in: [][]byte{datagram(record(1, 0), record(1, 0, frame(13)...), record(1, 0x40, frame(19)...),
				record(1, 0x20, frame(29)...), record(1, 0x10, frame(23)...), record(1, 0x70, frame(45)...),
				record(1, 0x70, 1))},
			drops: drops{"malformed": 7},
		},
		{
			name: "striped to a receiver that did not say so",
			law:  "Any other receiver drops STRIPED objects (`unknown_record`).",
			side: func(r *wirepeer.Receiver) { r.Features &^= wirepeer.STRIPE },
			in: [][]byte{datagram(wirepeer.AppendWhole(nil, striped),
				slice(wirepeer.Striped, 0, 0, 20, make([]byte, 10)), slice(wirepeer.Striped, 0, 10, 20, make([]byte, 10)))},
			drops: drops{"unknown_record": 2},
		},
		{
			name:  "lane 0",
			law:   "it carries heartbeats but no frames (objects that come on it are dropped, `malformed`)",
			side:  func(r *wirepeer.Receiver) { r.Control = true },
			in:    [][]byte{datagram(beat, wirepeer.AppendWhole(nil, vnet), begin(0), end(0), head(0, 1, 30, []byte{1}), record(7, 0))},
			want:  events{beats},
			drops: drops{"malformed": 4, "unknown_record": 1},
		},
	})
}

// TestRelayed has a receiver {1} with sessions to {2}, which sent what comes, and
// to {4} and {5}, of which {5} does not take what was relayed. {2} says that it
// has sessions with {1}, {3} and {4}.
func TestRelayed(t *testing.T) {
	const (
		both        = "A receiver that said one of these checks each (section 5), and then:"
		destination = "One that is the destination, and said VIA, takes it as coming from the member `source`, if it has no session of its own with that, or none that answers, and the peer that sent it says in its LINKS that it has one."
		forwards    = "One that is not, and said RELAY, forwards it if `source` is the peer that it came from and it has a session with the destination, which said VIA."
		mtu         = "MTU is that of the receiver's LAN, or 9000 for a RELAYED object whose destination is another"
		means       = "with a header that means the same."
		other       = "Any other receiver drops it (`relay`), and each drops one whose source is its destination."
		first       = "An object with a flag that the receiver does not take is dropped when it is whole, once, before anything else about it is looked at: STRIPED (`unknown_record`) before RELAYED (`relay`) before TEST (`test`)."
	)
	side := func(features wirepeer.Features) func(*wirepeer.Receiver) {
		return func(r *wirepeer.Receiver) {
			r.Features = features
			r.Self, r.Peer = wirepeer.Member{1}, wirepeer.Member{2}
			r.Links = map[wirepeer.Member]bool{{1}: true, {3}: true, {4}: true}
			r.Sessions = map[wirepeer.Member]wirepeer.Features{{2}: wirepeer.VIA, {4}: wirepeer.VIA, {5}: wirepeer.RELAY}
		}
	}
	object := func(to, from byte, n int) wirepeer.Object {
		return wirepeer.Object{Flags: wirepeer.Relayed, Destination: wirepeer.Member{to}, Source: wirepeer.Member{from}, Frame: frame(n)}
	}
	super := func(to, from byte, gso uint16) wirepeer.Object {
		o := tcp4().with(func(s *super) { s.payload, s.gsoSize = 30000, gso }).object()
		o.Flags |= wirepeer.Relayed
		o.Destination, o.Source = wirepeer.Member{to}, wirepeer.Member{from}
		return o
	}
	in := func(objects ...wirepeer.Object) [][]byte {
		var b [][]byte
		for _, o := range objects {
			b = append(b, wirepeer.AppendWhole(nil, o))
		}
		return [][]byte{datagram(b...)}
	}
	forwarded := func(objects ...wirepeer.Object) (all events) {
		for _, o := range objects {
			all = append(all, wirepeer.Forwarded(o))
		}
		return all
	}
	bad := func(to, from byte) wirepeer.Object {
		o := object(to, from, 14)
		o.Flags |= wirepeer.VNET
		o.Header[0] = 77
		return o
	}
	told := super(4, 2, 1460)
	told.Header[2] = 54
	striped := object(1, 3, 14)
	striped.Flags |= wirepeer.Striped
	testRules(t, []rule{
		{name: "to me", law: destination, side: side(wirepeer.VIA), in: in(object(1, 3, 14)), want: events{object(1, 3, 14)}},
		{name: "to me, not by a link of the peer", law: destination, side: side(wirepeer.VIA), in: in(object(1, 6, 14)), drops: drops{"relay": 1}},
		{name: "to me from who is here", law: destination, side: side(wirepeer.VIA), in: in(object(1, 4, 14)), drops: drops{"relay": 1}},
		{name: "to me from the peer itself", law: destination, side: side(wirepeer.VIA), in: in(object(1, 2, 14)), drops: drops{"relay": 1}},
		{name: "to me from me", law: other, side: side(wirepeer.VIA), in: in(object(1, 1, 14)), drops: drops{"relay": 1}},
		{name: "to me, too long", law: mtu, side: side(wirepeer.VIA), in: in(object(1, 3, 1514), object(1, 3, 1515)), want: events{object(1, 3, 1514)}, drops: drops{"mtu_peer": 1}},
		{name: "to another", law: forwards, side: side(wirepeer.RELAY), in: in(object(4, 2, 14)), want: forwarded(object(4, 2, 14))},
		{name: "to one that is not here", law: forwards, side: side(wirepeer.RELAY), in: in(object(6, 2, 14)), drops: drops{"relay": 1}},
		{name: "to one that does not take it", law: forwards, side: side(wirepeer.RELAY), in: in(object(5, 2, 14)), drops: drops{"relay": 1}},
		{name: "to another from another", law: forwards, side: side(wirepeer.RELAY), in: in(object(4, 3, 14)), drops: drops{"relay": 1}},
		{name: "to another from me", law: forwards, side: side(wirepeer.RELAY), in: in(object(4, 1, 14)), drops: drops{"relay": 1}},
		{name: "back to the peer", law: other, side: side(wirepeer.RELAY), in: in(object(2, 2, 14)), drops: drops{"relay": 1}},
		{name: "to another, long", law: mtu, side: side(wirepeer.RELAY), in: in(object(4, 2, 9014), object(4, 2, 9015)), want: forwarded(object(4, 2, 9014)), drops: drops{"mtu_peer": 1}},
		{name: "superframe to another, long", law: mtu, side: side(wirepeer.RELAY), in: in(super(4, 2, 8960), super(4, 2, 8961)), want: forwarded(super(4, 2, 8960)), drops: drops{"mtu_peer": 1}},
		{name: "superframe to me, long", law: mtu, side: side(wirepeer.VIA), in: in(super(1, 3, 1460), super(1, 3, 1461)), want: events{super(1, 3, 1460)}, drops: drops{"mtu_peer": 1}},
		{name: "forwarded as it is meant", law: means, side: side(wirepeer.RELAY), in: in(told), want: forwarded(super(4, 2, 1460))},
		{name: "checked before its way", law: both, side: side(wirepeer.RELAY | wirepeer.VIA), in: in(bad(4, 2), bad(1, 3), bad(6, 6), object(6, 6, 9015)), drops: drops{"bad_offload": 3, "mtu_peer": 1}},
		{name: "to me, no relay only", law: other, side: side(wirepeer.RELAY), in: in(object(1, 3, 14)), drops: drops{"relay": 1}},
		{name: "to another, no relay", law: other, side: side(wirepeer.VIA), in: in(object(4, 2, 14)), drops: drops{"relay": 1}},
		{name: "takes none", law: first, side: side(0), in: in(object(1, 3, 14), object(4, 2, 9000), bad(1, 3)), drops: drops{"relay": 3}},
		{name: "neither flag", law: first, side: side(0), in: in(striped), drops: drops{"unknown_record": 1}},
		{name: "before its length", law: first, side: side(0), in: [][]byte{datagram(record(1, 0x20, 1), record(1, 0x60))}, drops: drops{"relay": 1, "unknown_record": 1}},
		{
			name: "when it is whole", law: first, side: side(0),
			in:    [][]byte{datagram(slice(0x20, 0, 0, 30, make([]byte, 10))), datagram(slice(0x20, 0, 10, 30, make([]byte, 20)), slice(0x20, 1, 0, 29, []byte{1}))},
			drops: drops{"relay": 1, "malformed": 1},
		},
	})
}
