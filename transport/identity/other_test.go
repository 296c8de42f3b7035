// SPDX-License-Identifier: Apache-2.0

package identity_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/l2bridge/l2bridge/transport/identity"
)

func TestOtherFiles(t *testing.T) {
	t.Parallel()
	d := newDir(t)
	if _, err := d.ReadFile("fdb.json"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("read of a file that is not there: %v, want ErrNotExist", err)
	}
	for _, text := range []string{"one\n", ""} {
		if err := d.WriteFile("fdb.json", []byte(text)); err != nil {
			t.Fatal(err)
		}
		got, err := d.ReadFile("fdb.json")
		if err != nil || string(got) != text {
			t.Errorf("read %q, %v, want %q", got, err, text)
		}
	}
	if info, err := os.Stat(filepath.Join(d.Path(), "fdb.json")); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v, want 0600", info.Mode(), err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := d.ReadFile("fdb.json"); !errors.Is(err, os.ErrClosed) {
		t.Errorf("read when closed: %v, want ErrClosed", err)
	}
	if err := d.WriteFile("fdb.json", nil); !errors.Is(err, os.ErrClosed) {
		t.Errorf("write when closed: %v, want ErrClosed", err)
	}
}

// Keys and membership are out of reach of the methods for other files, and so
// is all that is outside of the directory.
func TestOtherFilesAreOthers(t *testing.T) {
	t.Parallel()
	d := identity.MustFound(t, "home").Dir()
	before := readAll(t, d.Path())
	for _, name := range []string{
		"site.key", "ca.key", "membership.json", "pid",
		"membership.json.new", "fdb.json.new", ".new",
		"", ".", "..", "a/b", "/fdb.json", "./ca.key", "../fdb.json", "a\x00",
	} {
		if data, err := d.ReadFile(name); err == nil || errors.Is(err, fs.ErrNotExist) || len(data) > 0 {
			t.Errorf("read of %q: %d bytes, %v, want it refused", name, len(data), err)
		}
		err := d.WriteFile(name, []byte("x"))
		if err == nil || !strings.Contains(err.Error(), "not a name for another file") {
			t.Errorf("write of %q: %v, want it refused", name, err)
		}
	}
	if diff := cmp.Diff(before, readAll(t, d.Path())); diff != "" {
		t.Errorf("files (-before +after):\n%s", diff)
	}
}
