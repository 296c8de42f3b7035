// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

const (
	// MaxToken is the longest token as text, in bytes.
	MaxToken = 512

	tokenPrefix = "l2b1_" // "1" is the version of the layout below
	// maxTokenBytes is what fits into MaxToken as base64url without padding.
	maxTokenBytes = (MaxToken - len(tokenPrefix)) * 3 / 4
	maxTokenAddrs = 8
	sumBytes      = 4
)

// tokenCoding is strict: there is one text for one token.
var tokenCoding = base64.RawURLEncoding.Strict()

// Token invites one site into a network. Whoever holds it may join, once, until
// it ends: it is a secret, and errors of this package never quote it.
//
// As text it is "l2b1_" and, in base64url without padding (RFC 4648, section
// 5), these bytes; integers are big-endian:
//
//	 bytes  field
//	1 + n   network   its name; n is 1 to 63
//	   32   CA        SHA-256 of the CA's public key
//	    8   id        which token this is, at the founder
//	   16   secret    proves at the founder that the joiner was invited
//	    8   end       seconds since 1970
//	1 + n   site      the name the joiner must take; n is 0 to 63, 0: any
//	    1   count     of addresses, 1 to 8
//	1 + n   address   host:port of the founder, count times, best first
//	    4   sum       the first 4 bytes of the SHA-256 of all before, with the
//	                  prefix: against a paste that was cut short
type Token struct {
	Network string
	CA      ID        // the CA's key
	End     time.Time // for people: the founder's clock is the judge
	Site    string    // "" when the joiner may choose
	Addrs   []string  // host:port of the founder, best first, at least one

	id     tokenID
	secret [16]byte
}

// tokenID is a token's name at the founder. It is no secret.
type tokenID [8]byte

// String returns the token as text, at most MaxToken bytes, for the person who
// is invited and nobody else.
func (t Token) String() string {
	return tokenPrefix + tokenCoding.EncodeToString(t.append(nil))
}

// append appends the layout above to b.
func (t Token) append(b []byte) []byte {
	start := len(b)
	b = appendText(b, t.Network)
	b = append(b, t.CA[:]...)
	b = append(b, t.id[:]...)
	b = append(b, t.secret[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(t.End.Unix()))
	b = appendText(b, t.Site)
	b = append(b, byte(len(t.Addrs)))
	for _, a := range t.Addrs {
		b = appendText(b, a)
	}
	sum := tokenSum(b[start:])
	return append(b, sum[:]...)
}

func tokenSum(b []byte) [sumBytes]byte {
	sum := sha256.Sum256(append([]byte(tokenPrefix), b...))
	return [sumBytes]byte(sum[:])
}

// setAddrs gives t as many of addrs, from the first, as there is room for.
func (t *Token) setAddrs(addrs []string) error {
	if len(addrs) == 0 {
		return errors.New("invite: this site has no address to be reached at (set one with advertise)")
	}
	room := maxTokenBytes - len(t.append(nil))
	for i, a := range addrs {
		if err := validAddr(a); err != nil {
			return fmt.Errorf("invite: %w", err)
		}
		room -= 1 + len(a)
		if i == 0 && room < 0 {
			return fmt.Errorf("invite: address %q is too long for a token (advertise a shorter one)", Clean(a))
		}
		if room >= 0 && i < maxTokenAddrs {
			t.Addrs = append(t.Addrs, a)
		}
	}
	return nil
}

// ParseToken reads a token as a person pasted it, space around it allowed. It
// cannot know whether the token was used, or whether it has ended.
func ParseToken(text string) (Token, error) {
	text = strings.TrimSpace(text)
	if len(text) > MaxToken {
		return Token{}, fmt.Errorf("token: %d characters, more than %d (copy the one line that invite printed)", len(text), MaxToken)
	}
	coded, ok := strings.CutPrefix(text, tokenPrefix)
	if !ok {
		return Token{}, fmt.Errorf("token: does not begin with %q (copy the whole line that invite printed)", tokenPrefix)
	}
	// Looked at first, since encoding/base64 skips line breaks, and counts a
	// text that was cut short among those with a wrong character.
	if i := strings.IndexFunc(coded, notBase64URL); i >= 0 {
		return Token{}, fmt.Errorf("token: character %d is not one that a token has (copy the one line that invite printed)", len(tokenPrefix)+i+1)
	}
	b, err := tokenCoding.DecodeString(coded)
	if err != nil || len(b) < sumBytes {
		return Token{}, errTokenSum
	}
	b, sum := b[:len(b)-sumBytes], b[len(b)-sumBytes:]
	if tokenSum(b) != [sumBytes]byte(sum) {
		return Token{}, errTokenSum
	}
	t, err := parseTokenBytes(b)
	if err != nil {
		return Token{}, fmt.Errorf("token: %w (it is whole, but no founder wrote it so: ask for a new one)", err)
	}
	return t, nil
}

func notBase64URL(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_'
}

var errTokenSum = errors.New("token: cut short or mistyped: its checksum does not match (copy the whole line again)")

// lastEnd is the last second of the year 9999, the last one that time.Time can
// show in RFC 3339.
const lastEnd = 253402300799

func parseTokenBytes(b []byte) (Token, error) {
	var t Token
	r := reader{b: b}
	t.Network = r.text()
	copy(t.CA[:], r.bytes(len(t.CA)))
	copy(t.id[:], r.bytes(len(t.id)))
	copy(t.secret[:], r.bytes(len(t.secret)))
	end := r.uint64()
	t.Site = r.text()
	count := int(r.byte())
	if count < 1 || count > maxTokenAddrs {
		return Token{}, fmt.Errorf("%d addresses (want 1 to %d)", count, maxTokenAddrs)
	}
	for range count {
		t.Addrs = append(t.Addrs, r.text())
	}
	if r.short || len(r.b) > 0 {
		return Token{}, errors.New("fields do not add up to its length")
	}
	if end > lastEnd {
		return Token{}, errors.New("ends after the year 9999")
	}
	t.End = time.Unix(int64(end), 0).UTC()
	if err := validLabel("network name", t.Network); err != nil {
		return Token{}, err
	}
	if t.Site != "" {
		if err := ValidSite(t.Site); err != nil {
			return Token{}, err
		}
	}
	if i := slices.IndexFunc(t.Addrs, func(a string) bool { return validAddr(a) != nil }); i >= 0 {
		return Token{}, validAddr(t.Addrs[i])
	}
	return t, nil
}
