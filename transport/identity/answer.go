// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"time"
)

// NewAsk returns the request to be let in as site. Its bytes are:
//
//	 bytes  field
//	1 + n   site      the name asked for; n is 1 to 63
//
// What follows is ignored. Whose request it is says the connection.
func NewAsk(site string) ([]byte, error) {
	if err := ValidSite(site); err != nil {
		return nil, err
	}
	return appendText(nil, site), nil
}

// parseAsk leaves the site name unchecked: a wrong one is answered with a code of
// its own.
func parseAsk(b []byte) (site string, err error) {
	if len(b) > MaxMessage {
		return "", fmt.Errorf("request: more than %d bytes", MaxMessage)
	}
	r := reader{b: b}
	site = r.text()
	if r.short {
		return "", errors.New("request: cut short")
	}
	return site, nil
}

// AnswerKind says what has become of a request.
type AnswerKind byte

// The kinds of answer. The numbers are part of the protocol.
const (
	AnswerMember    AnswerKind = 0 // the asker is a member
	AnswerRefused   AnswerKind = 1 // it does not become one
	AnswerWait      AnswerKind = 2 // a person is to decide; another answer follows
	AnswerElsewhere AnswerKind = 3 // the CA key is at another site
)

// Answer is one answer to a request. Its bytes are, integers being big-endian and
// the first two counting those behind them:
//
//	2   length    at most MaxMessage
//	1   kind      0 to 3
//
// and then, for AnswerMember and AnswerRefused, what stands behind code in a reply
// to a join (see joinReply), for AnswerRefused with the code before it, and else:
//
//	    2   seconds   AnswerWait: for how long a person may still decide
//
//	1 + n   site      AnswerElsewhere: where the CA key is; n is 0 when not known
//	    1   count     of addresses, 0 to 16
//	1 + n   address   host:port of that site, count times
//
// What follows is ignored, up to length.
type Answer struct {
	Kind     AnswerKind
	CA, Leaf []byte        // of AnswerMember: certificates in DER
	Addrs    []string      // of AnswerMember and AnswerElsewhere: host:port to dial
	Refusal  *Refusal      // of AnswerRefused
	Left     time.Duration // of AnswerWait
	Site     string        // of AnswerElsewhere
}

// Append appends the bytes of a to b. It leaves out addresses that an asker would
// not accept to be told.
func (a Answer) Append(b []byte) []byte {
	start := len(b)
	b = append(b, 0, 0, byte(a.Kind))
	switch a.Kind {
	case AnswerMember:
		b = appendCert(b, a.CA)
		b = appendCert(b, a.Leaf)
		b = appendAddrs(b, a.Addrs)
	case AnswerRefused:
		b = appendRefusal(b, a.Refusal)
	case AnswerWait:
		b = binary.BigEndian.AppendUint16(b, uint16(min(max(a.Left, 0)/time.Second, math.MaxUint16)))
	case AnswerElsewhere:
		b = appendText(b, a.Site)
		b = appendAddrs(b, a.Addrs)
	}
	binary.BigEndian.PutUint16(b[start:], uint16(len(b)-start-2))
	return b
}

// ErrBadAnswer says that what has come is no answer: to ask again does not help.
var ErrBadAnswer = errors.New("what it answers cannot be read (is one of the two l2bridge versions too old?)")

// ReadAnswer reads one answer. It trusts none of it: text is fit to print, names
// and addresses are what they are said to be. Errors are those of from, and
// ErrBadAnswer (errors.Is).
func ReadAnswer(from io.Reader) (Answer, error) {
	var length [2]byte
	if _, err := io.ReadFull(from, length[:]); err != nil {
		return Answer{}, err
	}
	n := int(binary.BigEndian.Uint16(length[:]))
	if n > MaxMessage {
		return Answer{}, fmt.Errorf("%w: %d bytes, more than %d", ErrBadAnswer, n, MaxMessage)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(from, b); err != nil {
		return Answer{}, err
	}
	return parseAnswer(b)
}

// parseAnswer reads what stands behind the length.
func parseAnswer(b []byte) (a Answer, err error) {
	r := reader{b: b}
	switch a.Kind = AnswerKind(r.byte()); a.Kind {
	case AnswerMember:
		a.CA = r.bytes(int(r.uint16()))
		a.Leaf = r.bytes(int(r.uint16()))
		a.Addrs, err = r.addrs()
	case AnswerRefused:
		a.Refusal = &Refusal{Code: r.byte(), Text: Clean(r.text())}
	case AnswerWait:
		a.Left = time.Duration(r.uint16()) * time.Second
	case AnswerElsewhere:
		if a.Site = r.text(); a.Site != "" {
			err = ValidSite(a.Site)
		}
		if err == nil {
			a.Addrs, err = r.addrs()
		}
	default:
		return Answer{}, fmt.Errorf("%w: kind %d", ErrBadAnswer, a.Kind)
	}
	switch {
	case r.short:
		return Answer{}, fmt.Errorf("%w: cut short", ErrBadAnswer)
	case err != nil:
		return Answer{}, fmt.Errorf("%w: %w", ErrBadAnswer, err)
	}
	return a, nil
}
