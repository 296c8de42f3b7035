// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
)

// authority is what makes a site the founder, as it is exported: the CA's key,
// and the book without which names would be given out twice. It is a secret.
type authority struct {
	Schema  int             `json:"schema"`
	Network string          `json:"network"`
	Site    string          `json:"site"` // whose it was
	Key     []byte          `json:"key"`  // the CA's, PKCS #8 in DER
	CA      []byte          `json:"ca"`   // certificate in DER
	Ledger  *ledger         `json:"ledger"`
	Revoked []byte          `json:"revoked,omitempty"` // the list of revoked keys, as signed
	Others  json.RawMessage `json:"others,omitempty"`  // see Export

	lost []Revocation // keys in whose place an importing machine is
}

const (
	// authoritySchema goes up when an older program would misread what is exported.
	authoritySchema = 1

	// MaxAuthority is the longest exported authority, in bytes.
	MaxAuthority = 2*MaxFile + 1<<20
)

// Export is a founder's authority over its network, to be kept in a safe place
// or given to another member.
type Export struct {
	Network string
	Data    []byte // a secret

	// Sum names what was read: DropAuthority takes no more away than that.
	Sum [sha256.Size]byte
}

// ReadAuthority reads the authority over its network out of the state directory
// path, which may be in use: what it reads changes by renames alone. others is
// the name of one of the other files there, to go with it if there is one. The
// error is ErrNotFounder (errors.Is) at a site that does not hold the CA key.
func ReadAuthority(path, others string) (Export, error) {
	if err := checkOther(others); err != nil {
		return Export{}, err
	}
	disk, err := peekDisk(path)
	if err != nil {
		return Export{}, err
	}
	defer disk.dir.Close()
	return (&Dir{path: disk.path, files: disk}).export(others)
}

func (d *Dir) export(others string) (Export, error) {
	st, err := d.readStateLocked()
	if err != nil {
		return Export{}, err
	}
	m, err := d.memberLocked(st)
	if err != nil {
		return Export{}, err
	}
	if !m.Founder() {
		return Export{}, m.notFounder()
	}
	a := authority{Schema: authoritySchema, Network: m.Network, Site: m.Site, CA: st.CA, Ledger: st.Ledger, Revoked: m.Revocations().Bytes()}
	if a.Key, err = x509.MarshalPKCS8PrivateKey(m.caKey); err != nil {
		return Export{}, err
	}
	switch file, err := d.files.read(others); {
	case err == nil && json.Valid(file):
		a.Others = file
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return Export{}, err
	}
	e := Export{Network: m.Network}
	if e.Data, err = json.Marshal(a); err != nil {
		return Export{}, err
	}
	e.Sum, err = m.authoritySumLocked(st)
	return e, err
}

// authoritySumLocked is known to nobody who cannot read the CA key.
func (m *Member) authoritySumLocked(st *state) (sum [sha256.Size]byte, err error) {
	key, err := m.dir.readKeyLocked(caKeyFile)
	if err != nil {
		return sum, err
	}
	book, err := json.Marshal(st)
	if err != nil {
		return sum, err
	}
	return sha256.Sum256(slices.Concat(key.Seed(), book, m.Revocations().Bytes())), nil
}

// DropAuthority takes the CA key away from this site, which stays a member. sum
// is that of an Export: nothing is taken away when there is more by now than
// was exported.
func (d *Dir) DropAuthority(sum [sha256.Size]byte) (*Member, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	st, err := d.readStateLocked()
	if err != nil {
		return nil, err
	}
	m, err := d.memberLocked(st)
	if err != nil {
		return nil, err
	}
	if !m.Founder() {
		return nil, m.notFounder()
	}
	if now, err := m.authoritySumLocked(st); err != nil {
		return nil, err
	} else if now != sum {
		return nil, errors.New("a site has joined, or was invited or put out, since the CA key was exported: nothing is taken away here (export it again)")
	}
	// The secret first: if the power goes now, the site is no founder, and what
	// is left of the book does no harm.
	err = d.files.remove(caKeyFile)
	if err == nil {
		err = d.files.sync()
	}
	if err != nil {
		return nil, fmt.Errorf("take %s away: %w (free some space or make %s writable, then try again)", caKeyFile, err, d.path)
	}
	st.Ledger = nil
	return d.saveLocked(st)
}

// AdoptAuthority makes this site the holder of the CA key that data, as in
// Export.Data, brings. A member's network must be that of the key. A site that is
// a member of none becomes one under the name site or, when that is "", under
// the name of the one that the key was exported from, in whose place it then is.
// others is what came with it. It changes nothing and returns ErrExists
// (errors.Is) where the CA key is already.
func (d *Dir) AdoptAuthority(data []byte, site string) (m *Member, others []byte, err error) {
	a, ca, key, err := parseAuthority(data)
	if err != nil {
		return nil, nil, fmt.Errorf("exported CA key: %w", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	st, err := d.readStateLocked()
	switch {
	case err == nil:
		err = d.succeedLocked(st, a, site)
	case errors.Is(err, ErrNotEnrolled):
		st, err = d.refoundLocked(a, ca, key, site)
	}
	if err != nil {
		return nil, nil, err
	}
	if err := d.replaceLocked(caKeyFile, encodeKey(a.Key)); err != nil {
		return nil, nil, err
	}
	if m, err = d.memberLocked(st); err != nil {
		return nil, nil, err
	}
	// The last write makes the founder: what came before it is done again after a
	// crash, what came after it never would be. That is the book, which a key is
	// worth nothing without; but where the list says that another site holds the
	// key, it is the list.
	writes := []func() error{
		func() error { return m.takeOverLocked(a) },
		func() error { return d.writeStateLocked(st) },
	}
	if !m.Founder() {
		slices.Reverse(writes)
	}
	for _, write := range writes {
		if err := write(); err != nil {
			return nil, nil, err
		}
	}
	return m, a.Others, nil
}

// takeOverLocked makes the list of revoked keys say that this site holds the CA
// key. A site whose name it has taken over on a machine of its own is lost, and so
// is its key.
func (m *Member) takeOverLocked(a *authority) error {
	return m.reviseLocked(func(next *Revocations) {
		if len(a.Revoked) > 0 {
			// parseAuthority has read it before.
			if old, err := m.parseRevocations(a.Revoked); err == nil {
				next.Version = max(next.Version, old.Version+1)
				for _, k := range old.Keys {
					next.add(k)
				}
			}
		}
		for _, k := range a.lost {
			next.add(k)
		}
	})
}

// succeedLocked makes a member, st, the holder of a.
func (d *Dir) succeedLocked(st *state, a *authority, site string) error {
	m, err := d.memberLocked(st)
	switch {
	case err != nil:
		return err
	case m.Network != a.Network || !bytes.Equal(st.CA, a.CA):
		return fmt.Errorf("the CA key is that of network %s, and this site is a member of %s (import it at a site of its own network)", a.Network, m.Network)
	case site != "" && site != m.Site:
		return fmt.Errorf("this site is a member under the name %q (leave the name out)", m.Site)
	case m.Founder():
		return fmt.Errorf("%w: site %q holds the CA key of network %s as it is", ErrExists, m.Site, m.Network)
	}
	st.Ledger = a.Ledger
	// The export may be older than this site's certificate, or name a newer one, the
	// reply with which was lost.
	if st.Ledger.byKey(m.ID) < 0 {
		a.vacate(m.Site, m.ID)
		st.Ledger.enter(m.Site, m.ID, m.Leaf.Leaf)
	}
	return nil
}

// refoundLocked returns the state of a machine that has nothing but a.
func (d *Dir) refoundLocked(a *authority, ca *x509.Certificate, caKey ed25519.PrivateKey, site string) (*state, error) {
	if site == "" {
		site = a.Site
	}
	if err := ValidSite(site); err != nil {
		return nil, err
	}
	key, err := d.keyLocked(siteKeyFile)
	if err != nil {
		return nil, err
	}
	l := a.Ledger
	if site != a.Site && l.bySite(site) >= 0 {
		return nil, fmt.Errorf("site name %q is in use in network %s (pick another, or %q, whose place this site then takes)", site, a.Network, a.Site)
	}
	own, err := keyID(key.Public())
	if err != nil {
		return nil, err
	}
	a.vacate(site, own)
	leaf, err := l.issue(ca, caKey, a.Network, site, key.Public())
	if err != nil {
		return nil, err
	}
	return &state{CA: a.CA, Leaf: leaf, Ledger: l}, nil
}

// vacate makes room for an importing machine: what has its name has another key
// now, and what has its key, own, is that machine.
func (a *authority) vacate(site string, own ID) {
	a.Ledger.Issued = slices.DeleteFunc(a.Ledger.Issued, func(c issued) bool {
		why := Revoked
		if c.has(own) {
			why = Rekeyed
		} else if c.Site != site {
			return false
		}
		for _, s := range c.keys() {
			if s.ID != own { // a list never lets go of a key
				a.lost = append(a.lost, Revocation{s, why})
			}
		}
		return true
	})
}

// parseAuthority trusts nothing of data, which may be anybody's file.
func parseAuthority(data []byte) (*authority, *x509.Certificate, ed25519.PrivateKey, error) {
	fail := func(err error) (*authority, *x509.Certificate, ed25519.PrivateKey, error) {
		return nil, nil, nil, err
	}
	if len(data) > MaxAuthority {
		return fail(fmt.Errorf("more than %d bytes", MaxAuthority))
	}
	var head struct {
		Schema int `json:"schema"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return fail(err)
	}
	if head.Schema != authoritySchema {
		return fail(fmt.Errorf("schema %d is not the %d that this version knows", head.Schema, authoritySchema))
	}
	a := new(authority)
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(a); err != nil {
		return fail(err)
	}
	key, err := parsePKCS8(a.Key)
	if err != nil {
		return fail(err)
	}
	ca, err := x509.ParseCertificate(a.CA)
	if err != nil {
		return fail(fmt.Errorf("certificate of the network: %w", err))
	}
	if err := verifyCA(ca); err != nil {
		return fail(err)
	}
	if !key.Public().(ed25519.PublicKey).Equal(ca.PublicKey) {
		return fail(errors.New("the key is not that of the network's certificate"))
	}
	if err := validLabel("network name", a.Network); err != nil {
		return fail(err)
	}
	if err := ValidSite(a.Site); err != nil {
		return fail(err)
	}
	if a.Ledger == nil {
		return fail(errors.New("the list of members is missing"))
	}
	if err := a.Ledger.check(ca, a.Network); err != nil {
		return fail(err)
	}
	if len(a.Revoked) > 0 {
		if _, err := parseRevocations(a.Revoked, key.Public().(ed25519.PublicKey), a.Network); err != nil {
			return fail(err)
		}
	}
	return a, ca, key, nil
}

// ReadMember returns who the site of a state directory is, without its lock, so that
// it can be asked while a daemon runs. The error is ErrNotEnrolled where there is none.
func ReadMember(path string) (*Member, error) {
	disk, err := peekDisk(path)
	if err != nil {
		return nil, err
	}
	defer disk.dir.Close()
	d := &Dir{path: disk.path, files: disk}
	st, err := d.readStateLocked()
	if err != nil {
		return nil, err
	}
	return d.memberLocked(st)
}

// peekDisk opens the directory path to be read, without its lock.
func peekDisk(path string) (*disk, error) {
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("state directory %s: %w", path, ErrNotEnrolled)
	}
	return openUnlocked(path)
}
