// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"crypto/sha256"
	"fmt"

	"github.com/l2bridge/l2bridge/transport/identity"
)

// ErrNotFounder says that only the site that holds the network's CA key can do
// what was asked.
var ErrNotFounder = identity.ErrNotFounder

// CA is what makes a site the founder, as it is read to be kept elsewhere.
type CA = identity.Export

// ReadCA reads the network's CA key and what goes with it, whether a daemon runs
// or not. What others have announced goes along: a machine that has nothing else
// must know whom to dial.
func ReadCA(stateDir string) (CA, error) {
	return identity.ReadAuthority(stateDir, learnedFile)
}

// DropCA takes away the CA key that sum is of; no daemon runs.
func DropCA(stateDir string, sum [sha256.Size]byte) error {
	dir, err := identity.Open(stateDir)
	if err != nil {
		return err
	}
	defer dir.Close()
	_, err = dir.DropAuthority(sum)
	return err
}

// ImportCA makes this site the holder of the CA key in data, as in CA.Data; no
// daemon runs. A site that is no member becomes one, as site or, when that is "",
// in the place of the one that the key was read at. It returns its name.
func ImportCA(stateDir string, data []byte, site string) (string, error) {
	dir, err := identity.Open(stateDir)
	if err != nil {
		return "", err
	}
	defer dir.Close()
	m, err := adoptCA(dir, data, site)
	if err != nil {
		return "", err
	}
	return m.Site, nil
}

func adoptCA(dir *identity.Dir, data []byte, site string) (*identity.Member, error) {
	_, err := dir.ReadFile(learnedFile)
	m, learned, aerr := dir.AdoptAuthority(data, site)
	if aerr != nil {
		return nil, aerr
	}
	// Where something was learned already it is newer.
	if err != nil && len(learned) > 0 {
		if err := dir.WriteFile(learnedFile, learned); err != nil {
			return nil, fmt.Errorf("the CA key is imported, but whom to dial is not: %w", err)
		}
	}
	return m, nil
}

// DropCA implements control.Backend.
func (b backend) DropCA(sum [sha256.Size]byte) error {
	if err := b.s.refuseOwnCA(); err != nil {
		return err
	}
	done, err := b.s.change()
	if err != nil {
		return err
	}
	defer done()
	m, err := b.s.dir.DropAuthority(sum)
	if err != nil {
		return founderError(err)
	}
	b.s.become(m)
	b.s.log.Info("ca key taken away", "site", m.Site)
	return nil
}

// ImportCA implements control.Backend.
func (b backend) ImportCA(data []byte) (string, error) {
	if err := b.s.refuseOwnCA(); err != nil {
		return "", err
	}
	done, err := b.s.change()
	if err != nil {
		return "", err
	}
	defer done()
	m, err := adoptCA(b.s.dir, data, "")
	if err != nil {
		return "", founderError(err)
	}
	b.s.become(m)
	b.s.log.Info("ca key imported", "site", m.Site)
	return m.Site, nil
}
