// SPDX-License-Identifier: Apache-2.0

package wirepeer_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/l2bridge/l2bridge/test/wirepeer"
)

func hello() wirepeer.Hello {
	h := wirepeer.Hello{
		Boot: 0x2021222324252627, Session: 0x28292a2b2c2d2e2f, Lane: 0x30, ConnectionID: 17,
		MTU: 1500, Features: wirepeer.CSUM | wirepeer.TSO, List: 0x38393a3b3c3d3e3f,
		Digest: [8]byte{0x40, 0x41, 0x42, 0x43, 0x44, 0x45, 0x46, 0x47},
	}
	for i := range h.ID {
		h.ID[i] = byte(i)
	}
	return h
}

// listless is hello of a site that has no list of revoked keys.
func listless() wirepeer.Hello {
	h := hello()
	h.List, h.Digest = 0, [8]byte{}
	return h
}

// helloBody is hello by the offsets of the text.
func helloBody() []byte {
	b := make([]byte, 72)
	for i := range b {
		b[i] = byte(i)
	}
	copy(b[49:], []byte{17, 0x05, 0xdc, 0, 0, 0, 3})
	return b
}

func message(typ byte, body ...byte) []byte { return wirepeer.AppendMessage(nil, typ, body) }

// TestControl has the acceptor of a lane, unless a case says otherwise.
func TestControl(t *testing.T) {
	const (
		errs     = "Protocol errors are: a body that is too long, or shorter than its message; a stream that ends inside a message; a first message that is not HELLO; a second HELLO;"
		skipped  = "Unknown types are skipped, and so are known ones on a lane that they do not belong to."
		appended = "Bytes behind those that a message is defined to have are ignored: later versions append."
		long     = "A body is at most 16,384 bytes long; a longer one is a protocol error."
		layout   = "| type u8| length u16 | body: length bytes |"
	)
	changed := func(offset int, v byte) []byte {
		b := helloBody()
		b[offset] = v
		return message(1, b...)
	}
	greet := message(1, helloBody()...)
	greet0 := changed(48, 0)
	control := hello()
	control.Lane = 0
	longest := listless()
	longest.MTU = 0xffff
	after := func(hello []byte, b ...[]byte) []byte {
		return append(bytes.Clone(hello), bytes.Join(b, nil)...)
	}
	said := hello()
	other := hello()
	other.Session++
	tests := []struct {
		name    string
		law     string
		dialled *wirepeer.Hello
		in      []byte
		want    []wirepeer.Message
		err     bool
		cut     bool // and the stream ends inside a message
	}{
		{name: "hello", law: "HELLO, 72 bytes", in: greet, want: []wirepeer.Message{hello()}},
		{name: "hello that says no list", law: "(one that ends after 56 to 71 has 0 in the last two fields)", in: message(1, helloBody()[:56]...), want: []wirepeer.Message{listless()}},
		{name: "hello that says half of it", law: "(one that ends after 56 to 71 has 0 in the last two fields)", in: message(1, helloBody()[:71]...), want: []wirepeer.Message{listless()}},
		{name: "hello of a later version", law: appended, in: message(1, append(helloBody(), 1, 2)...), want: []wirepeer.Message{hello()}},
		{name: "hello too short", law: errs, in: message(1, helloBody()[:55]...), err: true},
		{name: "hello of another", law: "must equal that of its certificate, else protocol error", in: changed(31, 77), err: true},
		{name: "long connection IDs", law: "length of the sender's connection IDs; above 17: protocol error", in: changed(49, 18), err: true},
		{name: "any MTU", law: "MTU of the sender's LAN, any value:", in: message(1, append(append(helloBody()[:50], 0xff, 0xff), 0, 0, 0, 3)...), want: []wirepeer.Message{longest}},
		{name: "answer", law: "session; the answer repeats the dialler's, else protocol error", dialled: &said, in: greet, want: []wirepeer.Message{hello()}},
		{name: "answer with another session", law: "session; the answer repeats the dialler's, else protocol error", dialled: &other, in: greet, err: true},
		{name: "answer with another lane", law: "lane; the answer repeats the dialler's, else protocol error", dialled: &said, in: changed(48, 0), err: true},
		{name: "second hello", law: errs, in: after(greet, greet), want: []wirepeer.Message{hello()}, err: true},
		{name: "first message is another", law: errs, in: after(message(3, make([]byte, 9)...), greet), err: true},
		{name: "first message is unknown", law: errs, in: after(message(77), greet), err: true},
		{name: "probe ack", law: "PROBE_ACK: `lane u8, nonce u64`", in: after(greet0, message(3, 7, 0, 0, 0, 0, 0, 0, 1, 2)), want: []wirepeer.Message{control, wirepeer.ProbeAck{Lane: 7, Nonce: 258}}},
		{name: "probe ack of a later version", law: appended, in: after(greet0, message(3, 7, 0, 0, 0, 0, 0, 0, 1, 2, 9)), want: []wirepeer.Message{control, wirepeer.ProbeAck{Lane: 7, Nonce: 258}}},
		{name: "probe ack too short", law: errs, in: after(greet0, message(3, 7, 0, 0, 0, 0, 0, 0, 1)), want: []wirepeer.Message{control}, err: true},
		{name: "probe ack on another lane", law: skipped, in: after(greet, message(3, 7, 0, 0, 0, 0, 0, 0, 1, 2), message(3)), want: []wirepeer.Message{hello()}},
		{name: "unknown types", law: skipped, in: after(greet, message(0, 1, 2), message(10), message(255, make([]byte, 16384)...)), want: []wirepeer.Message{hello()}},
		{name: "reserved type", law: "| 11 to 31 | reserved | 0 |", in: after(greet0, message(11, 1, 2)), want: []wirepeer.Message{control}},
		{name: "lanes", law: "LANES: `want u8`", in: after(greet0, message(2, 5, 9)), want: []wirepeer.Message{control, wirepeer.Lanes{Want: 5}}},
		{name: "lanes on another lane", law: skipped, in: after(greet, message(2)), want: []wirepeer.Message{hello()}},
		{name: "lanes without a body", law: errs, in: after(greet0, message(2)), want: []wirepeer.Message{control}, err: true},
		{name: "body too long", law: long, in: after(greet, message(255, make([]byte, 16385)...)), want: []wirepeer.Message{hello()}, err: true},
		{name: "body too long, from the header", law: long, in: after(greet, []byte{9, 0x40, 0x01}), want: []wirepeer.Message{hello()}, err: true},
		{name: "nothing", law: layout},
		{name: "half a header", law: layout, in: after(greet, []byte{9, 0xff}), want: []wirepeer.Message{hello()}, cut: true},
		{name: "half a body", law: layout, in: greet[:58], cut: true},
	}
	law := lawText(t)
	for _, c := range tests {
		for _, piece := range []int{1, 7, 1 << 20} {
			t.Run(fmt.Sprint(c.name, " by ", piece), func(t *testing.T) {
				if !strings.Contains(law, c.law) {
					t.Errorf("docs/wire.md no longer says %q", c.law)
				}
				r := wirepeer.Control{ID: hello().ID, Dialled: c.dialled}
				got, err := readPieces(&r, c.in, piece)
				if d := cmp.Diff(c.want, got); d != "" {
					t.Errorf("messages (-want +got):\n%s", d)
				}
				if errors.Is(err, wirepeer.ErrProtocol) != c.err || (err != nil) != c.err {
					t.Fatalf("err = %v, want a protocol error: %t", err, c.err)
				}
				if err := r.End(); !c.err && errors.Is(err, wirepeer.ErrProtocol) != c.cut {
					t.Errorf("End() = %v, want a protocol error: %t", err, c.cut)
				}
			})
		}
	}
}

// readPieces gives b to r in pieces of n bytes, up to an error.
func readPieces(r *wirepeer.Control, b []byte, n int) (all []wirepeer.Message, err error) {
	for piece := range slices.Chunk(b, n) {
		m, err := r.Read(piece)
		all = append(all, m...)
		if err != nil {
			return all, err
		}
	}
	return all, nil
}

func TestFeatures(t *testing.T) {
	law := lawText(t)
	for _, c := range []struct {
		feature wirepeer.Features
		row     string
	}{
		{wirepeer.CSUM, "| 0 | CSUM |"},
		{wirepeer.TSO, "| 1 | TSO |"},
		{wirepeer.USO, "| 2 | USO |"},
		{wirepeer.RELAY, "| 3 | RELAY |"},
		{wirepeer.STRIPE, "| 4 | STRIPE |"},
		{wirepeer.VIA, "| 5 | VIA |"},
		{wirepeer.TEST, "| 6 | TEST |"},
		{wirepeer.PARITY, "| 7 | PARITY |"},
	} {
		bit := int(c.row[2] - '0')
		if c.feature != 1<<bit || !strings.Contains(law, c.row) {
			t.Errorf("feature %#x, docs/wire.md has %q: %t", c.feature, c.row, strings.Contains(law, c.row))
		}
	}
}

// FuzzControl checks that what is read does not depend on the pieces that it
// comes in, and is what is appended, up to what is skipped.
func FuzzControl(f *testing.F) {
	greet := hello()
	greet.Lane = 0
	f.Add(hello().Append(nil))
	f.Add(wirepeer.ProbeAck{Lane: 1, Nonce: 2}.Append(greet.Append(nil)))
	f.Add(append(greet.Append(nil), 9, 0xff, 0xff))
	mesh := greet.Append(nil)
	for _, m := range []wirepeer.Message{
		wirepeer.Have{{Member: wirepeer.Member{1}, Version: 2}}, announcement(), wirepeer.Links{{1}, {2}},
		wirepeer.Seen{Address: [16]byte{1}, Port: 3}, wirepeer.Punch{Source: wirepeer.Member{4}},
		wirepeer.Doubts{{5}},
	} {
		mesh = m.Append(mesh)
	}
	f.Add(mesh)
	f.Fuzz(func(t *testing.T, b []byte) {
		whole, pieces := wirepeer.Control{ID: hello().ID}, wirepeer.Control{ID: hello().ID}
		want, wantErr := whole.Read(b)
		got, gotErr := readPieces(&pieces, b, 1)
		if d := cmp.Diff(want, got); d != "" || (wantErr == nil) != (gotErr == nil) {
			t.Fatalf("read at once %v, in pieces %v (-once +pieces):\n%s", wantErr, gotErr, d)
		}
		var again []byte
		for _, m := range got {
			again = m.Append(again)
		}
		const list = 16 // bytes, which a HELLO of an earlier version lacks
		if len(again) > len(b)+list {
			t.Fatalf("%d bytes read as %v, which is %d bytes", len(b), got, len(again))
		}
		r := wirepeer.Control{ID: hello().ID}
		twice, err := r.Read(again)
		if d := cmp.Diff(got, twice); d != "" || err != nil {
			t.Fatalf("read again: %v (-first +again):\n%s", err, d)
		}
	})
}
