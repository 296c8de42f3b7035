// SPDX-License-Identifier: Apache-2.0

// Package identity owns who is who: a site's keys, the network's CA, the
// certificates that make a site a member, the invitations by which it becomes
// one, and the directory in which all of that is kept.
//
// A network is a CA key. A member is a site key with a certificate by that CA
// whose only name is the URI l2bridge://NETWORK/SITE. Whoever shows another
// certificate, of whatever company CA, is not let in. Keys are known by the
// hash of their public half (ID), never by the hash of a certificate, so that
// a certificate may be written again without changing who its holder is.
//
// Instead, a CA of the operator's own may certify members, by Files.
//
// The certificates' dates say nothing (1970 to 9999) and the clock is never
// asked about them: a machine without a battery-backed clock must come up. The
// one thing that ends by the clock is an invitation, and the founder, who
// holds the CA key, is the only judge of that.
//
// How a site becomes a member is told in ENROLMENT.md, byte by byte.
package identity

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// ID is a key's name: the SHA-256 of its public half in DER (the certificate
// field SubjectPublicKeyInfo). It is comparable and safe to print.
type ID [sha256.Size]byte

// String returns all of id as 64 hexadecimal digits.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// Short returns the first 8 hexadecimal digits of id, for a person to look at.
// Two keys may share them.
func (id ID) Short() string { return id.String()[:8] }

// Relay returns the member's short name in relayed records: the first 8 bytes
// of id. Within one network no two members share it, since the founder refuses
// a key whose short name it has already issued.
func (id ID) Relay() [8]byte { return [8]byte(id[:8]) }

// MarshalText returns id as String does, for encoding/json and its like.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText sets id from exactly 64 hexadecimal digits. It leaves id alone
// when it returns an error.
func (id *ID) UnmarshalText(text []byte) error {
	var got ID
	if len(text) != hex.EncodedLen(len(got)) {
		return fmt.Errorf("id: %d characters (want %d hexadecimal digits)", len(text), hex.EncodedLen(len(got)))
	}
	if _, err := hex.Decode(got[:], text); err != nil {
		return fmt.Errorf("id %q: %w", Clean(string(text)), err)
	}
	*id = got
	return nil
}

// keyID names a public key. It encodes the key anew instead of hashing what a
// certificate holds, so that one key cannot have two names.
func keyID(key crypto.PublicKey) (ID, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return ID{}, err
	}
	return sha256.Sum256(der), nil
}

// maxLabel is the longest site or network name: one DNS label (RFC 1035,
// section 2.3.4).
const maxLabel = 63

// ValidSite reports, as an error that a person can act on, what is wrong with
// name as a site's name. It returns nil for 1 to 63 characters of a-z, 0-9 and
// "-" that are not one of the reserved words "local" and "all".
func ValidSite(name string) error {
	if name == "local" || name == "all" {
		return fmt.Errorf("site name %q is reserved (pick another)", name)
	}
	return validLabel("site name", name)
}

func validLabel(what, s string) error {
	if s == "" {
		return fmt.Errorf(`%s "" is empty (want 1 to %d of a-z, 0-9 and "-")`, what, maxLabel)
	}
	if len(s) > maxLabel {
		return fmt.Errorf(`%s %q has %d bytes (want 1 to %d of a-z, 0-9 and "-")`, what, Clean(s), len(s), maxLabel)
	}
	for _, r := range s {
		if (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' {
			return fmt.Errorf(`%s %q has a character %+q (want 1 to %d of a-z, 0-9 and "-")`, what, Clean(s), r, maxLabel)
		}
	}
	return nil
}

// maxAddr is the longest host:port: a DNS name of 253 bytes would do with 259,
// but what is told to others is counted in one byte.
const maxAddr = 255

// validAddr checks an address that is told to other machines: host:port with a
// plain host name or an IP address that means the same everywhere (no zone).
func validAddr(s string) error {
	const want = `(want host:port, as in "vpn.example.org:4433" or "[2001:db8::1]:4433")`
	if len(s) > maxAddr {
		return fmt.Errorf("address %q has %d bytes, more than %d %s", Clean(s), len(s), maxAddr, want)
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return fmt.Errorf("address %q is not host and port %s", Clean(s), want)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("address %q: port is not 1 to 65535 %s", Clean(s), want)
	}
	if ip, err := netip.ParseAddr(host); err == nil && ip.Zone() == "" {
		return nil
	}
	if host == "" || strings.Trim(host, hostBytes) != "" {
		return fmt.Errorf("address %q: host is neither a name nor an IP address %s", Clean(s), want)
	}
	return nil
}

const hostBytes = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._"

// maxClean bounds what Clean returns, in bytes.
const maxClean = 200

// Clean returns s fit for a log or a terminal: each character that is not
// printable ASCII becomes "?", and what is longer than 200 bytes is cut and
// ends in "...". Everything that came from outside passes through it.
func Clean(s string) string {
	const cut = "..."
	var b strings.Builder
	for _, r := range s {
		if b.Len() == maxClean {
			return b.String()[:maxClean-len(cut)] + cut
		}
		if r < ' ' || r > '~' {
			r = '?'
		}
		b.WriteByte(byte(r))
	}
	return b.String()
}
