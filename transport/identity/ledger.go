// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"slices"
	"time"
)

const (
	// maxTokens bounds the invitations that are on the founder's list.
	maxTokens = 1024
	// maxIssued bounds the members of a network.
	maxIssued = 1024

	minTTL = time.Second
	maxTTL = 365 * 24 * time.Hour
)

// ledger is the founder's book: who is a member and who is invited. A token
// used up and the certificate for it are one write, since they are one file.
type ledger struct {
	Issued []issued  `json:"issued"`
	Tokens []invited `json:"tokens"`
}

// issued is one certificate. Names, keys and the keys' short names in relayed
// records are each unique in the list.
type issued struct {
	Site   string    `json:"site"`
	ID     ID        `json:"id"`
	Serial string    `json:"serial"` // hexadecimal
	When   time.Time `json:"when"`   // by the founder's clock, for people
	Cert   []byte    `json:"cert"`   // DER

	Was      []former `json:"was,omitempty"`      // keys that it had, good as yet
	Renewals int      `json:"renewals,omitempty"` // how often it has changed its key
}

// keys returns the keys of a site that are good, each under the name that goes with
// it.
func (c issued) keys() []Site {
	all := []Site{{c.ID, c.Site}}
	for _, w := range c.Was {
		all = append(all, w.site())
	}
	return all
}

// has reports whether a key is one of them.
func (c issued) has(id ID) bool {
	return slices.ContainsFunc(c.keys(), func(s Site) bool { return s.ID == id })
}

// named reports whether a name goes with one of them.
func (c issued) named(site string) bool {
	return slices.ContainsFunc(c.keys(), func(s Site) bool { return s.Name == site })
}

// invited is one token. It stays on the list when it was used, so that a
// joiner who has not got the reply may ask again with it.
type invited struct {
	ID     tokenID   `json:"id"`
	Secret []byte    `json:"secret"`
	Site   string    `json:"site,omitempty"` // the name it is for, "" any
	End    time.Time `json:"end"`
	UsedBy *ID       `json:"used_by,omitempty"`
}

func (t *invited) ended(now time.Time) bool { return now.After(t.End) }

// MarshalText and UnmarshalText make a tokenID readable in the file.
func (id tokenID) MarshalText() ([]byte, error) {
	return hex.AppendEncode(nil, id[:]), nil
}

func (id *tokenID) UnmarshalText(text []byte) error {
	if len(text) != hex.EncodedLen(len(id)) {
		return fmt.Errorf("token id of %d characters (want %d)", len(text), hex.EncodedLen(len(id)))
	}
	_, err := hex.Decode(id[:], text)
	return err
}

// Invite makes a token with which one site may join within ttl (1 s to 365
// days), as site or, when that is "", under a name of its choosing. addrs are
// where this site can be reached, best first; as many as fit are put into the
// token, the first one always. The token is stored before Invite returns. The
// error is ErrNotFounder (errors.Is) at a site that does not hold the CA key.
func (m *Member) Invite(site string, ttl time.Duration, addrs []string) (Token, error) {
	if !m.Founder() {
		return Token{}, m.notFounder()
	}
	if ttl < minTTL || ttl > maxTTL {
		return Token{}, fmt.Errorf("invite: ttl %v is out of range (want %v to %v)", ttl, minTTL, maxTTL)
	}
	if err := m.validGuest(site); err != nil {
		return Token{}, fmt.Errorf("invite: %w", err)
	}
	now := clock()
	// To the second, as it is in the token, and not to less than was asked.
	end := now.Add(ttl + time.Second - 1).Truncate(time.Second).UTC()
	t := Token{Network: m.Network, CA: m.caID, End: end, Site: site}
	rand.Read(t.id[:])
	rand.Read(t.secret[:])
	if err := t.setAddrs(addrs); err != nil {
		return Token{}, err
	}
	if err := m.updateBook(func(l *ledger) error { return l.invite(t, now) }); err != nil {
		return Token{}, err
	}
	return t, nil
}

// updateBook is update for what only the founder's book is concerned in. The error
// is ErrNotFounder (errors.Is) where there is none.
func (m *Member) updateBook(change func(*ledger) error) error {
	return m.dir.update(func(st *state) error {
		if st.Ledger == nil {
			return m.notFounder()
		}
		return change(st.Ledger)
	})
}

// readBookLocked returns what is stored, with a book. The error is ErrNotFounder
// (errors.Is) where there is none.
func (m *Member) readBookLocked() (*state, error) {
	st, err := m.dir.readStateLocked()
	if err == nil && st.Ledger == nil {
		return nil, m.notFounder()
	}
	return st, err
}

// validGuest checks the name that a token is to be for. A name that is taken is
// not refused: its holder may have to join again.
func (m *Member) validGuest(site string) error {
	if site == "" {
		return nil
	}
	if site == m.Site {
		return fmt.Errorf("site name %q is this site's own (pick another)", site)
	}
	return ValidSite(site)
}

func (l *ledger) invite(t Token, now time.Time) error {
	if len(l.Tokens) >= maxTokens {
		l.Tokens = slices.DeleteFunc(l.Tokens, func(t invited) bool { return t.UsedBy != nil || t.ended(now) })
	}
	if len(l.Tokens) >= maxTokens {
		return fmt.Errorf("invite: %d invitations are open (wait until some have been used or have ended)", maxTokens)
	}
	l.Tokens = append(l.Tokens, invited{ID: t.id, Secret: t.secret[:], Site: t.Site, End: t.End})
	return nil
}

func (l *ledger) token(id tokenID) *invited {
	i := slices.IndexFunc(l.Tokens, func(t invited) bool { return t.ID == id })
	if i < 0 {
		return nil
	}
	return &l.Tokens[i]
}

func (l *ledger) bySite(site string) int {
	return slices.IndexFunc(l.Issued, func(c issued) bool { return c.Site == site })
}

func (l *ledger) byKey(id ID) int {
	return slices.IndexFunc(l.Issued, func(c issued) bool { return c.ID == id })
}

// byAnySite finds the holder of a name, or of a key under it that is good as yet.
func (l *ledger) byAnySite(site string) int {
	return slices.IndexFunc(l.Issued, func(c issued) bool {
		return c.Site == site || slices.ContainsFunc(c.Was, func(w former) bool { return w.Site == site })
	})
}

// byAnyKey finds the holder of a key that is, or was, a site's.
func (l *ledger) byAnyKey(id ID) int {
	return slices.IndexFunc(l.Issued, func(c issued) bool { return c.has(id) })
}

func (l *ledger) byRelay(id ID) int {
	return slices.IndexFunc(l.Issued, func(c issued) bool { return c.ID.Relay() == id.Relay() })
}

// strike takes those out that were revoked: their names are free again.
func (l *ledger) strike(revoked func(ID) bool) {
	l.Issued = slices.DeleteFunc(l.Issued, func(c issued) bool { return revoked(c.ID) })
}

// room returns the certificate that the key id has under the name site, or nil when
// there is room for one. The error is a *Refusal when there is not.
func (l *ledger) room(site string, id ID) (had []byte, err error) {
	if i := l.byAnyKey(id); i >= 0 {
		if l.Issued[i].ID != id {
			return nil, ErrKeyTaken.because("this machine's key was that of site %q, which has another now (join with a new state directory)", l.Issued[i].Site)
		}
		if had := l.Issued[i].Site; had != site {
			return nil, ErrKeyTaken.because("this machine's key is site %q already (join with --site %s)", had, had)
		}
		return l.Issued[i].Cert, nil
	}
	if l.byAnySite(site) >= 0 {
		return nil, ErrSiteTaken.because("site name %q is in use by another key (pick another with --site)", site)
	}
	if l.byRelay(id) >= 0 {
		return nil, ErrKeyTaken.because("another key in the network begins like this machine's (join with a new state directory)")
	}
	if len(l.Issued) >= maxIssued {
		return nil, ErrUnavailable.because("the network has %d members and takes no more", maxIssued)
	}
	return nil, nil
}

// issue makes a membership certificate and enters it; whether it may be made
// is the caller's to know.
func (l *ledger) issue(ca *x509.Certificate, caKey crypto.Signer, network, site string, key crypto.PublicKey) ([]byte, error) {
	der, err := newLeaf(ca, caKey, network, site, key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	id, err := keyID(key)
	if err != nil {
		return nil, err
	}
	l.enter(site, id, cert)
	return der, nil
}

func (l *ledger) enter(site string, id ID, cert *x509.Certificate) {
	l.Issued = append(l.Issued, issued{
		Site:   site,
		ID:     id,
		Serial: cert.SerialNumber.Text(16),
		When:   clock().UTC().Truncate(time.Second),
		Cert:   cert.Raw,
	})
}

// check judges a book that comes from outside by the certificates in it.
func (l *ledger) check(ca *x509.Certificate, network string) error {
	if len(l.Issued) > maxIssued || len(l.Tokens) > maxTokens {
		return fmt.Errorf("%d members and %d invitations (want at most %d and %d)", len(l.Issued), len(l.Tokens), maxIssued, maxTokens)
	}
	for i := range l.Issued {
		e := &l.Issued[i]
		cert, err := x509.ParseCertificate(e.Cert)
		if err != nil {
			return fmt.Errorf("member %d: %w", i, err)
		}
		c, err := verifyLeaf(ca, cert)
		if err != nil {
			return fmt.Errorf("member %d: %w", i, err)
		}
		if (claim{network, e.Site, e.ID}) != c {
			return fmt.Errorf("member %d: certificate is that of site %q of network %s", i, c.site, c.network)
		}
		if len(e.Was) > maxFormer {
			return fmt.Errorf("member %d: %d former keys (want at most %d)", i, len(e.Was), maxFormer)
		}
		for _, w := range e.Was {
			if err := ValidSite(w.Site); err != nil {
				return fmt.Errorf("member %d: %w", i, err)
			}
		}
		if l.bySite(c.site) != i || l.byRelay(c.id) != i {
			return fmt.Errorf("member %d: site %q or its key is there twice", i, c.site)
		}
	}
	return nil
}
