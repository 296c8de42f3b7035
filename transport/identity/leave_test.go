// SPDX-License-Identifier: Apache-2.0

package identity_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/l2bridge/l2bridge/transport/identity"
)

func TestLeave(t *testing.T) {
	t.Parallel()
	home := identity.MustFound(t, "home")
	cabin := identity.MustJoin(t, home, "cabin")
	identity.MustJoin(t, home, "attic")
	revoke(t, home, "attic")
	take(t, cabin, home.Revocations().Bytes(), "attic")

	// Not the founder, while there is anybody.
	before := readAll(t, home.Dir().Path())
	for _, err := range []error{home.MayLeave(), home.Dir().Leave("learned.json")} {
		if !errors.Is(err, identity.ErrOthers) || !strings.Contains(err.Error(), "(cabin)") || !strings.Contains(err.Error(), "ca export --move") {
			t.Errorf("founder: %v, want ErrOthers that names cabin", err)
		}
	}
	if len(readAll(t, home.Dir().Path())) != len(before) {
		t.Error("something is gone")
	}

	d := cabin.Dir()
	if err := d.WriteFile("learned.json", nil); err != nil {
		t.Fatal(err)
	}
	if err := d.WriteFile("kept.json", nil); err != nil {
		t.Fatal(err)
	}
	if err := d.Leave("site.key"); err == nil {
		t.Error("a key is another file")
	}
	if err := cabin.MayLeave(); err != nil {
		t.Error(err)
	}
	for range 2 { // a second time it is done
		if err := d.Leave("learned.json", "fdb.json"); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Load(); !errors.Is(err, identity.ErrNotEnrolled) {
			t.Errorf("Load: %v, want ErrNotEnrolled", err)
		}
		left := readAll(t, d.Path())
		delete(left, "pid")
		if _, kept := left["kept.json"]; len(left) != 1 || !kept {
			t.Errorf("left: %v", left)
		}
	}
	// It can join again, with another key.
	tok := invite(t, home, "cabin2")
	again, _, err := identity.JoinAt(d, home, tok, "cabin2")
	if err != nil || again.ID == cabin.ID {
		t.Fatalf("joining again: %v", err)
	}

	// The founder, when all are out.
	for _, site := range []string{"cabin", "cabin2"} {
		revoke(t, home, site)
	}
	if err := home.Dir().Leave(); err != nil {
		t.Error(err)
	}
}

// What cannot be read may be the founder's.
func TestLeaveDamaged(t *testing.T) {
	t.Parallel()
	home := identity.MustFound(t, "home")
	cabin := identity.MustJoin(t, home, "cabin")
	for _, m := range []*identity.Member{home, cabin} {
		if err := os.WriteFile(filepath.Join(m.Dir().Path(), "membership.json"), []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := home.Dir().Leave(); !errors.Is(err, identity.ErrOthers) {
		t.Errorf("founder: %v, want ErrOthers", err)
	}
	if _, ok := readAll(t, home.Dir().Path())["ca.key"]; !ok {
		t.Error("the CA key is gone")
	}
	if err := cabin.Dir().Leave(); err != nil {
		t.Error(err)
	}
}
