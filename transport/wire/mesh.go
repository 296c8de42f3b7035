// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Bounds of the messages by which a mesh completes itself (section 2).
const (
	// MaxMembers bounds the entries of a HAVE, LINKS and DOUBTS: as many as the
	// greatest body holds of a HAVE.
	MaxMembers = maxBody / haveLen

	// MaxCertLen bounds the certificate of a MEMBER, in bytes.
	MaxCertLen = 2048

	// MaxAddresses bounds the addresses of a MEMBER.
	MaxAddresses = 16

	maxAddressLen = 255
)

// Sizes in bytes.
const (
	shortIDLen = 8
	haveLen    = shortIDLen + 8
	seenLen    = 16 + 2
	punchLen   = 2 * shortIDLen

	signatureLen = 64
	memberLen    = 8 + 4 + 2 + 2 // a MEMBER between its signature and its certificate
)

// memberPrefix stands before what a MEMBER's signature is made over, so that it
// is one of nothing else that the same key may ever sign.
const memberPrefix = "l2bridge member 1\x00"

// ShortID names a member where many are named: the first 8 bytes of its id.
type ShortID [shortIDLen]byte

// Have says which announcements its sender has. Its body is n times:
//
//	0         8         16
//	| member  | version |
type Have []Announced

// Announced is a version of a member's announcement.
type Announced struct {
	Member  ShortID
	Version uint64
}

// Append appends the message, with the first MaxMembers entries.
func (h Have) Append(p []byte) []byte {
	h = h[:min(len(h), MaxMembers)]
	p = appendHeader(p, TypeHave, haveLen*len(h))
	for _, a := range h {
		p = append(p, a.Member[:]...)
		p = binary.BigEndian.AppendUint64(p, a.Version)
	}
	return p
}

// ParseHave reads the body of a HAVE.
func ParseHave(b []byte) (Have, error) {
	n, err := entries("have", b, haveLen)
	if err != nil {
		return nil, err
	}
	h := make(Have, n)
	for i := range h {
		e := b[haveLen*i:]
		h[i] = Announced{ShortID(e), binary.BigEndian.Uint64(e[shortIDLen:])}
	}
	return h, nil
}

// Links says with which members its sender has a session: all of them, each
// time. Its body is n short ids.
type Links []ShortID

// Append appends the message, with the first MaxMembers entries.
func (l Links) Append(p []byte) []byte { return appendShortIDs(p, TypeLinks, l) }

// ParseLinks reads the body of a LINKS.
func ParseLinks(b []byte) (Links, error) { return parseShortIDs("links", b) }

// Doubts says of which members with whom its sender has a session it has had no answer
// for a moment. Its body is as that of Links.
type Doubts []ShortID

// Append appends the message, with the first MaxMembers entries.
func (d Doubts) Append(p []byte) []byte { return appendShortIDs(p, TypeDoubts, d) }

// ParseDoubts reads the body of a DOUBTS.
func ParseDoubts(b []byte) (Doubts, error) { return parseShortIDs("doubts", b) }

func appendShortIDs(p []byte, typ uint8, ids []ShortID) []byte {
	ids = ids[:min(len(ids), MaxMembers)]
	p = appendHeader(p, typ, shortIDLen*len(ids))
	for _, id := range ids {
		p = append(p, id[:]...)
	}
	return p
}

func parseShortIDs(name string, b []byte) ([]ShortID, error) {
	n, err := entries(name, b, shortIDLen)
	if err != nil {
		return nil, err
	}
	ids := make([]ShortID, n)
	for i := range ids {
		ids[i] = ShortID(b[shortIDLen*i:])
	}
	return ids, nil
}

// entries returns how many entries of size bytes a list holds.
func entries(name string, b []byte, size int) (int, error) {
	if len(b)%size != 0 || len(b)/size > MaxMembers {
		return 0, fmt.Errorf("%w: %s of %d bytes, want at most %d entries of %d", ErrProtocol, name, len(b), MaxMembers, size)
	}
	return len(b) / size, nil
}

// Seen says where its sender sees the receiver's end of lane 0. Its body, with
// an IPv4 address mapped to IPv6:
//
//	0         16     18
//	| address | port |
type Seen struct{ Addr netip.AddrPort }

// Append appends the message. A zone is not said: it means nothing elsewhere.
func (s Seen) Append(p []byte) []byte {
	a := s.Addr.Addr().As16()
	p = appendHeader(p, TypeSeen, seenLen)
	p = append(p, a[:]...)
	return binary.BigEndian.AppendUint16(p, s.Addr.Port())
}

// ParseSeen reads the body of a SEEN. An IPv4 address is returned as such.
func ParseSeen(b []byte) (s Seen, err error) {
	if len(b) < seenLen {
		return s, fmt.Errorf("%w: seen of %d bytes, want %d", ErrProtocol, len(b), seenLen)
	}
	a, port := netip.AddrFrom16([16]byte(b)).Unmap(), binary.BigEndian.Uint16(b[16:])
	if a.IsUnspecified() || a.IsMulticast() || port == 0 {
		return s, fmt.Errorf("%w: seen at %v, port %d, from where no packet comes", ErrProtocol, a, port)
	}
	return Seen{netip.AddrPortFrom(a, port)}, nil
}

// Punch says that the member Source is dialling the member Destination now,
// which had better dial back. Its body:
//
//	0             8        16
//	| destination | source |
type Punch struct{ Destination, Source ShortID }

// Append appends the message.
func (u Punch) Append(p []byte) []byte {
	p = appendHeader(p, TypePunch, punchLen)
	p = append(p, u.Destination[:]...)
	return append(p, u.Source[:]...)
}

// ParsePunch reads the body of a PUNCH.
func ParsePunch(b []byte) (u Punch, err error) {
	if len(b) < punchLen {
		return u, fmt.Errorf("%w: punch of %d bytes, want %d", ErrProtocol, len(b), punchLen)
	}
	return Punch{ShortID(b), ShortID(b[shortIDLen:])}, nil
}

// Member is what a member announces of itself. Signed by its own key, it may
// come by way of any other, as it is. Its body:
//
//	0           64        72         76    78  80            80+c 81+c
//	| signature | version | features | MTU | c | certificate | n | n times: length u8, text | ... |
//	            |<--------------------------- signed ------------------------------------------->|
//
// What stands behind the addresses is a later version's, signed and ignored.
// This package looks at neither certificate nor signature.
type Member struct {
	Version   uint64 // the greatest is the newest
	Features  Features
	MTU       uint16   // of the member's LAN
	Cert      []byte   // of its membership, DER; 1 to MaxCertLen bytes
	Addresses []string // where it can be dialled: at most MaxAddresses, each a ValidAddress
}

// check returns what is wrong with a member's certificate or addresses.
func (m Member) check() error {
	if n := len(m.Cert); n == 0 || n > MaxCertLen {
		return fmt.Errorf("member with a certificate of %d bytes, want 1 to %d", n, MaxCertLen)
	}
	if n := len(m.Addresses); n > MaxAddresses {
		return fmt.Errorf("member with %d addresses, at most %d are allowed", n, MaxAddresses)
	}
	for _, a := range m.Addresses {
		if !ValidAddress(a) {
			return fmt.Errorf("member with the address %q, want HOST:PORT", a)
		}
	}
	return nil
}

// Signed returns the bytes that the member is to sign, for AppendMember. It
// fails for what no receiver would take.
func (m Member) Signed() ([]byte, error) {
	if err := m.check(); err != nil {
		return nil, err
	}
	p := []byte(memberPrefix)
	p = binary.BigEndian.AppendUint64(p, m.Version)
	p = binary.BigEndian.AppendUint32(p, uint32(m.Features))
	p = binary.BigEndian.AppendUint16(p, m.MTU)
	p = binary.BigEndian.AppendUint16(p, uint16(len(m.Cert)))
	p = append(p, m.Cert...)
	p = append(p, byte(len(m.Addresses)))
	for _, a := range m.Addresses {
		p = append(p, byte(len(a)))
		p = append(p, a...)
	}
	return p, nil
}

// AppendMember appends the message of which these are the signed bytes and their
// signature, as Signed and ed25519.Sign, or ParseMember, returned them.
func AppendMember(p, signed, signature []byte) []byte {
	said := signed[len(memberPrefix):]
	p = appendHeader(p, TypeMember, signatureLen+len(said))
	p = append(p, signature[:signatureLen]...)
	return append(p, said...)
}

// ParseMember reads the body of a MEMBER. What it returns shares no memory with
// body. Nothing of it is to be believed before signature has been found to be one
// of signed by the key of a certificate that is a member's.
func ParseMember(body []byte) (m Member, signed, signature []byte, err error) {
	if len(body) < signatureLen+memberLen {
		return Member{}, nil, nil, errShortMember
	}
	signature = bytes.Clone(body[:signatureLen])
	signed = append([]byte(memberPrefix), body[signatureLen:]...)
	p := signed[len(memberPrefix):]
	m.Version = binary.BigEndian.Uint64(p)
	m.Features = Features(binary.BigEndian.Uint32(p[8:]))
	m.MTU = binary.BigEndian.Uint16(p[12:])
	n := int(binary.BigEndian.Uint16(p[14:]))
	if p = p[memberLen:]; len(p) < n+1 {
		return Member{}, nil, nil, errShortMember
	}
	m.Cert, p = p[:n:n], p[n:]
	left := int(p[0])
	for p = p[1:]; left > 0; left-- {
		if len(p) == 0 || len(p) <= int(p[0]) {
			return Member{}, nil, nil, errShortMember
		}
		end := 1 + int(p[0])
		m.Addresses = append(m.Addresses, string(p[1:end]))
		p = p[end:]
	}
	if err := m.check(); err != nil {
		return Member{}, nil, nil, fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	return m, signed, signature, nil
}

var errShortMember = fmt.Errorf("%w: member ends too soon", ErrProtocol)

// ValidAddress reports whether an address may stand in a MEMBER: HOST:PORT of
// at most 255 bytes, with a port from 1 to 65535, and a host of letters, digits,
// '.', '-' and '_', or in brackets of these, ':' and '%'. Whether there is such
// a host is another question.
func ValidAddress(s string) bool {
	i := strings.LastIndexByte(s, ':')
	if i <= 0 || len(s) > maxAddressLen {
		return false
	}
	host, port := s[:i], s[i+1:]
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || len(port) > len("65535") {
		return false
	}
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_"
	if in, ok := strings.CutPrefix(host, "["); ok {
		in, ok = strings.CutSuffix(in, "]")
		return ok && in != "" && strings.Trim(in, plain+":%") == ""
	}
	return strings.Trim(host, plain) == ""
}

// appendHeader appends the type and the length of a message.
func appendHeader(p []byte, typ uint8, n int) []byte {
	return binary.BigEndian.AppendUint16(append(p, typ), uint16(n))
}
