// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"strings"
	"testing"

	"github.com/l2bridge/l2bridge/transport/identity"
)

// A site changes one thing about itself at a time.
func TestOneChange(t *testing.T) {
	s := new(site)
	s.now.Store(new(identity.Member))
	done, err := s.change()
	if err != nil {
		t.Fatal(err)
	}
	for what, change := range map[string]func() error{
		"rekey":     func() error { _, err := backend{s}.Rekey(t.Context(), ""); return err },
		"ca import": func() error { _, err := backend{s}.ImportCA(nil); return err },
		"leave":     func() error { _, err := backend{s}.Leave(t.Context()); return err },
		"ca export": func() error { return backend{s}.DropCA([32]byte{}) },
	} {
		if err := change(); err == nil || !strings.Contains(err.Error(), "under way") {
			t.Errorf("%s meanwhile: %v", what, err)
		}
	}
	done()
	if done, err = s.change(); err != nil {
		t.Fatal(err)
	}
	done()
}
