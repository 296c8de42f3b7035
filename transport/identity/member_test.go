// SPDX-License-Identifier: Apache-2.0

package identity_test

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
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
	"testing"
	"testing/synctest"
	"time"

	"github.com/l2bridge/l2bridge/transport/identity"
)

const alpn = "l2bridge/1"

func TestMembersMeet(t *testing.T) {
	t.Parallel()
	home := identity.MustFound(t, "home")
	cabin := identity.MustJoin(t, home, "cabin")
	attic := identity.MustJoin(t, home, "attic")
	for _, pair := range [][2]*identity.Member{{cabin, home}, {home, cabin}, {cabin, attic}} {
		client, server := pair[0], pair[1]
		p := identity.Handshake(client.TLSConfig(alpn), server.TLSConfig("other/1", alpn))
		if err := p.Err(); err != nil {
			t.Fatalf("%s to %s: %v", client.Site, server.Site, err)
		}
		wantPeer(t, p.Client, server)
		wantPeer(t, p.Server, client)
		for _, cs := range []tls.ConnectionState{p.Client, p.Server} {
			if cs.Version != tls.VersionTLS13 || cs.CurveID != tls.X25519MLKEM768 || cs.NegotiatedProtocol != alpn || cs.DidResume {
				t.Errorf("version %x, curve %v, protocol %q, resumed %v", cs.Version, cs.CurveID, cs.NegotiatedProtocol, cs.DidResume)
			}
		}
	}
}

func wantPeer(t *testing.T, cs tls.ConnectionState, want *identity.Member) {
	t.Helper()
	site, id, err := identity.Peer(cs)
	if err != nil || site != want.Site || id != want.ID {
		t.Errorf("Peer() = %q, %v, %v; want %q, %v", site, id, err, want.Site, want.ID)
	}
}

func TestPeerBeforeHandshake(t *testing.T) {
	t.Parallel()
	if _, _, err := identity.Peer(tls.ConnectionState{}); err == nil {
		t.Error("no error before the handshake")
	}
	if _, _, err := identity.Peer(tls.ConnectionState{HandshakeComplete: true}); err == nil {
		t.Error("no error without a certificate")
	}
}

// A machine without a clock and one whose clock is far ahead meet members.
func TestClockIsNotAsked(t *testing.T) {
	home := identity.MustFound(t, "home")
	cabin := identity.MustJoin(t, home, "cabin")
	synctest.Test(t, func(t *testing.T) {
		for _, year := range []int{2000, 2200} {
			time.Sleep(time.Until(time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC)))
			if p := identity.Handshake(cabin.TLSConfig(alpn), home.TLSConfig(alpn)); p.Err() != nil {
				t.Errorf("in %d: %v", time.Now().Year(), p.Err())
			}
		}
	})
	// Time cannot be turned back before 2000 in a bubble: show that the
	// configs have a time of their own, and that the dates hold as well.
	roots := x509.NewCertPool()
	roots.AddCert(home.CA)
	for _, now := range []time.Time{time.Unix(0, 0), time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)} {
		if _, err := cabin.Leaf.Leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now}); err != nil {
			t.Errorf("certificate at %v: %v", now, err)
		}
	}
	key, err := cabin.Dir().SiteKey()
	if err != nil {
		t.Fatal(err)
	}
	for _, cfg := range []*tls.Config{home.TLSConfig(alpn), home.EnrolTLSConfig(), identity.JoinTLSConfig(key, "x", [32]byte{})} {
		if cfg.Time == nil || !cfg.Time().Equal(cfg.Time()) || cfg.Time().After(time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC)) {
			t.Error("config looks at the clock")
		}
	}
}

func TestStrangersAreRefused(t *testing.T) {
	t.Parallel()
	home := identity.MustFound(t, "home")
	other := identity.MustFound(t, "home")
	key, caKey := newKey(t), founderKey(t, home)

	with := func(cert tls.Certificate) *tls.Config {
		cfg := home.TLSConfig(alpn)
		cfg.Certificates = []tls.Certificate{cert}
		cfg.VerifyConnection = nil
		return cfg
	}
	// issue makes a certificate by the right CA, from a good one spoiled.
	issue := func(spoil func(*x509.Certificate)) *tls.Config {
		template := &x509.Certificate{
			SerialNumber:          big.NewInt(7),
			URIs:                  []*url.URL{{Scheme: "l2bridge", Host: home.Network, Path: "/guest"}},
			NotAfter:              time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC),
			KeyUsage:              x509.KeyUsageDigitalSignature,
			ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
			BasicConstraintsValid: true,
		}
		spoil(template)
		der, err := x509.CreateCertificate(rand.Reader, template, home.CA, key.Public(), caKey)
		if err != nil {
			t.Fatal(err)
		}
		return with(tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key})
	}
	uri := func(uris ...string) *tls.Config {
		return issue(func(c *x509.Certificate) {
			c.URIs = nil
			for _, s := range uris {
				u, err := url.Parse(s)
				if err != nil {
					t.Fatal(err)
				}
				c.URIs = append(c.URIs, u)
			}
		})
	}

	if p := identity.Handshake(issue(func(*x509.Certificate) {}), home.TLSConfig(alpn)); p.Err() != nil {
		t.Fatalf("the unspoiled certificate is refused: %v", p.Err())
	}
	// Shown as a member would use it: a chain that another CA vouches for.
	foreign := other.Leaf
	foreign.Certificate = [][]byte{other.Leaf.Certificate[0], other.CA.Raw, home.CA.Raw}

	for name, cfg := range map[string]*tls.Config{
		"foreign CA":           with(other.Leaf),
		"foreign CA, chain":    with(foreign),
		"the CA itself":        with(tls.Certificate{Certificate: [][]byte{home.CA.Raw}, PrivateKey: caKey}),
		"self-signed":          with(selfSigned(t, key, home.Network)),
		"no URI":               uri(),
		"two URIs":             uri("l2bridge://"+home.Network+"/guest", "l2bridge://"+home.Network+"/host"),
		"printer of a company": uri("https://" + home.Network + "/guest"),
		"spiffe":               uri("spiffe://" + home.Network + "/guest"),
		"other network":        uri("l2bridge://othernetwork/guest"),
		"no site":              uri("l2bridge://" + home.Network),
		"empty site":           uri("l2bridge://" + home.Network + "/"),
		"reserved site":        uri("l2bridge://" + home.Network + "/all"),
		"site in upper case":   uri("l2bridge://" + home.Network + "/Guest"),
		"deeper path":          uri("l2bridge://" + home.Network + "/guest/x"),
		"percent sign":         uri("l2bridge://" + home.Network + "/%67uest"),
		"query":                uri("l2bridge://" + home.Network + "/guest?x"),
		"fragment":             uri("l2bridge://" + home.Network + "/guest#x"),
		"user":                 uri("l2bridge://x@" + home.Network + "/guest"),
		"port":                 uri("l2bridge://" + home.Network + ":1/guest"),
		"client only":          issue(func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[:1] }),
		"server only":          issue(func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[1:] }),
		"no key usage":         issue(func(c *x509.Certificate) { c.ExtKeyUsage = nil }),
		"a further CA":         issue(func(c *x509.Certificate) { c.IsCA = true }),
		"unknown critical extension": issue(func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: []int{1, 2, 3, 4}, Critical: true, Value: []byte{5, 0}}}
		}),
	} {
		t.Run(name, func(t *testing.T) {
			p := identity.Handshake(cfg, home.TLSConfig(alpn))
			if !errors.Is(p.ServerErr, identity.ErrNotMember) || p.ClientErr == nil {
				t.Errorf("as client: server says %v, client hears %v; want ErrNotMember", p.ServerErr, p.ClientErr)
			}
			p = identity.Handshake(home.TLSConfig(alpn), cfg)
			if !errors.Is(p.ClientErr, identity.ErrNotMember) || p.ServerErr == nil {
				t.Errorf("as server: client says %v, server hears %v; want ErrNotMember", p.ClientErr, p.ServerErr)
			}
		})
	}
}

func TestWrongTLSIsRefused(t *testing.T) {
	t.Parallel()
	home := identity.MustFound(t, "home")
	config := func(change func(*tls.Config)) *tls.Config {
		cfg := home.TLSConfig(alpn)
		change(cfg)
		return cfg
	}
	for name, change := range map[string]func(*tls.Config){
		"TLS 1.2":        func(c *tls.Config) { c.MinVersion, c.MaxVersion = 0, tls.VersionTLS12 },
		"wrong ALPN":     func(c *tls.Config) { c.NextProtos = []string{"h3"} },
		"no ALPN":        func(c *tls.Config) { c.NextProtos = nil },
		"no certificate": func(c *tls.Config) { c.Certificates = nil },
		"old curve":      func(c *tls.Config) { c.CurvePreferences = []tls.CurveID{tls.CurveP256} },
	} {
		t.Run(name, func(t *testing.T) {
			// The other end alone must see it.
			cfg := config(func(c *tls.Config) { change(c); c.VerifyConnection = nil; c.ClientAuth = tls.NoClientCert })
			if p := identity.Handshake(cfg, home.TLSConfig(alpn)); p.ServerErr == nil {
				t.Error("as client: accepted")
			}
			if p := identity.Handshake(home.TLSConfig(alpn), cfg); p.ClientErr == nil {
				t.Error("as server: accepted")
			}
		})
	}
}

func TestRevokedIsRefused(t *testing.T) {
	t.Parallel()
	home := identity.MustFound(t, "home")
	cabin := identity.MustJoin(t, home, "cabin")
	attic := identity.MustJoin(t, home, "attic")
	revoke(t, home, "cabin")
	for range 2 { // a second time: nothing is resumed
		if p := identity.Handshake(cabin.TLSConfig(alpn), home.TLSConfig(alpn)); !errors.Is(p.ServerErr, identity.ErrRevoked) {
			t.Errorf("as client: %v, want ErrRevoked", p.ServerErr)
		}
		if p := identity.Handshake(home.TLSConfig(alpn), cabin.TLSConfig(alpn)); !errors.Is(p.ClientErr, identity.ErrRevoked) {
			t.Errorf("as server: %v, want ErrRevoked", p.ClientErr)
		}
	}
	if p := identity.Handshake(attic.TLSConfig(alpn), home.TLSConfig(alpn)); p.Err() != nil {
		t.Errorf("another member: %v", p.Err())
	}
}

func TestFounderSite(t *testing.T) {
	t.Parallel()
	home := identity.MustFound(t, "home")
	cabin := identity.MustJoin(t, home, "cabin")
	if !home.Founder() || cabin.Founder() {
		t.Errorf("Founder() = %v at home, %v at cabin", home.Founder(), cabin.Founder())
	}
	if got := cabin.FounderSite(); got != "home" {
		t.Errorf("FounderSite() = %q, want home", got)
	}
	_, err := cabin.Invite("", time.Hour, []string{"192.0.2.1:1"})
	if !errors.Is(err, identity.ErrNotFounder) || !strings.Contains(err.Error(), `site "home"`) {
		t.Errorf("Invite: %v, want ErrNotFounder that names home", err)
	}
}

func newKey(t *testing.T) crypto.Signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// founderKey reads the CA key of m's network.
func founderKey(t *testing.T, m *identity.Member) crypto.Signer {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(m.Dir().Path(), "ca.key"))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(data)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return key.(crypto.Signer)
}

// selfSigned makes a certificate that says what a member's would.
func selfSigned(t *testing.T, key crypto.Signer, network string) tls.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		URIs:         []*url.URL{{Scheme: "l2bridge", Host: network, Path: "/guest"}},
		NotAfter:     time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC),
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
