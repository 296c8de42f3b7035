// SPDX-License-Identifier: Apache-2.0

//go:build unix

package transport_test

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/l2bridge/l2bridge/transport"
	"github.com/l2bridge/l2bridge/transport/identity"
	"github.com/l2bridge/l2bridge/transport/wire"
)

// company is a CA of the operator's own.
type company struct {
	t    *testing.T
	key  crypto.Signer
	cert *x509.Certificate
	next int64
}

func newCompany(t *testing.T) *company {
	t.Helper()
	c := &company{t: t, key: newKey(t)}
	c.cert = c.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: "Company CA"}, NotAfter: time.Now().Add(1000 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}, c.key.Public())
	return c
}

func newKey(t *testing.T) crypto.Signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// sign makes a certificate, below that of the company once there is one.
func (c *company) sign(template *x509.Certificate, key crypto.PublicKey) *x509.Certificate {
	c.t.Helper()
	c.next++
	template.SerialNumber, template.NotBefore = big.NewInt(c.next), time.Now().Add(-time.Minute)
	above := c.cert
	if above == nil {
		above = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, above, key, c.key)
	if err != nil {
		c.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		c.t.Fatal(err)
	}
	return cert
}

// certify makes a certificate of a site that holds for so long.
func (c *company) certify(site string, key crypto.PublicKey, life time.Duration) *x509.Certificate {
	c.t.Helper()
	return c.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: site}, NotAfter: time.Now().Add(life),
		URIs:        []*url.URL{{Scheme: "l2bridge", Host: "corp", Path: "/" + site}},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}, key)
}

// member returns a site whose certificate holds for so long.
func (c *company) member(site string, life time.Duration) *identity.Member {
	c.t.Helper()
	m, _ := c.renewable(site, life)
	return m
}

// renewable returns also what gives the site another certificate, for so long.
func (c *company) renewable(site string, life time.Duration) (m *identity.Member, renew func(life time.Duration)) {
	c.t.Helper()
	path := c.t.TempDir()
	put := func(name, typ string, der []byte) string {
		file := filepath.Join(path, name)
		if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: typ, Bytes: der}), 0o600); err != nil {
			c.t.Fatal(err)
		}
		return file
	}
	key := newKey(c.t)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		c.t.Fatal(err)
	}
	certify := func(life time.Duration) (file string) {
		return put("cert.pem", "CERTIFICATE", c.certify(site, key.Public(), life).Raw)
	}
	m, err = openDir(c.t).LoadFiles(identity.Files{
		CA:   put("ca.pem", "CERTIFICATE", c.cert.Raw),
		Cert: certify(life),
		Key:  put("key.pem", "PRIVATE KEY", der),
	})
	if err != nil {
		c.t.Fatal(err)
	}
	return m, func(life time.Duration) {
		c.t.Helper()
		os.Remove(certify(life)) // another file, whatever the clock of the disk
		certify(life)
		m.Reload() // sees it
		if changed, err := m.Reload(); !changed || err != nil {
			c.t.Fatalf("the new certificate is not taken: %v, %v", changed, err)
		}
	}
}

// announced returns the announcement of one more member, as it is stored.
func (c *company) announced(site string, life time.Duration) []byte {
	c.t.Helper()
	const header = 3
	key := newKey(c.t)
	signed, err := wire.Member{Version: 1, MTU: 1500, Cert: c.certify(site, key.Public(), life).Raw}.Signed()
	if err != nil {
		c.t.Fatal(err)
	}
	signature, err := key.Sign(nil, signed, crypto.Hash(0))
	if err != nil {
		c.t.Fatal(err)
	}
	return wire.AppendMember(nil, signed, signature)[header:]
}

// A site that has met many members whose certificates have ended since is no worse a
// peer for one that is new, and forgets them.
func TestEndedCertificates(t *testing.T) {
	const ghosts, life = 70, time.Minute
	synctest.Test(t, func(t *testing.T) {
		w, c := newWorld(), newCompany(t)
		var asleep atomic.Bool // home dials nobody
		home := w.run(t, c.member("home", 100*time.Hour), homeAddr, []string{"192.0.2.3:4433"}, func(cfg *transport.Config) {
			for i := range ghosts {
				cfg.Known = append(cfg.Known, c.announced(fmt.Sprintf("ghost%d", i), life))
			}
			cfg.Through = func(netip.Addr) bool { return asleep.Load() }
		})
		gone := w.run(t, c.member("gone", life), "192.0.2.3", nil) // which home was given by address
		until(t, "up", 5*time.Second, connected(home, gone))
		if n := len(home.Peers()); n != ghosts+1 {
			t.Fatalf("home knows %d", n)
		}
		time.Sleep(life)
		home.Rejudge()
		gone.stop()
		office := w.run(t, c.member("office", 100*time.Hour), officeAddr, []string{homePort})
		until(t, "up", 5*time.Second, connected(home, office))
		attached := office.attaches()
		time.Sleep(30 * time.Second)
		if home.peer("office") == nil || office.attaches() != attached {
			t.Errorf("attached %d times", office.attaches())
		}
		if lines := append(office.log.lines("breaks the protocol"), office.log.lines("cut off")...); len(lines) > 0 {
			t.Errorf("home is blamed: %q", lines)
		}
		if n := len(office.Peers()); n != 1 {
			t.Errorf("office knows %d", n)
		}
		home.Rejudge()
		if n := len(home.Peers()); n != ghosts+2 {
			t.Errorf("home knows %d a moment after they have ended", n)
		}
		office.stop()
		asleep.Store(true) // for an hour of dials costs time
		time.Sleep(time.Hour)
		home.Rejudge()
		if n := len(home.Peers()); n != 2 || home.state("gone").Site == "" || home.state("office").Site == "" {
			t.Errorf("home knows %d in the end", n)
		}
	})
}

// A site whose certificate has ended is back as soon as it has a new one, though it is
// the only one of the two that can dial; and so is one that has never had one that
// was good.
func TestRenewedCertificate(t *testing.T) {
	const life = time.Minute
	test := func(t *testing.T, begins, away time.Duration) {
		w, c := newWorld(), newCompany(t)
		home := w.run(t, c.member("home", 100*time.Hour), homeAddr, nil, func(cfg *transport.Config) {
			cfg.Through = func(netip.Addr) bool { return true } // it dials nobody
		})
		member, renew := c.renewable("office", life)
		time.Sleep(begins)
		office := w.run(t, member, officeAddr, []string{homePort})
		if begins < life {
			until(t, "up", 5*time.Second, connected(home, office))
			time.Sleep(life)
		}
		home.Rejudge()
		time.Sleep(away)
		if home.peer("office") != nil {
			t.Fatal("its certificate has ended, and it has a session")
		}
		renew(time.Hour)
		office.Rejudge()
		until(t, "up again", 2*time.Second, connected(home, office))
	}
	for name, begins := range map[string]time.Duration{"while connected": 0, "before it was": 2 * life} {
		for _, away := range []time.Duration{20 * time.Second, 3 * time.Minute, 200 * time.Second} {
			t.Run(fmt.Sprint(name, " ", away), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { test(t, begins, away) })
			})
		}
	}
}
