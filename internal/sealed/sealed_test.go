// SPDX-License-Identifier: Apache-2.0

package sealed

import (
	"bytes"
	"errors"
	"strconv"
	"strings"
	"testing"

	"filippo.io/age"
	"filippo.io/age/armor"
)

// cheap is a work factor for tests. The real one is in those of test/.
const cheap = 4

func mustSeal(t testing.TB, passphrase, secret string) []byte {
	t.Helper()
	text, err := seal(passphrase, []byte(secret), cheap)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestSealAndOpen(t *testing.T) {
	t.Parallel()
	for _, secret := range []string{"", "x", strings.Repeat("secret ", 100_000)} {
		text := mustSeal(t, "correct horse", secret)
		if !bytes.HasPrefix(text, []byte(armor.Header)) {
			t.Errorf("begins with %.40q", text)
		}
		if len(secret) > 1 && bytes.Contains(text, []byte(secret[:7])) {
			t.Error("the secret stands there in clear")
		}
		got, err := open("correct horse", text, cheap)
		if err != nil || string(got) != secret {
			t.Errorf("%d bytes of %d, %v", len(got), len(secret), err)
		}
		if _, err := open("correct horsf", text, cheap); !errors.Is(err, ErrPassphrase) {
			t.Errorf("with another pass phrase: %v", err)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	secret := strings.Repeat("secret ", 20_000)
	good := mustSeal(t, "pass", secret)
	forKey := func() []byte {
		identity, err := age.GenerateX25519Identity()
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		text := armor.NewWriter(&out)
		w, err := age.Encrypt(text, identity.Recipient())
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(w.Close(), text.Close()); err != nil {
			t.Fatal(err)
		}
		return out.Bytes()
	}()
	flipped := bytes.Clone(good)
	flipped[len(flipped)/2] ^= 1
	costly, err := seal("pass", nil, cheap+1)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		text []byte
		say  string
	}{
		{"empty", nil, ""},
		{"no age file", []byte("-----BEGIN PRIVATE KEY-----\n"), ""},
		{"cut in its last line", good[:len(good)-40], ""},
		{"cut in the middle", good[:len(good)/2], ""},
		{"cut between two chunks, closed again", append(bytes.Clone(good[:len(armor.Header)+1+65*1400]), armor.Footer...), ""},
		{"one bit changed", flipped, ""},
		{"something behind", append(bytes.Clone(good), "more"...), ""},
		{"for a key", forKey, ""},
		{"work factor above the bound", costly, "work factor"},
		{"huge", make([]byte, MaxBytes+1), strconv.Itoa(MaxBytes)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := open("pass", tt.text, cheap)
			if !errors.Is(err, ErrDamaged) || got != nil {
				t.Errorf("%d bytes, %v, want ErrDamaged", len(got), err)
			} else if !strings.Contains(err.Error(), tt.say) {
				t.Errorf("%v, want something of %q", err, tt.say)
			}
		})
	}
}

func FuzzOpen(f *testing.F) {
	f.Add([]byte("pass"), mustSeal(f, "pass", "secret"))
	f.Add([]byte("pass"), mustSeal(f, "other", "secret"))
	f.Add([]byte(""), []byte(armor.Header+"\n"+armor.Footer))
	f.Fuzz(func(t *testing.T, passphrase, text []byte) {
		secret, err := open(string(passphrase), text, cheap)
		if err == nil {
			return
		}
		if secret != nil || errors.Is(err, ErrPassphrase) == errors.Is(err, ErrDamaged) {
			t.Errorf("%q, %v", secret, err)
		}
	})
}
