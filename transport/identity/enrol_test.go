// SPDX-License-Identifier: Apache-2.0

package identity_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/l2bridge/l2bridge/transport/identity"
)

var someAddr = []string{"192.0.2.1:4433"}

func invite(t *testing.T, founder *identity.Member, site string) identity.Token {
	t.Helper()
	tok, err := founder.Invite(site, time.Hour, someAddr)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func newDir(t *testing.T) *identity.Dir {
	t.Helper()
	return identity.MustOpen(t, filepath.Join(t.TempDir(), "state"))
}

// ask gets as far as the request.
func ask(t *testing.T, d *identity.Dir, founder *identity.Member, tok identity.Token, site string) ([]byte, tls.ConnectionState) {
	t.Helper()
	req, cs, err := identity.Ask(d, founder, tok, site)
	if err != nil {
		t.Fatal(err)
	}
	return req, cs
}

func TestEnrol(t *testing.T) {
	t.Parallel()
	home := identity.MustFound(t, "home")
	tok := invite(t, home, "cabin")
	path := filepath.Join(t.TempDir(), "state")
	d, err := identity.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Load(); !errors.Is(err, identity.ErrNotEnrolled) {
		t.Errorf("Load before: %v, want ErrNotEnrolled", err)
	}
	req, cs := ask(t, d, home, tok, "cabin")
	members := []string{"192.0.2.1:4433", "no port", "vpn.example.org:1"}
	reply, err := home.Enrol(req, cs, members)
	if err != nil {
		t.Fatal(err)
	}
	cabin, told, err := d.Join(tok, "cabin", reply)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"192.0.2.1:4433", "vpn.example.org:1"}, told); diff != "" {
		t.Errorf("addresses (-want +got):\n%s", diff)
	}
	if cabin.Site != "cabin" || cabin.Network != home.Network || !bytes.Equal(cabin.CA.Raw, home.CA.Raw) {
		t.Errorf("member %+v", cabin)
	}
	want := []string{"home " + home.ID.String(), "cabin " + cabin.ID.String()}
	if diff := cmp.Diff(want, home.Issued(t)); diff != "" {
		t.Errorf("issued (-want +got):\n%s", diff)
	}

	// It is stored, and a reply that comes twice is harmless.
	if _, _, err := d.Join(tok, "cabin", reply); err != nil {
		t.Errorf("reply again: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := identity.MustOpen(t, path).Load()
	if err != nil || again.ID != cabin.ID || again.Site != "cabin" {
		t.Errorf("Load after: %+v, %v", again, err)
	}
	if p := identity.Handshake(again.TLSConfig(alpn), home.TLSConfig(alpn)); p.Err() != nil {
		t.Errorf("handshake after: %v", p.Err())
	}
}

// The proof is pinned as another implementation would compute it.
func TestProof(t *testing.T) {
	t.Parallel()
	home := identity.MustFound(t, "home")
	tok := invite(t, home, "")
	req, cs := ask(t, newDir(t), home, tok, "cabin")
	exporter, err := cs.ExportKeyingMaterial("EXPORTER-l2bridge-join/1", nil, 32)
	if err != nil {
		t.Fatal(err)
	}
	mac := hmac.New(sha256.New, tok.Secret())
	fmt.Fprintf(mac, "l2bridge-join/1 proof%scabin", exporter)
	if want := append(mac.Sum(nil), "\x05cabin"...); !bytes.Equal(req[8:], want) {
		t.Errorf("request %x, want a token id and %x", req, want)
	}
}

// refused expects Enrol to refuse for the reason want, at both ends.
func refused(t *testing.T, founder *identity.Member, d *identity.Dir, tok identity.Token, site string, req []byte, cs tls.ConnectionState, want error) error {
	t.Helper()
	before := founder.Issued(t)
	reply, err := founder.Enrol(req, cs, someAddr)
	if !errors.Is(err, want) {
		t.Errorf("founder: %v, want %v", err, want)
	}
	if len(reply) > identity.MaxMessage {
		t.Errorf("reply of %d bytes", len(reply))
	}
	m, _, err := d.Join(tok, site, reply)
	if m != nil || !errors.Is(err, want) {
		t.Errorf("joiner: %v, want %v", err, want)
	}
	if _, lerr := d.Load(); !errors.Is(lerr, identity.ErrNotEnrolled) {
		t.Errorf("joiner has stored something: %v", lerr)
	}
	if diff := cmp.Diff(before, founder.Issued(t)); diff != "" {
		t.Errorf("founder has issued (-before +after):\n%s", diff)
	}
	return err
}

func TestEnrolRefuses(t *testing.T) {
	t.Parallel()
	home := identity.MustFound(t, "home")
	cabin := identity.MustJoin(t, home, "cabin")

	t.Run("used token", func(t *testing.T) {
		tok := invite(t, home, "")
		if _, _, err := identity.JoinAt(newDir(t), home, tok, "first"); err != nil {
			t.Fatal(err)
		}
		d := newDir(t)
		req, cs := ask(t, d, home, tok, "second")
		refused(t, home, d, tok, "second", req, cs, identity.ErrTokenUsed)
	})
	t.Run("unknown token", func(t *testing.T) {
		tok := invite(t, home, "")
		d := newDir(t)
		req, cs := ask(t, d, home, tok, "x")
		req[0] ^= 1
		refused(t, home, d, tok, "x", req, cs, identity.ErrTokenUnknown)
	})
	t.Run("wrong secret", func(t *testing.T) {
		tok := invite(t, home, "")
		d := newDir(t)
		req, cs := ask(t, d, home, tok.WithSecret(7), "x")
		refused(t, home, d, tok, "x", req, cs, identity.ErrTokenUnknown)
		// Guessing does not use the token up.
		if _, _, err := identity.JoinAt(d, home, tok, "guessed"); err != nil {
			t.Errorf("right secret afterwards: %v", err)
		}
	})
	t.Run("proof of another connection", func(t *testing.T) {
		tok := invite(t, home, "")
		d := newDir(t)
		req, _ := ask(t, d, home, tok, "x")
		_, cs := ask(t, d, home, tok, "x")
		refused(t, home, d, tok, "x", req, cs, identity.ErrTokenUnknown)
	})
	t.Run("proof for another site", func(t *testing.T) {
		tok := invite(t, home, "")
		d := newDir(t)
		req, cs := ask(t, d, home, tok, "x")
		req[len(req)-1] = 'y'
		refused(t, home, d, tok, "y", req, cs, identity.ErrTokenUnknown)
	})
	t.Run("site of another key", func(t *testing.T) {
		for _, site := range []string{"home", "cabin"} {
			tok := invite(t, home, "")
			d := newDir(t)
			req, cs := ask(t, d, home, tok, site)
			err := refused(t, home, d, tok, site, req, cs, identity.ErrSiteTaken)
			if want := `site name "` + site + `" is in use by another key (pick another with --site)`; err.Error() != want {
				t.Errorf("joiner reads %q, want %q", err, want)
			}
			// The token is as good as before.
			if _, _, err := identity.JoinAt(d, home, tok, "not-"+site); err != nil {
				t.Error(err)
			}
		}
	})
	t.Run("token for another site", func(t *testing.T) {
		tok := invite(t, home, "barn")
		d := newDir(t)
		loose := tok
		loose.Site = "" // a joiner who lies
		req, cs := ask(t, d, home, loose, "shed")
		refused(t, home, d, tok, "shed", req, cs, identity.ErrSiteRefused)
	})
	t.Run("key of another site", func(t *testing.T) {
		tok := invite(t, home, "")
		req, cs := ask(t, cabin.Dir(), home, tok, "cottage")
		reply, err := home.Enrol(req, cs, nil)
		if !errors.Is(err, identity.ErrKeyTaken) {
			t.Errorf("founder: %v", err)
		}
		if _, _, err := cabin.Dir().Join(tok, "cottage", reply); !errors.Is(err, identity.ErrKeyTaken) || !strings.Contains(err.Error(), "--site cabin") {
			t.Errorf("joiner: %v, want ErrKeyTaken that names cabin", err)
		}
	})
	t.Run("not a founder", func(t *testing.T) {
		tok := invite(t, home, "")
		d := newDir(t)
		req, cs := ask(t, d, cabin, tok, "x")
		reply, err := cabin.Enrol(req, cs, nil)
		if !errors.Is(err, identity.ErrNotFounder) {
			t.Errorf("member: %v, want ErrNotFounder", err)
		}
		if _, _, err := d.Join(tok, "x", reply); !errors.Is(err, identity.ErrUnavailable) {
			t.Errorf("joiner: %v, want ErrUnavailable", err)
		}
	})
	t.Run("malformed", func(t *testing.T) {
		tok := invite(t, home, "")
		d := newDir(t)
		req, cs := ask(t, d, home, tok, "x")
		for n := range req {
			refused(t, home, d, tok, "x", req[:n], cs, identity.ErrMalformed)
		}
		refused(t, home, d, tok, "x", make([]byte, identity.MaxMessage+1), cs, identity.ErrMalformed)
	})
	t.Run("no handshake", func(t *testing.T) {
		tok := invite(t, home, "")
		d := newDir(t)
		req, _ := ask(t, d, home, tok, "x")
		if reply, err := home.Enrol(req, tls.ConnectionState{}, nil); err == nil || len(reply) == 0 || reply[0] == 0 {
			t.Errorf("reply %x, %v", reply, err)
		}
	})
}

func TestEnrolBadSiteName(t *testing.T) {
	t.Parallel()
	home := identity.MustFound(t, "home")
	tok := invite(t, home, "")
	d := newDir(t)
	for _, site := range []string{"", "all", "x y", "\x1b[2J", strings.Repeat("x", 64)} {
		if _, _, err := identity.Ask(d, home, tok, site); err == nil {
			t.Errorf("joiner asks for %q", site)
		}
		_, cs := ask(t, d, home, tok, "x")
		exporter, err := cs.ExportKeyingMaterial("EXPORTER-l2bridge-join/1", nil, 32)
		if err != nil {
			t.Fatal(err)
		}
		id, _, _, err := identity.ParseRequest(mustRequest(t, d, home, tok))
		if err != nil {
			t.Fatal(err)
		}
		mac := hmac.New(sha256.New, tok.Secret())
		fmt.Fprintf(mac, "l2bridge-join/1 proof%s%s", exporter, site)
		req := identity.AppendRequest(id, [32]byte(mac.Sum(nil)), site)
		err = refused(t, home, d, tok, site, req, cs, identity.ErrSiteRefused)
		if err.Error() != identity.Clean(err.Error()) {
			t.Errorf("not fit to print: %q", err)
		}
	}
}

func mustRequest(t *testing.T, d *identity.Dir, founder *identity.Member, tok identity.Token) []byte {
	t.Helper()
	req, _ := ask(t, d, founder, tok, "x")
	return req
}

// Only the founder's clock counts, and it counts to the second.
func TestTokenEnds(t *testing.T) {
	home := identity.MustFound(t, "home")
	d, late := newDir(t), newDir(t)
	synctest.Test(t, func(t *testing.T) {
		tok := invite(t, home, "")
		other := invite(t, home, "")
		time.Sleep(time.Hour)
		if _, _, err := identity.JoinAt(d, home, tok, "intime"); err != nil {
			t.Errorf("at the end: %v", err)
		}
		time.Sleep(time.Second)
		req, cs := ask(t, late, home, other, "late")
		err := refused(t, home, late, other, "late", req, cs, identity.ErrTokenEnded)
		if !strings.Contains(err.Error(), other.End.Format(time.RFC3339)) {
			t.Errorf("joiner reads %q, want it to say when", err)
		}
		// A lost reply is given again also after the end.
		if _, _, err := identity.JoinAt(d, home, tok, "intime"); err != nil {
			t.Errorf("again after the end: %v", err)
		}
	})
}

func TestEnrolSameKeyAgain(t *testing.T) {
	t.Parallel()
	home := identity.MustFound(t, "home")
	tok := invite(t, home, "")
	d := newDir(t)
	var first []byte
	for i := range 3 { // the first two replies are lost
		if i == 2 {
			tok = invite(t, home, "cabin") // a new token does too
		}
		req, cs := ask(t, d, home, tok, "cabin")
		reply, err := home.Enrol(req, cs, someAddr)
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			first = reply
		}
		if !bytes.Equal(reply, first) {
			t.Errorf("reply %d is another certificate", i)
		}
	}
	if n := len(home.Issued(t)); n != 2 {
		t.Errorf("%d certificates, want home's and one more", n)
	}
	if _, _, err := d.Join(tok, "cabin", first); err != nil {
		t.Error(err)
	}
}

func TestEnrolRevokedKey(t *testing.T) {
	t.Parallel()
	home := identity.MustFound(t, "home")
	cabin := identity.MustJoin(t, home, "cabin")
	revoke(t, home, "cabin")
	tok := invite(t, home, "")
	d := cabin.Dir()
	for _, site := range []string{"cabin", "x"} {
		req, cs := ask(t, d, home, tok, site)
		reply, err := home.Enrol(req, cs, nil)
		if _, _, _, rerr := identity.ParseReply(reply); !errors.Is(err, identity.ErrKeyRevoked) || !errors.Is(rerr, identity.ErrKeyRevoked) {
			t.Errorf("as %s: %v, joiner %v; want ErrKeyRevoked", site, err, rerr)
		}
	}
	// Its name is free again, for another key.
	if got := identity.MustJoin(t, home, "cabin"); got.ID == cabin.ID || home.Revoked(got.ID) {
		t.Errorf("cabin again: %v", got.ID)
	}
}

// editIssued hands the founder's list of certificates to edit.
func editIssued(t *testing.T, m *identity.Member, edit func([]any) []any) {
	m.EditState(t, func(st map[string]any) {
		ledger := st["ledger"].(map[string]any)
		ledger["issued"] = edit(ledger["issued"].([]any))
	})
}

func TestEnrolRelayNameTaken(t *testing.T) {
	t.Parallel()
	home := identity.MustFound(t, "home")
	tok := invite(t, home, "")
	d := newDir(t)
	req, cs := ask(t, d, home, tok, "x")
	key, err := x509.MarshalPKIXPublicKey(cs.PeerCertificates[0].PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	near := identity.ID(sha256.Sum256(key))
	near[8] ^= 1 // another key, the same first 8 bytes
	editIssued(t, home, func(list []any) []any {
		return append(list, map[string]any{"site": "near", "id": near, "serial": "1", "when": time.Now(), "cert": ""})
	})
	refused(t, home, d, tok, "x", req, cs, identity.ErrKeyTaken)
	near[7] ^= 1
	editIssued(t, home, func(list []any) []any {
		list[1].(map[string]any)["id"] = near
		return list
	})
	if _, err := home.Enrol(req, cs, nil); err != nil {
		t.Errorf("with another short name: %v", err)
	}
}

func TestEnrolNetworkFull(t *testing.T) {
	t.Parallel()
	home := identity.MustFound(t, "home")
	tok := invite(t, home, "")
	d := newDir(t)
	req, cs := ask(t, d, home, tok, "x")
	editIssued(t, home, func(list []any) []any {
		for i := len(list); i < 1024; i++ {
			id := fmt.Sprintf("%064x", i)
			id = id[32:] + id[:32]
			list = append(list, map[string]any{"site": fmt.Sprint("s", i), "id": id, "serial": "1", "when": time.Now(), "cert": bytes.Repeat([]byte{1}, 450)})
		}
		return list
	})
	refused(t, home, d, tok, "x", req, cs, identity.ErrUnavailable)
}

// Two machines race for one token: exactly one wins, and the book agrees.
func TestOneTokenTwoMachines(t *testing.T) {
	t.Parallel()
	home := identity.MustFound(t, "home")
	dirs := [2]*identity.Dir{newDir(t), newDir(t)}
	for round := range 100 {
		tok := invite(t, home, "")
		var wg sync.WaitGroup
		var errs [2]error
		start := make(chan struct{})
		for i, d := range dirs {
			// The second round on, both keys are known: they ask for
			// the name they have.
			site := fmt.Sprint("site", i)
			req, cs := ask(t, d, home, tok, site)
			wg.Go(func() {
				<-start
				_, errs[i] = home.Enrol(req, cs, nil)
			})
		}
		close(start)
		wg.Wait()
		won := 0
		for _, err := range errs {
			if err == nil {
				won++
			} else if !errors.Is(err, identity.ErrTokenUsed) {
				t.Errorf("round %d: %v, want ErrTokenUsed", round, err)
			}
		}
		if won != 1 {
			t.Fatalf("round %d: %d have won", round, won)
		}
	}
}

// Two machines race for one name with a token each.
func TestOneNameTwoMachines(t *testing.T) {
	t.Parallel()
	home := identity.MustFound(t, "home")
	var wg sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		req, cs := ask(t, newDir(t), home, invite(t, home, ""), "cabin")
		wg.Go(func() { _, errs[i] = home.Enrol(req, cs, nil) })
	}
	wg.Wait()
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
		} else if !errors.Is(err, identity.ErrSiteTaken) {
			t.Error(err)
		}
	}
	if won != 1 || len(home.Issued(t)) != 2 {
		t.Errorf("%d have won; issued %q", won, home.Issued(t))
	}
}

func TestJoinRefusesServers(t *testing.T) {
	t.Parallel()
	home := identity.MustFound(t, "home")
	other := identity.MustFound(t, "home")
	tok := invite(t, home, "")
	key, err := newDir(t).SiteKey()
	if err != nil {
		t.Fatal(err)
	}
	chain := func(key any, ders ...[]byte) func(*tls.Config) {
		return func(c *tls.Config) {
			c.Certificates = []tls.Certificate{{Certificate: ders, PrivateKey: key}}
		}
	}
	leaf := home.Leaf.Certificate[0]
	caKey := founderKey(t, home)
	for name, change := range map[string]func(*tls.Config){
		"other network":       chain(other.Leaf.PrivateKey, other.Leaf.Certificate[0], other.CA.Raw),
		"other leaf, our CA":  chain(other.Leaf.PrivateKey, other.Leaf.Certificate[0], home.CA.Raw),
		"no CA":               chain(home.Leaf.PrivateKey, leaf),
		"three certificates":  chain(home.Leaf.PrivateKey, leaf, home.CA.Raw, home.CA.Raw),
		"CA as leaf":          chain(caKey, home.CA.Raw, home.CA.Raw),
		"CA made by a member": chain(home.Leaf.PrivateKey, leaf, forgedCA(home)),
		"no protocol":         func(c *tls.Config) { c.NextProtos = nil },
		"member protocol":     func(c *tls.Config) { c.NextProtos = []string{alpn} },
		"TLS 1.2":             func(c *tls.Config) { c.MinVersion, c.MaxVersion = 0, tls.VersionTLS12 },
	} {
		cfg := home.EnrolTLSConfig()
		cfg.VerifyConnection = nil
		change(cfg)
		if p := identity.Handshake(identity.JoinTLSConfig(key, "x", tok.CA), cfg); p.ClientErr == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if p := identity.Handshake(identity.JoinTLSConfig(key, "x", tok.CA), home.EnrolTLSConfig()); p.Err() != nil {
		t.Errorf("the founder: %v", p.Err())
	}

	// Right CA, other network name in the token.
	p := identity.Handshake(identity.JoinTLSConfig(key, "x", tok.CA), home.EnrolTLSConfig())
	tok.Network = "other"
	if _, err := identity.NewJoinRequest(tok, "x", p.Client); !errors.Is(err, identity.ErrNotMember) {
		t.Errorf("network name: %v, want ErrNotMember", err)
	}
}

// forgedCA has the public key of m's CA and another signature.
func forgedCA(m *identity.Member) []byte {
	der := bytes.Clone(m.CA.Raw)
	der[len(der)-1] ^= 1
	return der
}

func TestEnrolRefusesClients(t *testing.T) {
	t.Parallel()
	home := identity.MustFound(t, "home")
	cabin := identity.MustJoin(t, home, "cabin")
	key := newKey(t)
	good := selfSigned(t, key, "x")
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	spoiled := selfSigned(t, key, "x")
	spoiled.Certificate[0] = bytes.Clone(spoiled.Certificate[0])
	spoiled.Certificate[0][len(spoiled.Certificate[0])-1] ^= 1
	two := good
	two.Certificate = append(two.Certificate[:1:1], home.CA.Raw)
	for name, cert := range map[string]tls.Certificate{
		"no certificate":   {},
		"ECDSA":            selfSigned(t, ec, "x"),
		"spoiled":          spoiled,
		"not self-signed":  cabin.Leaf,
		"two certificates": two,
	} {
		cfg := identity.JoinTLSConfig(key, "x", [32]byte{})
		cfg.VerifyConnection = nil
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
		if p := identity.Handshake(cfg, home.EnrolTLSConfig()); p.ServerErr == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	cfg := identity.JoinTLSConfig(key, "x", [32]byte{})
	cfg.VerifyConnection = nil
	if p := identity.Handshake(cfg, home.EnrolTLSConfig()); p.Err() != nil {
		t.Errorf("a joiner: %v", p.Err())
	}
	cfg.NextProtos = nil
	if p := identity.Handshake(cfg, home.EnrolTLSConfig()); p.ServerErr == nil {
		t.Error("no ALPN: accepted")
	}
}

// A joiner stores nothing that is not its own.
func TestJoinRefusesReplies(t *testing.T) {
	t.Parallel()
	home := identity.MustFound(t, "home")
	other := identity.MustFound(t, "home")
	cabin := identity.MustJoin(t, home, "cabin")
	tok := invite(t, home, "")
	d := newDir(t)
	req, cs := ask(t, d, home, tok, "barn")
	good, err := home.Enrol(req, cs, someAddr)
	if err != nil {
		t.Fatal(err)
	}
	ca, leaf, addrs, err := identity.ParseReply(good)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		reply []byte
		site  string
		want  string
	}{
		"empty":           {nil, "barn", "cut short"},
		"other CA":        {identity.AppendReply(other.CA.Raw, leaf, addrs), "barn", "not of the one that was asked"},
		"forged CA":       {identity.AppendReply(forgedCA(home), leaf, addrs), "barn", "not signed with its own key"},
		"no CA":           {identity.AppendReply(nil, leaf, addrs), "barn", "certificate of the network"},
		"CA as leaf":      {identity.AppendReply(ca, ca, addrs), "barn", "that of a CA"},
		"no leaf":         {identity.AppendReply(ca, nil, addrs), "barn", "certificate of this site"},
		"other site":      {good, "shed", `certificate is for site "barn"`},
		"other key":       {identity.AppendReply(ca, cabin.Leaf.Certificate[0], addrs), "cabin", "for another key"},
		"self-signed":     {identity.AppendReply(ca, selfSigned(t, newKey(t), home.Network).Certificate[0], addrs), "guest", "certificate of this site"},
		"trailing in DER": {identity.AppendReply(ca, append(bytes.Clone(leaf), 0), addrs), "barn", "certificate of this site"},
		"too long":        {append(bytes.Clone(good), make([]byte, identity.MaxMessage)...), "barn", "more than 8192 bytes"},
		"unknown code":    {[]byte{77, 3, 'a', '\n', 'b'}, "barn", "a?b"},
		"code alone":      {[]byte{77}, "barn", "refused by the founder, code 77"},
		"text cut short":  {[]byte{77, 3, 'a'}, "barn", "refused by the founder, code 77"},
	} {
		_, _, err := d.Join(tok, c.site, c.reply)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
		if _, err := d.Load(); !errors.Is(err, identity.ErrNotEnrolled) {
			t.Fatalf("%s: stored something: %v", name, err)
		}
	}
	for n := range good {
		if _, _, err := d.Join(tok, "barn", good[:n]); err == nil {
			t.Fatalf("accepted the first %d bytes of a reply", n)
		}
	}
	if _, _, err := d.Join(tok, "barn", append(good, "more, from a later version"...)); err != nil {
		t.Errorf("with more behind it: %v", err)
	}
}

// The CA key may be kept elsewhere: the founder stays a member.
func TestFounderWithoutCAKey(t *testing.T) {
	t.Parallel()
	home := identity.MustFound(t, "home")
	if err := os.Remove(filepath.Join(home.Dir().Path(), "ca.key")); err != nil {
		t.Fatal(err)
	}
	m, err := home.Dir().Load()
	if err != nil || m.Founder() {
		t.Fatalf("Load: founder %v, %v", m != nil && m.Founder(), err)
	}
	if _, err := m.Invite("", time.Hour, someAddr); !errors.Is(err, identity.ErrNotFounder) || !strings.Contains(err.Error(), "put ca.key back") {
		t.Errorf("Invite: %v, want ErrNotFounder and the remedy", err)
	}
	if _, err := os.Stat(filepath.Join(home.Dir().Path(), "ca.key")); err == nil {
		t.Error("a new CA key was made")
	}
}

func FuzzJoinRequest(f *testing.F) {
	f.Add([]byte{})
	f.Add(identity.AppendRequest([8]byte{1}, [32]byte{2}, "cabin"))
	f.Fuzz(func(t *testing.T, b []byte) {
		token, proof, site, err := identity.ParseRequest(b)
		if err != nil {
			return
		}
		if got := identity.AppendRequest(token, proof, site); !bytes.HasPrefix(b, got) {
			t.Errorf("%x read back as %x", b, got)
		}
	})
}

func FuzzJoinReply(f *testing.F) {
	f.Add([]byte{})
	f.Add(identity.AppendReply([]byte("ca"), []byte("leaf"), someAddr))
	f.Add(identity.AppendRefusal(identity.ErrTokenEnded))
	f.Fuzz(func(t *testing.T, b []byte) {
		ca, leaf, addrs, err := identity.ParseReply(b)
		var refusal *identity.Refusal
		switch {
		case err == nil:
			if got := identity.AppendReply(ca, leaf, addrs); !bytes.HasPrefix(b, got) {
				t.Errorf("%x read back as %x", b, got)
			}
		case errors.As(err, &refusal):
			if refusal.Code == 0 || refusal.Text != identity.Clean(refusal.Text) {
				t.Errorf("refusal %d %q", refusal.Code, refusal.Text)
			}
			_, _, _, again := identity.ParseReply(identity.AppendRefusal(refusal))
			if diff := cmp.Diff(err, again); diff != "" {
				t.Errorf("refusal (-want +got):\n%s", diff)
			}
		}
	})
}

func TestReplyGolden(t *testing.T) {
	t.Parallel()
	got := identity.AppendReply([]byte("CA"), []byte("leaf"), []string{"a:1", "bad", "[::1]:65535"})
	want := []byte("\x00\x00\x02CA\x00\x04leaf\x02\x03a:1\x0b[::1]:65535")
	if !bytes.Equal(got, want) {
		t.Errorf("reply %q, want %q", got, want)
	}
	if got, want := identity.AppendRefusal(&identity.Refusal{Code: 3, Text: "no\n"}), []byte("\x03\x03no?"); !bytes.Equal(got, want) {
		t.Errorf("refusal %q, want %q", got, want)
	}
	var many []string
	for i := range 40 {
		many = append(many, fmt.Sprintf("%s:%d", strings.Repeat("h", 240), i+1))
	}
	full := identity.AppendReply(make([]byte, 1000), make([]byte, 1000), many)
	_, _, addrs, err := identity.ParseReply(full)
	if err != nil || len(addrs) != identity.MaxReplyAddrs || len(full) > identity.MaxMessage {
		t.Errorf("%d bytes, %d addresses, %v", len(full), len(addrs), err)
	}
}

// The codes are part of the protocol.
func TestRefusalCodes(t *testing.T) {
	t.Parallel()
	all := []*identity.Refusal{
		identity.ErrMalformed, identity.ErrTokenUnknown, identity.ErrTokenEnded, identity.ErrTokenUsed, identity.ErrSiteTaken,
		identity.ErrSiteRefused, identity.ErrKeyTaken, identity.ErrKeyRevoked, identity.ErrUnavailable,
	}
	for i, r := range all {
		if int(r.Code) != i+1 || r.Text == "" || r.Text != identity.Clean(r.Text) {
			t.Errorf("refusal %d has code %d, text %q", i+1, r.Code, r.Text)
		}
		for j, s := range all {
			if errors.Is(fmt.Errorf("x: %w", r), s) != (i == j) {
				t.Errorf("refusal %d is %d", i+1, j+1)
			}
		}
	}
}
