// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
)

// Revocations is the network's list of keys that are members no more, as the
// holder of the CA key has signed it. One that was given out does not change.
//
// A list never lets go of a key, and its version rises with each change. Its
// bytes are, integers being big-endian:
//
//	 bytes  field
//	   64   signature  Ed25519, by the CA key, over "l2bridge revoked 1",
//	                   a zero byte and all that follows
//	1 + n   network    its name; n is 1 to 63
//	    8   version    1 to 2^64 - 2
//	   32   holder     key of the site that holds the CA key
//	1 + n   site       its name; n is 1 to 63
//	    2   count      of keys, at most 4096
//	        keys       count times, by key, rising:
//	   32     key
//	    1     reason   0 revoked, 1 its site left, 2 its site has another key
//	1 + n     site     its name; n is 1 to 63
//
// What follows is signed and ignored.
type Revocations struct {
	Version uint64 // 0: nobody was ever put out; there are no bytes then
	Holder  Site   // who holds the CA key
	Keys    []Revocation

	network string
	signed  []byte // with the signature before it
	digest  [8]byte
}

// Site is a site's key and name.
type Site struct {
	ID   ID
	Name string
}

// Revocation is one key that is a member no more.
type Revocation struct {
	Site
	Reason Reason
}

// Reason says why a key is a member no more. One that is not known here counts
// as Revoked.
type Reason uint8

// The reasons for which a key is on the list.
const (
	Revoked Reason = iota // it was put out
	Left                  // its site left the network
	Rekeyed               // its site has another key now
)

// String returns the reason as the end of a sentence that begins with the site.
func (r Reason) String() string {
	switch r {
	case Left:
		return "left the network"
	case Rekeyed:
		return "has another key"
	}
	return "was revoked"
}

const (
	// MaxRevocations bounds the keys of a list. A key never leaves it.
	MaxRevocations = 4096

	// MaxRevocationsLen bounds its bytes.
	MaxRevocationsLen = 400_000

	revocationsPrefix = "l2bridge revoked 1\x00"
)

// ErrRevocations says that a list of revoked keys is none of this network's CA.
var ErrRevocations = errors.New("list of revoked keys is not this network's")

// Has reports whether the key id is on the list.
func (r *Revocations) Has(id ID) bool {
	_, found := r.find(id)
	return found
}

func (r *Revocations) find(id ID) (int, bool) {
	return slices.BinarySearchFunc(r.Keys, id, func(k Revocation, id ID) int { return bytes.Compare(k.ID[:], id[:]) })
}

// Holds reports whether a site holds the CA key, as this list has it. A name is
// as good as a key: a certificate with that name can only be of the CA's making.
func (r *Revocations) Holds(s Site) bool {
	return s.Name == r.Holder.Name || r.Version > 0 && s.ID == r.Holder.ID
}

// Bytes returns the list as it was signed, for others to read; nil at version 0.
// They are not to be changed.
func (r *Revocations) Bytes() []byte { return r.signed }

// Digest tells lists of one version apart. It is zero at version 0.
func (r *Revocations) Digest() [8]byte { return r.digest }

// RevocationsDigest returns the digest of a list that is not read yet.
func RevocationsDigest(list []byte) [8]byte {
	sum := sha256.Sum256(list)
	return [8]byte(sum[:])
}

// add puts a key on the list, unless it is there.
func (r *Revocations) add(k Revocation) {
	if i, found := r.find(k.ID); !found {
		r.Keys = slices.Insert(r.Keys, i, k)
	}
}

// covers reports whether all keys of another list are on this one.
func (r *Revocations) covers(other *Revocations) bool {
	return !slices.ContainsFunc(other.Keys, func(k Revocation) bool { return !r.Has(k.ID) })
}

// replaces reports whether this list is to be taken in the place of another: it
// is newer, and lets nobody in again.
func (r *Revocations) replaces(old *Revocations) bool {
	return r.Version > old.Version && r.covers(old)
}

// sign completes a list.
func (r *Revocations) sign(key ed25519.PrivateKey) error {
	if len(r.Keys) > MaxRevocations {
		return fmt.Errorf("the list of revoked keys is full: it has room for %d (found a new network)", MaxRevocations)
	}
	if r.Version == math.MaxUint64 {
		return errors.New("the list of revoked keys can have no further version (found a new network)")
	}
	b := []byte(revocationsPrefix)
	b = appendText(b, r.network)
	b = binary.BigEndian.AppendUint64(b, r.Version)
	b = append(b, r.Holder.ID[:]...)
	b = appendText(b, r.Holder.Name)
	b = binary.BigEndian.AppendUint16(b, uint16(len(r.Keys)))
	for _, k := range r.Keys {
		b = append(b, k.ID[:]...)
		b = append(b, byte(k.Reason))
		b = appendText(b, k.Name)
	}
	r.signed = append(ed25519.Sign(key, b), b[len(revocationsPrefix):]...)
	r.digest = RevocationsDigest(r.signed)
	return nil
}

// parseRevocations reads a list of the network that ca is the key of. It shares
// no memory with b. Errors are ErrRevocations (errors.Is).
func parseRevocations(b []byte, ca ed25519.PublicKey, network string) (*Revocations, error) {
	if len(b) < ed25519.SignatureSize || len(b) > MaxRevocationsLen {
		return nil, fmt.Errorf("%w: it has %d bytes (want %d to %d)", ErrRevocations, len(b), ed25519.SignatureSize, MaxRevocationsLen)
	}
	b = bytes.Clone(b)
	said := b[ed25519.SignatureSize:]
	if !ed25519.Verify(ca, append([]byte(revocationsPrefix), said...), b[:ed25519.SignatureSize]) {
		return nil, fmt.Errorf("%w: the CA has not signed it", ErrRevocations)
	}
	r := &Revocations{signed: b, digest: RevocationsDigest(b)}
	if err := r.read(said); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRevocations, err)
	}
	if r.network != network {
		return nil, fmt.Errorf("%w: it is of network %q", ErrRevocations, r.network)
	}
	return r, nil
}

// read reads what stands behind the signature.
func (r *Revocations) read(b []byte) error {
	in := reader{b: b}
	r.network = in.text()
	r.Version = in.uint64()
	r.Holder.ID = ID(in.bytes(len(ID{})))
	r.Holder.Name = in.text()
	count := int(in.uint16())
	if count > MaxRevocations {
		return fmt.Errorf("%d keys, at most %d are allowed", count, MaxRevocations)
	}
	for range count {
		k := Revocation{Site: Site{ID: ID(in.bytes(len(ID{})))}}
		k.Reason = Reason(in.byte())
		k.Name = in.text()
		if in.short {
			break
		}
		if err := ValidSite(k.Name); err != nil {
			return err
		}
		if n := len(r.Keys); n > 0 && bytes.Compare(r.Keys[n-1].ID[:], k.ID[:]) >= 0 {
			return errors.New("keys are not in order")
		}
		r.Keys = append(r.Keys, k)
	}
	switch {
	case in.short:
		return errors.New("it ends too soon")
	case r.Version == 0, r.Version == math.MaxUint64:
		return fmt.Errorf("version %d is none", r.Version)
	}
	return ValidSite(r.Holder.Name)
}
