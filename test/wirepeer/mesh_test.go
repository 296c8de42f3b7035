// SPDX-License-Identifier: Apache-2.0

package wirepeer_test

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/l2bridge/l2bridge/test/wirepeer"
)

func announcement() wirepeer.Announcement {
	a := wirepeer.Announcement{
		Version: 0x4041424344454647, Features: 0x48494a4b, MTU: 0x4c4d,
		Certificate: []byte{0x50, 0x51}, Addresses: []string{"a:1", "[::1]:65535"},
	}
	for i := range a.Signature {
		a.Signature[i] = byte(i)
	}
	return a
}

// announcementBody is announcement by the offsets of the text.
func announcementBody() []byte {
	b := make([]byte, 80)
	for i := range b {
		b[i] = byte(i)
	}
	b[78], b[79] = 0, 2
	return append(b, "\x50\x51\x02\x03a:1\x0b[::1]:65535"...)
}

// part is a part of a list.
func part(length, offset uint32, b ...byte) wirepeer.Revoked {
	return wirepeer.Revoked{Length: length, Offset: offset, Part: b}
}

// TestMesh has the control lane, and behind the HELLO the messages of a case.
func TestMesh(t *testing.T) {
	const (
		list      = "HAVE, LINKS and DOUBTS are lists and nothing else: one with more than 1024 entries, or whose length is no multiple of an entry's, is a protocol error."
		have      = "HAVE: n times `member 8 bytes, version u64`, which announcements the sender has. Each side sends one when the session is up; later ones are ignored."
		links     = "LINKS: n times `member 8 bytes`, with whom the sender has a session that answers at present"
		doubts    = "DOUBTS: n times `member 8 bytes`, with whom the sender has a session that does not answer at present"
		replaces  = "It is the whole list and replaces the one before."
		table     = "| 80 | c | membership certificate, DER | | 80 + c | 1 | n, 0 to 16 | | 81 + c | | n times `length u8, text`:"
		cert      = "| 78 | 2 | c, 1 to 2048 |"
		text      = "The text is HOST:PORT, 255 bytes at most."
		port      = "PORT is 1 to 5 digits, a number from 1 to 65535."
		host      = "HOST is one or more of the letters and digits of ASCII and `.` `-` `_`, or, in brackets, of these and `:` `%`."
		behind    = "Bytes behind the last text are signed with the rest."
		anything  = "Anything else is a protocol error."
		signature = "have no effect."
		seen      = "SEEN: `address 16 bytes, port u16`:"
		nowhere   = "One from which no packet can come (`::`, 0.0.0.0, multicast, port 0) is a protocol error."
		punch     = "PUNCH: `destination 8 bytes, source 8 bytes`:"
		revoked   = "REVOKED: `length u32, offset u32`, then at least one byte: the part of the list of revoked keys"
		whole     = "`length` is that of the whole list, at most 400,000."
		parts     = "The parts of a list come in rising order and leave nothing out; one with offset 0 begins anew. Anything else is a protocol error"
		appended  = "Bytes behind those that a message is defined to have are ignored: later versions append."
		short     = "a body that is too long, or shorter than its message;"
		skipped   = "Unknown types are skipped, and so are known ones on a lane that they do not belong to."
	)
	body := announcementBody()
	const addresses = 82 // where their number stands
	one := func(s string) []byte {
		return message(5, slices.Concat(body[:addresses], []byte{1, byte(len(s))}, []byte(s))...)
	}
	oneWant := func(s string) []wirepeer.Message {
		a := announcement()
		a.Addresses = []string{s}
		return []wirepeer.Message{a}
	}
	with := func(f func(a *wirepeer.Announcement)) wirepeer.Announcement {
		a := announcement()
		f(&a)
		return a
	}
	later := with(func(a *wirepeer.Announcement) { a.Behind = []byte{1, 2} })
	alone := with(func(a *wirepeer.Announcement) { a.Addresses = nil })
	big := with(func(a *wirepeer.Announcement) {
		a.Certificate = make([]byte, 2048)
		a.Addresses = slices.Repeat([]string{strings.Repeat("a", 249) + ":65535"}, 16)
	})
	mapped := [16]byte{10: 0xff, 11: 0xff, 12: 192, 14: 2, 15: 1}
	address := func(port byte, b ...byte) []byte { return message(7, append(b, 0, port)...) }
	two := wirepeer.Have{{wirepeer.Member{1, 2, 3, 4, 5, 6, 7, 8}, 9}, {wirepeer.Member{1}, 1 << 63}}
	twoBytes := message(4, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 0, 9, 1, 0, 0, 0, 0, 0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0)
	for _, c := range []struct {
		name string
		law  string
		lane byte
		in   []byte
		want []wirepeer.Message
		err  bool
	}{
		{name: "have", law: have, in: twoBytes, want: []wirepeer.Message{two}},
		{name: "have nothing", law: have, in: message(4), want: []wirepeer.Message{wirepeer.Have{}}},
		{name: "have again", law: have, in: slices.Concat(twoBytes, twoBytes, message(4)), want: []wirepeer.Message{two}},
		{name: "have again, wrong", law: list, in: slices.Concat(twoBytes, message(4, 1)), want: []wirepeer.Message{two}, err: true},
		{name: "have of the greatest length", law: list, in: make(wirepeer.Have, 1024).Append(nil), want: []wirepeer.Message{make(wirepeer.Have, 1024)}},
		{name: "have with a part of an entry", law: list, in: message(4, make([]byte, 24)...), err: true},
		{name: "links", law: links, in: message(6, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 0, 0, 0, 0, 0, 0), want: []wirepeer.Message{wirepeer.Links{{1, 2, 3, 4, 5, 6, 7, 8}, {9}}}},
		{name: "links again", law: replaces, in: slices.Concat(message(6, 1, 0, 0, 0, 0, 0, 0, 0), message(6)), want: []wirepeer.Message{wirepeer.Links{{1}}, wirepeer.Links{}}},
		{name: "links of the greatest length", law: list, in: make(wirepeer.Links, 1024).Append(nil), want: []wirepeer.Message{make(wirepeer.Links, 1024)}},
		{name: "links, one more", law: list, in: make(wirepeer.Links, 1025).Append(nil), err: true},
		{name: "doubts", law: doubts, in: message(10, 1, 2, 3, 4, 5, 6, 7, 8), want: []wirepeer.Message{wirepeer.Doubts{{1, 2, 3, 4, 5, 6, 7, 8}}}},
		{name: "no doubts", law: doubts, in: message(10), want: []wirepeer.Message{wirepeer.Doubts{}}},
		{name: "doubts of the greatest length", law: list, in: make(wirepeer.Doubts, 1024).Append(nil), want: []wirepeer.Message{make(wirepeer.Doubts, 1024)}},
		{name: "doubts, one more", law: list, in: make(wirepeer.Doubts, 1025).Append(nil), err: true},
		{name: "doubts with a part of an entry", law: list, in: message(10, make([]byte, 9)...), err: true},
		{name: "links with a part of an entry", law: list, in: message(6, make([]byte, 9)...), err: true},
		{name: "member", law: table, in: message(5, body...), want: []wirepeer.Message{announcement()}},
		{name: "member of a later version", law: behind, in: message(5, append(bytes.Clone(body), 1, 2)...), want: []wirepeer.Message{later}},
		{name: "member without addresses", law: table, in: message(5, append(bytes.Clone(body[:addresses]), 0)...), want: []wirepeer.Message{alone}},
		{name: "member as long as can be", law: text, in: big.Append(nil), want: []wirepeer.Message{big}},
		{name: "member with a long certificate", law: cert, in: with(func(a *wirepeer.Announcement) { a.Certificate = make([]byte, 2049) }).Append(nil), err: true},
		{name: "member without certificate", law: cert, in: with(func(a *wirepeer.Announcement) { a.Certificate = nil }).Append(nil), err: true},
		{name: "member with too many addresses", law: table, in: with(func(a *wirepeer.Announcement) { a.Addresses = slices.Repeat([]string{"a:1"}, 17) }).Append(nil), err: true},
		{name: "member that ends in its last text", law: short, in: message(5, body[:len(body)-1]...), err: true},
		{name: "member that ends before it", law: short, in: message(5, body[:len(body)-12]...), err: true},
		{name: "member that ends before the addresses", law: short, in: message(5, body[:addresses]...), err: true},
		{name: "member that ends in its certificate", law: short, in: message(5, body[:81]...), err: true},
		{name: "member that ends in its signature", law: short, in: message(5, body[:63]...), err: true},
		{name: "empty member", law: short, in: message(5), err: true},
		{name: "name", law: host, in: one("A-z_0.9:00001"), want: oneWant("A-z_0.9:00001")},
		{name: "in brackets", law: host, in: one("[A-z_0.9:%]:1"), want: oneWant("[A-z_0.9:%]:1")},
		{name: "no text", law: anything, in: one(""), err: true},
		{name: "no host", law: host, in: one(":1"), err: true},
		{name: "no host in brackets", law: host, in: one("[]:1"), err: true},
		{name: "no port", law: port, in: one("a:"), err: true},
		{name: "port 0", law: port, in: one("a:0"), err: true},
		{name: "great port", law: port, in: one("a:65536"), err: true},
		{name: "long port", law: port, in: one("a:000001"), err: true},
		{name: "colons without brackets", law: host, in: one("::1:1"), err: true},
		{name: "half a bracket", law: host, in: one("[::1:1"), err: true},
		{name: "something behind the bracket", law: host, in: one("[a]b:1"), err: true},
		{name: "space", law: host, in: one("a b:1"), err: true},
		{name: "end of line", law: host, in: one("a:1\n"), err: true},
		{name: "no ASCII", law: host, in: one("\xc3\xa4:1"), err: true},
		{name: "seen", law: seen, in: address(1, mapped[:]...), want: []wirepeer.Message{wirepeer.Seen{Address: mapped, Port: 1}}},
		{name: "seen of a later version", law: appended, in: message(7, append(slices.Clone(mapped[:]), 1, 2, 3)...), want: []wirepeer.Message{wirepeer.Seen{Address: mapped, Port: 0x102}}},
		{name: "seen too short", law: short, in: message(7, make([]byte, 17)...), err: true},
		{name: "seen at port 0", law: nowhere, in: address(0, mapped[:]...), err: true},
		{name: "seen nowhere", law: nowhere, in: address(1, make([]byte, 16)...), err: true},
		{name: "seen nowhere, IPv4", law: nowhere, in: address(1, append(mapped[:12:12], 0, 0, 0, 0)...), err: true},
		{name: "seen at a group", law: nowhere, in: address(1, append([]byte{0xff}, make([]byte, 15)...)...), err: true},
		{name: "seen at a group, IPv4", law: nowhere, in: address(1, append(mapped[:12:12], 239, 255, 255, 255)...), err: true},
		{name: "punch", law: punch, in: message(8, 1, 0, 0, 0, 0, 0, 0, 2, 3, 0, 0, 0, 0, 0, 0, 4), want: []wirepeer.Message{wirepeer.Punch{Destination: wirepeer.Member{1, 7: 2}, Source: wirepeer.Member{3, 7: 4}}}},
		{name: "punch of a later version", law: appended, in: message(8, make([]byte, 20)...), want: []wirepeer.Message{wirepeer.Punch{}}},
		{name: "punch too short", law: short, in: message(8, make([]byte, 15)...), err: true},
		{name: "revoked", law: revoked, in: message(9, 0, 0, 0, 2, 0, 0, 0, 0, 7, 8), want: []wirepeer.Message{part(2, 0, 7, 8)}},
		{name: "revoked in parts", law: parts, in: slices.Concat(message(9, 0, 0, 0, 3, 0, 0, 0, 0, 7, 8), message(9, 0, 0, 0, 3, 0, 0, 0, 2, 9)), want: []wirepeer.Message{part(3, 0, 7, 8), part(3, 2, 9)}},
		{name: "revoked, anew", law: parts, in: slices.Concat(part(3, 0, 7, 8).Append(nil), part(2, 0, 9, 9).Append(nil)), want: []wirepeer.Message{part(3, 0, 7, 8), part(2, 0, 9, 9)}},
		{name: "revoked with nothing in it", law: revoked, in: message(9, 0, 0, 0, 0, 0, 0, 0, 0), err: true},
		{name: "revoked as long as can be", law: whole, in: part(400_000, 0, 1).Append(nil), want: []wirepeer.Message{part(400_000, 0, 1)}},
		{name: "revoked that is too long", law: whole, in: part(400_001, 0, 1).Append(nil), err: true},
		{name: "revoked with a gap", law: parts, in: slices.Concat(part(3, 0, 7).Append(nil), part(3, 2, 9).Append(nil)), want: []wirepeer.Message{part(3, 0, 7)}, err: true},
		{name: "revoked, a part twice", law: parts, in: slices.Concat(part(3, 0, 7).Append(nil), part(3, 1, 8).Append(nil), part(3, 1, 8).Append(nil)), want: []wirepeer.Message{part(3, 0, 7), part(3, 1, 8)}, err: true},
		{name: "revoked, more than said", law: parts, in: part(1, 0, 7, 8).Append(nil), err: true},
		{name: "revoked from its middle on", law: parts, in: part(3, 1, 7).Append(nil), err: true},
		{name: "revoked, more after the end", law: parts, in: slices.Concat(part(1, 0, 7).Append(nil), part(1, 1, 7).Append(nil)), want: []wirepeer.Message{part(1, 0, 7)}, err: true},
		{name: "on another lane", law: skipped, lane: 1, in: slices.Concat(message(4, 1), message(5), message(6, 1), message(7), message(8), message(9), twoBytes)},
		{name: "not for the reader to judge", law: signature, in: announcement().Append(nil), want: []wirepeer.Message{announcement()}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if !strings.Contains(lawText(t), c.law) {
				t.Errorf("docs/wire.md no longer says %q", c.law)
			}
			greet := hello()
			greet.Lane = c.lane
			r := wirepeer.Control{ID: hello().ID}
			if _, err := r.Read(greet.Append(nil)); err != nil {
				t.Fatal(err)
			}
			got, err := r.Read(c.in)
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("messages (-want +got):\n%s", d)
			}
			if errors.Is(err, wirepeer.ErrProtocol) != c.err || (err != nil) != c.err {
				t.Errorf("err = %v, want a protocol error: %t", err, c.err)
			}
		})
	}
}
