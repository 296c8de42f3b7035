// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"strings"

	"github.com/tyler-smith/go-bip39/wordlists"
)

// A phrase has six words of 11 bits: 66 bits of the key's hash. Who wants
// another key with the same phrase has to make some 2^66 of them.
const (
	phraseWords = 6
	wordBits    = 11 // the list has 2048 words
)

// Phrase returns the first 66 bits of id as six words of BIP-39's English list,
// for people to compare on two screens, or to read to each other.
func (id ID) Phrase() string {
	words := make([]string, phraseWords)
	rest, bits, have := id[:], 0, 0
	for i := range words {
		for have < wordBits {
			bits, rest, have = bits<<8|int(rest[0]), rest[1:], have+8
		}
		have -= wordBits
		words[i] = wordlists.English[bits>>have]
		bits &= 1<<have - 1
	}
	return strings.Join(words, " ")
}
