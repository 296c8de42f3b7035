// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
)

// scheme is that of a member's name, l2bridge://NETWORK/SITE.
const scheme = "l2bridge"

// The dates in every certificate made here. RFC 5280, section 4.1.2.5, gives
// the last second of 9999 to what has no end of its own.
var (
	notBefore = time.Unix(0, 0).UTC()
	notAfter  = time.Date(9999, time.December, 31, 23, 59, 59, 0, time.UTC)
)

// clock is this machine's, which somebody may set, by years, at any time. It is asked
// about invitations, about how often a site changes its key, and about certificates of
// a CA of the operator's own; about nothing else. Tests have it jump.
var clock = time.Now

// fixedTime is the time at which certificates are looked at, whatever the
// clock says.
func fixedTime() time.Time { return time.Date(2000, time.January, 1, 0, 0, 0, 0, time.UTC) }

// newNetwork makes up a network's name. It tells two networks apart for people
// and in certificates; nothing is secret about it and nothing rests on it.
func newNetwork() string {
	const length = 16 // 80 bits in base 32
	return strings.ToLower(rand.Text()[:length])
}

// newCA makes the network's CA certificate. The founder's site name is in it
// for people at other sites to know where to go.
func newCA(key crypto.Signer, network, founder string) (*x509.Certificate, error) {
	t := &x509.Certificate{
		Subject:   pkix.Name{CommonName: "l2bridge network " + network, OrganizationalUnit: []string{founder}},
		NotBefore: notBefore,
		NotAfter:  notAfter,
		KeyUsage:  x509.KeyUsageCertSign,
		IsCA:      true,
		// It signs members and no further CA.
		MaxPathLenZero:        true,
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// newLeaf makes a membership certificate for key, in DER.
func newLeaf(ca *x509.Certificate, caKey crypto.Signer, network, site string, key crypto.PublicKey) ([]byte, error) {
	t := &x509.Certificate{
		Subject:     pkix.Name{CommonName: site},
		URIs:        []*url.URL{{Scheme: scheme, Host: network, Path: "/" + site}},
		NotBefore:   notBefore,
		NotAfter:    notAfter,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: memberUsages,
		// Says "not a CA" in so many words.
		BasicConstraintsValid: true,
	}
	return x509.CreateCertificate(rand.Reader, t, ca, key, caKey)
}

// memberUsages are demanded both: a member dials and is dialled.
var memberUsages = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}

// newSelfSigned makes the certificate with which a joiner shows a key that no
// CA has signed yet. Its name is for logs.
func newSelfSigned(key crypto.Signer, site string) ([]byte, error) {
	t := &x509.Certificate{
		Subject:   pkix.Name{CommonName: site},
		NotBefore: notBefore,
		NotAfter:  notAfter,
		KeyUsage:  x509.KeyUsageDigitalSignature,
	}
	return x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
}

// claim is what a membership certificate says.
type claim struct {
	network, site string
	id            ID
}

// verifyLeaf checks that leaf is a membership certificate signed by ca, of
// whatever network, and returns what it says.
func verifyLeaf(ca, leaf *x509.Certificate) (claim, error) {
	c, err := readLeaf(leaf)
	if err != nil {
		return claim{}, err
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	if _, err := leaf.Verify(x509.VerifyOptions{
		Roots:       roots,
		CurrentTime: fixedTime(),
		KeyUsages:   []x509.ExtKeyUsage{x509.ExtKeyUsageAny}, // checked by readLeaf
	}); err != nil {
		return claim{}, err
	}
	return c, nil
}

// readLeaf returns what leaf says, if it has the form of a membership
// certificate. It does not look at who signed it.
func readLeaf(leaf *x509.Certificate) (claim, error) {
	if leaf.IsCA {
		return claim{}, errors.New("certificate is that of a CA, not of a member")
	}
	for _, usage := range memberUsages {
		if !slices.Contains(leaf.ExtKeyUsage, usage) {
			return claim{}, errors.New("certificate is not for both client and server use")
		}
	}
	network, site, err := readName(leaf.URIs)
	if err != nil {
		return claim{}, err
	}
	id, err := keyID(leaf.PublicKey)
	if err != nil {
		return claim{}, err
	}
	return claim{network: network, site: site, id: id}, nil
}

// readName takes a member's name apart. Of two spellings of one name, as
// percent signs would allow, only the plain one is accepted.
func readName(uris []*url.URL) (network, site string, err error) {
	if len(uris) != 1 {
		return "", "", fmt.Errorf("certificate has %d URI names (want one %s://NETWORK/SITE)", len(uris), scheme)
	}
	u := uris[0]
	network, site = u.Host, strings.TrimPrefix(u.Path, "/")
	if u.String() != scheme+"://"+network+"/"+site {
		return "", "", fmt.Errorf("certificate is named %q (want %s://NETWORK/SITE)", Clean(u.String()), scheme)
	}
	if err := validLabel("network name", network); err != nil {
		return "", "", err
	}
	if err := ValidSite(site); err != nil {
		return "", "", err
	}
	return network, site, nil
}

// verifyCA checks that ca is a CA certificate signed with its own key. That a
// member cannot make one up with another text and the same public key rests on
// the second half: x509 does not look at the signature of a trusted root.
func verifyCA(ca *x509.Certificate) error {
	if !ca.BasicConstraintsValid || !ca.IsCA {
		return errors.New("certificate of the network is not that of a CA")
	}
	if err := ca.CheckSignatureFrom(ca); err != nil {
		return fmt.Errorf("certificate of the network is not signed with its own key: %w", err)
	}
	return nil
}
