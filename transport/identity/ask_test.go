// SPDX-License-Identifier: Apache-2.0

package identity_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/l2bridge/l2bridge/transport/identity"
)

// petition connects d to a member and returns who asks there as site, and whom it
// has asked.
func petition(t *testing.T, d *identity.Dir, at *identity.Member, site string) (identity.Asker, identity.Host, error) {
	t.Helper()
	key, err := d.SiteKey()
	if err != nil {
		t.Fatal(err)
	}
	p := identity.Handshake(identity.AskTLSConfig(key, site, nil), at.AskedTLSConfig())
	if err := p.Err(); err != nil {
		t.Fatal(err)
	}
	host, err := identity.HostOf(p.Client)
	if err != nil {
		t.Fatal(err)
	}
	request := append([]byte{byte(len(site))}, site...)
	asker, err := identity.ReadAsk(request, p.Server)
	return asker, host, err
}

// accept gives a certificate to d by way of an answer's bytes.
func accept(d *identity.Dir, host identity.Host, site string, ca, leaf []byte) (*identity.Member, []string, error) {
	sent := identity.Answer{Kind: identity.AnswerMember, CA: ca, Leaf: leaf, Addrs: someAddr}.Append(nil)
	answer, err := identity.ReadAnswer(bytes.NewReader(sent))
	if err != nil {
		return nil, nil, err
	}
	return d.Accept(host, site, answer)
}

func TestApprove(t *testing.T) {
	t.Parallel()
	home, d := identity.MustFound(t, "home"), newDir(t)
	asker, host, err := petition(t, d, home, "cabin")
	if err != nil {
		t.Fatal(err)
	}
	if want := (identity.Host{CA: home.CAID(), Network: home.Network, Site: "home"}); host != want {
		t.Errorf("asked %+v, want %+v", host, want)
	}
	if leaf, err := home.Consider(asker); leaf != nil || err != nil {
		t.Fatalf("before: %x, %v", leaf, err)
	}
	leaf, err := home.Approve(asker)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if again, err := home.Consider(asker); err != nil || !bytes.Equal(again, leaf) {
			t.Errorf("after: not the same certificate, or %v", err)
		}
		if again, err := home.Approve(asker); err != nil || !bytes.Equal(again, leaf) {
			t.Errorf("approved again: not the same certificate, or %v", err)
		}
		cabin, addrs, err := accept(d, host, "cabin", home.CA.Raw, leaf)
		if err != nil {
			t.Fatal(err)
		}
		if cabin.Site != "cabin" || cabin.ID != asker.ID || !cmp.Equal(addrs, someAddr) {
			t.Errorf("member %+v, addresses %v", cabin, addrs)
		}
		if p := identity.Handshake(cabin.TLSConfig(alpn), home.TLSConfig(alpn)); p.Err() != nil {
			t.Errorf("handshake: %v", p.Err())
		}
	}
	if diff := cmp.Diff([]string{"home " + home.ID.String(), "cabin " + asker.ID.String()}, home.Issued(t)); diff != "" {
		t.Errorf("issued (-want +got):\n%s", diff)
	}
}

func TestAskRefused(t *testing.T) {
	t.Parallel()
	home := identity.MustFound(t, "home")
	cabin := identity.MustJoin(t, home, "cabin")
	for _, tt := range []struct {
		name string
		dir  *identity.Dir
		at   *identity.Member
		site string
		want error
	}{
		{"name of another key", newDir(t), home, "cabin", identity.ErrSiteTaken},
		{"the founder's name", newDir(t), home, "home", identity.ErrSiteTaken},
		{"a member under another name", cabin.Dir(), home, "cottage", identity.ErrKeyTaken},
		{"no name", newDir(t), home, "", identity.ErrSiteRefused},
		{"a reserved name", newDir(t), home, "all", identity.ErrSiteRefused},
		{"a name that steers terminals", newDir(t), home, "\x1b[2J", identity.ErrSiteRefused},
		{"a long name", newDir(t), home, strings.Repeat("x", 64), identity.ErrSiteRefused},
		{"not at the founder", newDir(t), cabin, "barn", identity.ErrNotFounder},
	} {
		before := home.Issued(t)
		asker, _, err := petition(t, tt.dir, tt.at, tt.site)
		if err == nil {
			_, err = tt.at.Consider(asker)
			if _, aerr := tt.at.Approve(asker); !errors.Is(aerr, tt.want) {
				t.Errorf("%s: approved all the same: %v", tt.name, aerr)
			}
		}
		if !errors.Is(err, tt.want) || identity.Clean(err.Error()) != err.Error() {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
		if diff := cmp.Diff(before, home.Issued(t)); diff != "" {
			t.Errorf("%s: issued (-before +after):\n%s", tt.name, diff)
		}
	}
	if err := home.MayEnrol(); err != nil {
		t.Error(err)
	}
	if err := cabin.MayEnrol(); !errors.Is(err, identity.ErrNotFounder) || !strings.Contains(err.Error(), `"home"`) {
		t.Errorf("cabin may enrol: %v", err)
	}
}

// An asker takes what it asked for, of the network that it asked, and no other.
func TestAcceptRefuses(t *testing.T) {
	t.Parallel()
	home, other := identity.MustFound(t, "home"), identity.MustFound(t, "home")
	d, stranger := newDir(t), newDir(t)
	asker, host, err := petition(t, d, home, "cabin")
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := home.Approve(asker)
	if err != nil {
		t.Fatal(err)
	}
	elsewhere, err := other.Approve(asker)
	if err != nil {
		t.Fatal(err)
	}
	theirs, _, err := petition(t, stranger, home, "barn")
	if err != nil {
		t.Fatal(err)
	}
	barn, err := home.Approve(theirs)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name     string
		site     string
		ca, leaf []byte
	}{
		{"another network", "cabin", other.CA.Raw, elsewhere},
		{"another network's certificate", "cabin", home.CA.Raw, elsewhere},
		{"another name", "cottage", home.CA.Raw, leaf},
		{"another key", "barn", home.CA.Raw, barn},
		{"no certificate", "cabin", home.CA.Raw, nil},
		{"no CA", "cabin", nil, leaf},
		{"a member for a CA", "cabin", leaf, leaf},
	} {
		if m, _, err := accept(d, host, tt.site, tt.ca, tt.leaf); m != nil || err == nil {
			t.Errorf("%s: accepted", tt.name)
		}
		if _, err := d.Load(); !errors.Is(err, identity.ErrNotEnrolled) {
			t.Fatalf("%s: stored: %v", tt.name, err)
		}
	}

	// Once the first CA is known no other is heard.
	key, err := d.SiteKey()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		server *tls.Config
		want   error
	}{
		{"the same", home.AskedTLSConfig(), nil},
		{"another network", other.AskedTLSConfig(), identity.ErrNotMember},
		{"a member without its CA", home.TLSConfig(identity.AskALPN), identity.ErrNotMember},
	} {
		if p := identity.Handshake(identity.AskTLSConfig(key, "cabin", &host.CA), tt.server); !errors.Is(p.ClientErr, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, p.ClientErr, tt.want)
		}
	}
	// Nor one that only another protocol goes with.
	if p := identity.Handshake(identity.JoinTLSConfig(key, "cabin", host.CA), home.AskedTLSConfig()); p.Err() == nil {
		t.Error("enrolled by the protocol of asking")
	}
}

// The bytes of answers, as ENROLMENT.md has them.
func TestAnswerBytes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		answer identity.Answer
		want   string
	}{
		{"member", identity.Answer{Kind: identity.AnswerMember, CA: []byte("ca"), Leaf: []byte("leaf"), Addrs: []string{"a:1", "no port"}},
			"\x00\x10\x00\x00\x02ca\x00\x04leaf\x01\x03a:1"},
		{"refused", identity.Answer{Kind: identity.AnswerRefused, Refusal: &identity.Refusal{Code: 16, Text: "no\x1b"}}, "\x00\x06\x01\x10\x03no?"},
		{"wait", identity.Answer{Kind: identity.AnswerWait, Left: 10*time.Minute - 1}, "\x00\x03\x02\x02\x57"},
		{"wait no more", identity.Answer{Kind: identity.AnswerWait, Left: -1}, "\x00\x03\x02\x00\x00"},
		{"elsewhere", identity.Answer{Kind: identity.AnswerElsewhere, Site: "home", Addrs: []string{"h:1"}}, "\x00\x0b\x03\x04home\x01\x03h:1"},
	} {
		if got := string(tt.answer.Append(nil)); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
		for n := range len(tt.want) {
			if _, err := identity.ReadAnswer(strings.NewReader(tt.want[:n])); err == nil {
				t.Errorf("%s: cut after %d bytes is an answer", tt.name, n)
			}
		}
	}
}

// What is said is heard.
func TestAnswerModel(t *testing.T) {
	t.Parallel()
	text := rapid.SliceOfN(rapid.Byte(), 0, 300)
	rapid.Check(t, func(t *rapid.T) {
		a := identity.Answer{Kind: identity.AnswerKind(rapid.IntRange(0, 3).Draw(t, "kind"))}
		addrs := rapid.SliceOfN(rapid.SampledFrom([]string{"a.example:1", "[2001:db8::1]:4433", "192.0.2.1:65535"}), 0, 16).Draw(t, "addrs")
		switch a.Kind {
		case identity.AnswerMember:
			a.CA, a.Leaf, a.Addrs = text.Draw(t, "ca"), text.Draw(t, "leaf"), addrs
		case identity.AnswerRefused:
			a.Refusal = &identity.Refusal{Code: rapid.Byte().Draw(t, "code"), Text: rapid.StringMatching("[ -~]{0,200}").Draw(t, "text")}
		case identity.AnswerWait:
			a.Left = time.Duration(rapid.IntRange(0, 65535).Draw(t, "seconds")) * time.Second
		case identity.AnswerElsewhere:
			a.Site, a.Addrs = rapid.StringMatching("|[a-z0-9-]{6,63}").Draw(t, "site"), addrs
		}
		b := append(a.Append(nil), "the next one"...)
		got, err := identity.ReadAnswer(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		if len(a.Addrs) == 0 {
			a.Addrs = nil
		}
		if diff := cmp.Diff(a, got); diff != "" {
			t.Fatalf("(-said +heard):\n%s", diff)
		}
	})
}

func FuzzAnswer(f *testing.F) {
	for _, a := range []identity.Answer{
		{Kind: identity.AnswerMember, CA: []byte("ca"), Leaf: []byte("leaf"), Addrs: someAddr},
		{Kind: identity.AnswerRefused, Refusal: identity.ErrAskDenied},
		{Kind: identity.AnswerWait, Left: time.Minute},
		{Kind: identity.AnswerElsewhere, Site: "home", Addrs: someAddr},
	} {
		f.Add(a.Append(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := identity.ReadAnswer(bytes.NewReader(b))
		if err != nil {
			return
		}
		if a.Refusal != nil && identity.Clean(a.Refusal.Text) != a.Refusal.Text {
			t.Errorf("not fit to print: %q", a.Refusal.Text)
		}
		if a.Site != "" && identity.ValidSite(a.Site) != nil {
			t.Errorf("site %q", a.Site)
		}
		again, err := identity.ReadAnswer(bytes.NewReader(a.Append(nil)))
		if err != nil {
			t.Fatalf("%+v said again: %v", a, err)
		}
		if diff := cmp.Diff(a, again); diff != "" {
			t.Errorf("said again (-first +second):\n%s", diff)
		}
	})
}

func FuzzAsk(f *testing.F) {
	home := identity.MustFound(f, "home")
	key, err := identity.MustOpen(f, filepath.Join(f.TempDir(), "state")).SiteKey()
	if err != nil {
		f.Fatal(err)
	}
	p := identity.Handshake(identity.AskTLSConfig(key, "cabin", nil), home.AskedTLSConfig())
	if err := p.Err(); err != nil {
		f.Fatal(err)
	}
	good, err := identity.NewAsk("cabin")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte{})
	f.Add([]byte{5, 'a'})
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := identity.ReadAsk(b, p.Server)
		var refusal *identity.Refusal
		switch {
		case err == nil && identity.ValidSite(a.Site) != nil:
			t.Errorf("site %q", a.Site)
		case err != nil && !errors.As(err, &refusal):
			t.Errorf("the asker does not hear of %v", err)
		}
	})
}
