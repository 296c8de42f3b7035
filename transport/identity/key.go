// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/big"
)

// SignatureLen is the length of every signature by a member.
const SignatureLen = ed25519.SignatureSize

// halfSignature is that of each number in an ECDSA signature with P-256.
const halfSignature = SignatureLen / 2

// checkKey refuses keys that members do not have: their signatures would not fit
// (docs/wire.md, MEMBER).
func checkKey(key crypto.PublicKey) error {
	kind := fmt.Sprintf("%T", key)
	switch key := key.(type) {
	case ed25519.PublicKey:
		return nil
	case *ecdsa.PublicKey:
		if key.Curve == elliptic.P256() {
			return nil
		}
		kind = "ECDSA " + key.Params().Name
	case *rsa.PublicKey:
		kind = "RSA"
	}
	return fmt.Errorf("its key is %s (want Ed25519 or ECDSA P-256)", kind)
}

// Sign signs for this site: 64 bytes, by Ed25519, or by ECDSA with P-256 and
// SHA-256, r and s as numbers of 32 bytes.
func (m *Member) Sign(message []byte) ([]byte, error) {
	switch key := m.Leaf.PrivateKey.(type) {
	case ed25519.PrivateKey:
		return ed25519.Sign(key, message), nil
	case *ecdsa.PrivateKey:
		digest := sha256.Sum256(message)
		r, s, err := ecdsa.Sign(rand.Reader, key, digest[:])
		if err != nil {
			return nil, err
		}
		signature := make([]byte, SignatureLen)
		r.FillBytes(signature[:halfSignature])
		s.FillBytes(signature[halfSignature:])
		return signature, nil
	}
	return nil, errors.New("identity: a key of another kind") // checkKey has not let it in
}

// Verify reports whether signature is one of Sign, with the private half of key.
func Verify(key crypto.PublicKey, message, signature []byte) bool {
	if len(signature) != SignatureLen {
		return false
	}
	switch key := key.(type) {
	case ed25519.PublicKey:
		return ed25519.Verify(key, message, signature)
	case *ecdsa.PublicKey:
		digest := sha256.Sum256(message)
		r, s := new(big.Int).SetBytes(signature[:halfSignature]), new(big.Int).SetBytes(signature[halfSignature:])
		return key.Curve == elliptic.P256() && ecdsa.Verify(key, digest[:], r, s)
	}
	return false
}

// Secret derives bytes from this site's key, the same ones for a purpose after each
// start; nil when the key gives none.
func (m *Member) Secret(purpose string, length int) []byte {
	var seed []byte
	switch key := m.Leaf.PrivateKey.(type) {
	case ed25519.PrivateKey:
		seed = key.Seed()
	case *ecdsa.PrivateKey:
		var err error
		if seed, err = key.Bytes(); err != nil {
			return nil
		}
	default:
		return nil
	}
	secret, err := hkdf.Key(sha256.New, seed, nil, purpose, length)
	if err != nil {
		return nil
	}
	return secret
}
