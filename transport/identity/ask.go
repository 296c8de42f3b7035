// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"crypto"
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"fmt"
)

// AskALPN is the protocol by which a site without a token asks to be let in. Its
// number is the version of the request and the answers.
const AskALPN = "l2bridge-ask/1"

// AskTLSConfig returns the asker's end: as JoinTLSConfig, but any network's
// member may be at the other end, or, if ca is not nil, one of the network whose
// CA has that key. Nothing is known of whoever it is until a person has compared
// the phrases; see HostOf.
func AskTLSConfig(key crypto.Signer, site string, ca *ID) *tls.Config {
	cfg := JoinTLSConfig(key, site, ID{})
	cfg.NextProtos = []string{AskALPN}
	cfg.VerifyConnection = func(cs tls.ConnectionState) error {
		if err := checkProtocol(cs, cfg.NextProtos); err != nil {
			return err
		}
		shown, err := verifyShown(cs.PeerCertificates)
		if err == nil && ca != nil && shown != *ca {
			err = fmt.Errorf("%w: it is of another network than the one that was asked first (is another machine at that address, or in between?)", ErrNotMember)
		}
		return err
	}
	return cfg
}

// Host is the member that a site has asked, as its certificates say.
type Host struct {
	CA      ID     // the key of its network's CA
	Network string // its network's name
	Site    string // its own
}

// HostOf returns who is at the other end of a connection made with a config of
// AskTLSConfig, once its handshake is complete.
func HostOf(cs tls.ConnectionState) (Host, error) {
	leaf, err := shown(cs)
	if err != nil {
		return Host{}, err
	}
	c, err := readLeaf(leaf)
	if err != nil {
		return Host{}, err
	}
	ca, err := verifyShown(cs.PeerCertificates)
	return Host{CA: ca, Network: c.network, Site: c.site}, err
}

// CAID returns the key of the network's CA.
func (m *Member) CAID() ID { return m.caID }

// MayEnrol returns nil at the site that holds the CA key, and else ErrNotFounder
// (errors.Is) with where to go instead.
func (m *Member) MayEnrol() error {
	if m.Founder() {
		return nil
	}
	return m.notFounder()
}

// AskedTLSConfig returns the other end, of a member that is asked: as
// EnrolTLSConfig.
func (m *Member) AskedTLSConfig() *tls.Config {
	cfg := m.EnrolTLSConfig()
	cfg.NextProtos = []string{AskALPN}
	return cfg
}

// Asker is who asks to be let in: a key that it has shown to hold, and the name
// that it would have.
type Asker struct {
	Site string
	ID   ID
	key  ed25519.PublicKey
}

// ReadAsk returns who asks with a request (borrowed) that came over the connection
// cs, whose handshake with AskedTLSConfig is complete. An error that the asker is
// to hear of is a *Refusal.
func ReadAsk(request []byte, cs tls.ConnectionState) (Asker, error) {
	site, err := parseAsk(request)
	if err != nil {
		return Asker{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if err := ValidSite(site); err != nil {
		return Asker{}, ErrSiteRefused.because("%v", err)
	}
	cert, err := shown(cs)
	if err != nil {
		return Asker{}, err
	}
	key, ok := cert.PublicKey.(ed25519.PublicKey)
	if !ok {
		return Asker{}, errors.New("asker's key is not an Ed25519 key")
	}
	id, err := keyID(key)
	return Asker{Site: site, ID: id, key: key}, err
}

// Consider says what the founder's book has on an asker: the certificate that it
// has already, nil if a person is to decide, or else an error. One that the asker
// is to hear of is a *Refusal; it is ErrNotFounder (errors.Is) at a site without
// the CA key.
func (m *Member) Consider(a Asker) (leaf []byte, err error) {
	m.dir.mu.Lock()
	defer m.dir.mu.Unlock()
	st, err := m.dir.readStateLocked()
	if err != nil {
		return nil, err
	}
	return m.consider(st, a)
}

func (m *Member) consider(st *state, a Asker) (leaf []byte, err error) {
	switch {
	case !m.Founder() || st.Ledger == nil:
		return nil, m.notFounder()
	case m.Revoked(a.ID):
		return nil, ErrKeyRevoked
	}
	st.Ledger.strike(m.Revoked)
	return st.Ledger.room(a.Site, a.ID)
}

// Approve makes an asker a member, as a person has decided, and returns its
// certificate once that is on disk; of a member the one that it has. Errors are
// as those of Consider.
func (m *Member) Approve(a Asker) (leaf []byte, err error) {
	err = m.dir.update(func(st *state) error {
		if leaf, err = m.consider(st, a); err != nil || leaf != nil {
			return err
		}
		leaf, err = st.Ledger.issue(m.CA, m.caKey, m.Network, a.Site, a.key)
		return err
	})
	if err != nil {
		return nil, err
	}
	return leaf, nil
}

// Accept stores the membership that host, which was asked to let this site in as
// site, has answered with, and returns it with the addresses, host:port, of
// members to dial. Nothing is stored unless the certificates are those of host's
// network, this site's key and site.
func (d *Dir) Accept(host Host, site string, a Answer) (*Member, []string, error) {
	p := joinReply{ca: a.CA, leaf: a.Leaf, addrs: a.Addrs}
	if err := p.check(host.CA, host.Network, site); err != nil {
		return nil, nil, fmt.Errorf("answer: %w (ask at site %q what happened)", err, host.Site)
	}
	m, err := d.SaveMembership(p.ca, p.leaf)
	if err != nil {
		return nil, nil, err
	}
	return m, p.addrs, nil
}
