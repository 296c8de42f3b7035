// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"crypto"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"slices"
)

var (
	// ErrNotMember says that the machine at the other end of a handshake did
	// not show itself to be a member of this network.
	ErrNotMember = errors.New("not a member of this network")
	// ErrRevoked says that the machine at the other end of a handshake was a
	// member once and has been put out.
	ErrRevoked = errors.New("membership is revoked")
	// ErrOutOfDate says that a certificate is right in all but its dates, by the
	// clock of this machine. Only one of an operator's own CA has such.
	ErrOutOfDate = errors.New("certificate is out of date")
	// ErrNotFounder says that only the site which holds the CA key can do
	// what was asked.
	ErrNotFounder = errors.New("this site does not hold the network's CA key")
)

// Member is this site's membership of a network. Its exported fields are read
// only.
type Member struct {
	Site    string // this site's name
	Was     string // its former name; "" when it has always had this one
	ID      ID     // this site's key
	Network string // the network's name
	CA      *x509.Certificate
	Leaf    tls.Certificate // this site's certificate (without CA's) and key; by Files, the ones at the start

	own   *own // nil unless a CA of the operator's own certifies members
	caID  ID
	caKey crypto.Signer // nil but at the founder
	dir   *Dir
}

// memberLocked makes a Member of what is stored or about to be. It trusts
// none of it.
func (d *Dir) memberLocked(st *state) (*Member, error) {
	ca, err := x509.ParseCertificate(st.CA)
	if err != nil {
		return nil, fmt.Errorf("certificate of the network: %w", err)
	}
	leaf, err := x509.ParseCertificate(st.Leaf)
	if err != nil {
		return nil, fmt.Errorf("certificate of this site: %w", err)
	}
	if err := verifyCA(ca); err != nil {
		return nil, err
	}
	c, err := verifyLeaf(ca, leaf)
	if err != nil {
		return nil, fmt.Errorf("certificate of this site: %w", err)
	}
	key, err := d.leafKeyLocked(leaf)
	if err != nil {
		return nil, err
	}
	caID, err := keyID(ca.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("certificate of the network: %w", err)
	}
	m := &Member{
		Site:    c.site,
		Was:     st.Was,
		ID:      c.id,
		Network: c.network,
		CA:      ca,
		Leaf:    tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf},
		caID:    caID,
		dir:     d,
	}
	if err := d.loadRevocationsLocked(m); err != nil {
		return nil, err
	}
	d.noteLocked(st)
	if st.Ledger == nil {
		return m, nil
	}
	caKey, err := d.readKeyLocked(caKeyFile)
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil // kept elsewhere: a member all the same
	}
	if err != nil {
		return nil, err
	}
	if !caKey.Public().(ed25519.PublicKey).Equal(ca.PublicKey) {
		return nil, fmt.Errorf("%s is not the key of this network's CA (restore it from a backup)", caKeyFile)
	}
	m.caKey = caKey
	return m, nil
}

// Founder reports whether this site holds the CA key, and so can invite, enrol
// and revoke others. One from which the key was moved to another site does not,
// though it may have it still.
func (m *Member) Founder() bool {
	r := m.dir.revoked.Load()
	return m.caKey != nil && (r == nil || r.Holds(Site{m.ID, m.Site}))
}

// FounderSite returns the name of the site that holds the CA key: as the list of
// revoked keys has it, else as the CA certificate has it, which names the site
// that founded the network; or "" when that does not say. It is a hint for people.
func (m *Member) FounderSite() string { return m.Revocations().Holder.Name }

func (m *Member) namedFounder() string {
	if m.External() {
		return ""
	}
	for _, site := range m.CA.Subject.OrganizationalUnit {
		if ValidSite(site) == nil {
			return site
		}
	}
	return ""
}

// notFounder returns ErrNotFounder with where to go instead.
func (m *Member) notFounder() error {
	if m.External() {
		return fmt.Errorf("%w: its CA is not l2bridge's (ca_file); do it with the tools of that CA", ErrNotFounder)
	}
	switch site := m.FounderSite(); site {
	case "":
		return fmt.Errorf("%w (do it at the site that founded it)", ErrNotFounder)
	case m.Site:
		return fmt.Errorf("%w any more (bring it back with l2bridge ca import, or put %s back into %s and start again)", ErrNotFounder, caKeyFile, m.dir.path)
	default:
		return fmt.Errorf("%w (do it at site %q)", ErrNotFounder, site)
	}
}

// TLSConfig returns a config of its own for a connection between members, for
// either end: TLS 1.3 only, both ends show a certificate and are checked to be
// members of this network and not revoked, one of the protocols alpn must have
// been agreed, nothing is resumed, and the clock is not looked at. Errors of
// the check are ErrNotMember and ErrRevoked (errors.Is).
func (m *Member) TLSConfig(alpn ...string) *tls.Config {
	cfg := baseConfig(alpn...)
	cfg.Certificates = []tls.Certificate{m.Leaf}
	if m.External() { // it is renewed
		cfg.Certificates = nil
		cfg.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return m.leaf(), nil }
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return m.leaf(), nil }
	}
	cfg.VerifyConnection = func(cs tls.ConnectionState) error {
		if err := checkProtocol(cs, alpn); err != nil {
			return err
		}
		return m.verifyPeer(cs.PeerCertificates)
	}
	return cfg
}

// verifyPeer judges what the other end has shown. TLS has already seen that it
// holds the key.
func (m *Member) verifyPeer(chain []*x509.Certificate) error {
	if len(chain) == 0 {
		return fmt.Errorf("%w: no certificate", ErrNotMember)
	}
	c, err := m.certified(chain)
	switch {
	case errors.Is(err, ErrRevoked):
		return err
	case err != nil:
		return fmt.Errorf("%w: %w", ErrNotMember, err)
	}
	if c.network != m.Network {
		return fmt.Errorf("%w: certificate is for network %q", ErrNotMember, c.network)
	}
	if m.Revoked(c.id) {
		return fmt.Errorf("site %q, key %s: %w", c.site, c.id.Short(), ErrRevoked)
	}
	return nil
}

// certified checks that the CA has certified what the other end has shown.
func (m *Member) certified(chain []*x509.Certificate) (claim, error) {
	if m.own == nil {
		return verifyLeaf(m.CA, chain[0])
	}
	return m.own.now.Load().judge(chain, clock())
}

// leaf returns this site's certificate and key as they are at present.
func (m *Member) leaf() *tls.Certificate {
	if m.own == nil {
		return &m.Leaf
	}
	return &m.own.now.Load().leaf
}

// Certificate returns this site's certificate as it is at present, in DER.
func (m *Member) Certificate() []byte { return m.leaf().Certificate[0] }

// Rejudge returns an error, ErrNotMember or ErrRevoked (errors.Is), when what the
// other end of a connection showed at its handshake would be refused now.
func (m *Member) Rejudge(cs tls.ConnectionState) error { return m.verifyPeer(cs.PeerCertificates) }

// Judge returns whose membership certificate, in DER, another member has told of,
// and the key that is certified. Errors are ErrNotMember, which may be ErrOutOfDate
// as well, and ErrRevoked (errors.Is).
func (m *Member) Judge(der []byte) (site string, id ID, key crypto.PublicKey, err error) {
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return "", ID{}, nil, fmt.Errorf("%w: %w", ErrNotMember, err)
	}
	if err := m.verifyPeer([]*x509.Certificate{leaf}); err != nil {
		return "", ID{}, nil, err
	}
	c, err := readLeaf(leaf)
	if err != nil {
		return "", ID{}, nil, err
	}
	if err := checkKey(leaf.PublicKey); err != nil {
		return "", ID{}, nil, fmt.Errorf("%w: %w", ErrNotMember, err)
	}
	return c.site, c.id, leaf.PublicKey, nil
}

// Peer returns who is at the other end of a connection made with a config of
// Member.TLSConfig, once its handshake is complete. It reads the certificate;
// the config has judged it.
func Peer(cs tls.ConnectionState) (site string, id ID, err error) {
	leaf, err := shown(cs)
	if err != nil {
		return "", ID{}, err
	}
	c, err := readLeaf(leaf)
	if err != nil {
		return "", ID{}, err
	}
	return c.site, c.id, nil
}

// shown returns the certificate of the other end.
func shown(cs tls.ConnectionState) (*x509.Certificate, error) {
	if !cs.HandshakeComplete {
		return nil, errors.New("handshake is not complete")
	}
	if len(cs.PeerCertificates) == 0 {
		return nil, errors.New("the other end has shown no certificate")
	}
	return cs.PeerCertificates[0], nil
}

// baseConfig is what every connection has in common. InsecureSkipVerify turns
// off the check of host names, which members do not have; every user sets
// VerifyConnection, which does all the checking on both sides.
func baseConfig(alpn ...string) *tls.Config {
	return &tls.Config{
		NextProtos: alpn,
		MinVersion: tls.VersionTLS13,
		// Post-quantum first. The second is for a peer built without it;
		// which was agreed is in tls.ConnectionState.CurveID.
		CurvePreferences:       []tls.CurveID{tls.X25519MLKEM768, tls.X25519},
		ClientAuth:             tls.RequireAnyClientCert,
		InsecureSkipVerify:     true,
		SessionTicketsDisabled: true, // each connection is judged anew
		Time:                   fixedTime,
	}
}

// checkProtocol refuses a peer that has no ALPN at all, with which crypto/tls
// would go on.
func checkProtocol(cs tls.ConnectionState, alpn []string) error {
	if len(alpn) > 0 && !slices.Contains(alpn, cs.NegotiatedProtocol) {
		return fmt.Errorf("protocol %q agreed (want %q)", Clean(cs.NegotiatedProtocol), alpn)
	}
	return nil
}
