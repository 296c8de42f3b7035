// SPDX-License-Identifier: Apache-2.0

package test_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/l2bridge/l2bridge/test/wirepeer"
	"github.com/l2bridge/l2bridge/transport/wire"
)

// readControl reads what comes on the control stream of lane 0 behind the HELLO,
// by transport/wire, in the words of wirepeer.
func readControl(t rapid.TB, in []byte) (all []wirepeer.Message, err error) {
	t.Helper()
	have := false
	var parts wire.RevokedParts
	for r := bytes.NewReader(in); ; {
		typ, body, err := wire.ReadMessage(r, nil)
		if err == io.EOF {
			return all, nil
		}
		if err != nil {
			return all, err
		}
		var m wirepeer.Message
		switch typ {
		case wire.TypeHello:
			return all, wire.ErrProtocol
		case wire.TypeLanes:
			var l wire.Lanes
			l, err = wire.ParseLanes(body)
			m = wirepeer.Lanes(l)
		case wire.TypeProbeAck:
			var a wire.ProbeAck
			a, err = wire.ParseProbeAck(body)
			m = wirepeer.ProbeAck(a)
		case wire.TypeHave:
			var h wire.Have
			h, err = wire.ParseHave(body)
			said := wirepeer.Have{}
			for _, a := range h {
				said = append(said, wirepeer.HaveEntry{Member: wirepeer.Member(a.Member), Version: a.Version})
			}
			if err == nil && have {
				continue
			}
			m, have = said, true
		case wire.TypeMember:
			var a wire.Member
			var signed, signature []byte
			if a, signed, signature, err = wire.ParseMember(body); err == nil {
				again, err := a.Signed()
				if err != nil {
					t.Fatal(err)
				}
				said := wirepeer.Announcement{
					Signature: [64]byte(signature), Version: a.Version, Features: wirepeer.Features(a.Features),
					MTU: a.MTU, Certificate: a.Cert, Addresses: a.Addresses, Behind: signed[len(again):],
				}
				if !bytes.Equal(said.Signed(), signed) {
					t.Fatalf("wirepeer signs %x, transport/wire %x", said.Signed(), signed)
				}
				m = said
			}
		case wire.TypeLinks:
			var l wire.Links
			l, err = wire.ParseLinks(body)
			said := wirepeer.Links{}
			for _, id := range l {
				said = append(said, wirepeer.Member(id))
			}
			m = said
		case wire.TypeDoubts:
			var d wire.Doubts
			d, err = wire.ParseDoubts(body)
			said := wirepeer.Doubts{}
			for _, id := range d {
				said = append(said, wirepeer.Member(id))
			}
			m = said
		case wire.TypeSeen:
			var s wire.Seen
			s, err = wire.ParseSeen(body)
			m = wirepeer.Seen{Address: s.Addr.Addr().As16(), Port: s.Addr.Port()}
		case wire.TypePunch:
			var u wire.Punch
			u, err = wire.ParsePunch(body)
			m = wirepeer.Punch{Destination: wirepeer.Member(u.Destination), Source: wirepeer.Member(u.Source)}
		case wire.TypeRevoked:
			if _, err = parts.Add(body); err == nil {
				m = wirepeer.Revoked{Length: binary.BigEndian.Uint32(body), Offset: binary.BigEndian.Uint32(body[4:]), Part: bytes.Clone(body[8:])}
			}
		default:
			continue
		}
		if err != nil {
			return all, err
		}
		all = append(all, m)
	}
}

// agreeOnControl fails the test unless both read the same from the stream.
func agreeOnControl(t rapid.TB, in []byte) {
	t.Helper()
	fast, fastErr := readControl(t, in)
	var c wirepeer.Control
	if _, err := c.Read(wirepeer.Hello{}.Append(nil)); err != nil {
		t.Fatal(err)
	}
	slow, slowErr := c.Read(in)
	if slowErr == nil {
		slowErr = c.End()
	}
	if d := cmp.Diff(slow, fast, cmpopts.EquateEmpty()); d != "" || (slowErr == nil) != (fastErr == nil) {
		t.Fatalf("wirepeer: %v, transport/wire: %v (-wirepeer +transport/wire):\n%s\n%x", slowErr, fastErr, d, in)
	}
}

// drawMessage draws a control message, of which most are lawful.
func drawMessage(t *rapid.T) []byte {
	member := rapid.Map(rapid.SliceOfN(rapid.Byte(), 8, 8), func(b []byte) wirepeer.Member { return wirepeer.Member(b) })
	few := rapid.IntRange(0, 4)
	switch rapid.IntRange(0, 8).Draw(t, "message") {
	case 0:
		return wirepeer.Lanes{Want: rapid.Byte().Draw(t, "want")}.Append(nil)
	case 1:
		return wirepeer.ProbeAck{Lane: rapid.Byte().Draw(t, "lane"), Nonce: rapid.Uint64().Draw(t, "nonce")}.Append(nil)
	case 2:
		var h wirepeer.Have
		for range few.Draw(t, "entries") {
			h = append(h, wirepeer.HaveEntry{Member: member.Draw(t, "member"), Version: rapid.Uint64().Draw(t, "version")})
		}
		return h.Append(nil)
	case 3:
		a := wirepeer.Announcement{
			Version: rapid.Uint64().Draw(t, "version"), MTU: rapid.Uint16().Draw(t, "MTU"),
			Certificate: rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(t, "certificate"),
			Behind:      rapid.SliceOfN(rapid.Byte(), 0, 4).Draw(t, "behind"),
		}
		text := rapid.StringMatching(`([a-zA-Z0-9._-]+|\[[a-f0-9:%]{1,9}\]):[1-9][0-9]{0,3}`)
		if rapid.IntRange(0, 3).Draw(t, "odd") == 0 {
			text = rapid.StringMatching(`\[?[ -~]{1,2}\]?:[0-9]{1,6}`)
		}
		a.Addresses = rapid.SliceOfN(text, 0, rapid.SampledFrom([]int{2, 2, 2, 17}).Draw(t, "most")).Draw(t, "addresses")
		return a.Append(nil)
	case 4:
		if rapid.Bool().Draw(t, "doubts") {
			return wirepeer.Doubts(rapid.SliceOfN(member, 0, 4).Draw(t, "doubted")).Append(nil)
		}
		return wirepeer.Links(rapid.SliceOfN(member, 0, 4).Draw(t, "links")).Append(nil)
	case 5:
		s := wirepeer.Seen{Port: rapid.Uint16().Draw(t, "port")}
		from := rapid.SampledFrom([]int{0, 12, 16}).Draw(t, "from")
		if from == 12 {
			s.Address[10], s.Address[11] = 0xff, 0xff
		}
		copy(s.Address[from:], rapid.SliceOfN(rapid.Byte(), 16-from, 16-from).Draw(t, "address"))
		return s.Append(nil)
	case 7:
		few := rapid.SampledFrom([]uint32{0, 0, 1, 2, 3, 400_000, 400_001})
		return wirepeer.Revoked{Length: few.Draw(t, "length"), Offset: few.Draw(t, "offset"), Part: rapid.SliceOfN(rapid.Byte(), 0, 3).Draw(t, "part")}.Append(nil)
	case 6:
		return wirepeer.Punch{Destination: member.Draw(t, "destination"), Source: member.Draw(t, "source")}.Append(nil)
	}
	return wirepeer.AppendMessage(nil, rapid.Byte().Draw(t, "type"), rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(t, "body"))
}

// TestTwoReadingsOfControl has both read messages, whole and damaged.
func TestTwoReadingsOfControl(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var in []byte
		for range rapid.IntRange(0, 6).Draw(t, "messages") {
			m := drawMessage(t)
			switch i := rapid.IntRange(0, len(m)-1).Draw(t, "at"); rapid.IntRange(0, 5).Draw(t, "damage") {
			case 0:
				m[i] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
			case 1: // a longer or a shorter body
				m = wirepeer.AppendMessage(nil, m[0], append(m[3:], make([]byte, rapid.IntRange(0, 3).Draw(t, "more"))...))
			case 2:
				m = wirepeer.AppendMessage(nil, m[0], m[min(3, i):i])
			}
			in = append(in, m...)
		}
		agreeOnControl(t, in)
	})
	for _, n := range []int{1023, 1024, 1025} {
		for _, typ := range []byte{wire.TypeHave, wire.TypeLinks, wire.TypeDoubts} {
			agreeOnControl(t, wirepeer.AppendMessage(nil, typ, make([]byte, 8*n)))
		}
	}
}

// FuzzTwoReadingsOfControl gives both the same bytes.
func FuzzTwoReadingsOfControl(f *testing.F) {
	for _, m := range []wirepeer.Message{
		wirepeer.Lanes{Want: 3}, wirepeer.ProbeAck{Lane: 1, Nonce: 2}, wirepeer.Have{{Version: 3}}, wirepeer.Links{{1}}, wirepeer.Doubts{{2}},
		wirepeer.Announcement{Certificate: []byte{1}, Addresses: []string{"a.b:1", "[::1]:22"}, Behind: []byte{1}},
		wirepeer.Seen{Address: [16]byte{1}, Port: 1}, wirepeer.Punch{Source: wirepeer.Member{1}},
		wirepeer.Revoked{Length: 1, Part: []byte{1}},
	} {
		f.Add(slices.Concat(m.Append(nil), m.Append(nil)))
	}
	f.Fuzz(func(t *testing.T, in []byte) { agreeOnControl(t, in) })
}
