// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"errors"
	"testing"
)

// InMemory returns an empty directory that is on no disk.
func InMemory() *Dir { return newMemory().dir() }

// Path returns where m is kept.
func (m *Member) Path() string { return m.dir.path }

// exportOf returns what a founder in memory exports.
func exportOf(t *testing.T, m *memory) Export {
	t.Helper()
	e, err := m.dir().export("none")
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestAuthoritySurvivesFaults(t *testing.T) {
	t.Parallel()
	start := newMemory()
	home, err := start.dir().Found("home")
	if err != nil {
		t.Fatal(err)
	}
	join := func(site string) (*memory, *Member) {
		t.Helper()
		token, err := home.Invite("", maxTTL, []string{"192.0.2.1:1"})
		if err != nil {
			t.Fatal(err)
		}
		machine := newMemory()
		m, _, err := JoinAt(machine.dir(), home, token, site)
		if err != nil {
			t.Fatal(err)
		}
		return machine, m
	}
	cabin, _ := join("cabin")
	_, attic := join("attic")
	// One that holds the key as well, and has heard that it is used elsewhere.
	deposed := start.copy()
	elsewhere, _, err := cabin.copy().dir().AdoptAuthority(exportOf(t, start).Data, "")
	if err != nil {
		t.Fatal(err)
	}
	if m, err := deposed.dir().Load(); err != nil {
		t.Fatal(err)
	} else if _, err := m.TakeRevocations(elsewhere.Revocations().Bytes()); err != nil || m.Founder() {
		t.Fatalf("founder: %v, %v", m.Founder(), err)
	}
	// Who is out stands in the export alone.
	if _, err := home.Revoke("attic"); err != nil {
		t.Fatal(err)
	}
	e := exportOf(t, start)
	t.Run("drop", func(t *testing.T) {
		everyFault(t, start, func(d *Dir) error {
			_, err := d.DropAuthority(e.Sum)
			return err
		}, func(t *testing.T, after *memory) {
			m, err := after.dir().Load()
			if err != nil || m.Site != "home" {
				t.Fatalf("Load: %v", err)
			}
			if _, kept := after.seen[caKeyFile]; kept != m.Founder() {
				t.Errorf("the key is there: %v, founder: %v", kept, m.Founder())
			}
		})
	})
	for name, start := range map[string]*memory{"adopt, a member": cabin, "adopt, deposed": deposed, "adopt, nobody": newMemory()} {
		t.Run(name, func(t *testing.T) {
			adopt := func(d *Dir) error {
				_, _, err := d.AdoptAuthority(e.Data, "")
				return err
			}
			everyFault(t, start, adopt, func(t *testing.T, after *memory) {
				m, err := after.dir().Load()
				if err != nil && (len(start.seen) > 0 || !errors.Is(err, ErrNotEnrolled)) {
					t.Fatalf("Load: %v", err)
				}
				if err != nil || !m.Founder() {
					if err := adopt(after.dir()); err != nil {
						t.Fatalf("again: %v", err)
					}
					if m, err = after.dir().Load(); err != nil || !m.Founder() {
						t.Fatalf("Load afterwards: %v", err)
					}
				}
				if r := m.Revocations(); r.Holder != (Site{m.ID, m.Site}) || !r.Has(attic.ID) {
					t.Errorf("it is the founder, and of the list only %+v is there", r)
				}
				if lost := m.ID != home.ID && m.Site == home.Site; m.Revoked(home.ID) != lost {
					t.Errorf("the former founder's key is out: %v, lost: %v", !lost, lost)
				}
				if m.Revoked(m.ID) {
					t.Error("it has put itself out")
				}
			})
		})
	}
}
