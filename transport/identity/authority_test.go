// SPDX-License-Identifier: Apache-2.0

package identity_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/l2bridge/l2bridge/transport/identity"
)

const otherFile = "learned.json"

var addrs = []string{"192.0.2.1:4433"}

// founded is a network of home, which founded it, and cabin.
type founded struct {
	dir         *identity.Dir
	home, cabin *identity.Member
	cabinDir    *identity.Dir
}

func found(t *testing.T) *founded {
	t.Helper()
	f := &founded{dir: identity.MustOpen(t, filepath.Join(t.TempDir(), "state"))}
	var err error
	if f.home, err = f.dir.Found("home"); err != nil {
		t.Fatal(err)
	}
	if err := f.dir.WriteFile(otherFile, []byte(`["a"]`)); err != nil {
		t.Fatal(err)
	}
	f.cabinDir = identity.MustOpen(t, filepath.Join(t.TempDir(), "state"))
	f.cabin = f.join(t, f.home, f.cabinDir, "cabin")
	return f
}

// join has a machine join as site at the founder.
func (f *founded) join(t *testing.T, founder *identity.Member, d *identity.Dir, site string) *identity.Member {
	t.Helper()
	token, err := founder.Invite(site, 1e9, addrs)
	if err != nil {
		t.Fatal(err)
	}
	m, _, err := identity.JoinAt(d, founder, token, site)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func (f *founded) export(t *testing.T) identity.Export {
	t.Helper()
	e, err := identity.ReadAuthority(f.dir.Path(), otherFile)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// Taken away here and brought there, the authority is there and not here, with
// all that the founder knew.
func TestAuthorityMoves(t *testing.T) {
	t.Parallel()
	f := found(t)
	e := f.export(t)
	if e.Network != f.home.Network {
		t.Errorf("network %s, want %s", e.Network, f.home.Network)
	}
	m, err := f.dir.DropAuthority(e.Sum)
	if err != nil || m.Founder() || m.Site != "home" || m.ID != f.home.ID {
		t.Fatalf("%+v, %v", m, err)
	}
	if _, err := os.Stat(filepath.Join(f.dir.Path(), "ca.key")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("ca.key: %v", err)
	}
	if _, err := m.Invite("", 1e9, addrs); !errors.Is(err, identity.ErrNotFounder) {
		t.Errorf("invite where it was: %v", err)
	}
	if _, err := identity.ReadAuthority(f.dir.Path(), otherFile); !errors.Is(err, identity.ErrNotFounder) {
		t.Errorf("export where it was: %v", err)
	}

	got, others, err := f.cabinDir.AdoptAuthority(e.Data, "")
	if err != nil || !got.Founder() || got.ID != f.cabin.ID || got.Site != "cabin" {
		t.Fatalf("%+v, %v", got, err)
	}
	if string(others) != `["a"]` {
		t.Errorf("others: %q", others)
	}
	if m, err := f.cabinDir.Load(); err != nil || !m.Founder() {
		t.Errorf("after a restart: %v", err)
	}
	office := f.join(t, got, identity.MustOpen(t, filepath.Join(t.TempDir(), "state")), "office")
	if err := identity.Handshake(office.TLSConfig("x"), m.TLSConfig("x")).Err(); err != nil {
		t.Errorf("a member made there, at one from before: %v", err)
	}
	token, err := got.Invite("", 1e9, addrs)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := identity.JoinAt(identity.MustOpen(t, filepath.Join(t.TempDir(), "state")), got, token, "home"); !errors.Is(err, identity.ErrSiteTaken) {
		t.Errorf("a name that the old founder had given: %v, want ErrSiteTaken", err)
	}
}

// A founder whose key is at another site as well, from a backup, is none any more
// once it hears so, and says which site is. Whom it has put out since the backup
// stays out.
func TestOneHolder(t *testing.T) {
	t.Parallel()
	f := found(t)
	e := f.export(t)
	out := f.join(t, f.home, identity.MustOpen(t, filepath.Join(t.TempDir(), "state")), "attic")
	if _, err := f.home.Revoke("attic"); err != nil {
		t.Fatal(err)
	}
	cabin, _, err := f.cabinDir.AdoptAuthority(e.Data, "")
	if err != nil {
		t.Fatal(err)
	}
	// Each tells the other what it has, until there is no more to say.
	for range 3 {
		for _, to := range []*identity.Member{f.home, cabin} {
			for _, from := range []*identity.Member{f.home, cabin} {
				if _, err := to.TakeRevocations(from.Revocations().Bytes()); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	if f.home.Founder() == cabin.Founder() {
		t.Fatalf("founder at home: %v, at the cabin: %v", f.home.Founder(), cabin.Founder())
	}
	if !cabin.Revoked(out.ID) || !f.home.Revoked(out.ID) {
		t.Error("who was put out is in again")
	}
	// If it is not who was meant, to say it again makes it so.
	if !cabin.Founder() {
		if cabin, _, err = f.cabinDir.AdoptAuthority(e.Data, ""); err != nil {
			t.Fatal(err)
		}
		if _, err := f.home.TakeRevocations(cabin.Revocations().Bytes()); err != nil {
			t.Fatal(err)
		}
	}
	if f.home.Founder() || !cabin.Founder() {
		t.Fatalf("founder at home: %v, at the cabin: %v", f.home.Founder(), cabin.Founder())
	}
	for what, err := range map[string]error{
		"invite": func() error { _, err := f.home.Invite("", 1e9, addrs); return err }(),
		"export": func() error { _, err := identity.ReadAuthority(f.dir.Path(), otherFile); return err }(),
	} {
		if !errors.Is(err, identity.ErrNotFounder) || !strings.Contains(err.Error(), `"cabin"`) {
			t.Errorf("%s: %v, want ErrNotFounder and the site", what, err)
		}
	}
}

// A machine with nothing but the export takes the lost founder's place.
func TestAuthorityFoundsAnew(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		site, want, problem string
	}{
		{"", "home", ""},
		{"home", "home", ""},
		{"home2", "home2", ""},
		{"cabin", "", "in use"},
		{"all", "", "reserved"},
	} {
		t.Run("as "+tt.site, func(t *testing.T) {
			t.Parallel()
			f := found(t)
			d := identity.MustOpen(t, filepath.Join(t.TempDir(), "state"))
			m, _, err := d.AdoptAuthority(f.export(t).Data, tt.site)
			if tt.problem != "" {
				if err == nil || !strings.Contains(err.Error(), tt.problem) {
					t.Errorf("%v, want %q", err, tt.problem)
				}
				if _, err := d.Load(); !errors.Is(err, identity.ErrNotEnrolled) {
					t.Errorf("Load: %v", err)
				}
				return
			}
			if err != nil || !m.Founder() || m.Site != tt.want || m.Network != f.home.Network || m.ID == f.home.ID {
				t.Fatalf("%+v, %v", m, err)
			}
			if err := identity.Handshake(m.TLSConfig("x"), f.cabin.TLSConfig("x")).Err(); err != nil {
				t.Error(err)
			}
			if m.Revoked(f.home.ID) != (m.Site == "home") {
				t.Errorf("the lost key is revoked: %v", m.Revoked(f.home.ID))
			}
			f.join(t, m, identity.MustOpen(t, filepath.Join(t.TempDir(), "state")), "office")
		})
	}
}

func TestDropAuthorityKeepsWhatIsNew(t *testing.T) {
	t.Parallel()
	for what, change := range map[string]func(f *founded) error{
		"joined": func(f *founded) error {
			f.join(t, f.home, identity.MustOpen(t, filepath.Join(t.TempDir(), "state")), "office")
			return nil
		},
		"invited": func(f *founded) error { _, err := f.home.Invite("", 1e9, addrs); return err },
		"put out": func(f *founded) error { _, err := f.home.Revoke("cabin"); return err },
	} {
		f := found(t)
		e := f.export(t)
		if err := change(f); err != nil {
			t.Fatal(err)
		}
		if _, err := f.dir.DropAuthority(e.Sum); err == nil || !strings.Contains(err.Error(), "export it again") {
			t.Errorf("%s: %v", what, err)
		}
		if m, err := f.dir.Load(); err != nil || !m.Founder() {
			t.Errorf("%s: Load: %v", what, err)
		}
		if _, err := f.cabinDir.DropAuthority(e.Sum); !errors.Is(err, identity.ErrNotFounder) {
			t.Errorf("at a member: %v", err)
		}
		if _, err := f.dir.DropAuthority(f.export(t).Sum); err != nil {
			t.Errorf("%s: exported again: %v", what, err)
		}
	}
}

func TestAdoptAuthorityRefuses(t *testing.T) {
	t.Parallel()
	f := found(t)
	good := f.export(t).Data
	other := found(t)
	edit := func(change func(map[string]any)) []byte {
		var v map[string]any
		if err := json.Unmarshal(good, &v); err != nil {
			t.Fatal(err)
		}
		change(v)
		data, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	var others map[string]any
	if err := json.Unmarshal(other.export(t).Data, &others); err != nil {
		t.Fatal(err)
	}
	member := func(v map[string]any) map[string]any {
		return v["ledger"].(map[string]any)["issued"].([]any)[1].(map[string]any)
	}
	for _, tt := range []struct {
		name string
		data []byte
		say  string
	}{
		{"nothing", nil, "unexpected end"},
		{"cut", good[:len(good)-1], "unexpected end"},
		{"huge", bytes.Repeat([]byte(" "), identity.MaxAuthority+1), "more than"},
		{"newer", edit(func(v map[string]any) { v["schema"] = 2 }), "schema 2"},
		{"unknown field", edit(func(v map[string]any) { v["more"] = 1 }), "unknown field"},
		{"another network", other.export(t).Data, "is a member of"},
		{"no key", edit(func(v map[string]any) { v["key"] = "" }), ""},
		{"another key", edit(func(v map[string]any) { v["key"] = others["key"] }), "not that of the network's certificate"},
		{"no certificate", edit(func(v map[string]any) { v["ca"] = "" }), "certificate of the network"},
		{"no ledger", edit(func(v map[string]any) { delete(v, "ledger") }), "list of members is missing"},
		{"bad site", edit(func(v map[string]any) { v["site"] = "A\n" }), "site name"},
		{"bad network", edit(func(v map[string]any) { v["network"] = "A\n" }), "network name"},
		{"a member of another network", edit(func(v map[string]any) { member(v)["cert"] = member(others)["cert"] }), "member 1"},
		{"a member under another name", edit(func(v map[string]any) { member(v)["site"] = "x" }), "certificate is that of site"},
		{"a member twice", edit(func(v map[string]any) {
			l := v["ledger"].(map[string]any)
			l["issued"] = append(l["issued"].([]any), member(v))
		}), "twice"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := f.cabinDir.AdoptAuthority(tt.data, "")
			if err == nil || !strings.Contains(err.Error(), tt.say) {
				t.Errorf("%v, want %q", err, tt.say)
			}
			if m, err := f.cabinDir.Load(); err != nil || m.Founder() {
				t.Errorf("Load: %v", err)
			}
		})
	}
	if _, _, err := f.cabinDir.AdoptAuthority(good, "shed"); err == nil || !strings.Contains(err.Error(), "leave the name out") {
		t.Errorf("a member under another name: %v", err)
	}
	if _, _, err := f.dir.AdoptAuthority(good, ""); !errors.Is(err, identity.ErrExists) {
		t.Errorf("at the founder: %v", err)
	}
}

// Two who hold a backup each: the one that is older does not lack the site it
// is brought to.
func TestAdoptAuthorityOlderThanTheSite(t *testing.T) {
	t.Parallel()
	f := found(t)
	e := f.export(t)
	d := identity.MustOpen(t, filepath.Join(t.TempDir(), "state"))
	f.join(t, f.home, d, "office")
	m, _, err := d.AdoptAuthority(e.Data, "")
	if err != nil {
		t.Fatal(err)
	}
	token, err := m.Invite("", 1e9, addrs)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := identity.JoinAt(identity.MustOpen(t, filepath.Join(t.TempDir(), "state")), m, token, "office"); !errors.Is(err, identity.ErrSiteTaken) {
		t.Errorf("its own name: %v, want ErrSiteTaken", err)
	}
}

func FuzzAdoptAuthority(f *testing.F) {
	home := identity.MustFound(f, "home")
	e, err := identity.ReadAuthority(home.Path(), otherFile)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(e.Data)
	f.Add([]byte(`{"schema":1,"ledger":{}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		d := identity.InMemory()
		m, _, err := d.AdoptAuthority(data, "")
		if err == nil && (!m.Founder() || m.Site == "") {
			t.Errorf("%+v", m)
		}
		if loaded, lerr := d.Load(); (err == nil) != (lerr == nil) {
			t.Errorf("adopted: %v, loaded: %+v, %v", err, loaded, lerr)
		}
	})
}
