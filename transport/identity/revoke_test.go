// SPDX-License-Identifier: Apache-2.0

package identity_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/l2bridge/l2bridge/transport/identity"
)

// revoke puts a site out of founder's network.
func revoke(t testing.TB, founder *identity.Member, site string) *identity.Revocations {
	t.Helper()
	if news, err := founder.Revoke(site); err != nil || len(news) != 1 || news[0].Name != site {
		t.Fatalf("Revoke(%q) = %v, %v", site, news, err)
	}
	return founder.Revocations()
}

// take has a member take a list, and expects these sites to be out by it.
func take(t testing.TB, m *identity.Member, list []byte, want ...string) {
	t.Helper()
	news, err := m.TakeRevocations(list)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, k := range news {
		got = append(got, k.Name)
		if !m.Revoked(k.ID) {
			t.Errorf("%s is a member still", k.Name)
		}
	}
	slices.Sort(got) // they come by key
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s, sites put out (-want +got):\n%s", m.Site, diff)
	}
}

func TestRevoke(t *testing.T) {
	t.Parallel()
	home := identity.MustFound(t, "home")
	cabin := identity.MustJoin(t, home, "cabin")
	attic := identity.MustJoin(t, home, "attic")
	if r := attic.Revocations(); r.Version != 0 || r.Bytes() != nil || r.Digest() != [8]byte{} || !r.Holds(identity.Site{Name: "home"}) || r.Holds(identity.Site{Name: "cabin"}) {
		t.Errorf("before: %+v", r)
	}
	open := invite(t, home, "cabin")

	list := revoke(t, home, "cabin")
	want := identity.Revocation{Site: identity.Site{ID: cabin.ID, Name: "cabin"}}
	if list.Version != 1 || list.Holder != (identity.Site{ID: home.ID, Name: "home"}) || len(list.Keys) != 1 || list.Keys[0] != want {
		t.Errorf("list %+v", list)
	}
	if news, err := home.Revoke("cabin"); err != nil || len(news) != 0 || home.Revocations() != list {
		t.Errorf("a second time: %v, %v", news, err)
	}
	if attic.Revoked(cabin.ID) {
		t.Error("attic knows before it was told")
	}
	take(t, attic, list.Bytes(), "cabin")
	take(t, attic, list.Bytes())
	if _, _, _, err := attic.Judge(cabin.Leaf.Certificate[0]); !errors.Is(err, identity.ErrRevoked) {
		t.Errorf("Judge: %v, want ErrRevoked", err)
	}

	// The invitation for the name went with it, also for another key.
	if _, _, err := identity.JoinAt(newDir(t), home, open, "cabin"); !errors.Is(err, identity.ErrTokenUnknown) {
		t.Errorf("joining with what was an invitation for cabin: %v", err)
	}

	// It survives a restart, at the founder and at a member.
	for _, m := range []*identity.Member{home, attic} {
		path := m.Dir().Path()
		if err := m.Dir().Close(); err != nil {
			t.Fatal(err)
		}
		again, err := identity.MustOpen(t, path).Load()
		if err != nil {
			t.Fatal(err)
		}
		if r := again.Revocations(); !again.Revoked(cabin.ID) || !bytes.Equal(r.Bytes(), list.Bytes()) || r.Digest() != list.Digest() {
			t.Errorf("%s has forgotten", m.Site)
		}
	}
}

func TestRevokeRefuses(t *testing.T) {
	t.Parallel()
	home := identity.MustFound(t, "home")
	cabin := identity.MustJoin(t, home, "cabin")
	if _, err := cabin.Revoke("home"); !errors.Is(err, identity.ErrNotFounder) || !strings.Contains(err.Error(), `site "home"`) {
		t.Errorf("at a member: %v", err)
	}
	for _, keys := range [][]identity.ID{nil, {home.ID}} {
		if _, err := home.Revoke(map[bool]string{true: "home", false: "x"}[keys == nil], keys...); err == nil || !strings.Contains(err.Error(), "ca export") {
			t.Errorf("itself: %v", err)
		}
	}
	if news, err := home.Revoke("nobody"); err != nil || len(news) > 0 || home.Revocations().Version != 0 {
		t.Errorf("a site that is not there: %v, %v", news, err)
	}
	// One that the book does not have any more is known by its key.
	if news, err := home.Revoke("cabin", cabin.ID, cabin.ID); err != nil || len(news) != 1 {
		t.Errorf("by name and key: %v, %v", news, err)
	}
}

func TestTakeRevocations(t *testing.T) {
	t.Parallel()
	home := identity.MustFound(t, "home")
	for _, site := range []string{"cabin", "attic", "barn"} {
		identity.MustJoin(t, home, site)
	}
	shed := identity.MustJoin(t, home, "shed")
	other := identity.MustFound(t, "home")
	identity.MustJoin(t, other, "cabin")
	caKey := founderKey(t, home).(ed25519.PrivateKey)

	var lists [][]byte
	for _, site := range []string{"cabin", "attic", "barn"} {
		lists = append(lists, revoke(t, home, site).Bytes())
	}
	take(t, shed, lists[1], "cabin", "attic")
	before := shed.Revocations()
	// resigned is a list of ours, changed and signed again by the CA.
	resigned := func(change func(b []byte) []byte) []byte {
		b := change(bytes.Clone(lists[2][ed25519.SignatureSize:]))
		return append(ed25519.Sign(caKey, append([]byte("l2bridge revoked 1\x00"), b...)), b...)
	}
	version := 1 + len(home.Network)
	for name, list := range map[string][]byte{
		"nothing":         nil,
		"a signature":     lists[2][:ed25519.SignatureSize],
		"cut":             lists[2][:len(lists[2])-1],
		"forged":          append(bytes.Clone(lists[2][:len(lists[2])-1]), lists[2][len(lists[2])-1]^1),
		"other network":   revoke(t, other, "cabin").Bytes(),
		"network renamed": resigned(func(b []byte) []byte { b[1] ^= 1; return b }),
		"by a member": func() []byte {
			b := lists[2][ed25519.SignatureSize:]
			return append(ed25519.Sign(shed.Leaf.PrivateKey.(ed25519.PrivateKey), append([]byte("l2bridge revoked 1\x00"), b...)), b...)
		}(),
		"version 0":       resigned(func(b []byte) []byte { binary.BigEndian.PutUint64(b[version:], 0); return b }),
		"version too big": resigned(func(b []byte) []byte { binary.BigEndian.PutUint64(b[version:], 1<<64-1); return b }),
		"too many":        resigned(func(b []byte) []byte { b[version+8+32+5] = 0x10; b[version+8+32+6] = 1; return b }),
		"twice": resigned(func(b []byte) []byte {
			b[version+8+32+6]++ // one more, the first again
			return append(b, b[version+8+32+7:]...)
		}),
		"huge": resigned(func(b []byte) []byte { return append(b, make([]byte, identity.MaxRevocationsLen)...) }),
	} {
		if news, err := shed.TakeRevocations(list); !errors.Is(err, identity.ErrRevocations) || len(news) > 0 || shed.Revocations() != before {
			t.Errorf("%s: %v, %v; want ErrRevocations", name, news, err)
		}
	}
	take(t, shed, lists[0]) // older
	if shed.Revocations() != before {
		t.Error("an older list took the newer one's place")
	}
	take(t, shed, resigned(func(b []byte) []byte { return append(b, "of a later version"...) }), "barn")
}

// copyOf returns what a copy of a member's directory makes: a backup restored,
// or a machine cloned.
func copyOf(t *testing.T, m *identity.Member) *identity.Member {
	t.Helper()
	path := filepath.Join(t.TempDir(), "state")
	if err := os.CopyFS(path, os.DirFS(m.Dir().Path())); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o700); err != nil {
		t.Fatal(err)
	}
	for name := range readAll(t, path) {
		if err := os.Chmod(filepath.Join(path, name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := identity.MustOpen(t, path).Load()
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// A founder whose state is that of a backup, or that has a double, lets nobody
// in again, and whoever hears of both lists ends with one that has all.
func TestRevocationsOfTwo(t *testing.T) {
	t.Parallel()
	home := identity.MustFound(t, "home")
	cabin, attic, shed := identity.MustJoin(t, home, "cabin"), identity.MustJoin(t, home, "attic"), identity.MustJoin(t, home, "shed")
	double := copyOf(t, home)

	take(t, shed, revoke(t, home, "cabin").Bytes(), "cabin")
	// As new, of other content.
	take(t, shed, revoke(t, double, "attic").Bytes())
	// Newer, but it would let cabin in again.
	if _, err := double.Retire(identity.Site{ID: identity.ID{1}, Name: "x"}, identity.Rekeyed); err != nil {
		t.Fatal(err)
	}
	take(t, shed, double.Revocations().Bytes())
	if !shed.Revoked(cabin.ID) {
		t.Fatal("cabin was let in again")
	}
	take(t, double, shed.Revocations().Bytes(), "cabin")
	if r := double.Revocations(); r.Version != 3 || len(r.Keys) != 3 {
		t.Errorf("%+v, want version 3 with all", r)
	}
	take(t, home, double.Revocations().Bytes(), "attic", "x")
	take(t, shed, double.Revocations().Bytes(), "attic", "x")
	for _, m := range []*identity.Member{home, double, shed} {
		if r := m.Revocations(); r.Digest() != double.Revocations().Digest() || !m.Revoked(cabin.ID) || !m.Revoked(attic.ID) {
			t.Errorf("%s has version %d", m.Site, r.Version)
		}
	}
}

func TestRevocationsOnDiskDamaged(t *testing.T) {
	t.Parallel()
	home := identity.MustFound(t, "home")
	identity.MustJoin(t, home, "cabin")
	revoke(t, home, "cabin")
	path := home.Dir().Path()
	file := filepath.Join(path, "revoked.json")
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := home.Dir().Close(); err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string]string{
		"empty":  "",
		"schema": strings.Replace(string(good), `"schema": 1`, `"schema": 2`, 1),
		"list":   `{"schema":1,"list":"AAAA"}`,
	} {
		if err := os.WriteFile(file, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
		d := identity.MustOpen(t, path)
		if _, err := d.Load(); err == nil || !strings.Contains(err.Error(), "revoked.json") || !strings.Contains(err.Error(), "restore it") {
			t.Errorf("%s: %v", name, err)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// The bytes are those of ENROLMENT.md.
func TestRevocationsLayout(t *testing.T) {
	t.Parallel()
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	got := identity.SignRevocations(key, identity.Revocations{
		Version: 0x0102030405060708, Holder: identity.Site{ID: identity.ID{0xaa}, Name: "home"},
		Keys: []identity.Revocation{
			{Site: identity.Site{ID: identity.ID{1}, Name: "a"}},
			{Site: identity.Site{ID: identity.ID{2}, Name: "bc"}, Reason: identity.Left},
			{Site: identity.Site{ID: identity.ID{2, 1}, Name: "d"}, Reason: identity.Rekeyed},
		},
	})
	zeros := func(n int) string { return strings.Repeat("\x00", n) }
	want := "\x03net" + "\x01\x02\x03\x04\x05\x06\x07\x08" + "\xaa" + zeros(31) + "\x04home" + "\x00\x03" +
		"\x01" + zeros(31) + "\x00" + "\x01a" +
		"\x02" + zeros(31) + "\x01" + "\x02bc" +
		"\x02\x01" + zeros(30) + "\x02" + "\x01d"
	if string(got[64:]) != want {
		t.Errorf("list is %x, want %x", got[64:], want)
	}
	if !ed25519.Verify(key.Public().(ed25519.PublicKey), []byte("l2bridge revoked 1\x00"+want), got[:64]) {
		t.Error("it is not signed as ENROLMENT.md has it")
	}
}

// The longest list that the CA signs is one that others take.
func TestRevocationsFull(t *testing.T) {
	t.Parallel()
	home := identity.MustFound(t, strings.Repeat("h", 63))
	shed := identity.MustJoin(t, home, "shed")
	name := strings.Repeat("x", 63)
	keys := make([]identity.ID, identity.MaxRevocations+1)
	for i := range keys {
		binary.BigEndian.PutUint32(keys[i][:], uint32(i))
	}
	if _, err := home.Revoke(name, keys...); err == nil || !strings.Contains(err.Error(), "full") {
		t.Errorf("one too many: %v", err)
	}
	if news, err := home.Revoke(name, keys[1:]...); err != nil || len(news) != identity.MaxRevocations {
		t.Fatalf("%d, %v", len(news), err)
	}
	list := home.Revocations().Bytes()
	if len(list) > identity.MaxRevocationsLen {
		t.Errorf("%d bytes", len(list))
	}
	start := time.Now()
	if news, err := shed.TakeRevocations(list); err != nil || len(news) != identity.MaxRevocations {
		t.Errorf("%d, %v", len(news), err)
	}
	t.Logf("%d bytes, taken in %v", len(list), time.Since(start))
	if _, err := home.Revoke(name, keys[0]); err == nil || !strings.Contains(err.Error(), "full") {
		t.Errorf("one more: %v", err)
	}
}

func FuzzRevocations(f *testing.F) {
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	f.Add(identity.SignRevocations(key, identity.Revocations{Version: 1, Holder: identity.Site{Name: "home"}}))
	f.Add(identity.SignRevocations(key, identity.Revocations{Version: 7, Holder: identity.Site{Name: "home"}, Keys: []identity.Revocation{
		{Site: identity.Site{ID: identity.ID{1}, Name: "a"}},
		{Site: identity.Site{ID: identity.ID{2}, Name: "b"}, Reason: identity.Left},
	}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		// Signed anew, so that what is behind the signature is looked at too.
		if len(b) > ed25519.SignatureSize {
			said := b[ed25519.SignatureSize:]
			b = append(ed25519.Sign(key, append([]byte("l2bridge revoked 1\x00"), said...)), said...)
		}
		r, err := identity.ParseRevocations(b, key)
		if err != nil {
			if !errors.Is(err, identity.ErrRevocations) {
				t.Fatalf("%v is no ErrRevocations", err)
			}
			return
		}
		again := identity.SignRevocations(key, *r)
		if !bytes.HasPrefix(b[ed25519.SignatureSize:], again[ed25519.SignatureSize:]) {
			t.Fatalf("%x was read as %x", b, again)
		}
		for _, k := range r.Keys {
			if !r.Has(k.ID) {
				t.Fatalf("key %v is not found", k.ID)
			}
		}
	})
}
