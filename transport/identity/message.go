// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
)

// MaxMessage is the longest join request or reply, in bytes. Each is all that
// its side sends on the one stream of the connection.
const MaxMessage = 8 << 10

// joinRequest asks for membership. Its bytes are:
//
//	 bytes  field
//	    8   token     the token's id
//	   32   proof     that the joiner holds the token: see joinProof
//	1 + n   site      the name asked for; n is 1 to 63
//
// What follows is ignored.
type joinRequest struct {
	token tokenID
	proof [sha256.Size]byte
	site  string
}

func (q joinRequest) append(b []byte) []byte {
	b = append(b, q.token[:]...)
	b = append(b, q.proof[:]...)
	return appendText(b, q.site)
}

// parseJoinRequest leaves the site name unchecked: a wrong one is answered with
// a code of its own.
func parseJoinRequest(b []byte) (joinRequest, error) {
	if len(b) > MaxMessage {
		return joinRequest{}, fmt.Errorf("join request: more than %d bytes", MaxMessage)
	}
	var q joinRequest
	r := reader{b: b}
	copy(q.token[:], r.bytes(len(q.token)))
	copy(q.proof[:], r.bytes(len(q.proof)))
	q.site = r.text()
	if r.short {
		return joinRequest{}, errors.New("join request: cut short")
	}
	return q, nil
}

// renewRequest asks for a certificate of another key. Its bytes are:
//
//	 bytes  field
//	1 + n   site      the name asked for; n is 1 to 63
//	   32   key       the new one, Ed25519
//	   64   proof     its signature: see renewProof
//
// What follows is ignored.
type renewRequest struct {
	site  string
	key   ed25519.PublicKey
	proof []byte
}

func (q renewRequest) append(b []byte) []byte {
	return append(append(appendText(b, q.site), q.key...), q.proof...)
}

// parseRenewRequest leaves the site name unchecked, as parseJoinRequest does.
func parseRenewRequest(b []byte) (renewRequest, error) {
	if len(b) > MaxMessage {
		return renewRequest{}, fmt.Errorf("renew request: more than %d bytes", MaxMessage)
	}
	var q renewRequest
	r := reader{b: b}
	q.site = r.text()
	q.key = r.bytes(ed25519.PublicKeySize)
	q.proof = r.bytes(ed25519.SignatureSize)
	if r.short {
		return renewRequest{}, errors.New("renew request: cut short")
	}
	return q, nil
}

// joinReply makes a member. Its bytes are, integers being big-endian:
//
//	 bytes  field
//	    1   code      0, accepted
//	2 + n   CA        the CA's certificate, DER
//	2 + n   leaf      the certificate of the joiner's key, DER
//	    1   count     of addresses, 0 to 16
//	1 + n   address   host:port of a member, count times
//
// A Refusal stands in its place as:
//
//	    1   code      1 to 255
//	1 + n   text      why, in printable ASCII; n is at most 200
//
// What follows is ignored.
type joinReply struct {
	ca, leaf []byte
	addrs    []string
}

const (
	accepted      = 0
	maxReplyAddrs = 16
)

// append leaves out the addresses that a joiner would not accept to be told.
func (p joinReply) append(b []byte) []byte {
	b = append(b, accepted)
	b = appendCert(b, p.ca)
	b = appendCert(b, p.leaf)
	return appendAddrs(b, p.addrs)
}

// appendAddrs appends the first maxReplyAddrs valid addresses with their count in
// front.
func appendAddrs(b []byte, addrs []string) []byte {
	count := len(b)
	b = append(b, 0)
	for _, a := range addrs {
		if b[count] < maxReplyAddrs && validAddr(a) == nil {
			b = appendText(b, a)
			b[count]++
		}
	}
	return b
}

func appendRefusal(b []byte, r *Refusal) []byte {
	return appendText(append(b, r.Code), Clean(r.Text))
}

// parseJoinReply returns a Refusal as the error, its text made fit to print.
func parseJoinReply(b []byte) (joinReply, error) {
	if len(b) > MaxMessage {
		return joinReply{}, fmt.Errorf("join reply: more than %d bytes", MaxMessage)
	}
	r := reader{b: b}
	if code := r.byte(); code != accepted {
		return joinReply{}, &Refusal{Code: code, Text: Clean(r.text())}
	}
	var p joinReply
	p.ca = r.bytes(int(r.uint16()))
	p.leaf = r.bytes(int(r.uint16()))
	addrs, err := r.addrs()
	switch {
	case r.short:
		return joinReply{}, errors.New("join reply: cut short (try again)")
	case err != nil:
		return joinReply{}, fmt.Errorf("join reply: %w", err)
	}
	p.addrs = addrs
	return p, nil
}

// check compares what the founder gave with what was asked for. Signatures and
// the key are SaveMembership's to check.
func (p joinReply) check(caID ID, network, site string) error {
	ca, err := x509.ParseCertificate(p.ca)
	if err != nil {
		return fmt.Errorf("certificate of the network: %w", err)
	}
	if id, err := keyID(ca.PublicKey); err != nil || id != caID {
		return errors.New("certificate of the network is not of the one that was asked")
	}
	leaf, err := x509.ParseCertificate(p.leaf)
	if err != nil {
		return fmt.Errorf("certificate of this site: %w", err)
	}
	c, err := readLeaf(leaf)
	if err != nil {
		return fmt.Errorf("certificate of this site: %w", err)
	}
	if c.network != network || c.site != site {
		return fmt.Errorf("certificate is for site %q of network %q (want %q of %q)", c.site, c.network, site, network)
	}
	return nil
}

// appendText appends s with its length, one byte, in front. Callers keep s
// within that.
func appendText(b []byte, s string) []byte {
	return append(append(b, byte(len(s))), s...)
}

// appendCert appends der with its length, two bytes, in front.
func appendCert(b, der []byte) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(der))), der...)
}

// reader takes fields off the front of b. Once b has too few bytes, short is
// set and every field from there on is zero.
type reader struct {
	b     []byte
	short bool
}

func (r *reader) bytes(n int) []byte {
	if r.short || n > len(r.b) {
		r.b, r.short = nil, true
		return make([]byte, n)
	}
	got := r.b[:n]
	r.b = r.b[n:]
	return got
}

func (r *reader) byte() byte     { return r.bytes(1)[0] }
func (r *reader) uint16() uint16 { return binary.BigEndian.Uint16(r.bytes(2)) }
func (r *reader) uint64() uint64 { return binary.BigEndian.Uint64(r.bytes(8)) }

func (r *reader) text() string {
	s := r.bytes(int(r.byte()))
	if r.short {
		return ""
	}
	return string(s)
}

// addrs reads what appendAddrs wrote.
func (r *reader) addrs() ([]string, error) {
	count := int(r.byte())
	if count > maxReplyAddrs {
		return nil, fmt.Errorf("%d addresses (want at most %d)", count, maxReplyAddrs)
	}
	var all []string
	for range count {
		a := r.text()
		if r.short {
			return nil, nil // the caller sees it
		}
		if err := validAddr(a); err != nil {
			return nil, err
		}
		all = append(all, a)
	}
	return all, nil
}
