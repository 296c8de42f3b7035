// SPDX-License-Identifier: Apache-2.0

package identity_test

import (
	"math/big"
	"strings"
	"testing"

	"github.com/tyler-smith/go-bip39/wordlists"
	"pgregory.net/rapid"

	"github.com/l2bridge/l2bridge/transport/identity"
)

// BIP-39's own test vectors begin so, for entropy that is the same in its first 66
// bits.
func TestPhrase(t *testing.T) {
	t.Parallel()
	for hex, want := range map[string]string{
		strings.Repeat("00", 32):                       "abandon abandon abandon abandon abandon abandon",
		strings.Repeat("7f", 32):                       "legal winner thank year wave sausage",
		strings.Repeat("80", 32):                       "letter advice cage absurd amount doctor",
		strings.Repeat("ff", 32):                       "zoo zoo zoo zoo zoo zoo",
		"9e885d952ad362caeb4efe34a8e91bd2" + zeros(32): "ozone drill grab fiber curtain grace",
		"000000000000000040" + zeros(46):               "abandon abandon abandon abandon abandon ability",
		"00000000000000003f" + strings.Repeat("f", 46): "abandon abandon abandon abandon abandon abandon",
	} {
		var id identity.ID
		if err := id.UnmarshalText([]byte(hex)); err != nil {
			t.Fatal(err)
		}
		if got := id.Phrase(); got != want {
			t.Errorf("%s: %q, want %q", hex, got, want)
		}
	}
}

func zeros(n int) string { return strings.Repeat("0", n) }

// It is the first 66 bits, read as a number to the base of 2048.
func TestPhraseModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		id := identity.ID(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "id"))
		n := new(big.Int).SetBytes(id[:])
		n.Rsh(n, 256-66)
		var want []string
		for range 6 {
			word := new(big.Int)
			n.DivMod(n, big.NewInt(2048), word)
			want = append([]string{wordlists.English[word.Int64()]}, want...)
		}
		if got := id.Phrase(); got != strings.Join(want, " ") {
			t.Fatalf("%q, want %q", got, want)
		}
	})
}
