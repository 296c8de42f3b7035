// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"path/filepath"
	"testing"

	"github.com/l2bridge/l2bridge/transport/identity"
)

// Nobody is let into a network, and no network into a LAN, unseen.
func TestWord(t *testing.T) {
	t.Parallel()
	no := errors.New("not the same")
	says := func(err error) func(context.Context, Question) error {
		return func(context.Context, Question) error { return err }
	}
	for _, tt := range []struct {
		name   string
		person Person
		again  bool
		want   error
	}{
		{"somebody says yes", Person{Word: says(nil)}, false, nil},
		{"somebody says no", Person{Word: says(no)}, false, no},
		{"somebody says no, the second time", Person{Word: says(no)}, true, no},
		{"somebody says no, and was to wait", Person{Word: says(no), Wait: true}, false, no},
		{"nobody is here", Person{}, false, ErrFiled},
		{"nobody is here, the second time", Person{}, true, nil},
		{"nobody is here, and it was to wait", Person{Wait: true}, false, nil},
	} {
		if err := tt.person.word(t.Context(), Question{Site: "cabin", Founder: "home"}, tt.again); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
}

func TestAskedIsRemembered(t *testing.T) {
	t.Parallel()
	dir, err := identity.Open(filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	for _, want := range []identity.ID{{}, {1, 2, 3}, {}} {
		if want != (identity.ID{}) {
			err = saveAsked(dir, want)
		}
		got, lerr := loadAsked(dir)
		if err != nil || lerr != nil || got != want {
			t.Errorf("%v, %v, %v, want %v", got, err, lerr, want)
		}
		err = saveAsked(dir, identity.ID{})
	}
	if err := dir.WriteFile(askedFile, []byte(`{"ca":"xyz"}`)); err != nil {
		t.Fatal(err)
	}
	if _, err := loadAsked(dir); err == nil {
		t.Error("a damaged file is read")
	}
}
