// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"time"
)

const (
	// maxCertificates bounds a file of certificates, and what a peer may show.
	maxCertificates = 64
	maxShown        = 8

	// maxLeaf is what an announcement has room for (docs/wire.md, MEMBER).
	maxLeaf = 2048
)

// papers is a membership by a CA of the operator's own, as its files have it.
type papers struct {
	claim
	issuers []*x509.Certificate // any of them may certify members
	leaf    tls.Certificate     // of this site, with key and what is between it and an issuer
	lists   []*x509.RevocationList
}

func (p *papers) takeIssuers(data []byte) error {
	all, err := parseCertificates(data)
	if err != nil {
		return err
	}
	for _, c := range all {
		if !c.BasicConstraintsValid || !c.IsCA {
			return fmt.Errorf("certificate %q is not that of a CA", Clean(c.Subject.String()))
		}
	}
	p.issuers = all
	return nil
}

func (p *papers) takeLeaf(data []byte) error {
	all, err := parseCertificates(data)
	if err != nil {
		return err
	}
	if len(all) > maxShown {
		return fmt.Errorf("%d certificates (want %d at most)", len(all), maxShown)
	}
	p.leaf.Leaf = all[0]
	for _, c := range all {
		p.leaf.Certificate = append(p.leaf.Certificate, c.Raw)
	}
	if n := len(all[0].Raw); n > maxLeaf {
		return fmt.Errorf("the certificate has %d bytes: members are told of %d at most (leave extensions out)", n, maxLeaf)
	}
	p.claim, err = readLeaf(all[0])
	return err
}

func (p *papers) takeKey(data []byte) error {
	key, err := parsePrivateKey(data)
	if err != nil {
		return err
	}
	if public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !public.Equal(p.leaf.Leaf.PublicKey) {
		return errors.New("it is not the key of the certificate (give the two that belong together)")
	}
	p.leaf.PrivateKey = key
	return nil
}

func (p *papers) takeLists(data []byte) error {
	found := pemBlocks(data, "X509 CRL")
	if block, _ := pem.Decode(data); block == nil {
		found = [][]byte{data}
	}
	for _, der := range found {
		list, err := x509.ParseRevocationList(der)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(p.issuers, func(ca *x509.Certificate) bool { return list.CheckSignatureFrom(ca) == nil }) {
			return fmt.Errorf("no certificate of the CA file has signed the list of %q", Clean(list.Issuer.String()))
		}
		p.lists = append(p.lists, list)
	}
	if len(p.lists) == 0 {
		return errors.New("no list of revoked certificates in it (want PEM, with the line -----BEGIN X509 CRL-----)")
	}
	return nil
}

// chain is what this site shows.
func (p *papers) chain() (all []*x509.Certificate) {
	for _, der := range p.leaf.Certificate {
		if c, err := x509.ParseCertificate(der); err == nil {
			all = append(all, c)
		}
	}
	return all
}

// judge checks that what was shown begins with a membership certificate, of whatever
// network, that an issuer has certified, and returns what it says.
func (p *papers) judge(shown []*x509.Certificate, at time.Time) (claim, error) {
	if len(shown) > maxShown {
		return claim{}, fmt.Errorf("%d certificates (want %d at most)", len(shown), maxShown)
	}
	leaf := shown[0]
	c, err := readLeaf(leaf)
	if err != nil {
		return claim{}, err
	}
	if err := checkKey(leaf.PublicKey); err != nil {
		return claim{}, fmt.Errorf("certificate of site %q: %w", c.site, err)
	}
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	for _, ca := range p.issuers {
		roots.AddCert(ca)
	}
	// Of a member that others tell of only its certificate is known. What is
	// between is the same as ours as a rule.
	for _, c := range slices.Concat(shown[1:], p.chain()[1:]) {
		between.AddCert(c)
	}
	// The signature first: an error about dates is to mean that all else is right.
	chains, err := leaf.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: between, CurrentTime: inside(leaf, at),
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}, // checked by readLeaf
	})
	if err != nil {
		return claim{}, fmt.Errorf("certificate of site %q: %w", c.site, err)
	}
	if err := dated(leaf, at); err != nil {
		return claim{}, fmt.Errorf("certificate of site %q %w", c.site, err)
	}
	if !slices.ContainsFunc(chains, p.isClear) {
		return claim{}, fmt.Errorf("certificate of site %q, serial %x: %w", c.site, leaf.SerialNumber, ErrRevoked)
	}
	return c, nil
}

// inside returns the moment nearest to at at which a certificate holds.
func inside(c *x509.Certificate, at time.Time) time.Time {
	switch {
	case at.Before(c.NotBefore):
		return c.NotBefore
	case at.After(c.NotAfter):
		return c.NotAfter
	}
	return at
}

// dateError says that a certificate does not hold yet, or no more. It is
// ErrOutOfDate in words that go on from the name of the certificate.
type dateError struct{ text string }

func (e *dateError) Error() string        { return e.text }
func (e *dateError) Is(target error) bool { return target == ErrOutOfDate }

// dated returns an error when a certificate does not hold at a time.
func dated(c *x509.Certificate, at time.Time) error {
	day := func(t time.Time) string { return t.UTC().Format(time.RFC3339) }
	switch {
	case at.Before(c.NotBefore):
		return &dateError{fmt.Sprintf("holds from %s on, and here it is %s (is a clock wrong?)", day(c.NotBefore), day(at))}
	case at.After(c.NotAfter):
		return &dateError{fmt.Sprintf("has ended at %s, and here it is %s (renew it there, unless a clock is wrong)", day(c.NotAfter), day(at))}
	}
	return nil
}

// isClear reports whether nothing in a chain is revoked.
func (p *papers) isClear(chain []*x509.Certificate) bool {
	return !slices.ContainsFunc(chain, func(c *x509.Certificate) bool {
		return slices.ContainsFunc(p.lists, func(list *x509.RevocationList) bool {
			return bytes.Equal(list.RawIssuer, c.RawIssuer) &&
				slices.ContainsFunc(list.RevokedCertificateEntries, func(e x509.RevocationListEntry) bool {
					return e.SerialNumber.Cmp(c.SerialNumber) == 0
				})
		})
	})
}
