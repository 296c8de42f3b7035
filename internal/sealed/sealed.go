// SPDX-License-Identifier: Apache-2.0

// Package sealed keeps a secret in a file, encrypted with a pass phrase. The
// format is that of age (age-encryption.org/v1), armoured: what is sealed here
// is opened by "age -d" too, and the other way round, should this program be
// what was lost.
package sealed

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"filippo.io/age"
	"filippo.io/age/armor"
)

const (
	// MaxBytes is the longest sealed text that Open reads.
	MaxBytes = 16 << 20

	// workFactor is the cost of one try at a pass phrase, as the exponent of
	// scrypt's N: half a second and 128 MiB, which a small gateway has, and what
	// OWASP asks for at least.
	workFactor = 17
	// maxWorkFactor is the greatest that Open goes along with: who made the file
	// up names the factor. It is that of the age command.
	maxWorkFactor = 18
)

// What may be wrong with a sealed text, for errors.Is.
var (
	ErrPassphrase = errors.New("wrong pass phrase")
	ErrDamaged    = errors.New("not a whole file encrypted with a pass phrase")
)

// Seal encrypts secret with passphrase, which is not "".
func Seal(passphrase string, secret []byte) ([]byte, error) {
	return seal(passphrase, secret, workFactor)
}

func seal(passphrase string, secret []byte, factor int) ([]byte, error) {
	recipient, err := age.NewScryptRecipient(passphrase)
	if err != nil {
		return nil, err
	}
	recipient.SetWorkFactor(factor)
	var out bytes.Buffer
	text := armor.NewWriter(&out)
	w, err := age.Encrypt(text, recipient)
	if err != nil {
		return nil, err
	}
	_, err = w.Write(secret)
	if err := errors.Join(err, w.Close(), text.Close()); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// Open returns the secret in text, whole or not at all. The error is
// ErrPassphrase or ErrDamaged (errors.Is).
func Open(passphrase string, text []byte) ([]byte, error) {
	return open(passphrase, text, maxWorkFactor)
}

func open(passphrase string, text []byte, factor int) ([]byte, error) {
	if len(text) > MaxBytes {
		return nil, fmt.Errorf("%w: more than %d bytes", ErrDamaged, MaxBytes)
	}
	identity, err := age.NewScryptIdentity(passphrase)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPassphrase, err)
	}
	identity.SetMaxWorkFactor(factor)
	r, err := age.Decrypt(armor.NewReader(bytes.NewReader(text)), identity)
	if err != nil {
		return nil, explain(err)
	}
	secret, err := io.ReadAll(r)
	if err != nil {
		return nil, explain(err)
	}
	return secret, nil
}

// explain tells a pass phrase that does not fit from the rest.
func explain(err error) error {
	// age says the same of a file for other kinds of key.
	if errors.Is(err, age.ErrIncorrectIdentity) && strings.Contains(err.Error(), "incorrect passphrase") {
		return ErrPassphrase
	}
	return fmt.Errorf("%w: %w", ErrDamaged, err)
}
