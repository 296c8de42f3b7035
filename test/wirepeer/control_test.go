// SPDX-License-Identifier: Apache-2.0

package wirepeer_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/l2bridge/l2bridge/test/wirepeer"
)

func hello() wirepeer.Hello {
	h := wirepeer.Hello{
		Boot: 0x2021222324252627, Session: 0x28292a2b2c2d2e2f, Lane: 0x30, ConnectionID: 17,
		MTU: 1500, Features: wirepeer.CSUM | wirepeer.TSO,
	}
	for i := range h.ID {
		h.ID[i] = byte(i)
	}
	return h
}

// helloBody is hello by the offsets of the text.
func helloBody() []byte {
	b := make([]byte, 56)
	for i := range b[:49] {
		b[i] = byte(i)
	}
	copy(b[49:], []byte{17, 0x05, 0xdc, 0, 0, 0, 3})
	return b
}

func message(typ byte, body ...byte) []byte { return wirepeer.AppendMessage(nil, typ, body) }

func TestControl(t *testing.T) {
	longID := helloBody()
	longID[49] = 18
	text := bytes.Repeat([]byte("x"), 200)
	tests := []struct {
		name string
		law  string
		in   []byte
		want wirepeer.Message
		n    int
		err  bool
	}{
		{"hello", "HELLO, 56 bytes:", message(1, helloBody()...), hello(), 59, false},
		{"hello of a later version", "Bytes behind those that a message is defined to have are ignored", message(1, append(helloBody(), 1, 2)...), hello(), 61, false},
		{"hello too short", "A body that is shorter than its message is a protocol error.", message(1, helloBody()[:55]...), nil, 0, true},
		{"long connection IDs", "length of the sender's connection IDs; above 17: protocol error", message(1, longID...), nil, 0, true},
		{"goodbye", "GOODBYE: `reason u8`, then text", message(2, 3, 'b', 'y', 'e'), wirepeer.Goodbye{Reason: 3, Text: "bye"}, 7, false},
		{"goodbye without text", "GOODBYE: `reason u8`, then text", message(2, 3), wirepeer.Goodbye{Reason: 3}, 4, false},
		{"goodbye of 200 bytes", "(UTF-8, at most 200 bytes, shown cleaned)", message(2, append([]byte{3}, text...)...), wirepeer.Goodbye{Reason: 3, Text: string(text)}, 204, false},
		{"goodbye of more", "(UTF-8, at most 200 bytes, shown cleaned)", message(2, append([]byte{3}, append(text, 'y')...)...), wirepeer.Goodbye{Reason: 3, Text: string(text)}, 205, false},
		{"goodbye too short", "A body that is shorter than its message is a protocol error.", message(2), nil, 0, true},
		{"probe ack", "PROBE_ACK: `lane u8, nonce u64`", message(3, 7, 0, 0, 0, 0, 0, 0, 1, 2), wirepeer.ProbeAck{Lane: 7, Nonce: 258}, 12, false},
		{"probe ack of a later version", "later versions append.", message(3, 7, 0, 0, 0, 0, 0, 0, 1, 2, 9), wirepeer.ProbeAck{Lane: 7, Nonce: 258}, 13, false},
		{"probe ack too short", "A body that is shorter than its message is a protocol error.", message(3, 7, 0, 0, 0, 0, 0, 0, 1), nil, 0, true},
		{"type 0", "Unknown types are skipped.", message(0, 1, 2), nil, 5, false},
		{"reserved type", "Unknown types are skipped.", message(4), nil, 3, false},
		{"last type", "Unknown types are skipped.", message(255, make([]byte, 16384)...), nil, 16387, false},
		{"body too long", "A body is at most 16,384 bytes long; a longer one is a protocol error.", message(255, make([]byte, 16385)...), nil, 0, true},
		{"body too long, from the header", "A body is at most 16,384 bytes long; a longer one is a protocol error.", []byte{9, 0x40, 0x01}, nil, 0, true},
		{"nothing", "| type u8| length u16 | body: length bytes |", nil, nil, 0, false},
		{"half a header", "| type u8| length u16 | body: length bytes |", []byte{9, 0xff}, nil, 0, false},
		{"half a body", "| type u8| length u16 | body: length bytes |", message(1, helloBody()...)[:58], nil, 0, false},
		{"two messages", "both sides send control messages on it.", append(message(2, 1), message(2, 2)...), wirepeer.Goodbye{Reason: 1}, 4, false},
	}
	law := lawText(t)
	for _, c := range tests {
		t.Run(c.name, func(t *testing.T) {
			if !strings.Contains(law, c.law) {
				t.Errorf("docs/wire.md no longer says %q", c.law)
			}
			got, n, err := wirepeer.ParseMessage(c.in)
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("message (-want +got):\n%s", d)
			}
			if n != c.n {
				t.Errorf("n = %d, want %d", n, c.n)
			}
			if errors.Is(err, wirepeer.ErrProtocol) != c.err || (err != nil) != c.err {
				t.Errorf("err = %v, want a protocol error: %t", err, c.err)
			}
		})
	}
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
	} {
		bit := int(c.row[2] - '0')
		if c.feature != 1<<bit || !strings.Contains(law, c.row) {
			t.Errorf("feature %#x, docs/wire.md has %q: %t", c.feature, c.row, strings.Contains(law, c.row))
		}
	}
}

// FuzzControl checks that what is parsed is also what is appended, up to the
// bytes that a later version adds.
func FuzzControl(f *testing.F) {
	f.Add(hello().Append(nil))
	f.Add(wirepeer.Goodbye{Reason: 1, Text: "leaving"}.Append(nil))
	f.Add(wirepeer.ProbeAck{Lane: 1, Nonce: 2}.Append(nil))
	f.Add([]byte{9, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, n, err := wirepeer.ParseMessage(b)
		if n > len(b) || err != nil && (m != nil || n != 0) || m != nil && n == 0 {
			t.Fatalf("ParseMessage = %v, %d, %v of %d bytes", m, n, err, len(b))
		}
		if m == nil {
			return
		}
		again := m.Append(nil)
		if len(again) > n || again[0] != b[0] || !bytes.HasPrefix(b[3:], again[3:]) {
			t.Fatalf("%x parsed as %v, appended as %x", b[:n], m, again)
		}
	})
}
