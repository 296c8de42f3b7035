// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"time"
)

const (
	// RenewALPN is the protocol by which a member gets a certificate for another
	// key. Its number is the version of the request and the reply.
	RenewALPN = "l2bridge-renew/1"

	renewExporterLabel = "EXPORTER-l2bridge-renew/1" // RFC 8446, section 7.5
	renewProofLabel    = "l2bridge-renew/1 proof"

	// maxFormer bounds the keys of one site that are good until it is met with
	// its newest.
	maxFormer = 4

	// A site may change its key freeRenewals times as it likes, and then once each
	// renewEvery: former keys stay on the list of revoked ones for ever, of which
	// they may take no more than half.
	freeRenewals = 5
	renewEvery   = time.Hour
)

// former is a key that a site had. It is good until the site is met with its
// present one: the reply that brought that may have been lost.
type former struct {
	Site string `json:"site"`
	ID   ID     `json:"id"`
}

// RenewTLSConfig is TLSConfig for changing a key: protocol RenewALPN, for either
// end.
func (m *Member) RenewTLSConfig() *tls.Config { return m.TLSConfig(RenewALPN) }

// NewRenewRequest returns the request for a certificate of another key under the
// name site, for the connection cs whose handshake with RenewTLSConfig is
// complete. The key is made and stored by the first request, and the same until
// Renewed has stored a certificate for it: a reply may be lost.
func (m *Member) NewRenewRequest(site string, cs tls.ConnectionState) ([]byte, error) {
	if err := ValidSite(site); err != nil {
		return nil, err
	}
	m.dir.mu.Lock()
	key, err := m.dir.nextKeyLocked()
	m.dir.mu.Unlock()
	if err != nil {
		return nil, err
	}
	said, err := renewProof(site, cs)
	if err != nil {
		return nil, err
	}
	q := renewRequest{site: site, key: key.Public().(ed25519.PublicKey), proof: ed25519.Sign(key, said)}
	return q.append(nil), nil
}

// renewProof is what the new key signs: its possession is shown on the connection
// cs and on no other.
func renewProof(site string, cs tls.ConnectionState) ([]byte, error) {
	exporter, err := cs.ExportKeyingMaterial(renewExporterLabel, nil, exporterBytes)
	if err != nil {
		return nil, fmt.Errorf("tls exporter: %w", err)
	}
	return slices.Concat([]byte(renewProofLabel), exporter, []byte(site)), nil
}

// Renew judges a request for another key (borrowed) that came over the connection
// cs, whose handshake with RenewTLSConfig is complete. The reply and the error are
// as Enrol's. When err is nil the new certificate is on disk, in the place of the
// old one; the old key is good until Met is told of the new one.
func (m *Member) Renew(request []byte, cs tls.ConnectionState) (reply []byte, err error) {
	leaf, err := m.renew(request, cs)
	if err != nil {
		var refusal *Refusal
		if !errors.As(err, &refusal) {
			refusal = ErrUnavailable
		}
		return appendRefusal(nil, refusal), fmt.Errorf("renew: %w", err)
	}
	return joinReply{ca: m.CA.Raw, leaf: leaf}.append(nil), nil
}

func (m *Member) renew(request []byte, cs tls.ConnectionState) (leaf []byte, err error) {
	if !m.Founder() {
		return nil, m.notFounder()
	}
	q, err := parseRenewRequest(request)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	cert, err := shown(cs)
	if err != nil {
		return nil, err
	}
	said, err := renewProof(q.site, cs)
	if err != nil {
		return nil, err
	}
	if !ed25519.Verify(q.key, said, q.proof) {
		return nil, fmt.Errorf("%w: the new key has not signed it", ErrMalformed)
	}
	err = m.updateBook(func(l *ledger) error {
		leaf, err = m.replace(l, cert, q.site, q.key)
		return err
	})
	if err != nil {
		return nil, err
	}
	return leaf, nil
}

// replace decides on a member who shows cert and wants to be site with another
// key, and enters that in the ledger.
func (m *Member) replace(l *ledger, cert *x509.Certificate, site string, key crypto.PublicKey) ([]byte, error) {
	asks, err := readLeaf(cert)
	if err != nil {
		return nil, err
	}
	id, err := keyID(key)
	if err != nil {
		return nil, err
	}
	if m.Revoked(asks.id) || m.Revoked(id) {
		return nil, ErrKeyRevoked
	}
	if err := ValidSite(site); err != nil {
		return nil, ErrSiteRefused.because("%v", err)
	}
	l.Issued = slices.DeleteFunc(l.Issued, func(c issued) bool { return m.Revoked(c.ID) })
	i := l.byAnyKey(asks.id)
	if i < 0 {
		// The book was restored from a backup that is older than the member.
		if l.byAnySite(asks.site) >= 0 {
			return nil, ErrSiteTaken.because("site name %q is in use by another key (look at l2bridge peers)", asks.site)
		}
		if len(l.Issued) >= maxIssued {
			return nil, ErrUnavailable.because("the network has %d members and takes no more", maxIssued)
		}
		i = len(l.Issued)
		l.enter(asks.site, asks.id, cert)
	}
	e := &l.Issued[i]
	if e.ID == id {
		if e.Site != site {
			return nil, ErrKeyTaken.because("this machine's new key is site %q already (try again: it will be another)", e.Site)
		}
		return e.Cert, nil // the reply was lost
	}
	if l.byAnyKey(id) >= 0 || l.byRelay(id) >= 0 {
		return nil, ErrKeyTaken.because("another key in the network begins like this one (try again: it will be another)")
	}
	if j := l.byAnySite(site); j >= 0 && j != i {
		return nil, ErrSiteTaken.because("site name %q is in use by another key (pick another with --site)", site)
	}
	if err := m.mayRenew(e); err != nil {
		return nil, err
	}
	was := append(slices.Clone(e.Was), former{e.Site, e.ID})
	renewals := e.Renewals + 1
	leaf, err := l.issue(m.CA, m.caKey, m.Network, site, key)
	if err != nil {
		return nil, err
	}
	l.Issued[i] = l.Issued[len(l.Issued)-1]
	l.Issued = l.Issued[:len(l.Issued)-1]
	l.Issued[i].Was, l.Issued[i].Renewals = was, renewals
	return leaf, nil
}

// mayRenew says what is against one more key of a site.
func (m *Member) mayRenew(e *issued) error {
	if len(e.Was) >= maxFormer {
		return ErrUnavailable.because("site %q has asked for %d keys and was not met with one (see whether it stores them)", e.Site, maxFormer)
	}
	// A clock that was set back holds nobody up for longer than that.
	if since := clock().Sub(e.When); e.Renewals >= freeRenewals && since >= 0 && since < renewEvery {
		return ErrUnavailable.because("site %q has changed its key often (once more in %v)", e.Site, (renewEvery - since).Round(time.Minute))
	}
	if len(m.Revocations().Keys) >= MaxRevocations/2 {
		return ErrUnavailable.because("the list of revoked keys has no room for former ones any more")
	}
	return nil
}

// Renewed stores the membership that the founder's reply (borrowed) to
// NewRenewRequest for the name site gives, and returns it. A refusal is a *Refusal
// (errors.As). Nothing is stored unless the certificate is the network's CA's, for
// the new key and site. With an error there may be a Member all the same: that one
// is stored, and the next Load does the rest.
func (m *Member) Renewed(site string, reply []byte) (*Member, error) {
	d := m.dir
	d.mu.Lock()
	defer d.mu.Unlock()
	p, err := parseJoinReply(reply)
	if err != nil {
		if refusesKey(err) {
			d.forgetNextKeyLocked() // the next one will do
		}
		return nil, err
	}
	if err := p.check(m.caID, m.Network, site); err != nil {
		return nil, fmt.Errorf("reply: %w (ask at the founder what happened)", err)
	}
	st, err := d.readStateLocked()
	if err != nil {
		return nil, err
	}
	st.rename(m.Site, site)
	st.Leaf = bytes.Clone(p.leaf)
	renewed, err := d.saveLocked(st)
	if err != nil {
		return nil, err
	}
	return renewed, d.promoteLocked(renewed)
}

// rename notes the name that a site had, by which its config may know it.
func (st *state) rename(from, to string) {
	if from != to {
		st.Was = from
	}
}

// RenewOwn is what a founder does for itself: another key, under the name site,
// and its former one on the list of revoked ones. Of errors the same is true as
// with Renewed.
func (m *Member) RenewOwn(site string) (*Member, error) {
	if err := ValidSite(site); err != nil {
		return nil, err
	}
	if !m.Founder() {
		return nil, m.notFounder()
	}
	d := m.dir
	d.mu.Lock()
	defer d.mu.Unlock()
	st, err := m.readBookLocked()
	if err != nil {
		return nil, err
	}
	st.Leaf, err = m.replaceOwnLocked(st.Ledger, site)
	if refusesKey(err) { // one that it asked for as a member: the next one will do
		d.forgetNextKeyLocked()
		st.Leaf, err = m.replaceOwnLocked(st.Ledger, site)
	}
	if err != nil {
		return nil, err
	}
	st.rename(m.Site, site)
	renewed, err := d.saveLocked(st)
	if err != nil {
		return nil, err
	}
	if err := d.promoteLocked(renewed); err != nil {
		return renewed, err
	}
	return renewed, renewed.settleLocked(st)
}

// replaceOwnLocked decides on a founder's own wish to be site with another key.
func (m *Member) replaceOwnLocked(l *ledger, site string) ([]byte, error) {
	key, err := m.dir.nextKeyLocked()
	if err != nil {
		return nil, err
	}
	return m.replace(l, m.Leaf.Leaf, site, key.Public())
}

// refusesKey reports whether a refusal is one of the new key: another one may do.
func refusesKey(err error) bool {
	return errors.Is(err, ErrKeyTaken) || errors.Is(err, ErrKeyRevoked)
}

// settleLocked puts the former keys of a founder onto the list, which also says
// under what key and name it holds the CA key now. After a crash Load does it.
func (m *Member) settleLocked(st *state) error {
	if m.caKey == nil || st.Ledger == nil {
		return nil
	}
	i := st.Ledger.byKey(m.ID)
	if i < 0 || len(st.Ledger.Issued[i].Was) == 0 {
		return nil
	}
	e := &st.Ledger.Issued[i]
	if list := m.Revocations(); !list.Holds(Site{m.ID, m.Site}) &&
		!slices.ContainsFunc(e.Was, func(w former) bool { return list.Holds(Site{w.ID, w.Site}) }) {
		return nil // the CA key is elsewhere by now
	}
	was := e.Was
	err := m.reviseLocked(func(next *Revocations) {
		for _, w := range was {
			next.add(Revocation{w.site(), Rekeyed})
		}
	})
	if err != nil {
		return err
	}
	e.Was = nil
	return m.dir.writeStateLocked(st)
}

func (w former) site() Site { return Site{w.ID, w.Site} }

// Awaits reports whether Met is to be told of a member: it has a new key, or is not
// in the book at all. Nobody but the founder awaits anybody.
func (m *Member) Awaits(id ID) bool {
	book := m.dir.book.Load()
	if book == nil || !m.Founder() || m.Revoked(id) {
		return false
	}
	awaited, known := (*book)[id]
	return awaited || !known
}

// Met tells the founder that the member with the certificate der has been met,
// after Awaits has said so. The former keys of it are put out, and returned. One
// that is not in the book, which may have been restored from a backup, is entered
// if its name is free.
func (m *Member) Met(der []byte) ([]Revocation, error) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	c, err := verifyLeaf(m.CA, cert)
	if err != nil {
		return nil, err
	}
	if !m.Founder() {
		return nil, m.notFounder()
	}
	d := m.dir
	d.mu.Lock()
	defer d.mu.Unlock()
	st, err := d.readStateLocked()
	if err != nil {
		return nil, err
	}
	l := st.Ledger
	if l == nil || m.Revoked(c.id) {
		return nil, nil
	}
	i := l.byKey(c.id)
	if i < 0 {
		if l.byAnyKey(c.id) >= 0 {
			d.awaitLocked(c.id, false)
			return nil, nil // it has not taken its new key on
		}
		if l.byAnySite(c.site) >= 0 || l.byRelay(c.id) >= 0 || len(l.Issued) >= maxIssued {
			d.awaitLocked(c.id, false) // to say so once is enough
			return nil, fmt.Errorf("site %q with key %s is a member, and not in the book, where there is no place for it (revoke the one of that name that is not meant)", c.site, c.id.Short())
		}
		l.enter(c.site, c.id, cert)
		return nil, d.writeStateLocked(st)
	}
	if len(l.Issued[i].Was) == 0 {
		return nil, nil
	}
	// The list first: after a crash in between it is tried again, and says so already.
	var out []Revocation
	for _, w := range l.Issued[i].Was {
		out = append(out, Revocation{w.site(), Rekeyed})
	}
	news, err := m.strikeLocked(out)
	if err != nil {
		return nil, err
	}
	l.Issued[i].Was = nil
	return news, d.writeStateLocked(st)
}

// awaitLocked notes whether Met is to be told of a member.
func (d *Dir) awaitLocked(id ID, awaited bool) {
	if book := d.book.Load(); book != nil {
		next := maps.Clone(*book)
		next[id] = awaited
		d.book.Store(&next)
	}
}

// promoteLocked gives the new key, whose certificate is stored, its place. Until it
// can the key is found where it is.
func (d *Dir) promoteLocked(m *Member) error {
	own, err := d.readKeyLocked(siteKeyFile)
	if err != nil || own.Equal(m.Leaf.PrivateKey) {
		return err
	}
	err = d.files.rename(nextKeyFile, siteKeyFile)
	if err == nil {
		err = d.files.sync()
	}
	if err != nil {
		return fmt.Errorf("give %s its place: %w (free some space or make %s writable, and start again)", nextKeyFile, err, d.path)
	}
	return nil
}

// promoteStoredLocked does that for the membership as stored: what is in nextKeyFile
// then is a key that this site does not run with.
func (d *Dir) promoteStoredLocked() error {
	st, err := d.readStateLocked()
	if err != nil {
		return err
	}
	m, err := d.memberLocked(st)
	if err != nil {
		return err
	}
	return d.promoteLocked(m)
}

// nextKeyLocked returns the key to ask a certificate for, and makes it when there
// is none.
func (d *Dir) nextKeyLocked() (ed25519.PrivateKey, error) {
	if err := d.promoteStoredLocked(); err != nil {
		return nil, err
	}
	return d.keyLocked(nextKeyFile)
}

// forgetNextKeyLocked throws a new key away that the founder does not take.
func (d *Dir) forgetNextKeyLocked() {
	if d.promoteStoredLocked() == nil {
		_ = d.files.remove(nextKeyFile) // or else it is refused again
	}
}

// leafKeyLocked returns the key that leaf is for: this site's or, while that is
// being changed, its next.
func (d *Dir) leafKeyLocked(leaf *x509.Certificate) (ed25519.PrivateKey, error) {
	key, err := d.readKeyLocked(siteKeyFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w (restore it from a backup)", err)
	}
	if err != nil {
		return nil, err
	}
	if key.Public().(ed25519.PublicKey).Equal(leaf.PublicKey) {
		return key, nil
	}
	next, err := d.readKeyLocked(nextKeyFile)
	if err == nil && next.Public().(ed25519.PublicKey).Equal(leaf.PublicKey) {
		return next, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return nil, fmt.Errorf("certificate of this site is for another key than %s (put the two that belong together there)", siteKeyFile)
}
