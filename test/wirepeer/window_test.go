// SPDX-License-Identifier: Apache-2.0

package wirepeer_test

import (
	"testing"

	"github.com/l2bridge/l2bridge/test/wirepeer"
)

// begin and end are the two slices of the object id that is 30 bytes long.
func begin(id uint16) []byte { return slice(0, id, 0, 30, frame(30)[:20]) }
func end(id uint16) []byte   { return slice(0, id, 20, 30, frame(30)[20:]) }

func TestReassembly(t *testing.T) {
	f := plain(frame(30))
	const (
		step1 = "Body shorter than 9 bytes (SLICE) or 6 (HEAD), or a HEAD of more than 256 bytes behind its fixed fields: drop (`malformed`), nothing else changes."
		first = "No newest id yet: I is the newest."
		step2 = "Else let d = I - newest, as a signed 16-bit number. d > 0: I is the newest, whatever the next steps say; ids more than 31 behind it, counted modulo 65,536, leave the window, and those that were open are lost (`reassembly`, one each); an id that enters is new. d < -31: I counts as closed."
		step3 = "I is closed: a SLICE is dropped (`late`); a HEAD has no effect."
		step4 = "I is new: it becomes open with F and T. If T is below its parts plus 14 or its frame would exceed 65,597 bytes, it is closed (`malformed`)."
		step5 = "I is open with other F or T: it is closed (`malformed`)."
		step6 = "HEAD: if its bytes are more than T, closed (`malformed`); else the first HEAD of an object is kept, later ones have no effect."
		step7 = "SLICE: if offset + n > T, or any of its bytes was received before, closed (`malformed`)."
		runs  = "If the received bytes now form more than 32 separate runs, closed (`malformed`)."
		step8 = "All T bytes received: closed, and the object is delivered."
		once  = "Each such closing counts once, whatever else is wrong."
		never = "An object that is closed by steps 4 to 7 is never delivered, nor any part of it."
	)
	testRules(t, []rule{
		{
			name: "in order",
			law:  step8,
			in:   [][]byte{datagram(begin(0)), datagram(end(0))},
			want: events{f},
		},
		{
			name: "out of order and interleaved",
			law:  step8,
			in:   [][]byte{datagram(end(1)), datagram(begin(0), begin(2)), datagram(end(2), begin(1), end(0))},
			want: events{f, f, f},
		},
		{
			name: "one slice is the whole",
			law:  step8,
			in:   [][]byte{datagram(slice(0, 5, 0, 30, frame(30)))},
			want: events{f},
		},
		{
			name: "parts of the object are cut like the rest",
			law:  "`total` is the length of the whole object.",
			in: [][]byte{datagram(slice(wirepeer.Striped, 1, 0, 20, []byte{0, 7, 0}),
				slice(wirepeer.Striped, 1, 3, 20, append([]byte{0, 0, 8}, frame(14)...)))},
			want: events{wirepeer.Object{Flags: wirepeer.Striped, Stripe: 7, Position: 8, Frame: frame(14)}},
		},
		{
			name: "step 1: short bodies do not move the window",
			law:  step1,
			in: [][]byte{
				datagram(begin(0)),
				datagram(slice(0, 1000, 0, 30, nil), record(2, 0), head(0, 1000, 30, nil), record(3, 0, 1, 2), head(0, 1000, 300, make([]byte, 257))),
				datagram(end(0)),
			},
			want:  events{f},
			drops: drops{"malformed": 5},
		},
		{
			name: "step 1: bounds of a HEAD",
			law:  "then 1 to 256 bytes: the first bytes of object `id`",
			in:   [][]byte{datagram(head(0, 0, 300, make([]byte, 256)), head(0, 1, 300, make([]byte, 1)))},
		},
		{
			name:  "step 2: any first id, and 31 behind it",
			law:   first,
			in:    [][]byte{datagram(begin(10), begin(0xffeb), begin(0xffea)), datagram(end(10), end(0xffeb))},
			want:  events{f, f},
			drops: drops{"late": 1},
		},
		{
			name: "step 2: 31 behind stays",
			law:  step2,
			in:   [][]byte{datagram(begin(0), begin(31), end(0), end(31))},
			want: events{f, f},
		},
		{
			name:  "step 2: 32 behind is lost and late",
			law:   step2,
			in:    [][]byte{datagram(begin(0), begin(32), end(0), end(32))},
			want:  events{f},
			drops: drops{"reassembly": 1, "late": 1},
		},
		{
			name: "step 2: a closed one leaves without a count",
			law:  step2,
			in:   [][]byte{datagram(begin(0), end(0), begin(32))},
			want: events{f},
		},
		{
			name:  "step 2: each open one counts",
			law:   step2,
			in:    [][]byte{datagram(begin(0), begin(1), head(0, 2, 30, []byte{1}), begin(40))},
			drops: drops{"reassembly": 3},
		},
		{
			name:  "step 2: greatest jump, from behind the newest too",
			law:   step2,
			in:    [][]byte{datagram(begin(31), begin(0), begin(31+0x7fff), end(31+0x7fff))},
			want:  events{f},
			drops: drops{"reassembly": 2},
		},
		{
			name:  "step 2: half of the ids ahead is behind",
			law:   step2,
			in:    [][]byte{datagram(begin(0), begin(0x8000), end(0))},
			want:  events{f},
			drops: drops{"late": 1},
		},
		{
			name: "step 2: ids wrap",
			law:  "per lane and direction, from 0, and wrap.",
			in:   [][]byte{datagram(begin(0xffff), begin(0), end(0xffff), end(0))},
			want: events{f, f},
		},
		{
			name: "step 2: an id is new again when it comes round",
			law:  step2,
			in: [][]byte{datagram(begin(0), end(0), begin(0x7fff), end(0x7fff), begin(0xfff0), end(0xfff0),
				begin(0), end(0))},
			want: events{f, f, f, f},
		},
		{
			name:  "step 2: an object that is closed at once moves the window",
			law:   step2,
			in:    [][]byte{datagram(begin(0), slice(0, 32, 0, 0, []byte{1}), end(0))},
			drops: drops{"reassembly": 1, "malformed": 1, "late": 1},
		},
		{
			name:  "step 2: a HEAD moves the window",
			law:   step2,
			in:    [][]byte{datagram(begin(0), head(0, 32, 300, []byte{1}))},
			drops: drops{"reassembly": 1},
		},
		{
			name:  "step 3: behind delivery",
			law:   step3,
			in:    [][]byte{datagram(begin(0), end(0), begin(0), end(0))},
			want:  events{f},
			drops: drops{"late": 2},
		},
		{
			name:  "step 3: behind a lie",
			law:   step3,
			in:    [][]byte{datagram(begin(0), slice(0, 0, 20, 31, []byte{1}), end(0))},
			drops: drops{"malformed": 1, "late": 1},
		},
		{
			name: "step 3: a HEAD of a closed object",
			law:  step3,
			in: [][]byte{datagram(begin(0), end(0), head(0, 0, 30, []byte{1}), head(wirepeer.VNET, 0, 7, make([]byte, 8))),
				datagram(begin(100), head(0, 68, 30, []byte{1}), head(0, 0x8064, 30, []byte{1}), end(100))},
			want: events{f, f},
		},
		{
			name:  "step 3: a HEAD with a total that was a lie",
			law:   step3,
			in:    [][]byte{datagram(head(0, 0, 13, []byte{1}), head(0, 0, 13, []byte{1}), begin(0))},
			drops: drops{"malformed": 1, "late": 1},
		},
		{
			name: "step 4: least totals",
			law:  step4,
			in: [][]byte{datagram(
				slice(0, 0, 0, 13, make([]byte, 13)), slice(0x40, 1, 0, 19, make([]byte, 19)),
				slice(0x20, 2, 0, 29, make([]byte, 29)), slice(0x10, 3, 0, 23, make([]byte, 23)),
				head(0, 4, 13, []byte{1}), slice(0, 5, 0, 14, frame(14)))},
			want:  events{plain(frame(14))},
			drops: drops{"malformed": 5},
		},
		{
			name: "step 4: greatest totals",
			law:  step4,
			in: [][]byte{datagram(
				slice(0, 0, 0, 65597, []byte{1}), slice(0, 1, 0, 65598, []byte{1}),
				slice(0x70, 2, 0, 65629, []byte{1}), slice(0x70, 3, 0, 65630, []byte{1}),
				slice(0x10, 4, 0, 0xffffff, []byte{1}), begin(100))},
			drops: drops{"malformed": 3, "reassembly": 2},
		},
		{
			name:  "step 5: other total",
			law:   step5,
			in:    [][]byte{datagram(begin(0), slice(0, 0, 20, 31, frame(11)), begin(1), head(0, 1, 29, []byte{1}))},
			drops: drops{"malformed": 2},
		},
		{
			name:  "step 5: other flags",
			law:   step5,
			in:    [][]byte{datagram(begin(0), slice(wirepeer.VNET, 0, 20, 30, frame(10)), begin(1), head(wirepeer.VNET, 1, 30, []byte{1}))},
			drops: drops{"malformed": 2},
		},
		{
			name: "step 6: a HEAD changes nothing",
			law:  "It never completes an object, and its bytes are never compared with those of slices: it is used only where these are missing.",
			in: [][]byte{datagram(head(0, 0, 30, make([]byte, 30)), begin(0), head(0, 0, 30, []byte{9}), end(0)),
				datagram(head(0, 1, 30, make([]byte, 30)))},
			want: events{f},
		},
		{
			name:  "step 6: longer than the object",
			law:   step6,
			in:    [][]byte{datagram(head(0, 0, 30, make([]byte, 31)), begin(0))},
			drops: drops{"malformed": 1, "late": 1},
		},
		{
			name:  "step 7: beyond the object",
			law:   step7,
			in:    [][]byte{datagram(slice(0, 0, 1, 30, frame(30)), slice(0, 1, 30, 30, []byte{1}), slice(0, 2, 0xffffff, 30, []byte{1}))},
			drops: drops{"malformed": 3},
		},
		{
			name:  "step 7: the same again",
			law:   step7,
			in:    [][]byte{datagram(begin(0), begin(0), end(0))},
			drops: drops{"malformed": 1, "late": 1},
		},
		{
			name:  "step 7: one byte twice",
			law:   step7,
			in:    [][]byte{datagram(begin(0), slice(0, 0, 19, 30, frame(11)))},
			drops: drops{"malformed": 1},
		},
		{
			name: "step 7: 32 runs",
			law:  runs,
			in:   [][]byte{datagram(everySecond(0, 32)...), datagram(between(0, 32)...)},
			want: events{plain(frame(64))},
		},
		{
			name:  "step 7: 33 runs",
			law:   runs,
			in:    [][]byte{datagram(everySecond(0, 33)...)},
			drops: drops{"malformed": 1},
		},
		{
			name: "closings count once",
			law:  once,
			// Too small, beyond its end and with other flags.
			in:    [][]byte{datagram(slice(0, 0, 9, 3, []byte{1})), datagram(slice(0x10, 0, 9, 4, []byte{1}))},
			drops: drops{"malformed": 1, "late": 1},
		},
		{
			name:  "no part of a closed object is delivered",
			law:   never,
			in:    [][]byte{datagram(begin(0), slice(0, 0, 0, 30, frame(30)), end(0))},
			drops: drops{"malformed": 1, "late": 1},
		},
	})
}

// everySecond is the even bytes of frame(2*n), a slice each.
func everySecond(id uint16, n int) (records [][]byte) {
	for i := range n {
		records = append(records, slice(0, id, 2*i, 2*n, frame(2 * n)[2*i:2*i+1]))
	}
	return records
}

// between is the other bytes.
func between(id uint16, n int) (records [][]byte) {
	for i := range n {
		records = append(records, slice(0, id, 2*i+1, 2*n, frame(2 * n)[2*i+1:2*i+2]))
	}
	return records
}
