// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"crypto"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

const (
	// JoinALPN is the protocol by which a site becomes a member. Its number
	// is the version of the request and the reply.
	JoinALPN = "l2bridge-join/1"

	exporterLabel = "EXPORTER-l2bridge-join/1" // RFC 8446, section 7.5
	exporterBytes = 32
	proofLabel    = "l2bridge-join/1 proof"
)

// JoinTLSConfig returns the joiner's end of an enrolment: TLS 1.3, protocol
// JoinALPN, a certificate that shows the site key and is signed with it. It
// accepts only a server that is a member of the network whose CA key is caHash
// and that shows the CA's certificate; else the error is ErrNotMember
// (errors.Is). site is only there for the founder's log to name.
func JoinTLSConfig(key crypto.Signer, site string, caHash [32]byte) *tls.Config {
	cfg := baseConfig(JoinALPN)
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		der, err := newSelfSigned(key, site)
		if err != nil {
			return nil, fmt.Errorf("certificate of the site key: %w", err)
		}
		return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
	}
	cfg.VerifyConnection = func(cs tls.ConnectionState) error {
		if err := checkProtocol(cs, cfg.NextProtos); err != nil {
			return err
		}
		return verifyFounder(cs.PeerCertificates, caHash)
	}
	return cfg
}

// verifyFounder checks that chain is a member's certificate and that of its
// CA, whose key is caHash. Any member may stand there: only the founder can
// sign, and a proof made for one connection is no good on another.
func verifyFounder(chain []*x509.Certificate, caHash ID) error {
	ca, err := verifyShown(chain)
	if err != nil {
		return err
	}
	if ca != caHash {
		return fmt.Errorf("%w: it is not of the network that the token is for (is another machine at that address?)", ErrNotMember)
	}
	return nil
}

// verifyShown checks that chain is a member's certificate and that of its CA, of
// whatever network, and returns the key of that.
func verifyShown(chain []*x509.Certificate) (ID, error) {
	if len(chain) != 2 {
		return ID{}, fmt.Errorf("%w: %d certificates (want a member's and its CA's)", ErrNotMember, len(chain))
	}
	leaf, ca := chain[0], chain[1]
	if err := verifyCA(ca); err != nil {
		return ID{}, fmt.Errorf("%w: %w", ErrNotMember, err)
	}
	if _, err := verifyLeaf(ca, leaf); err != nil {
		return ID{}, fmt.Errorf("%w: %w", ErrNotMember, err)
	}
	return keyID(ca.PublicKey)
}

// NewJoinRequest returns the request to join as site with the token t, for the
// connection cs whose handshake with JoinTLSConfig is complete. It is an error
// if site is not the one the token is for, or the server's network not the
// token's.
func NewJoinRequest(t Token, site string, cs tls.ConnectionState) ([]byte, error) {
	if err := ValidSite(site); err != nil {
		return nil, err
	}
	if t.Site != "" && site != t.Site {
		return nil, fmt.Errorf("site name %q: the token is for site %q (join with --site %s)", site, t.Site, t.Site)
	}
	leaf, err := shown(cs)
	if err != nil {
		return nil, err
	}
	c, err := readLeaf(leaf)
	if err != nil {
		return nil, err
	}
	if c.network != t.Network {
		return nil, fmt.Errorf("%w: the token is for network %q, the server of %q (ask for a new token)", ErrNotMember, t.Network, c.network)
	}
	proof, err := joinProof(t.secret[:], site, cs)
	if err != nil {
		return nil, err
	}
	return joinRequest{token: t.id, proof: proof, site: site}.append(nil), nil
}

// joinProof shows possession of the secret on the connection cs and on no
// other: the exporter's value is known to its two ends alone.
func joinProof(secret []byte, site string, cs tls.ConnectionState) (proof [sha256.Size]byte, err error) {
	exporter, err := cs.ExportKeyingMaterial(exporterLabel, nil, exporterBytes)
	if err != nil {
		return proof, fmt.Errorf("tls exporter: %w", err)
	}
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(proofLabel))
	mac.Write(exporter)
	mac.Write([]byte(site))
	mac.Sum(proof[:0])
	return proof, nil
}

// EnrolTLSConfig returns the founder's end of an enrolment: TLS 1.3, protocol
// JoinALPN. It shows this member's certificate and the CA's, and accepts any
// client with one self-signed certificate for an Ed25519 key; who that is, is
// judged by Enrol.
func (m *Member) EnrolTLSConfig() *tls.Config {
	cfg := baseConfig(JoinALPN)
	own := m.Leaf
	own.Certificate = [][]byte{m.Leaf.Certificate[0], m.CA.Raw}
	cfg.Certificates = []tls.Certificate{own}
	cfg.VerifyConnection = func(cs tls.ConnectionState) error {
		if err := checkProtocol(cs, cfg.NextProtos); err != nil {
			return err
		}
		if len(cs.PeerCertificates) != 1 {
			return fmt.Errorf("joiner shows %d certificates (want one, self-signed)", len(cs.PeerCertificates))
		}
		cert := cs.PeerCertificates[0]
		if _, ok := cert.PublicKey.(ed25519.PublicKey); !ok {
			return errors.New("joiner's key is not an Ed25519 key")
		}
		if err := cert.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature); err != nil {
			return fmt.Errorf("joiner's certificate is not self-signed: %w", err)
		}
		return nil
	}
	return cfg
}

// Enrol judges a join request (borrowed) that came over the connection cs,
// whose handshake with EnrolTLSConfig is complete. members are the addresses,
// host:port, that the joiner is told of; at most 16 valid ones are.
//
// The reply is to be sent whatever the error: it says to the joiner what the
// error, if it is a *Refusal, says here. Any other error is this site's own
// trouble, which the joiner hears of as ErrUnavailable. When err is nil, the
// joiner is a member, and that is on disk, as is that the token is used. The
// same key is given the same certificate again for the same name.
func (m *Member) Enrol(request []byte, cs tls.ConnectionState, members []string) (reply []byte, err error) {
	leaf, err := m.admit(request, cs)
	if err != nil {
		var refusal *Refusal
		if !errors.As(err, &refusal) {
			refusal = ErrUnavailable
		}
		return appendRefusal(nil, refusal), fmt.Errorf("enrol: %w", err)
	}
	return joinReply{ca: m.CA.Raw, leaf: leaf, addrs: members}.append(nil), nil
}

// admit returns the joiner's certificate once it is on disk.
func (m *Member) admit(request []byte, cs tls.ConnectionState) (leaf []byte, err error) {
	if !m.Founder() {
		return nil, m.notFounder()
	}
	q, err := parseJoinRequest(request)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	cert, err := shown(cs)
	if err != nil {
		return nil, err
	}
	err = m.updateBook(func(l *ledger) error {
		t := l.token(q.token)
		if t == nil {
			return ErrTokenUnknown
		}
		want, err := joinProof(t.Secret, q.site, cs)
		if err != nil {
			return err
		}
		if !hmac.Equal(want[:], q.proof[:]) {
			return fmt.Errorf("%w: wrong proof", ErrTokenUnknown)
		}
		leaf, err = m.judge(l, t, q.site, cert.PublicKey)
		return err
	})
	if err != nil {
		return nil, err
	}
	return leaf, nil
}

// judge decides on a joiner who holds the token t and key, and enters both in
// the ledger.
func (m *Member) judge(l *ledger, t *invited, site string, key crypto.PublicKey) ([]byte, error) {
	id, err := keyID(key)
	if err != nil {
		return nil, err
	}
	if m.Revoked(id) {
		return nil, ErrKeyRevoked
	}
	l.strike(m.Revoked)
	// A token that this key has used in time does not end: the reply may
	// have been lost.
	if t.UsedBy != nil && *t.UsedBy != id {
		return nil, ErrTokenUsed
	}
	if t.UsedBy == nil && t.ended(clock()) {
		return nil, ErrTokenEnded.because("token has ended at %s by the founder's clock (ask for a new one: l2bridge invite)", t.End.Format(time.RFC3339))
	}
	if err := ValidSite(site); err != nil {
		return nil, ErrSiteRefused.because("%v", err)
	}
	if t.Site != "" && site != t.Site {
		return nil, ErrSiteRefused.because("token is for site %q, not %q (join with --site %s)", t.Site, site, t.Site)
	}
	had, err := l.room(site, id)
	if err != nil {
		return nil, err
	}
	if had != nil {
		t.UsedBy = &id
		return had, nil
	}
	t.UsedBy = &id
	return l.issue(m.CA, m.caKey, m.Network, site, key)
}

// Join stores the membership that the founder's reply (borrowed) to the request
// to join as site with the token t gives, and returns it with the addresses,
// host:port, of members to dial. A refusal is a *Refusal (errors.As). Nothing
// is stored unless the certificates are those of the token's network, this
// site's key and site.
func (d *Dir) Join(t Token, site string, reply []byte) (*Member, []string, error) {
	p, err := parseJoinReply(reply)
	if err != nil {
		return nil, nil, err
	}
	if err := p.check(t.CA, t.Network, site); err != nil {
		return nil, nil, fmt.Errorf("join reply: %w (ask at the founder what happened)", err)
	}
	m, err := d.SaveMembership(p.ca, p.leaf)
	if err != nil {
		return nil, nil, err
	}
	return m, p.addrs, nil
}
