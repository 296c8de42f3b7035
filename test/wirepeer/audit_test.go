// SPDX-License-Identifier: Apache-2.0

package wirepeer_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/l2bridge/l2bridge/test/wirepeer"
)

func TestAuditor(t *testing.T) {
	o := tcp4().object()
	b := o.Append(nil)
	first := slice(o.Flags, 0, 0, len(b), b[:1000])
	rest := slice(o.Flags, 0, 1000, len(b), b[1000:])
	heading := func(n int) []byte { return head(o.Flags, 0, len(b), b[:n]) }
	long := slices.Concat(heading(64), rest)
	wrong := slices.Concat(heading(64), rest)
	wrong[3+5+20] ^= 1 // behind the tag, the length and the fixed fields
	told := tcp4().object()
	told.Header[2] = 54
	var nine [][]byte
	for id := range uint16(9) {
		nine = append(nine, begin(id))
	}

	const (
		sequence  = "The sequence counts the datagrams sent on this lane in this direction, those that hold nothing but a heartbeat too, from 0, and wraps."
		ids       = "Ids count up by one with each object that is cut, per lane and direction, from 0, and wrap."
		rising    = "A sender sends the slices of an object in rising order without overlap, each once, and has at most 8 objects begun and not ended on a lane."
		place     = "It is the first record of the next datagram with objects after the one with the first slice of a superframe,"
		none      = "there is none when the headers are longer."
		covers    = "the first bytes of object `id`, at least up to the end of the TCP or UDP header."
		heartbeat = "Datagrams with a heartbeat are padded to 64 bytes at least (sequence included)"
	)
	for _, c := range []struct {
		name string
		law  string
		in   [][]byte // records of each datagram
		ok   bool
	}{
		{"whole", ids, [][]byte{wirepeer.AppendWhole(nil, plain(frame(60)))}, true},
		{"superframe", place, [][]byte{first, long}, true},
		{"first id", ids, [][]byte{slices.Concat(begin(1), end(1))}, false},
		{"id left out", ids, [][]byte{slices.Concat(begin(0), end(0)), slices.Concat(begin(2), end(2))}, false},
		{"two ids", ids, [][]byte{slices.Concat(begin(0), begin(1)), slices.Concat(end(1), end(0))}, true},
		{"last slice first", rising, [][]byte{end(0), begin(0)}, false},
		{"slice twice", rising, [][]byte{begin(0), begin(0)}, false},
		{"object again", rising, [][]byte{slices.Concat(begin(0), end(0)), begin(0)}, false},
		{"not ended", rising, [][]byte{begin(0)}, false},
		{"nine begun", rising, nine, false},
		{"head too early", place, [][]byte{slices.Concat(first, heading(64)), rest}, false},
		{"head second", place, [][]byte{first, slices.Concat(beat, heading(64), rest)}, false},
		{"head too late", place, [][]byte{first, record(1, 0, frame(60)...), long}, false},
		{"heartbeat between", place, [][]byte{first, slices.Concat(beat, make([]byte, 64)), long}, true},
		{"no head", place, [][]byte{first, rest}, false},
		{"head too short", covers, [][]byte{first, slices.Concat(heading(63), rest)}, false},
		{"head of something else", covers, [][]byte{first, wrong}, false},
		{"head of a plain frame", none, [][]byte{begin(0), append(head(0, 0, 30, frame(20)), end(0)...)}, false},
		{"header length", ignored, [][]byte{wirepeer.AppendWhole(nil, told)}, false},
		{"heartbeat", heartbeat, [][]byte{slices.Concat(beat, make([]byte, 64-2-len(beat)))}, true},
		{"short heartbeat", heartbeat, [][]byte{slices.Concat(beat, make([]byte, 63-2-len(beat)))}, false},
		{"reserved kind", "| 5, 7 to 15 | reserved (5 for a mark in a stripe) |", [][]byte{record(5, 0)}, false},
		{"test", "**TEST** objects have no other flag.", [][]byte{record(1, 0x80, frame(60)...)}, true},
		{"test with another flag", "**TEST** objects have no other flag.", [][]byte{record(1, 0x90, frame(70)...)}, false},
		{"body cut off", "the length goes beyond the datagram", [][]byte{{1, 0, 1}}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if !strings.Contains(lawText(t), c.law) {
				t.Errorf("docs/wire.md no longer says %q", c.law)
			}
			var a wirepeer.Auditor
			var err error
			for i, records := range c.in {
				if err = a.Datagram(append([]byte{0, byte(i)}, records...)); err != nil {
					break
				}
			}
			if err == nil {
				err = a.End()
			}
			if (err == nil) != c.ok {
				t.Errorf("err = %v, want none: %t", err, c.ok)
			}
		})
	}
	if !strings.Contains(lawText(t), sequence) {
		t.Errorf("docs/wire.md no longer says %q", sequence)
	}
	for _, b := range [][]byte{nil, {0}, {0, 1}} {
		if err := new(wirepeer.Auditor).Datagram(b); err == nil {
			t.Errorf("first datagram %x: no error", b)
		}
	}
}
