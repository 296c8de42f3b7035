// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
)

// revokedFile holds the list of revoked keys. It is a file of its own, so that a
// list that comes from another site touches nothing that membership rests on.
const revokedFile = "revoked.json"

// stored is what revoked.json holds.
type stored struct {
	Schema int    `json:"schema"`
	List   []byte `json:"list"` // as signed, base64
}

// Revocations returns the list of keys that are members no more, as it is known
// here at present.
func (m *Member) Revocations() *Revocations {
	if r := m.dir.revoked.Load(); r != nil {
		return r
	}
	return m.noRevocations()
}

// noRevocations returns the list before anybody was put out. Of the holder only
// the CA's certificate says who it is.
func (m *Member) noRevocations() *Revocations {
	return &Revocations{Holder: Site{Name: m.namedFounder()}, network: m.Network}
}

// Revoked reports whether the key id is a member no more. It does not block.
func (m *Member) Revoked(id ID) bool {
	r := m.dir.revoked.Load()
	return r != nil && r.Has(id)
}

// loadRevocationsLocked reads the stored list of m's network, once. What is in
// memory is never older.
func (d *Dir) loadRevocationsLocked(m *Member) error {
	if d.revoked.Load() != nil {
		return nil
	}
	data, err := d.files.read(revokedFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read revoked keys: %w", err)
	}
	var s stored
	if err = json.Unmarshal(data, &s); err == nil && s.Schema != 1 {
		err = fmt.Errorf("schema %d is not the 1 that this version knows", s.Schema)
	}
	var r *Revocations
	if err == nil {
		r, err = m.parseRevocations(s.List)
	}
	if err != nil {
		return fmt.Errorf("state directory %s: %s: %w (restore it from a backup, or remove it: other sites tell what is in it)", d.path, revokedFile, err)
	}
	d.revoked.Store(r)
	return nil
}

func (m *Member) parseRevocations(b []byte) (*Revocations, error) {
	ca, ok := m.CA.PublicKey.(ed25519.PublicKey)
	if !ok {
		return nil, fmt.Errorf("%w: the CA's key is no Ed25519 key", ErrRevocations)
	}
	return parseRevocations(b, ca, m.Network)
}

// storeRevocationsLocked makes a list durable.
func (d *Dir) storeRevocationsLocked(r *Revocations) error {
	if d.files == nil {
		return fmt.Errorf("state directory %s: %w", d.path, os.ErrClosed)
	}
	data, err := json.MarshalIndent(stored{Schema: 1, List: r.signed}, "", "  ")
	if err != nil {
		return err
	}
	return d.replaceLocked(revokedFile, append(data, '\n'))
}

// reviseLocked makes the next version of the list, of which this site is the
// holder, with what change makes of it. It is stored before it is used.
func (m *Member) reviseLocked(change func(*Revocations)) error {
	key, ok := m.caKey.(ed25519.PrivateKey)
	if !ok {
		return m.notFounder()
	}
	old := m.Revocations()
	next := &Revocations{
		Version: old.Version + 1,
		Holder:  Site{m.ID, m.Site},
		Keys:    slices.Clone(old.Keys),
		network: m.Network,
	}
	change(next)
	if err := next.sign(key); err != nil {
		return err
	}
	if err := m.dir.storeRevocationsLocked(next); err != nil {
		return err
	}
	m.dir.revoked.Store(next)
	return nil
}

// Revoke puts a site out of the network for good: every key that the founder's
// book has of it, also while it is changing its key or its name, and keys (met
// elsewhere: the book may have been restored from a backup). Invitations for that name end with it. It
// returns what has come onto the list by that, nothing when it was there before.
// The error is ErrNotFounder (errors.Is) at a site that does not hold the CA key.
func (m *Member) Revoke(site string, keys ...ID) ([]Revocation, error) {
	if !m.Founder() {
		return nil, m.notFounder()
	}
	if site == m.Site || slices.Contains(keys, m.ID) {
		return nil, fmt.Errorf("site %q is this one, which holds the network's CA key: move that first (l2bridge ca export, ca import at another site), then l2bridge leave", site)
	}
	d := m.dir
	d.mu.Lock()
	defer d.mu.Unlock()
	st, err := m.readBookLocked()
	if err != nil {
		return nil, err
	}
	var out []Revocation
	for _, c := range st.Ledger.Issued {
		if c.named(site) || slices.ContainsFunc(keys, c.has) {
			for _, s := range c.keys() {
				out = append(out, Revocation{s, Revoked})
			}
		}
	}
	for _, id := range keys {
		out = append(out, Revocation{Site{id, site}, Revoked})
	}
	// First, since it harms nobody: after a crash in between one tries again.
	open := len(st.Ledger.Tokens)
	st.Ledger.Tokens = slices.DeleteFunc(st.Ledger.Tokens, func(t invited) bool { return t.Site == site && t.UsedBy == nil })
	if len(st.Ledger.Tokens) < open {
		if err := d.writeStateLocked(st); err != nil {
			return nil, err
		}
	}
	return m.strikeLocked(out)
}

// Retire puts a site out that wants it so, by one of its keys. Errors are those of
// Revoke.
func (m *Member) Retire(key Site, why Reason) ([]Revocation, error) {
	if !m.Founder() {
		return nil, m.notFounder()
	}
	m.dir.mu.Lock()
	defer m.dir.mu.Unlock()
	st, err := m.dir.readStateLocked()
	if err != nil {
		return nil, err
	}
	out := []Revocation{{key, why}}
	if st.Ledger != nil {
		if i := st.Ledger.byAnyKey(key.ID); i >= 0 {
			for _, s := range st.Ledger.Issued[i].keys() {
				out = append(out, Revocation{s, why})
			}
		}
	}
	return m.strikeLocked(out)
}

// strikeLocked puts the keys on the list that are not there, and returns them. Its
// own, which the book may have under a former name, a founder leaves out: a list
// never lets go of a key.
func (m *Member) strikeLocked(all []Revocation) (news []Revocation, err error) {
	for _, k := range all {
		if k.ID != m.ID && !m.Revoked(k.ID) && !slices.ContainsFunc(news, func(n Revocation) bool { return n.ID == k.ID }) {
			news = append(news, k)
		}
	}
	if len(news) == 0 {
		return nil, nil
	}
	err = m.reviseLocked(func(r *Revocations) {
		for _, k := range news {
			r.add(k)
		}
	})
	if err != nil {
		return nil, err
	}
	return news, nil
}

// TakeRevocations judges a list that another member has sent, borrowed, and
// returns the keys that are members no more because of it. A list that is newer
// than ours, and lets nobody in again, takes its place; the holder of the CA key
// makes one of two that contradict each other, as after its state was restored
// from a backup. Errors about the list are ErrRevocations (errors.Is). With any
// other one it could not be stored: it counts until we stop, and news are given
// all the same.
func (m *Member) TakeRevocations(list []byte) (news []Revocation, err error) {
	d := m.dir
	d.mu.Lock()
	defer d.mu.Unlock()
	old := m.Revocations()
	if bytes.Equal(list, old.signed) {
		return nil, nil
	}
	r, err := m.parseRevocations(list)
	if err != nil {
		return nil, err
	}
	switch {
	case r.replaces(old):
		err = d.storeRevocationsLocked(r)
		d.revoked.Store(r)
	case old.replaces(r) || !m.Founder():
		return nil, nil
	default:
		err = m.reviseLocked(func(next *Revocations) { next.unite(old, r) })
	}
	for _, k := range m.Revocations().Keys {
		if !old.Has(k.ID) {
			news = append(news, k)
		}
	}
	return news, err
}

// unite makes next, the one after old, of two lists that contradict each other.
// Where two sites hold the CA key both come to the same bytes: the holder that
// the newer one names stays, or of two as new the one with the lower key.
func (r *Revocations) unite(old, other *Revocations) {
	r.Version = max(old.Version, other.Version) + 1
	r.Holder = old.Holder
	if other.Version > old.Version || other.Version == old.Version && bytes.Compare(other.Holder.ID[:], old.Holder.ID[:]) < 0 {
		r.Holder = other.Holder
	}
	for _, k := range other.Keys {
		r.add(k)
	}
}
