// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// askRenewal has m ask at the founder for a new key under the name site.
func askRenewal(m, founder *Member, site string) (reply []byte, err error) {
	p := Handshake(m.RenewTLSConfig(), founder.RenewTLSConfig())
	if err := p.Err(); err != nil {
		return nil, err
	}
	request, err := m.NewRenewRequest(site, p.Client)
	if err != nil {
		return nil, err
	}
	return founder.Renew(request, p.Server)
}

// renewAt goes through a whole change of m's key at the founder.
func renewAt(m, founder *Member, site string) (*Member, error) {
	reply, err := askRenewal(m, founder, site)
	if reply == nil {
		return nil, err
	}
	return m.Renewed(site, reply)
}

func mustRenew(t *testing.T, m, founder *Member, site string) *Member {
	t.Helper()
	renewed, err := renewAt(m, founder, site)
	if err != nil {
		t.Fatal(err)
	}
	return renewed
}

func mustMeet(t *testing.T, founder, m *Member) []Revocation {
	t.Helper()
	if !founder.Awaits(m.ID) {
		t.Fatalf("site %s is not awaited", m.Site)
	}
	news, err := founder.Met(m.Leaf.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	if founder.Awaits(m.ID) {
		t.Errorf("site %s is awaited still", m.Site)
	}
	return news
}

func ledgerOf(t *testing.T, m *Member) *ledger {
	t.Helper()
	st, err := m.dir.readStateLocked()
	if err != nil {
		t.Fatal(err)
	}
	return st.Ledger
}

// A site has another key, and another name if it likes. Its former key is good
// until it is met with the new one, and not after that.
func TestRenew(t *testing.T) {
	t.Parallel()
	for _, site := range []string{"cabin", "chalet"} {
		t.Run(site, func(t *testing.T) {
			t.Parallel()
			home := MustFound(t, "home")
			old := MustJoin(t, home, "cabin")
			renewed := mustRenew(t, old, home, site)
			if renewed.Site != site || renewed.ID == old.ID || renewed.Network != home.Network {
				t.Errorf("site %s, id %s, was %s", renewed.Site, renewed.ID, old.ID)
			}
			again, err := old.dir.Load()
			if err != nil || again.ID != renewed.ID || (again.Was == "cabin") != (site != "cabin") {
				t.Errorf("after a restart: was %q, %v", again.Was, err)
			}
			if key, err := old.dir.readKeyLocked(siteKeyFile); err != nil || !key.Equal(renewed.Leaf.PrivateKey) {
				t.Errorf("the new key has not taken its place: %v", err)
			}
			for _, m := range []*Member{old, renewed} {
				if err := Handshake(m.TLSConfig("x"), home.TLSConfig("x")).Err(); err != nil {
					t.Errorf("before it was met, as %s: %v", m.ID.Short(), err)
				}
			}
			if home.Awaits(old.ID) {
				_, _ = home.Met(old.Leaf.Certificate[0])
			}
			// Until then its name is not given to anybody else, nor refused to itself.
			office := MustJoin(t, home, "office")
			if _, err := renewAt(office, home, "cabin"); !errors.Is(err, ErrSiteTaken) {
				t.Errorf("the name too early, for a member: %v, want ErrSiteTaken", err)
			}
			token, err := home.Invite("cabin", time.Hour, []string{"192.0.2.1:1"})
			if err != nil {
				t.Fatal(err)
			}
			if _, _, err := JoinAt(newMemory().dir(), home, token, "cabin"); !errors.Is(err, ErrSiteTaken) {
				t.Errorf("the name too early, for a joiner: %v, want ErrSiteTaken", err)
			}
			if home.Revoked(old.ID) {
				t.Error("the former key is out before the new one was seen")
			}
			news := mustMeet(t, home, renewed)
			if want := (Revocation{Site{old.ID, "cabin"}, Rekeyed}); !slices.Equal(news, []Revocation{want}) {
				t.Errorf("put out: %v", news)
			}
			if err := Handshake(old.TLSConfig("x"), home.TLSConfig("x")).Err(); !errors.Is(err, ErrRevoked) {
				t.Errorf("the former key: %v, want ErrRevoked", err)
			}
			if err := Handshake(renewed.TLSConfig("x"), home.TLSConfig("x")).Err(); err != nil {
				t.Error(err)
			}
			if l := ledgerOf(t, home); len(l.Issued) != 3 || l.byKey(renewed.ID) < 0 || l.bySite(site) < 0 {
				t.Errorf("%+v", l.Issued)
			}
			// A name that was given up is anybody's.
			if site != "cabin" {
				MustJoin(t, home, "cabin")
			}
		})
	}
}

// A lost reply is asked for again, and is the same; whatever comes in between,
// all former keys go in the end.
func TestRenewAgain(t *testing.T) {
	t.Parallel()
	home := MustFound(t, "home")
	cabin := MustJoin(t, home, "cabin")
	first, err := askRenewal(cabin, home, "cabin")
	if err != nil {
		t.Fatal(err)
	}
	second, err := askRenewal(cabin, home, "cabin")
	if err != nil || !bytes.Equal(first, second) {
		t.Errorf("the same again is another: %v", err)
	}
	if _, err := askRenewal(cabin, home, "chalet"); !errors.Is(err, ErrKeyTaken) || !strings.Contains(err.Error(), "try again") {
		t.Errorf("under another name: %v, want ErrKeyTaken", err)
	}
	// The site has lost that key too.
	cabin.dir.forgetNextKeyLocked()
	renewed := mustRenew(t, cabin, home, "chalet")
	if news := mustMeet(t, home, renewed); len(news) != 2 {
		t.Errorf("put out: %v, want the first and the lost one", news)
	}
	if !home.Revoked(cabin.ID) {
		t.Error("the first key is good")
	}
}

// Whoever is put out is so with all keys that are good.
func TestRevokeWhileRenewing(t *testing.T) {
	t.Parallel()
	for _, by := range []func(home, cabin, chalet *Member) ([]Revocation, error){
		func(home, _, _ *Member) ([]Revocation, error) { return home.Revoke("chalet") },
		func(home, _, _ *Member) ([]Revocation, error) { return home.Revoke("cabin") },
		func(home, cabin, _ *Member) ([]Revocation, error) { return home.Revoke("x", cabin.ID) },
		func(home, cabin, _ *Member) ([]Revocation, error) { return home.Retire(Site{cabin.ID, "cabin"}, Left) },
		func(home, _, chalet *Member) ([]Revocation, error) {
			return home.Retire(Site{chalet.ID, "chalet"}, Left)
		},
	} {
		revokedWhileRenewing(t, by)
	}
}

func revokedWhileRenewing(t *testing.T, by func(home, cabin, chalet *Member) ([]Revocation, error)) {
	t.Helper()
	home := MustFound(t, "home")
	cabin := MustJoin(t, home, "cabin")
	renewed := mustRenew(t, cabin, home, "chalet")
	news, err := by(home, cabin, renewed)
	if err != nil || len(news) != 2 || !home.Revoked(cabin.ID) || !home.Revoked(renewed.ID) {
		t.Errorf("put out: %v, %v", news, err)
	}
	if home.Awaits(renewed.ID) {
		t.Error("it is awaited")
	}
	if _, err := home.Met(renewed.Leaf.Certificate[0]); err != nil {
		t.Errorf("met: %v", err)
	}
	if _, err := renewAt(renewed, home, "cabin"); !errors.Is(err, ErrRevoked) {
		t.Errorf("once more: %v, want ErrRevoked", err)
	}
}

func TestRenewRefuses(t *testing.T) {
	t.Parallel()
	home := MustFound(t, "home")
	cabin, office := MustJoin(t, home, "cabin"), MustJoin(t, home, "office")
	for _, tt := range []struct {
		name, site string
		want       error
	}{
		{"a member's name", "office", ErrSiteTaken},
		{"the founder's", "home", ErrSiteTaken},
	} {
		if _, err := renewAt(cabin, home, tt.site); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
	p := Handshake(cabin.RenewTLSConfig(), home.RenewTLSConfig())
	q := Handshake(cabin.RenewTLSConfig(), home.RenewTLSConfig())
	if err := errors.Join(p.Err(), q.Err()); err != nil {
		t.Fatal(err)
	}
	good, err := cabin.NewRenewRequest("chalet", p.Client)
	if err != nil {
		t.Fatal(err)
	}
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	request := func(site string, public ed25519.PublicKey, private ed25519.PrivateKey) []byte {
		said, err := renewProof(site, p.Client)
		if err != nil {
			t.Fatal(err)
		}
		return renewRequest{site, public, ed25519.Sign(private, said)}.append(nil)
	}
	public := key.Public().(ed25519.PublicKey)
	officeKey := office.Leaf.PrivateKey.(ed25519.PrivateKey)
	// The signature stands for what was asked, on this connection, and for the key.
	moved := bytes.Clone(good)
	moved[1] = 'C'
	for _, tt := range []struct {
		name    string
		request []byte
		pair    Pair
		want    error
	}{
		{"nothing", nil, p, ErrMalformed},
		{"cut short", good[:len(good)-1], p, ErrMalformed},
		{"huge", make([]byte, MaxMessage+1), p, ErrMalformed},
		{"replayed on another connection", good, q, ErrMalformed},
		{"another name", moved, p, ErrMalformed},
		{"a key that it has not", request("chalet", public, officeKey), p, ErrMalformed},
		{"a name that is none", request("Chalet", public, key), p, ErrSiteRefused},
		{"a reserved name", request("all", public, key), p, ErrSiteRefused},
		{"a member's key", request("chalet", officeKey.Public().(ed25519.PublicKey), officeKey), p, ErrKeyTaken},
		{"behind it something new", append(good, 1, 2, 3), p, nil},
	} {
		before := len(ledgerOf(t, home).Issued)
		reply, err := home.Renew(tt.request, tt.pair.Server)
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
		if _, rerr := parseJoinReply(reply); !errors.Is(rerr, tt.want) {
			t.Errorf("%s: the reply says %v", tt.name, rerr)
		}
		if after := len(ledgerOf(t, home).Issued); after != before {
			t.Errorf("%s: %d members, were %d", tt.name, after, before)
		}
	}
	if _, err := renewAt(office, cabin, "bureau"); !errors.Is(err, ErrUnavailable) {
		t.Errorf("at a member: %v, want ErrUnavailable", err)
	}
	if err := Handshake(MustFound(t, "x").RenewTLSConfig(), home.RenewTLSConfig()).Err(); !errors.Is(err, ErrNotMember) {
		t.Errorf("a stranger: %v, want ErrNotMember", err)
	}
}

func TestRenewedRefuses(t *testing.T) {
	t.Parallel()
	home, other := MustFound(t, "home"), MustFound(t, "home")
	cabin := MustJoin(t, home, "cabin")
	foreign := MustJoin(t, other, "cabin")
	reply, err := askRenewal(cabin, home, "chalet")
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := askRenewal(foreign, other, "chalet")
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		reply []byte
		site  string
	}{
		"nothing":          {nil, "chalet"},
		"cut short":        {reply[:len(reply)-2], "chalet"},
		"another network":  {theirs, "chalet"},
		"another name":     {reply, "cabin"},
		"the old key":      {joinReply{ca: home.CA.Raw, leaf: cabin.Leaf.Certificate[0]}.append(nil), "cabin"},
		"the founder's":    {joinReply{ca: home.CA.Raw, leaf: home.Leaf.Certificate[0]}.append(nil), "home"},
		"no certificate":   {joinReply{ca: home.CA.Raw, leaf: []byte{1}}.append(nil), "chalet"},
		"a refusal":        {appendRefusal(nil, ErrSiteTaken), "chalet"},
		"unknown refusal":  {[]byte{200, 0}, "chalet"},
		"refusal of a key": {appendRefusal(nil, ErrKeyTaken), "chalet"},
	} {
		renewed, err := cabin.Renewed(tt.site, tt.reply)
		if name == "the old key" { // it is what there is
			if err != nil || renewed.ID != cabin.ID {
				t.Errorf("%s: %v", name, err)
			}
		} else if err == nil {
			t.Errorf("%s: accepted", name)
		}
		if m, err := cabin.dir.Load(); err != nil || m.ID != cabin.ID {
			t.Fatalf("%s: afterwards %v", name, err)
		}
	}
}

// Keys that were given up stay on the list for ever: one site cannot fill it.
func TestRenewIsBounded(t *testing.T) {
	t.Parallel()
	home := MustFound(t, "home")
	cabin := MustJoin(t, home, "cabin")
	synctest.Test(t, func(t *testing.T) {
		for range maxFormer {
			mustRenewRequest(t, cabin, home)
		}
		if _, err := askRenewal(cabin, home, "cabin"); !errors.Is(err, ErrUnavailable) {
			t.Errorf("keys that are never used: %v, want ErrUnavailable", err)
		}
		// It has the last one after all.
		home, office := home, MustJoin(t, home, "office")
		for range freeRenewals {
			office = mustRenew(t, office, home, "office")
			mustMeet(t, home, office)
		}
		if _, err := askRenewal(office, home, "office"); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "often") {
			t.Errorf("too often: %v, want ErrUnavailable", err)
		}
		time.Sleep(renewEvery)
		office = mustRenew(t, office, home, "office")
		mustMeet(t, home, office)
		if _, err := askRenewal(office, home, "office"); !errors.Is(err, ErrUnavailable) {
			t.Errorf("too often again: %v, want ErrUnavailable", err)
		}
	})
}

// mustRenewRequest asks for one more key, and forgets it.
func mustRenewRequest(t *testing.T, m, founder *Member) {
	t.Helper()
	if _, err := askRenewal(m, founder, m.Site); err != nil {
		t.Fatal(err)
	}
	m.dir.forgetNextKeyLocked()
}

// The new key has its certificate, and could not be given its place: it is the one
// that the site runs with, not one to ask for or to throw away.
func TestRenewUnpromoted(t *testing.T) {
	t.Parallel()
	founded, joined := newMemory(), newMemory()
	home, err := founded.dir().Found("home")
	if err != nil {
		t.Fatal(err)
	}
	token, err := home.Invite("", maxTTL, []string{"192.0.2.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	cabin, _, err := JoinAt(joined.dir(), home, token, "cabin")
	if err != nil {
		t.Fatal(err)
	}
	demote := func(m *memory, old *inode) {
		m.seen[nextKeyFile], m.seen[siteKeyFile] = m.seen[siteKeyFile], old
	}
	good := func(what string, m *memory, id ID) {
		t.Helper()
		if got, err := m.dir().Load(); err != nil || got.ID != id {
			t.Fatalf("%s, after a restart: %v", what, err)
		}
	}
	old := joined.seen[siteKeyFile]
	cabin = mustRenew(t, cabin, home, "cabin")
	demote(joined, old)
	if _, err := cabin.Renewed("chalet", appendRefusal(nil, ErrKeyTaken)); !errors.Is(err, ErrKeyTaken) {
		t.Errorf("refused: %v", err)
	}
	good("refused", joined, cabin.ID)
	demote(joined, old)
	chalet := mustRenew(t, cabin, home, "chalet")
	if chalet.ID == cabin.ID {
		t.Error("it has asked for the key that it has")
	}
	good("renewed", joined, chalet.ID)

	// The same at the founder, for itself.
	old = founded.seen[siteKeyFile]
	if home, err = home.RenewOwn("home"); err != nil {
		t.Fatal(err)
	}
	demote(founded, old)
	house, err := home.RenewOwn("house")
	if err != nil || house.ID == home.ID {
		t.Fatalf("%v, %v", house, err)
	}
	good("renewed itself", founded, house.ID)
}

func TestRenewOwn(t *testing.T) {
	t.Parallel()
	for _, site := range []string{"home", "house"} {
		home := MustFound(t, "home")
		cabin := MustJoin(t, home, "cabin")
		renewed, err := home.RenewOwn(site)
		if err != nil || renewed.ID == home.ID || renewed.Site != site || !renewed.Founder() {
			t.Fatalf("%+v, %v", renewed, err)
		}
		if !renewed.Revoked(home.ID) {
			t.Error("the former key is good")
		}
		if _, err := cabin.TakeRevocations(renewed.Revocations().Bytes()); err != nil {
			t.Error(err)
		}
		if _, err := cabin.Invite("", time.Hour, nil); err == nil || !strings.Contains(err.Error(), `"`+site+`"`) {
			t.Errorf("the member says %v, want site %s", err, site)
		}
		if err := Handshake(cabin.TLSConfig("x"), renewed.TLSConfig("x")).Err(); err != nil {
			t.Error(err)
		}
		MustJoin(t, renewed, "office")
		if m, err := home.dir.Load(); err != nil || !m.Founder() || m.ID != renewed.ID {
			t.Errorf("after a restart: %v", err)
		}
		if _, err := cabin.RenewOwn("x"); !errors.Is(err, ErrNotFounder) {
			t.Errorf("at a member: %v", err)
		}
		if _, err := renewed.RenewOwn("cabin"); !errors.Is(err, ErrSiteTaken) {
			t.Errorf("a member's name: %v", err)
		}
	}
}

// A site whose reply was lost brings the CA key to itself: the book knows it by a
// key that it does not have, and has it once.
func TestImportAfterLostReply(t *testing.T) {
	t.Parallel()
	home := MustFound(t, "home")
	cabin := MustJoin(t, home, "cabin")
	if _, err := askRenewal(cabin, home, "chalet"); err != nil {
		t.Fatal(err)
	}
	lost := ledgerOf(t, home).Issued[1]
	e, err := home.dir.export("none")
	if err != nil {
		t.Fatal(err)
	}
	cabin, _, err = cabin.dir.AdoptAuthority(e.Data, "")
	if err != nil {
		t.Fatal(err)
	}
	if l := ledgerOf(t, cabin); len(l.Issued) != 2 || l.byKey(cabin.ID) < 0 || l.byAnyKey(lost.ID) >= 0 {
		t.Errorf("%+v", l.Issued)
	}
	if !cabin.Revoked(lost.ID) || cabin.Revoked(cabin.ID) || cabin.Revoked(home.ID) {
		t.Errorf("list: %+v", cabin.Revocations().Keys)
	}
	if _, err := cabin.Revoke("home"); err != nil {
		t.Error(err)
	}
	if err := cabin.MayLeave(); err != nil {
		t.Errorf("alone: %v", err)
	}
}

// What a founder has asked for elsewhere before, and does not take, it forgets.
func TestRenewOwnAfterLostReply(t *testing.T) {
	t.Parallel()
	for what, between := range map[string]func(home, cabin *Member) error{
		"the book has it": func(home, cabin *Member) error {
			_, err := askRenewal(cabin, home, "chalet")
			return err
		},
		"it has been put out": func(home, cabin *Member) error {
			key, err := cabin.dir.nextKeyLocked()
			if err != nil {
				return err
			}
			id, err := keyID(key.Public())
			if err != nil {
				return err
			}
			_, err = home.Revoke("x", id)
			return err
		},
		"another site has it": func(home, cabin *Member) error {
			key, err := cabin.dir.nextKeyLocked()
			if err != nil {
				return err
			}
			return home.dir.update(func(st *state) error {
				_, err := st.Ledger.issue(home.CA, home.caKey, home.Network, "attic", key.Public())
				return err
			})
		},
	} {
		home := MustFound(t, "home")
		cabin := MustJoin(t, home, "cabin")
		if err := between(home, cabin); err != nil {
			t.Fatal(err)
		}
		e, err := home.dir.export("none")
		if err != nil {
			t.Fatal(err)
		}
		if cabin, _, err = cabin.dir.AdoptAuthority(e.Data, ""); err != nil {
			t.Fatal(err)
		}
		chalet, err := cabin.RenewOwn("chalet")
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		if m, err := cabin.dir.Load(); err != nil || m.ID != chalet.ID || !m.Founder() || !m.Revoked(cabin.ID) || m.Revoked(m.ID) {
			t.Errorf("%s, after a restart: %v", what, err)
		}
	}
	// It is its own key that is out: no other one helps.
	home := MustFound(t, "home")
	cabin := MustJoin(t, home, "cabin")
	if _, err := home.Revoke("cabin"); err != nil {
		t.Fatal(err)
	}
	e, err := home.dir.export("none")
	if err != nil {
		t.Fatal(err)
	}
	if cabin, _, err = cabin.dir.AdoptAuthority(e.Data, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := cabin.RenewOwn("chalet"); !errors.Is(err, ErrKeyRevoked) {
		t.Errorf("%v, want ErrKeyRevoked", err)
	}
}

// A machine whose own key is in the book that it imports is not put out by that.
func TestImportWithKnownKey(t *testing.T) {
	t.Parallel()
	for _, site := range []string{"home", "house"} {
		machine := newMemory()
		home, err := machine.dir().Found("home")
		if err != nil {
			t.Fatal(err)
		}
		e := exportOf(t, machine)
		delete(machine.seen, stateFile)
		delete(machine.seen, caKeyFile)
		again, _, err := machine.dir().AdoptAuthority(e.Data, site)
		if err != nil {
			t.Fatal(err)
		}
		if again.ID != home.ID || again.Revoked(again.ID) || len(ledgerOf(t, again).Issued) != 1 {
			t.Errorf("as %s: %+v, list %+v", site, ledgerOf(t, again).Issued, again.Revocations().Keys)
		}
	}
}

// A founder does not put itself out by a name or a key that it had.
func TestFounderStaysIn(t *testing.T) {
	t.Parallel()
	for what, put := range map[string]func(m *Member, was Site) ([]Revocation, error){
		"revoke by name": func(m *Member, was Site) ([]Revocation, error) { return m.Revoke(was.Name) },
		"revoke by key":  func(m *Member, was Site) ([]Revocation, error) { return m.Revoke("x", was.ID) },
		"retire":         func(m *Member, was Site) ([]Revocation, error) { return m.Retire(was, Left) },
	} {
		home := MustFound(t, "home")
		was := Site{home.ID, home.Site}
		before, err := home.dir.files.read(stateFile)
		if err != nil {
			t.Fatal(err)
		}
		house, err := home.RenewOwn("house")
		if err != nil {
			t.Fatal(err)
		}
		// The former key has not got onto the list, nor out of the book.
		home.dir.revoked.Store(nil)
		if err := home.dir.files.remove(revokedFile); err != nil {
			t.Fatal(err)
		}
		old, err := parseState(before)
		if err != nil {
			t.Fatal(err)
		}
		err = home.dir.update(func(st *state) error {
			st.Ledger.Issued[0].Was = []former{{old.Ledger.Issued[0].Site, old.Ledger.Issued[0].ID}}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if news, err := put(house, was); err != nil || len(news) != 1 || news[0].ID != was.ID {
			t.Errorf("%s: %v, %v", what, news, err)
		}
		if house.Revoked(house.ID) {
			t.Errorf("%s: it has put itself out", what)
		}
		if m, err := house.dir.Load(); err != nil || !m.Founder() || m.Revoked(m.ID) {
			t.Errorf("%s, after a restart: %v", what, err)
		}
	}
}

// A founder whose book is older than a member enters it when it is met, and a
// name is not given twice.
func TestMetIsEntered(t *testing.T) {
	t.Parallel()
	home := MustFound(t, "home")
	e, err := home.dir.export("none")
	if err != nil {
		t.Fatal(err)
	}
	cabin, attic := MustJoin(t, home, "cabin"), MustJoin(t, home, "attic")
	d := newMemory().dir()
	restored, _, err := d.AdoptAuthority(e.Data, "")
	if err != nil {
		t.Fatal(err)
	}
	mustMeet(t, restored, cabin)
	if l := ledgerOf(t, restored); l.byKey(cabin.ID) < 0 {
		t.Errorf("%+v", l.Issued)
	}
	// The other one asks for a new key first.
	chalet := mustRenew(t, attic, restored, "loft")
	mustMeet(t, restored, chalet)
	if !restored.Revoked(attic.ID) {
		t.Error("its former key is good")
	}
	// The old founder was met under the name that is now the restored one's.
	if restored.Awaits(home.ID) {
		t.Error("a revoked key is awaited")
	}
	// Two keys with one name: said once, and nobody is put out for it.
	office := MustJoin(t, home, "office")
	MustJoin(t, restored, "office")
	if _, err := restored.Met(office.Leaf.Certificate[0]); err == nil || !strings.Contains(err.Error(), "no place") {
		t.Errorf("a name twice: %v", err)
	}
	if restored.Awaits(office.ID) {
		t.Error("it is said again and again")
	}
}

// A change of the key leaves the old membership or the new, never neither.
func TestRenewSurvivesFaults(t *testing.T) {
	t.Parallel()
	founder := newMemory()
	home, err := founder.dir().Found("home")
	if err != nil {
		t.Fatal(err)
	}
	site := newMemory()
	token, err := home.Invite("", maxTTL, []string{"192.0.2.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	cabin, _, err := JoinAt(site.dir(), home, token, "cabin")
	if err != nil {
		t.Fatal(err)
	}
	load := func(t *testing.T, m *memory) *Member {
		t.Helper()
		got, err := m.dir().Load()
		if err != nil {
			t.Fatalf("Load: %v", err)
		}
		return got
	}
	t.Run("at the site", func(t *testing.T) {
		renew := func(d *Dir) error {
			m, err := d.Load()
			if err != nil {
				return err
			}
			_, err = renewAt(m, home, "cabin")
			return err
		}
		// Each fault has a key of its own made, and the founder is not asked for more.
		everyFault(t, site, func(d *Dir) error {
			home = load(t, founder)
			home.dir = founder.copy().dir()
			return renew(d)
		}, func(t *testing.T, after *memory) {
			m := load(t, after)
			if m.ID == cabin.ID {
				if err := renew(after.dir()); err != nil {
					t.Fatalf("again: %v", err)
				}
			}
			if m = load(t, after); m.ID == cabin.ID {
				t.Error("it has the old key")
			}
			mustMeet(t, home, m)
			if !home.Revoked(cabin.ID) {
				t.Error("the former key is good")
			}
		})
	})
	t.Run("at the founder", func(t *testing.T) {
		var asks *memory
		everyFault(t, founder, func(d *Dir) error {
			home, err := d.Load()
			if err != nil {
				return err
			}
			asks = site.copy()
			m := load(t, asks)
			_, err = askRenewal(m, home, "chalet")
			return err
		}, func(t *testing.T, after *memory) {
			home, m := load(t, after), load(t, asks)
			renewed, err := renewAt(m, home, "chalet")
			if err != nil {
				t.Fatal(err)
			}
			mustMeet(t, home, renewed)
			if l := ledgerOf(t, home); len(l.Issued) != 2 || !home.Revoked(cabin.ID) {
				t.Errorf("%+v", l.Issued)
			}
		})
	})
	t.Run("of the founder", func(t *testing.T) {
		own := func(d *Dir) error {
			m, err := d.Load()
			if err != nil {
				return err
			}
			_, err = m.RenewOwn("house")
			return err
		}
		old := load(t, founder)
		everyFault(t, founder, own, func(t *testing.T, after *memory) {
			m := load(t, after)
			if !m.Founder() {
				t.Fatalf("site %s is no founder", m.Site)
			}
			if m.ID == old.ID {
				if m.Revoked(old.ID) {
					t.Fatal("it has put itself out")
				}
				if err := own(after.dir()); err != nil {
					t.Fatalf("again: %v", err)
				}
				m = load(t, after)
			}
			if m.Site != "house" || !m.Revoked(old.ID) || !m.Founder() {
				t.Errorf("site %s, old key out: %v, founder: %v", m.Site, m.Revoked(old.ID), m.Founder())
			}
		})
	})
	t.Run("when it is met", func(t *testing.T) {
		home := load(t, founder)
		other := site.copy()
		renewed, err := renewAt(load(t, other), home, "cabin")
		if err != nil {
			t.Fatal(err)
		}
		met := func(d *Dir) error {
			m, err := d.Load()
			if err != nil {
				return err
			}
			_, err = m.Met(renewed.Leaf.Certificate[0])
			return err
		}
		everyFault(t, founder, met, func(t *testing.T, after *memory) {
			if err := met(after.dir()); err != nil {
				t.Fatal(err)
			}
			m := load(t, after)
			if !m.Revoked(cabin.ID) || m.Revoked(renewed.ID) || len(ledgerOf(t, m).Issued) != 2 {
				t.Errorf("%+v", ledgerOf(t, m).Issued)
			}
		})
	})
}

func FuzzRenewRequest(f *testing.F) {
	f.Add([]byte{})
	f.Add(renewRequest{"cabin", make([]byte, ed25519.PublicKeySize), make([]byte, ed25519.SignatureSize)}.append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		q, err := parseRenewRequest(b)
		if err != nil {
			return
		}
		if got := q.append(nil); !bytes.HasPrefix(b, got) {
			t.Errorf("%x read back as %x", b, got)
		}
	})
}
