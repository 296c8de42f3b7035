// SPDX-License-Identifier: Apache-2.0

//go:build unix

package identity_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/l2bridge/l2bridge/transport/identity"
)

// company is a CA of the operator's own.
type company struct {
	t      *testing.T
	key    crypto.Signer
	cert   *x509.Certificate
	issued atomic.Int64
}

func p256(t *testing.T) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// newCompany makes a CA, below another one unless that is nil.
func newCompany(t *testing.T, above *company) *company {
	t.Helper()
	c := &company{t: t, key: p256(t)}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "Company CA", OrganizationalUnit: []string{"printers"}},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(1000 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	parent, signer := template, c.key
	if above != nil {
		template.Subject.CommonName = "Department CA"
		parent, signer = above.cert, above.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, c.key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	if c.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return c
}

// certify makes a member's certificate that change has altered first.
func (c *company) certify(site string, key crypto.PublicKey, change func(*x509.Certificate)) *x509.Certificate {
	c.t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1 + c.issued.Add(1)), Subject: pkix.Name{CommonName: site},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		URIs:        []*url.URL{{Scheme: "l2bridge", Host: "corp", Path: "/" + site}},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	if change != nil {
		change(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, c.cert, key, c.key)
	if err != nil {
		c.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		c.t.Fatal(err)
	}
	return cert
}

// crl makes a list of these certificates.
func (c *company) crl(revoked ...*x509.Certificate) []byte {
	c.t.Helper()
	template := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now(), NextUpdate: time.Now().Add(time.Hour)}
	for _, cert := range revoked {
		template.RevokedCertificateEntries = append(template.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: cert.SerialNumber, RevocationTime: time.Now()})
	}
	der, err := x509.CreateRevocationList(rand.Reader, template, c.cert, c.key)
	if err != nil {
		c.t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})
}

func certPEM(certs ...*x509.Certificate) (text []byte) {
	for _, c := range certs {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return text
}

func keyPEM(t *testing.T, key crypto.Signer) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// desk is where a site's files are.
type desk struct {
	t   *testing.T
	dir string
}

func newDesk(t *testing.T) desk { return desk{t, t.TempDir()} }

func (d desk) files() identity.Files {
	f := identity.Files{CA: filepath.Join(d.dir, "ca.pem"), Cert: filepath.Join(d.dir, "cert.pem"), Key: filepath.Join(d.dir, "key.pem")}
	if crl := filepath.Join(d.dir, "crl.pem"); exists(crl) {
		f.CRL = crl
	}
	return f
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func (d desk) put(name string, text []byte) {
	d.t.Helper()
	path := filepath.Join(d.dir, name)
	if err := errors.Join(os.WriteFile(path+".new", text, 0o600), os.Rename(path+".new", path)); err != nil {
		d.t.Fatal(err)
	}
}

// load opens the membership of the desk's files.
func (d desk) load() (*identity.Member, error) {
	d.t.Helper()
	dir, err := identity.Open(filepath.Join(d.dir, "state"))
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { dir.Close() })
	return dir.LoadFiles(d.files())
}

// member returns a site of the company's, with a P-256 key.
func (c *company) member(site string, change func(*x509.Certificate)) (*identity.Member, desk) {
	c.t.Helper()
	d, key := newDesk(c.t), p256(c.t)
	d.put("ca.pem", certPEM(c.cert))
	d.put("cert.pem", certPEM(c.certify(site, key.Public(), change)))
	d.put("key.pem", keyPEM(c.t, key))
	m, err := d.load()
	if err != nil {
		c.t.Fatal(err)
	}
	return m, d
}

// meet has two sites shake hands, and returns what each of them finds.
func meet(dialler, acceptor *identity.Member) identity.Pair {
	return identity.Handshake(dialler.TLSConfig("x"), acceptor.TLSConfig("x"))
}

// Sites with keys of either kind meet by a CA of the operator's own, with a CA in
// between too.
func TestOwnCA(t *testing.T) {
	t.Parallel()
	c := newCompany(t, nil)
	office, _ := c.member("office", nil)
	if office.Site != "office" || office.Network != "corp" || !office.External() || office.Founder() || office.FounderSite() != "" {
		t.Errorf("office: %+v", office)
	}

	_, edKey, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	d := newDesk(t)
	department := newCompany(t, c)
	d.put("ca.pem", certPEM(c.cert))
	d.put("cert.pem", certPEM(department.certify("plant", edKey.Public(), nil), department.cert))
	d.put("key.pem", keyPEM(t, edKey))
	plant, err := d.load()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []identity.Pair{meet(office, plant), meet(plant, office)} {
		if err := p.Err(); err != nil {
			t.Error(err)
		}
	}
	if site, id, err := identity.Peer(meet(office, plant).Client); site != "plant" || id != plant.ID || err != nil {
		t.Errorf("the peer is %s, %v, %v", site, id, err)
	}

	// What a member says of itself is signed with its key, whatever kind that is.
	for _, m := range []*identity.Member{office, plant} {
		signature, err := m.Sign([]byte("said"))
		if err != nil || len(signature) != identity.SignatureLen {
			t.Fatal(signature, err)
		}
		site, id, key, err := plant.Judge(m.Certificate())
		if site != m.Site || id != m.ID || err != nil {
			t.Errorf("judged: %s %v %v", site, id, err)
		}
		if !identity.Verify(key, []byte("said"), signature) || identity.Verify(key, []byte("else"), signature) || identity.Verify(key, []byte("said"), signature[1:]) {
			t.Errorf("signature of %s is judged wrong", m.Site)
		}
		if a, b := m.Secret("one", 32), m.Secret("two", 32); len(a) != 32 || string(a) == string(b) || string(a) != string(m.Secret("one", 32)) {
			t.Errorf("secrets of %s: %x %x", m.Site, a, b)
		}
	}

	// It neither invites nor revokes.
	for name, err := range map[string]error{
		"invite": func() error { _, err := office.Invite("x", time.Hour, []string{"192.0.2.1:4433"}); return err }(),
		"revoke": func() error { _, err := office.Revoke("plant"); return err }(),
	} {
		if !errors.Is(err, identity.ErrNotFounder) || !strings.Contains(err.Error(), "ca_file") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A certificate that is not as it should be is refused by the other side, which
// says why, whoever dials.
func TestOwnCARefuses(t *testing.T) {
	t.Parallel()
	c, foreign := newCompany(t, nil), newCompany(t, nil)
	office, _ := c.member("office", nil)
	uris := func(names ...string) func(*x509.Certificate) {
		return func(cert *x509.Certificate) {
			cert.URIs = nil
			for _, name := range names {
				u, err := url.Parse(name)
				if err != nil {
					t.Fatal(err)
				}
				cert.URIs = append(cert.URIs, u)
			}
		}
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		ca     *company
		key    crypto.Signer
		change func(*x509.Certificate)
		want   string
	}{
		{"expired", c, nil, func(cert *x509.Certificate) { cert.NotAfter = time.Now().Add(-time.Second) }, `certificate of site "plant" has ended at`},
		{"not yet valid", c, nil, func(cert *x509.Certificate) { cert.NotBefore = time.Now().Add(time.Minute) }, `certificate of site "plant" holds from`},
		{"foreign CA", foreign, nil, nil, "unknown authority"},
		{"a printer's", c, nil, uris(), "has 0 URI names"},
		{"wrong scheme", c, nil, uris("spiffe://corp/plant"), "is named"},
		{"other network", c, nil, uris("l2bridge://other/plant"), `is for network "other"`},
		{"two names", c, nil, uris("l2bridge://corp/plant", "l2bridge://corp/office"), "has 2 URI names"},
		{"a name beside it", c, nil, uris("l2bridge://corp/plant", "https://plant.example"), "has 2 URI names"},
		{"path", c, nil, uris("l2bridge://corp/plant/x"), "site name"},
		{"client only", c, nil, func(cert *x509.Certificate) { cert.ExtKeyUsage = cert.ExtKeyUsage[:1] }, "both client and server"},
		{"a CA", c, nil, func(cert *x509.Certificate) { cert.IsCA, cert.BasicConstraintsValid = true, true }, "that of a CA"},
		{"RSA", c, rsaKey, nil, "its key is RSA (want Ed25519 or ECDSA P-256)"},
		{"P-384", c, p384, nil, "its key is ECDSA P-384"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			key := tt.key
			if key == nil {
				key = p256(t)
			}
			cert := tt.ca.certify("plant", key.Public(), tt.change)
			shows := office.TLSConfig("x")
			shows.GetCertificate, shows.GetClientCertificate = nil, nil
			shows.Certificates = []tls.Certificate{{Certificate: [][]byte{cert.Raw}, PrivateKey: key}}
			for who, err := range map[string]error{
				"accepts": identity.Handshake(shows, office.TLSConfig("x")).ServerErr,
				"dials":   identity.Handshake(office.TLSConfig("x"), shows).ClientErr,
				"hears": func() error {
					_, _, _, err := office.Judge(cert.Raw)
					return err
				}(),
			} {
				if !errors.Is(err, identity.ErrNotMember) || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("who %s finds %v, want %q", who, err, tt.want)
				}
			}
		})
	}
}

// Files that are no membership are an error at the start that names the file.
func TestOwnCAFilesRefused(t *testing.T) {
	t.Parallel()
	c := newCompany(t, nil)
	for name, tt := range map[string]struct {
		spoil func(desk)
		want  string
	}{
		"no CA file":     {func(d desk) { os.Remove(d.files().CA) }, "CA file"},
		"no certificate": {func(d desk) { d.put("cert.pem", []byte("hello")) }, "no certificate in it"},
		"CA is none":     {func(d desk) { d.put("ca.pem", certPEM(c.certify("x", c.key.Public(), nil))) }, "not that of a CA"},
		"other key":      {func(d desk) { d.put("key.pem", keyPEM(t, p256(t))) }, "not the key of the certificate"},
		"no key":         {func(d desk) { d.put("key.pem", nil) }, "no key in it"},
		"encrypted key": {func(d desk) {
			d.put("key.pem", pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte{0}}))
		}, "encrypted"},
		"mode 0644":    {func(d desk) { os.Chmod(d.files().Key, 0o644) }, "mode 0644"},
		"mode 0640":    {func(d desk) { os.Chmod(d.files().Key, 0o640) }, "mode 0640"},
		"directory":    {func(d desk) { os.Remove(d.files().Key); os.Mkdir(d.files().Key, 0o700) }, "regular file"},
		"foreign CA":   {func(d desk) { d.put("ca.pem", certPEM(newCompany(t, nil).cert)) }, "unknown authority"},
		"foreign list": {func(d desk) { d.put("crl.pem", newCompany(t, nil).crl()) }, "has signed the list"},
		"no list":      {func(d desk) { d.put("crl.pem", certPEM(c.cert)) }, "no list of revoked"},
		"long": {func(d desk) {
			d.put("cert.pem", certPEM(c.certify("x", c.key.Public(), func(cert *x509.Certificate) {
				cert.DNSNames = []string{strings.Repeat("a", 60) + ".example"}
				for range 40 {
					cert.DNSNames = append(cert.DNSNames, cert.DNSNames[0])
				}
			})))
		}, "members are told of 2048 at most"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, key := newDesk(t), p256(t)
			d.put("ca.pem", certPEM(c.cert))
			d.put("cert.pem", certPEM(c.certify("plant", key.Public(), nil)))
			d.put("key.pem", keyPEM(t, key))
			tt.spoil(d)
			if _, err := d.load(); err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), d.dir) {
				t.Errorf("%v, want %q and the file", err, tt.want)
			}
		})
	}
}

// Tools put links where the newest certificate is, and other kinds of PEM.
func TestOwnCAFilesTaken(t *testing.T) {
	t.Parallel()
	c := newCompany(t, nil)
	d, key := newDesk(t), p256(t)
	cert := c.certify("plant", key.Public(), nil)
	der, err := x509.MarshalECPrivateKey(key.(*ecdsa.PrivateKey))
	if err != nil {
		t.Fatal(err)
	}
	// As "openssl ecparam -genkey" writes it.
	d.put("key1.pem", append(pem.EncodeToMemory(&pem.Block{Type: "EC PARAMETERS", Bytes: []byte{5, 0}}),
		pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})...))
	d.put("cert1.pem", append([]byte("Certificate:\n    Data:\n"), certPEM(cert)...))
	d.put("ca.pem", certPEM(newCompany(t, nil).cert, c.cert))
	block, _ := pem.Decode(c.crl())
	d.put("crl.pem", block.Bytes)
	for _, name := range []string{"key", "cert"} {
		if err := os.Symlink(name+"1.pem", filepath.Join(d.dir, name+".pem")); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := d.load(); err != nil {
		t.Error(err)
	}
}

// Files that change come into force when they are whole; those that are no good
// leave the ones before in force, and say so once.
func TestOwnCAReload(t *testing.T) {
	t.Parallel()
	c := newCompany(t, nil)
	office, _ := c.member("office", nil)
	d, key := newDesk(t), p256(t)
	old := c.certify("plant", key.Public(), nil)
	d.put("ca.pem", certPEM(c.cert))
	d.put("cert.pem", certPEM(old))
	d.put("key.pem", keyPEM(t, key))
	d.put("crl.pem", c.crl())
	plant, err := d.load()
	if err != nil {
		t.Fatal(err)
	}
	reload := func() (bool, error) {
		t.Helper()
		for range 3 {
			if changed, err := plant.Reload(); changed || err != nil {
				return changed, err
			}
		}
		return false, nil
	}
	if changed, err := reload(); changed || err != nil {
		t.Fatalf("nothing has changed: %v, %v", changed, err)
	}

	d.put("cert.pem", []byte("half of"))
	if changed, err := plant.Reload(); changed || err != nil {
		t.Errorf("it may not be whole yet: %v, %v", changed, err)
	}
	if _, err := reload(); err == nil || !strings.Contains(err.Error(), "cert.pem") {
		t.Errorf("a broken file: %v", err)
	}
	if changed, err := reload(); changed || err != nil {
		t.Errorf("said again: %v, %v", changed, err)
	}
	if err := meet(plant, office).Err(); err != nil {
		t.Errorf("with a broken file: %v", err)
	}

	renewed := c.certify("plant", key.Public(), func(cert *x509.Certificate) { cert.NotAfter = cert.NotAfter.Add(time.Hour) })
	d.put("cert.pem", certPEM(renewed))
	if changed, err := reload(); !changed || err != nil {
		t.Fatalf("renewed: %v, %v", changed, err)
	}
	if string(plant.Certificate()) != string(renewed.Raw) || !plant.Ends().Equal(renewed.NotAfter) {
		t.Error("the old certificate is still in force")
	}
	p := meet(office, plant)
	if err := p.Err(); err != nil || !p.Client.PeerCertificates[0].Equal(renewed) {
		t.Errorf("it shows the old one (%v)", err)
	}
	if err := office.Rejudge(p.Client); err != nil {
		t.Error(err)
	}

	// Another key is another member.
	other := p256(t)
	d.put("cert.pem", certPEM(c.certify("plant", other.Public(), nil)))
	d.put("key.pem", keyPEM(t, other))
	if _, err := reload(); err == nil || !strings.Contains(err.Error(), "another key") {
		t.Errorf("another key: %v", err)
	}
	d.put("key.pem", keyPEM(t, key))
	d.put("cert.pem", certPEM(c.certify("attic", key.Public(), nil)))
	if _, err := reload(); err == nil || !strings.Contains(err.Error(), `site "attic"`) {
		t.Errorf("another name: %v", err)
	}

	// The list puts a certificate out, at the handshake and in a session.
	d.put("cert.pem", certPEM(renewed))
	shown := meet(plant, office)
	if err := shown.Err(); err != nil {
		t.Fatal(err)
	}
	d.put("crl.pem", c.crl(shown.Client.PeerCertificates[0]))
	if changed, err := reload(); !changed || err != nil {
		t.Fatalf("list: %v, %v", changed, err)
	}
	if err := meet(plant, office).ClientErr; !errors.Is(err, identity.ErrRevoked) {
		t.Errorf("a revoked certificate: %v", err)
	}
	if err := plant.Rejudge(shown.Client); !errors.Is(err, identity.ErrRevoked) {
		t.Errorf("a session with a revoked certificate: %v", err)
	}
}

// Certificates end by the clock, at each side.
func TestOwnCAEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCompany(t, nil)
		office, _ := c.member("office", func(cert *x509.Certificate) { cert.NotAfter = cert.NotAfter.Add(time.Hour) })
		plant, _ := c.member("plant", nil)
		p := meet(office, plant)
		if err := errors.Join(p.Err(), plant.Dated()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour + time.Second)
		for name, err := range map[string]error{
			"handshake": meet(plant, office).ServerErr, "session": office.Rejudge(p.Client),
		} {
			if !errors.Is(err, identity.ErrNotMember) || !strings.Contains(err.Error(), `site "plant" has ended`) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if err := plant.Dated(); err == nil || !strings.Contains(err.Error(), "has ended") {
			t.Errorf("its own: %v", err)
		}
		if err := plant.Rejudge(p.Server); err != nil {
			t.Errorf("the other's: %v", err)
		}
	})
}

// Whatever is in the files is an error or a membership, and no panic.
func FuzzFiles(f *testing.F) {
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"), []byte("-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n"), []byte{0x30, 0})
	f.Fuzz(func(t *testing.T, certs, key, list []byte) { identity.ReadAnything(certs, key, list) })
}
