// SPDX-License-Identifier: Apache-2.0

package identity_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/l2bridge/l2bridge/transport/identity"
)

// golden is goldenFields as another program, written from ENROLMENT.md, made
// them into a token.
const golden = "l2b1_CG5ldC1uYW1lAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh-goaKjpKWmp" +
	"7CxsrO0tba3uLm6u7y9vr8AAAAAaSONAAVjYWJpbgIUdnBuLmV4YW1wbGUub3JnOjQ0MzM" +
	"SWzIwMDE6ZGI4OjoxXTo0NDMz9hEMmA"

var goldenFields = bytes.Join([][]byte{
	[]byte("\x08net-name"),
	sequence(0x00, 32), // CA
	sequence(0xa0, 8),  // id
	sequence(0xb0, 16), // secret
	{0, 0, 0, 0, 0x69, 0x23, 0x8d, 0x00},
	[]byte("\x05cabin"),
	[]byte("\x02\x14vpn.example.org:4433\x12[2001:db8::1]:4433"),
}, nil)

func sequence(first byte, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = first + byte(i)
	}
	return b
}

// goldenToken makes any fields, right or wrong, into a token.
func goldenToken(fields []byte) string {
	sum := sha256.Sum256(append([]byte("l2b1_"), fields...))
	return "l2b1_" + base64.RawURLEncoding.EncodeToString(append(bytes.Clone(fields), sum[:4]...))
}

func TestTokenGolden(t *testing.T) {
	t.Parallel()
	got, err := identity.ParseToken(" " + golden + "\r\n")
	if err != nil {
		t.Fatal(err)
	}
	fields := identity.Token{
		Network: "net-name",
		CA:      identity.ID(sequence(0, 32)),
		End:     time.Date(2025, 11, 23, 22, 38, 56, 0, time.UTC),
		Site:    "cabin",
		Addrs:   []string{"vpn.example.org:4433", "[2001:db8::1]:4433"},
	}
	if diff := cmp.Diff(fields, got, cmpopts.IgnoreUnexported(identity.Token{})); diff != "" {
		t.Errorf("token (-want +got):\n%s", diff)
	}
	if !bytes.Equal(got.Secret(), sequence(0xb0, 16)) {
		t.Errorf("secret %x", got.Secret())
	}
	if got.String() != golden {
		t.Errorf("String() = %s", got)
	}
}

func TestDocumentedToken(t *testing.T) {
	t.Parallel()
	doc, err := os.ReadFile("ENROLMENT.md")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(doc, []byte("\n"+golden+"\n")) {
		t.Errorf("ENROLMENT.md has another example than %s", golden)
	}
}

func TestInvite(t *testing.T) {
	t.Parallel()
	home := identity.MustFound(t, "home")
	addrs := []string{"vpn.example.org:4433", "[2001:db8::1]:4433", "192.168.1.2:4433"}
	before := time.Now()
	tok, err := home.Invite("cabin", time.Hour, addrs)
	if err != nil {
		t.Fatal(err)
	}
	text := tok.String()
	if len(text) > identity.MaxToken || strings.ContainsAny(text, " \n") {
		t.Errorf("token %q", text)
	}
	back, err := identity.ParseToken(text)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(tok, back, cmp.AllowUnexported(identity.Token{})); diff != "" {
		t.Errorf("what was printed is not what was made (-want +got):\n%s", diff)
	}
	if back.Site != "cabin" || back.Network != home.Network || !cmp.Equal(back.Addrs, addrs) {
		t.Errorf("token %+v", back)
	}
	if back.End.Before(before.Add(time.Hour)) {
		t.Errorf("ends at %v, less than an hour after %v", back.End, before)
	}
	again, err := home.Invite("cabin", time.Hour, addrs)
	if err != nil || bytes.Equal(again.Secret(), tok.Secret()) {
		t.Errorf("second token: %v, or it has the same secret", err)
	}
}

func TestInviteBadArguments(t *testing.T) {
	t.Parallel()
	home := identity.MustFound(t, "home")
	good := []string{"192.0.2.1:4433"}
	for name, c := range map[string]struct {
		site  string
		ttl   time.Duration
		addrs []string
		want  string
	}{
		"own name":      {"home", time.Hour, good, `site name "home" is this site's own`},
		"bad name":      {"HOME", time.Hour, good, `site name "HOME" has a character 'H'`},
		"long name":     {strings.Repeat("x", 300), time.Hour, good, "has 300 bytes"},
		"no time":       {"", 0, good, "ttl 0s is out of range (want 1s to 8760h0m0s)"},
		"negative":      {"", -time.Hour, good, "out of range"},
		"two years":     {"", 2 * 8760 * time.Hour, good, "out of range"},
		"no address":    {"", time.Hour, nil, "no address to be reached at"},
		"no port":       {"", time.Hour, []string{"192.0.2.1"}, `address "192.0.2.1" is not host and port`},
		"port 0":        {"", time.Hour, []string{"192.0.2.1:0"}, "port is not 1 to 65535"},
		"port too high": {"", time.Hour, []string{"192.0.2.1:65536"}, "port is not 1 to 65535"},
		"zone":          {"", time.Hour, []string{"[fe80::1%eth0]:4433"}, "host is neither a name nor an IP address"},
		"no host":       {"", time.Hour, []string{":4433"}, "host is neither"},
		"escape":        {"", time.Hour, []string{"a\x1b[2J:4433"}, `address "a?[2J:4433"`},
		"second bad":    {"", time.Hour, append(good[:1:1], "x"), `address "x"`},
		"too long":      {strings.Repeat("x", 63), time.Hour, []string{strings.Repeat("x", 250) + ":1"}, "too long for a token"},
		"far too long":  {"", time.Hour, []string{strings.Repeat("x", 300) + ":1"}, "has 302 bytes"},
	} {
		if _, err := home.Invite(c.site, c.ttl, c.addrs); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
}

// Many and long addresses: the first ones are kept and the rest is left out.
func TestInviteFits(t *testing.T) {
	t.Parallel()
	home := identity.MustFound(t, "home")
	site := strings.Repeat("s", 63)
	for _, length := range []int{8, 21, 24, 60, 150, 200} {
		var addrs []string
		for i := range 12 {
			addrs = append(addrs, fmt.Sprintf("%0*d:4433", length-5, i))
		}
		tok, err := home.Invite(site, time.Hour, addrs)
		if err != nil {
			t.Fatal(err)
		}
		if n := len(tok.String()); n > identity.MaxToken {
			t.Errorf("%d characters with addresses of %d", n, length)
		}
		if n := len(tok.Addrs); n == 0 || n > 8 || !cmp.Equal(tok.Addrs, addrs[:n]) {
			t.Errorf("addresses of %d: kept %q", length, tok.Addrs)
		}
		if _, err := identity.ParseToken(tok.String()); err != nil {
			t.Errorf("addresses of %d: %v", length, err)
		}
	}
}

func TestInviteIsBounded(t *testing.T) {
	t.Parallel()
	home := identity.MustFound(t, "home")
	first, err := home.Invite("", time.Hour, []string{"192.0.2.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	// Filling the list one by one would be a thousand synced writes.
	fill := func(end time.Time) {
		home.EditState(t, func(st map[string]any) {
			ledger := st["ledger"].(map[string]any)
			list := ledger["tokens"].([]any)[:1]
			for i := len(list); i < identity.MaxTokens; i++ {
				list = append(list, map[string]any{"id": fmt.Sprintf("%016x", i), "secret": "AA==", "end": end})
			}
			ledger["tokens"] = list
		})
	}
	fill(time.Now().Add(time.Hour))
	_, err = home.Invite("", time.Hour, []string{"192.0.2.1:1"})
	if err == nil || !strings.Contains(err.Error(), "1024 invitations are open") {
		t.Errorf("one too many: %v", err)
	}
	// Those that have ended make room, and only they.
	fill(time.Now().Add(-time.Hour))
	if _, err := home.Invite("", time.Hour, []string{"192.0.2.1:1"}); err != nil {
		t.Errorf("after the others ended: %v", err)
	}
	d := identity.MustOpen(t, t.TempDir()+"/cabin")
	if _, _, err := identity.JoinAt(d, home, first, "cabin"); err != nil {
		t.Errorf("the open one: %v", err)
	}
}

func TestParseTokenRefuses(t *testing.T) {
	t.Parallel()
	field := func(old, new string) string {
		return goldenToken(bytes.Replace(goldenFields, []byte(old), []byte(new), 1))
	}
	for name, c := range map[string]struct{ text, want string }{
		"empty":           {"", `does not begin with "l2b1_"`},
		"something else":  {"site-b:4433", `does not begin with "l2b1_"`},
		"later version":   {"l2b2_" + golden[5:], `does not begin with "l2b1_"`},
		"prefix only":     {"l2b1_", "cut short or mistyped"},
		"one short":       {golden[:len(golden)-1], "cut short or mistyped"},
		"half":            {golden[:len(golden)/2], "cut short or mistyped"},
		"front missing":   {golden[:5] + golden[9:], "cut short or mistyped"},
		"one wrong":       {golden[:40] + "A" + golden[41:], "cut short or mistyped"},
		"two lines":       {golden[:40] + "\n" + golden[40:], "character 41 is not one that a token has"},
		"space":           {golden[:40] + " " + golden[40:], "character 41 is not one that a token has"},
		"padded":          {golden + "=", "is not one that a token has"},
		"dots":            {golden[:40] + "...", "character 41 is not one that a token has"},
		"too long":        {golden + strings.Repeat("A", 512), "more than 512"},
		"twice":           {golden + golden, "checksum does not match"},
		"trailing byte":   {goldenToken(append(bytes.Clone(goldenFields), 0)), "fields do not add up"},
		"no fields":       {goldenToken(nil), "want 1 to 8"},
		"cut before sum":  {goldenToken(goldenFields[:len(goldenFields)-1]), "fields do not add up"},
		"no address":      {goldenToken(append(bytes.Clone(goldenFields[:len(goldenFields)-41]), 0)), "0 addresses"},
		"nine addresses":  {field("\x02\x14", "\x09\x14"), "9 addresses"},
		"bad address":     {field("4433\x12", "443x\x12"), "port is not 1 to 65535"},
		"bad site":        {field("cabin", "cab\x1bn"), `site name "cab?n" has a character '\x1b'`},
		"reserved site":   {field("\x05cabin", "\x05local"), "reserved"},
		"bad network":     {field("net-name", "net/name"), `network name "net/name" has a character '/'`},
		"empty network":   {field("\x08net-name", "\x00"), `network name "" is empty`},
		"ends after 9999": {field("\x00\x00\x00\x00\x69", "\x80\x00\x00\x00\x69"), "ends after the year 9999"},
	} {
		_, err := identity.ParseToken(c.text)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
		// A token is a secret: an error ends up in a log.
		if err != nil && len(c.text) > 40 && strings.Contains(err.Error(), c.text[5:25]) {
			t.Errorf("%s: error quotes the token: %v", name, err)
		}
	}
}

func FuzzParseToken(f *testing.F) {
	f.Add(golden)
	f.Add(golden[:60])
	f.Add(goldenToken(nil))
	f.Fuzz(func(t *testing.T, text string) {
		tok, err := identity.ParseToken(text)
		if err != nil {
			if clean := identity.Clean(err.Error()); len(clean) < 200 && clean != err.Error() {
				t.Errorf("error is not fit to print: %q", err)
			}
			return
		}
		if got := tok.String(); got != strings.TrimSpace(text) {
			t.Errorf("%q read back as %q", text, got)
		}
	})
}

// FuzzTokenFields gets past the checksum.
func FuzzTokenFields(f *testing.F) {
	f.Add(goldenFields)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, fields []byte) {
		text := goldenToken(fields)
		tok, err := identity.ParseToken(text)
		if err != nil {
			return
		}
		if tok.String() != text {
			t.Errorf("%x read back as %s", fields, tok)
		}
		if tok.Site != "" && errors.Join(identity.ValidSite(tok.Site), identity.ValidSite(tok.Network)) != nil && tok.Network != "local" && tok.Network != "all" {
			t.Errorf("accepted site %q, network %q", tok.Site, tok.Network)
		}
	})
}
