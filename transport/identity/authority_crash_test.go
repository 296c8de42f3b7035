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
	token, err := home.Invite("", maxTTL, []string{"192.0.2.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	cabin := newMemory()
	if _, _, err := JoinAt(cabin.dir(), home, token, "cabin"); err != nil {
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
	for name, start := range map[string]*memory{"adopt, a member": cabin, "adopt, nobody": newMemory()} {
		t.Run(name, func(t *testing.T) {
			adopt := func(d *Dir) error {
				_, _, err := d.AdoptAuthority(e.Data, "")
				return err
			}
			everyFault(t, start, adopt, func(t *testing.T, after *memory) {
				d := after.dir()
				if m, err := d.Load(); err == nil && m.Founder() {
					return
				} else if err != nil && (start == cabin || !errors.Is(err, ErrNotEnrolled)) {
					t.Fatalf("Load: %v", err)
				}
				if err := adopt(d); err != nil {
					t.Errorf("again: %v", err)
				}
			})
		})
	}
}
