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
			law:  "this byte and the rest of the datagram are padding.",
			in:   [][]byte{datagram(beat, []byte{0}, beat, []byte{0xff})},
			want: events{beats},
		},
		{
			name: "padding with flags",
			law:  "at the end of the datagram, or at kind 0, stop.",
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
			name: "undefined flag",
			law:  "one with a flag that section 4 does not define, whatever its kind",
			in: [][]byte{datagram(record(1, 0x80, frame(14)...), record(2, 0x80), record(3, 0x90),
				record(4, 0x80), record(7, 0x80), beat)},
			want:  events{beats},
			drops: drops{"unknown_record": 5},
		},
		{
			name:  "heartbeat with a flag",
			law:   "and a HEARTBEAT with any flag",
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
			law:  "Body: `mode u8, nonce u64`.",
			in:   [][]byte{datagram(record(4, 0, 2, 0, 0, 0, 0, 0, 0, 1, 0, 77))},
			want: events{wirepeer.Heartbeat{Mode: wirepeer.Answer, Nonce: 256}},
		},
		{
			name: "heartbeat modes",
			law:  "Other modes are ignored.",
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
		Destination: [8]byte{1, 2, 3, 4, 5, 6, 7, 8},
		Source:      [8]byte{9, 10, 11, 12, 13, 14, 15, 16},
		Frame:       frame(14),
	}
	parts := []byte{1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	striped := wirepeer.Object{Flags: wirepeer.Striped, Stripe: 1, Frame: frame(14)}
	relayed := wirepeer.Object{Flags: wirepeer.Relayed, Frame: frame(14)}
	vnet := wirepeer.Object{Flags: wirepeer.VNET, Frame: frame(14)}
	testRules(t, []rule{
		{
			name: "parts in their order",
			law:  "The flags say which parts it has, in this order:",
			in:   [][]byte{datagram(record(1, 0x70, append(parts, frame(14)...)...))},
			want: events{all},
		},
		{
			name: "least objects",
			law:  "| 14 to 65,597 |",
			in: [][]byte{datagram(wirepeer.AppendWhole(nil, plain(frame(14))), wirepeer.AppendWhole(nil, striped),
				wirepeer.AppendWhole(nil, relayed), wirepeer.AppendWhole(nil, vnet))},
			want: events{plain(frame(14)), striped, relayed, vnet},
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
			name:  "striped to a receiver that did not say so",
			law:   "any other drops them (`unknown_record`).",
			takes: func(f *wirepeer.Features) { *f &^= wirepeer.STRIPE },
			in: [][]byte{datagram(wirepeer.AppendWhole(nil, striped),
				slice(wirepeer.Striped, 0, 0, 20, make([]byte, 10)), slice(wirepeer.Striped, 0, 10, 20, make([]byte, 10)))},
			drops: drops{"unknown_record": 2},
		},
		{
			name:  "relayed to a receiver that did not say so",
			law:   "A receiver that did not say RELAY",
			takes: func(f *wirepeer.Features) { *f &^= wirepeer.RELAY },
			in:    [][]byte{datagram(wirepeer.AppendWhole(nil, relayed))},
			drops: drops{"relay": 1},
		},
	})
}
