// SPDX-License-Identifier: Apache-2.0

package identity_test

import (
	"strings"
	"testing"

	"github.com/l2bridge/l2bridge/transport/identity"
)

func TestID(t *testing.T) {
	t.Parallel()
	var id identity.ID
	for i := range id {
		id[i] = byte(i + 1)
	}
	const text = "0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20"
	if got := id.String(); got != text {
		t.Errorf("String() = %s", got)
	}
	if got := id.Short(); got != text[:8] {
		t.Errorf("Short() = %s", got)
	}
	if got := id.Relay(); got != [8]byte{1, 2, 3, 4, 5, 6, 7, 8} {
		t.Errorf("Relay() = %x", got)
	}
	var back identity.ID
	if err := back.UnmarshalText([]byte(text)); err != nil || back != id {
		t.Errorf("UnmarshalText: %v, %v", back, err)
	}
	for _, bad := range []string{"", text[1:], text + "00", "x" + text[1:]} {
		if err := back.UnmarshalText([]byte(bad)); err == nil || back != id {
			t.Errorf("UnmarshalText(%q): %v, %v", bad, back, err)
		}
	}
}

func TestValidSite(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"a", "home", "site-b", "0", "-", strings.Repeat("x", 63)} {
		if err := identity.ValidSite(name); err != nil {
			t.Errorf("ValidSite(%q): %v", name, err)
		}
	}
	for name, want := range map[string]string{
		"":                      `site name "" is empty (want 1 to 63 of a-z, 0-9 and "-")`,
		"local":                 `site name "local" is reserved (pick another)`,
		"all":                   `site name "all" is reserved (pick another)`,
		"Home":                  `site name "Home" has a character 'H' (want 1 to 63 of a-z, 0-9 and "-")`,
		"a b":                   `site name "a b" has a character ' ' (want 1 to 63 of a-z, 0-9 and "-")`,
		"a\n":                   `site name "a?" has a character '\n' (want 1 to 63 of a-z, 0-9 and "-")`,
		"caf\u00e9":             `site name "caf?" has a character '\u00e9' (want 1 to 63 of a-z, 0-9 and "-")`,
		strings.Repeat("x", 64): `site name "` + strings.Repeat("x", 64) + `" has 64 bytes (want 1 to 63 of a-z, 0-9 and "-")`,
	} {
		if err := identity.ValidSite(name); err == nil || err.Error() != want {
			t.Errorf("ValidSite(%q):\n%v, want\n%s", name, err, want)
		}
	}
}

func TestClean(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"":                        "",
		"plain ~!":                "plain ~!",
		"a\x1b[2Jb\x00\x7f\n":     "a?[2Jb???",
		"\u00e9\u202e\xff":        "???",
		strings.Repeat("x", 200):  strings.Repeat("x", 200),
		strings.Repeat("x", 201):  strings.Repeat("x", 197) + "...",
		strings.Repeat("\n", 1e6): strings.Repeat("?", 197) + "...",
	} {
		if got := identity.Clean(in); got != want {
			t.Errorf("Clean(%.20q) = %q, want %q", in, got, want)
		}
	}
}
