// SPDX-License-Identifier: Apache-2.0

package identity_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/l2bridge/l2bridge/transport/identity"
)

// On a real disk that is full or cannot be written: an error, what was stored
// is as it was, and a member still comes up.
func TestFullAndReadOnlyDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount a file system of its own")
	}
	// The mount is this thread's alone, and goes with it: it is not unlocked.
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		t.Skip("no mount namespace: ", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	mount := t.TempDir()
	if err := unix.Mount("tmpfs", mount, "tmpfs", 0, "size=128k,mode=0700"); err != nil {
		t.Skip("no tmpfs: ", err)
	}
	t.Cleanup(func() { // else t.TempDir's own fails
		if err := unix.Unmount(mount, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	path := filepath.Join(mount, "state")
	home := mustFoundAt(t, path)

	fill := filepath.Join(mount, "fill")
	if err := os.WriteFile(fill, bytes.Repeat([]byte{1}, 1<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("filling the disk: %v", err)
	}
	before := readAll(t, path)
	if _, err := home.Invite("", time.Hour, someAddr); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("full: Invite: %v, want ENOSPC", err)
	}
	if diff := cmp.Diff(before, readAll(t, path)); diff != "" {
		t.Errorf("full (-before +after):\n%s", diff)
	}
	home = reopen(t, home)

	if err := os.Remove(fill); err != nil {
		t.Fatal(err)
	}
	if _, err := home.Invite("", time.Hour, someAddr); err != nil {
		t.Errorf("with space again: %v", err)
	}
	before = readAll(t, path)
	delete(before, "pid")
	if err := unix.Mount("", mount, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	home = reopen(t, home)
	if _, err := home.Invite("", time.Hour, someAddr); !errors.Is(err, unix.EROFS) {
		t.Errorf("read-only: Invite: %v, want EROFS", err)
	}
	after := readAll(t, path)
	delete(after, "pid")
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("read-only (-before +after):\n%s", diff)
	}
	if _, err := identity.Open(filepath.Join(mount, "another")); !errors.Is(err, unix.EROFS) {
		t.Errorf("read-only: Open of a new directory: %v, want EROFS", err)
	}
	if err := home.Dir().Close(); err != nil {
		t.Error(err)
	}
}

func mustFoundAt(t *testing.T, path string) *identity.Member {
	t.Helper()
	d, err := identity.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	m, err := d.Found("home")
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// reopen is a restart of the machine's daemon.
func reopen(t *testing.T, m *identity.Member) *identity.Member {
	t.Helper()
	if err := m.Dir().Close(); err != nil {
		t.Fatal(err)
	}
	d, err := identity.Open(m.Dir().Path())
	if err != nil {
		t.Fatal(err)
	}
	m, err = d.Load()
	if err != nil {
		t.Fatal(err)
	}
	return m
}
