// SPDX-License-Identifier: Apache-2.0

package wire_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/l2bridge/l2bridge/transport/wire"
)

// site is an announcement, and key what signs it.
var (
	key  = ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	site = wire.Member{
		Version: 0x0102030405060708, Features: wire.FeatureCsum | wire.FeatureRelay, MTU: 1500,
		Cert: []byte{0x30, 0x01, 0xaa}, Addresses: []string{"a.example:4433", "[2001:db8::1]:1"},
	}
)

// announce returns the message with which a member announces itself.
func announce(t testing.TB, m wire.Member) []byte {
	t.Helper()
	signed, err := m.Signed()
	if err != nil {
		t.Fatal(err)
	}
	return wire.AppendMember(nil, signed, ed25519.Sign(key, signed))
}

// The bytes are those of docs/wire.md.
func TestMeshLayout(t *testing.T) {
	one, two := wire.ShortID{1, 2, 3, 4, 5, 6, 7, 8}, wire.ShortID{0xff}
	message := announce(t, site)
	for _, c := range []struct {
		name string
		got  []byte
		want string
	}{
		{"have", wire.Have{{one, 5}, {two, 1 << 63}}.Append(nil), "04 0020 0102030405060708 0000000000000005 ff00000000000000 8000000000000000"},
		{"have nothing", wire.Have(nil).Append(nil), "04 0000"},
		{"links", wire.Links{one, two}.Append(nil), "06 0010 0102030405060708 ff00000000000000"},
		{"no links", wire.Links(nil).Append(nil), "06 0000"},
		{"doubts", wire.Doubts{two, one}.Append(nil), "0a 0010 ff00000000000000 0102030405060708"},
		{"seen by IPv4", wire.Seen{netip.MustParseAddrPort("192.0.2.1:4433")}.Append(nil), "07 0012 00000000000000000000ffffc0000201 1151"},
		{"seen by IPv6", wire.Seen{netip.MustParseAddrPort("[fe80::1%eth0]:65535")}.Append(nil), "07 0012 fe800000000000000000000000000001 ffff"},
		{"punch", wire.Punch{Destination: two, Source: one}.Append(nil), "08 0010 ff00000000000000 0102030405060708"},
		{"member", slices.Concat(message[:3], message[3+64:]), "05 0073" + // less its signature
			"0102030405060708 00000009 05dc 0003 3001aa 02 0e 612e6578616d706c653a34343333 0f 5b323030313a6462383a3a315d3a31"},
	} {
		want, err := hex.DecodeString(strings.ReplaceAll(c.want, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(c.got, want) {
			t.Errorf("%s is %x, want %x", c.name, c.got, want)
		}
	}
	said := append([]byte("l2bridge member 1\x00"), message[3+64:]...)
	if !ed25519.Verify(key.Public().(ed25519.PublicKey), said, message[3:3+64]) {
		t.Error("member is not signed as docs/wire.md has it")
	}
}

// What is written is read again, the same.
func TestMeshRoundTrip(t *testing.T) {
	id := rapid.Map(rapid.SliceOfN(rapid.Byte(), 8, 8), func(b []byte) wire.ShortID { return wire.ShortID(b) })
	addr := rapid.OneOf(
		rapid.StringMatching(`[A-Za-z0-9._-]{1,249}:[1-9][0-9]{0,3}`),
		rapid.StringMatching(`\[[A-Za-z0-9._:%-]{1,247}\]:[1-5][0-9]{4}`),
	)
	rapid.Check(t, func(t *rapid.T) {
		var have wire.Have
		for _, m := range rapid.SliceOfN(id, 0, wire.MaxMembers).Draw(t, "members") {
			have = append(have, wire.Announced{Member: m, Version: rapid.Uint64().Draw(t, "version")})
		}
		links := wire.Links(rapid.SliceOfN(id, 0, wire.MaxMembers).Draw(t, "links"))
		doubts := wire.Doubts(rapid.SliceOfN(id, 0, wire.MaxMembers).Draw(t, "doubts"))
		ip, _ := netip.AddrFromSlice(rapid.OneOf(rapid.SliceOfN(rapid.Byte(), 4, 4), rapid.SliceOfN(rapid.Byte(), 16, 16)).Draw(t, "address"))
		seen := wire.Seen{Addr: netip.AddrPortFrom(ip.Unmap(), rapid.Uint16().Draw(t, "port"))}
		punch := wire.Punch{Destination: id.Draw(t, "destination"), Source: id.Draw(t, "source")}
		m := wire.Member{
			Version: rapid.Uint64().Draw(t, "version"), Features: wire.Features(rapid.Uint32().Draw(t, "features")), MTU: rapid.Uint16().Draw(t, "MTU"),
			Cert:      rapid.SliceOfN(rapid.Byte(), 1, wire.MaxCertLen).Draw(t, "certificate"),
			Addresses: rapid.SliceOfN(addr, 0, wire.MaxAddresses).Draw(t, "addresses"),
		}
		signed, err := m.Signed()
		if err != nil {
			t.Fatal(err)
		}
		signature := rapid.SliceOfN(rapid.Byte(), 64, 64).Draw(t, "signature")

		stream := have.Append(nil)
		stream = wire.AppendMember(stream, signed, signature)
		stream = links.Append(stream)
		stream = seen.Append(stream)
		stream = punch.Append(stream)
		stream = doubts.Append(stream)
		r := bytes.NewReader(stream)
		read := func(want uint8) []byte {
			typ, body, err := wire.ReadMessage(r, nil)
			if err != nil || typ != want {
				t.Fatalf("message of type %d, %v, want %d", typ, err, want)
			}
			return body
		}
		if got, err := wire.ParseHave(read(wire.TypeHave)); err != nil || !slices.Equal(got, have) {
			t.Errorf("have %v, %v, want %v", got, err, have)
		}
		body := read(wire.TypeMember)
		got, gotSigned, gotSignature, err := wire.ParseMember(body)
		clear(body)
		if len(m.Addresses) == 0 {
			m.Addresses = nil
		}
		if err != nil || !reflect.DeepEqual(got, m) || !bytes.Equal(gotSigned, signed) || !bytes.Equal(gotSignature, signature) {
			t.Errorf("member %+v, %x, %x, %v, want %+v, %x, %x", got, gotSigned, gotSignature, err, m, signed, signature)
		}
		if got, err := wire.ParseLinks(read(wire.TypeLinks)); err != nil || !slices.Equal(got, links) {
			t.Errorf("links %v, %v, want %v", got, err, links)
		}
		lawful := !seen.Addr.Addr().IsUnspecified() && !seen.Addr.Addr().IsMulticast() && seen.Addr.Port() != 0
		if got, err := wire.ParseSeen(read(wire.TypeSeen)); (err == nil) != lawful || lawful && got != seen {
			t.Errorf("seen %v, %v, want %v: %v", got, err, seen, lawful)
		}
		if got, err := wire.ParsePunch(read(wire.TypePunch)); err != nil || got != punch {
			t.Errorf("punch %v, %v, want %v", got, err, punch)
		}
		if got, err := wire.ParseDoubts(read(wire.TypeDoubts)); err != nil || !slices.Equal(got, doubts) {
			t.Errorf("doubts %v, %v, want %v", got, err, doubts)
		}
	})
}

// A list that is too long for a message is cut.
func TestLongLists(t *testing.T) {
	have := make(wire.Have, wire.MaxMembers+1)
	if b := have.Append(nil); len(b) != 3+16384 {
		t.Errorf("have of %d bytes, want %d", len(b), 3+16384)
	}
	links := make(wire.Links, wire.MaxMembers+1)
	if b := links.Append(nil); len(b) != 3+8192 {
		t.Errorf("links of %d bytes, want %d", len(b), 3+8192)
	}
}

// Each rule about a body, by one that keeps it and one that just does not.
func TestMeshRules(t *testing.T) {
	body := announce(t, site)[3:]
	const cert = 64 + 8 + 4 + 2 + 2 // where the certificate begins
	list := cert + len(site.Cert)   // and where the addresses do
	with := func(f func(m *wire.Member)) []byte {
		m := site
		f(&m)
		return announce(t, m)[3:]
	}
	changed := func(at int, b ...byte) []byte {
		p := bytes.Clone(body)
		copy(p[at:], b)
		return p
	}
	// text is a member with one address, whatever it is like.
	text := func(s string) []byte {
		return append(append(bytes.Clone(body[:list]), 1, byte(len(s))), s...)
	}
	mapped := func(a ...byte) []byte {
		return append(append(make([]byte, 10), 0xff, 0xff), a...)
	}
	have := func(b []byte) error { _, err := wire.ParseHave(b); return err }
	links := func(b []byte) error { _, err := wire.ParseLinks(b); return err }
	doubts := func(b []byte) error { _, err := wire.ParseDoubts(b); return err }
	seen := func(b []byte) error { _, err := wire.ParseSeen(b); return err }
	punch := func(b []byte) error { _, err := wire.ParsePunch(b); return err }
	member := func(b []byte) error { _, _, _, err := wire.ParseMember(b); return err }
	for _, c := range []struct {
		name  string
		parse func([]byte) error
		body  []byte
		ok    bool
	}{
		{"have nothing", have, nil, true},
		{"have of the greatest length", have, make([]byte, 16*1024), true},
		{"have with one too many", have, make([]byte, 16*1025), false},
		{"have with half an entry", have, make([]byte, 24), false},
		{"links of the greatest length", links, make([]byte, 8*1024), true},
		{"links with one too many", links, make([]byte, 8*1025), false},
		{"links with half an entry", links, make([]byte, 12), false},
		{"doubts of the greatest length", doubts, make([]byte, 8*1024), true},
		{"doubts with one too many", doubts, make([]byte, 8*1025), false},
		{"seen", seen, append(mapped(192, 0, 2, 1), 0, 1), true},
		{"seen and more", seen, append(mapped(192, 0, 2, 1), 0, 1, 9), true},
		{"seen, short", seen, append(mapped(192, 0, 2, 1), 1), false},
		{"seen at port 0", seen, append(mapped(192, 0, 2, 1), 0, 0), false},
		{"seen nowhere", seen, append(make([]byte, 16), 0, 1), false},
		{"seen nowhere, IPv4", seen, append(mapped(0, 0, 0, 0), 0, 1), false},
		{"seen at a group", seen, append(append([]byte{0xff, 2}, make([]byte, 14)...), 0, 1), false},
		{"seen at a group, IPv4", seen, append(mapped(224, 0, 0, 1), 0, 1), false},
		{"punch", punch, make([]byte, 16), true},
		{"punch and more", punch, make([]byte, 17), true},
		{"punch, short", punch, make([]byte, 15), false},
		{"member", member, body, true},
		{"member of a later version", member, append(bytes.Clone(body), 1, 2, 3), true},
		{"member without its last byte", member, body[:len(body)-1], false},
		{"member without addresses", member, with(func(m *wire.Member) { m.Addresses = nil }), true},
		{"member without their number", member, body[:list], false},
		{"member with one less than their number", member, changed(list, 3), false},
		{"member with less of a certificate", member, changed(cert-2, 0xff, 0xff), false},
		{"member without a certificate", member, append(changed(cert-2, 0, 0)[:cert], 0), false},
		{"member with a long certificate", member, with(func(m *wire.Member) { m.Cert = make([]byte, 2048) }), true},
		{"member with a longer one", member, append(append(changed(cert-2, 0x08, 0x01)[:cert], make([]byte, 2049)...), 0), false},
		{"member with many addresses", member, with(func(m *wire.Member) { m.Addresses = slices.Repeat([]string{"a:1"}, 16) }), true},
		{"member with more", member, append(append(bytes.Clone(body[:list]), 17), bytes.Repeat([]byte("\x03a:1"), 17)...), false},
		{"member with a long address", member, text(strings.Repeat("a", 253) + ":1"), true},
		{"member with no address", member, text(""), false},
		{"member with an address of other bytes", member, text("a b:1"), false},
	} {
		if err := c.parse(c.body); (err == nil) != c.ok || err != nil && !errors.Is(err, wire.ErrProtocol) {
			t.Errorf("%s: %v, want it taken: %v", c.name, err, c.ok)
		}
	}
	for n := range body {
		if member(body[:n]) == nil {
			t.Errorf("member of %d bytes of %d is taken", n, len(body))
		}
	}
}

// A member does not sign what nobody would take.
func TestSignedRefuses(t *testing.T) {
	for name, change := range map[string]func(*wire.Member){
		"no certificate":     func(m *wire.Member) { m.Cert = nil },
		"a long certificate": func(m *wire.Member) { m.Cert = make([]byte, 2049) },
		"many addresses":     func(m *wire.Member) { m.Addresses = slices.Repeat([]string{"a:1"}, 17) },
		"a bad address":      func(m *wire.Member) { m.Addresses = []string{"a"} },
	} {
		m := site
		change(&m)
		if signed, err := m.Signed(); err == nil {
			t.Errorf("signs a member with %s: %x", name, signed)
		}
	}
}

func TestValidAddress(t *testing.T) {
	for s, want := range map[string]bool{
		"a:1": true, "A-z_0.example.:65535": true, "192.0.2.1:04433": true,
		"[::1]:1": true, "[fe80::1%eth0]:4433": true, "[name]:1": true,
		strings.Repeat("a", 253) + ":1": true, strings.Repeat("a", 254) + ":1": false,
		"": false, ":": false, ":1": false, "a": false, "a:": false, "[]:1": false, "[:1": false, "]:1": false,
		"a:0": false, "a:65536": false, "a:000001": false, "a:+1": false, "a:-1": false, "a:1 ": false, "a:x": false,
		"::1:1": false, "a%b:1": false, "[::1]": false, "[::1:1": false, "::1]:1": false, "[[a]]:1": false, "[a]b:1": false,
		"a b:1": false, " a:1": false, "a\x00:1": false, "a\n:1": false, "ä:1": false, "a\xff:1": false, "a/b:1": false,
	} {
		if got := wire.ValidAddress(s); got != want {
			t.Errorf("ValidAddress(%q) = %v, want %v", s, got, want)
		}
	}
}

// A member that is taken is written again as it came.
func FuzzMember(f *testing.F) {
	body := announce(f, site)[3:]
	f.Add(body)
	f.Add(append(bytes.Clone(body), 1, 2, 3))
	f.Fuzz(func(t *testing.T, body []byte) {
		m, signed, signature, err := wire.ParseMember(body)
		if err != nil {
			if !errors.Is(err, wire.ErrProtocol) {
				t.Error(err)
			}
			return
		}
		if again := wire.AppendMember(nil, signed, signature); len(body) < 1<<16 && !bytes.Equal(again[3:], body) {
			t.Errorf("%x is written again as %x", body, again)
		}
		if again, err := m.Signed(); err != nil || !bytes.HasPrefix(signed, again) {
			t.Errorf("%x is signed again as %x, %v", signed, again, err)
		}
	})
}

// A list of revoked keys comes in parts, and is put together again.
func TestRevokedParts(t *testing.T) {
	for _, n := range []int{1, 16376, 16377, wire.MaxList} {
		list := make([]byte, n)
		for i := range list {
			list[i] = byte(i * 7)
		}
		var parts wire.RevokedParts
		messages := wire.Revoked(list)
		for round := range 2 {
			for i, m := range messages {
				typ, body, err := wire.ReadMessage(bytes.NewReader(m), nil)
				if err != nil || typ != wire.TypeRevoked {
					t.Fatalf("message of type %d, %v", typ, err)
				}
				got, err := parts.Add(body)
				clear(body)
				if last := i == len(messages)-1; err != nil || last != (got != nil) || last && !bytes.Equal(got, list) {
					t.Fatalf("round %d, list of %d bytes, message %d: %d bytes, %v", round, n, i, len(got), err)
				}
			}
		}
	}
	if m := wire.Revoked(nil); m != nil {
		t.Errorf("no list is %x", m)
	}
	if got, want := hex.EncodeToString(wire.Revoked([]byte{1, 2})[0]), "09000a"+"00000002"+"00000000"+"0102"; got != want {
		t.Errorf("a list of two bytes is %s, want %s", got, want)
	}
}
