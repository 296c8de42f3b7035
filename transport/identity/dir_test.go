// SPDX-License-Identifier: Apache-2.0

package identity_test

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/l2bridge/l2bridge/transport/identity"
)

func TestOpenMakesDirectory(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "a", "b", "default")
	d := identity.MustOpen(t, path+"/") // a trailing slash, as in the manual
	for p := path; filepath.Base(p) != "001"; p = filepath.Dir(p) {
		info, err := os.Stat(p)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != fs.ModeDir|0o700 {
			t.Errorf("%s has mode %v", p, info.Mode())
		}
	}
	if _, err := d.Load(); !errors.Is(err, identity.ErrNotEnrolled) {
		t.Errorf("Load: %v, want ErrNotEnrolled", err)
	}
}

// A directory made for nothing goes again; one that was there stays.
func TestCloseTakesEmptyDirectoryAway(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		before func(path string) error
		put    func(d *identity.Dir) error
		stays  bool
	}{
		{"made for nothing", nil, nil, false},
		{"made and used", nil, func(d *identity.Dir) error { _, err := d.SiteKey(); return err }, true},
		{"was there", func(path string) error { return os.Mkdir(path, 0o700) }, nil, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "state")
			if test.before != nil {
				if err := test.before(path); err != nil {
					t.Fatal(err)
				}
			}
			d, err := identity.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			if test.put != nil {
				if err := test.put(d); err != nil {
					t.Fatal(err)
				}
			}
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Lstat(path); (err == nil) != test.stays {
				t.Errorf("directory after Close: %v, want it to stay: %v", err, test.stays)
			}
		})
	}
}

func TestFilesAreSecret(t *testing.T) {
	t.Parallel()
	home := identity.MustFound(t, "home")
	invite(t, home, "")
	path := home.Dir().Path()
	entries, err := os.ReadDir(path)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
		if info, err := e.Info(); err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: mode %v, %v", e.Name(), info.Mode(), err)
		}
	}
	if diff := cmp.Diff([]string{"ca.key", "membership.json", "pid", "site.key"}, names); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	if err := home.Dir().Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(path, "pid")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("pid file after Close: %v", err)
	}
}

func TestFound(t *testing.T) {
	t.Parallel()
	d := newDir(t)
	if _, err := d.Found("Home"); err == nil {
		t.Error("founded with a bad name")
	}
	home, err := d.Found("home")
	if err != nil {
		t.Fatal(err)
	}
	if home.Site != "home" || len(home.Network) != 16 || !home.Founder() {
		t.Errorf("member %+v", home)
	}
	before := readAll(t, d.Path())
	if _, err := d.Found("other"); !errors.Is(err, identity.ErrExists) || !strings.Contains(err.Error(), `site "home"`) {
		t.Errorf("again: %v, want ErrExists that names the site", err)
	}
	if diff := cmp.Diff(before, readAll(t, d.Path())); diff != "" {
		t.Errorf("files (-before +after):\n%s", diff)
	}
	back, err := d.Load()
	if err != nil || back.ID != home.ID || back.Network != home.Network || !back.Founder() {
		t.Errorf("Load: %+v, %v", back, err)
	}
	if other := identity.MustFound(t, "home"); other.Network == home.Network || other.ID == home.ID {
		t.Error("two networks are the same")
	}
}

func readAll(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := make(map[string]string)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		files[e.Name()] = string(data)
	}
	return files
}

func TestSiteKeyIsKept(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state")
	var keys []ed25519.PrivateKey
	for range 2 {
		d, err := identity.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			key, err := d.SiteKey()
			if err != nil {
				t.Fatal(err)
			}
			keys = append(keys, key.(ed25519.PrivateKey))
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for _, key := range keys {
		if !key.Equal(keys[0]) {
			t.Error("site key has changed")
		}
	}
}

func TestSaveMembership(t *testing.T) {
	t.Parallel()
	home := identity.MustFound(t, "home")
	cabin := identity.MustJoin(t, home, "cabin")
	ca, leaf := cabin.CA.Raw, cabin.Leaf.Certificate[0]
	if m, err := cabin.Dir().SaveMembership(ca, leaf); err != nil || m.Site != "cabin" {
		t.Errorf("the same again: %v", err)
	}
	other := identity.MustFound(t, "home")
	if _, err := cabin.Dir().SaveMembership(other.CA.Raw, leaf); !errors.Is(err, identity.ErrExists) {
		t.Errorf("another network: %v, want ErrExists", err)
	}
	if _, err := newDir(t).SaveMembership(ca, leaf); err == nil {
		t.Error("stored a certificate without its key")
	}
	if _, _, err := identity.JoinAt(cabin.Dir(), other, invite(t, other, ""), "cabin"); !errors.Is(err, identity.ErrExists) {
		t.Errorf("join another network: %v, want ErrExists", err)
	}
}

func TestClosed(t *testing.T) {
	t.Parallel()
	home := identity.MustFound(t, "home")
	d := home.Dir()
	for range 2 {
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
	_, load := d.Load()
	_, found := d.Found("x")
	_, key := d.SiteKey()
	_, save := d.SaveMembership(nil, nil)
	_, inv := home.Invite("", time.Hour, someAddr)
	for i, err := range []error{load, found, key, save, inv} {
		if !errors.Is(err, os.ErrClosed) {
			t.Errorf("call %d: %v, want os.ErrClosed", i, err)
		}
	}
	if p := identity.Handshake(home.TLSConfig(alpn), home.TLSConfig(alpn)); p.Err() != nil {
		t.Errorf("handshake: %v", p.Err())
	}
}

// What somebody may have put into the directory, and what is said about it.
func TestRefusesFiles(t *testing.T) {
	t.Parallel()
	type c struct {
		file string
		do   func(path string) error
		want string
	}
	chmod := func(mode os.FileMode) func(string) error {
		return func(path string) error { return os.Chmod(path, mode) }
	}
	instead := func(make func(path string) error) func(string) error {
		return func(path string) error { return errors.Join(os.Rename(path, path+".old"), make(path)) }
	}
	content := func(s string) func(string) error {
		return func(path string) error { return os.WriteFile(path, []byte(s), 0o600) }
	}
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cases := map[string]c{
		"link to a key":    {"site.key", instead(func(p string) error { return os.Symlink(p+".old", p) }), "site.key is a symbolic link"},
		"link to a CA key": {"ca.key", instead(func(p string) error { return os.Symlink(p+".old", p) }), "ca.key is a symbolic link"},
		"link to state":    {"membership.json", instead(func(p string) error { return os.Symlink(p+".old", p) }), "membership.json is a symbolic link"},
		"directory":        {"site.key", instead(func(p string) error { return os.Mkdir(p, 0o700) }), "not a regular file"},
		"fifo":             {"site.key", instead(func(p string) error { return exec.Command("mkfifo", "-m", "600", p).Run() }), "not a regular file"},
		"group readable":   {"site.key", chmod(0o640), "mode 0640: others may read or change what must be secret (chmod 600 "},
		"world readable":   {"ca.key", chmod(0o604), "mode 0604"},
		"world writable":   {"membership.json", chmod(0o602), "mode 0602"},
		"tokens readable":  {"membership.json", chmod(0o644), "mode 0644"},
		"empty key":        {"site.key", content(""), "not one PEM block PRIVATE KEY (restore it from a backup)"},
		"two keys": {"site.key", func(p string) error {
			b, err := os.ReadFile(p)
			return errors.Join(err, os.WriteFile(p, append(b, b...), 0o600))
		}, "not one PEM block"},
		"ECDSA key":          {"site.key", content(pemKey(t, ec)), "not an Ed25519 key"},
		"another site's key": {"site.key", content(pemKey(t, newKey(t))), "for another key than site.key"},
		"another CA's key":   {"ca.key", content(pemKey(t, newKey(t))), "not the key of this network's CA"},
		"no site key":        {"site.key", os.Remove, "no such file"},
		"empty state":        {"membership.json", content(""), "membership.json: unexpected end of JSON input (restore it from a backup)"},
		"newer state":        {"membership.json", content(`{"schema": 2, "more": 1}`), "schema 2 is not the 1 that this version knows"},
		"unknown field":      {"membership.json", content(`{"schema": 1, "more": 1}`), `unknown field "more"`},
		"no certificates":    {"membership.json", content(`{"schema": 1}`), "certificate of the network"},
		"huge state":         {"membership.json", func(p string) error { return os.Truncate(p, identity.MaxFile+1) }, "more than 4194304 bytes"},
	}
	if os.Geteuid() == 0 {
		cases["foreign owner"] = c{"site.key", func(p string) error { return os.Chown(p, 65534, 0) }, "belongs to user 65534, not to user 0 who runs this (chown 0 "}
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			home := identity.MustFound(t, "home")
			file := filepath.Join(home.Dir().Path(), c.file)
			if err := c.do(file); err != nil {
				t.Fatal(err)
			}
			before := listing(t, home.Dir().Path())
			_, err := home.Dir().Load()
			if err == nil || !strings.Contains(err.Error(), c.want) || errors.Is(err, identity.ErrNotEnrolled) {
				t.Errorf("Load: %v, want %s", err, c.want)
			}
			if err != nil && !strings.Contains(err.Error(), home.Dir().Path()) && !strings.Contains(err.Error(), c.file) && !strings.Contains(err.Error(), "certificate") {
				t.Errorf("Load does not say where: %v", err)
			}
			// And none of it is founded over.
			if _, err := home.Dir().Found("other"); err == nil || errors.Is(err, identity.ErrExists) {
				t.Errorf("Found: %v", err)
			}
			if diff := cmp.Diff(before, listing(t, home.Dir().Path())); diff != "" {
				t.Errorf("changed (-before +after):\n%s", diff)
			}
		})
	}
}

func listing(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, fmt.Sprint(e.Name(), info.Mode(), info.Size(), info.ModTime()))
	}
	return lines
}

func pemKey(t *testing.T, key any) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

func TestOpenRefusesDirectories(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	in := func(name string) string { return filepath.Join(base, name) }
	for _, name := range []string{"real", "open", "theirs"} {
		if err := os.Mkdir(in(name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Symlink(in("real"), in("link")))
	must(os.WriteFile(in("file"), nil, 0o600))
	must(os.Chmod(in("open"), 0o770))
	cases := map[string]string{
		"link":   "is a symbolic link (give the directory itself)",
		"link/":  "is a symbolic link (give the directory itself)",
		"file":   "not a directory",
		"file/x": "not a directory",
		"open":   "mode 0770: others may write in it (chmod 700 ",
	}
	if os.Geteuid() == 0 {
		must(os.Chown(in("theirs"), 65534, 0))
		cases["theirs"] = "belongs to user 65534, not to user 0"
	}
	for _, name := range slices.Sorted(maps.Keys(cases)) {
		d, err := identity.Open(base + "/" + name)
		if err == nil || !strings.Contains(err.Error(), cases[name]) || !strings.Contains(err.Error(), base) {
			t.Errorf("Open(%s): %v, want %s", name, err, cases[name])
		}
		if err == nil {
			d.Close()
		}
	}
	if entries, err := os.ReadDir(in("real")); err != nil || len(entries) > 0 {
		t.Errorf("behind the link: %v, %v", entries, err)
	}
}

// A link waiting under the name of a temporary file is not written through.
func TestTemporaryFileIsALink(t *testing.T) {
	t.Parallel()
	d := newDir(t)
	victim := filepath.Join(t.TempDir(), "victim")
	if err := os.WriteFile(victim, []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"membership.json.new", "site.key.new", "ca.key.new"} {
		if err := os.Symlink(victim, filepath.Join(d.Path(), name)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := d.Found("home"); err != nil {
		t.Error(err)
	}
	if got, err := os.ReadFile(victim); err != nil || string(got) != "old" {
		t.Errorf("victim is now %q, %v", got, err)
	}
}

func TestLocked(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state")
	d, err := identity.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = identity.Open(path)
	if want := fmt.Sprintf("%s is in use by \"identity.test\" (pid %d) (", path, os.Getpid()); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("second Open: %v, want %s", err, want)
	}
	for _, content := range []string{"", "\x1b[2J", "-5", strings.Repeat("9", 100)} {
		if err := os.WriteFile(filepath.Join(path, "pid"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := identity.Open(path); err == nil || !strings.Contains(err.Error(), "in use by another process") {
			t.Errorf("pid file %q: %v", content, err)
		}
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	identity.MustOpen(t, path)
}

// The lock is one between processes too, and dies with its holder.
func TestLockedByAnotherProcess(t *testing.T) {
	const where = "L2BRIDGE_TEST_HOLD"
	if path := os.Getenv(where); path != "" {
		if _, err := identity.Open(path); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("locked")
		bufio.NewReader(os.Stdin).ReadByte() // until killed
		os.Exit(0)
	}
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state")
	holder := exec.Command(os.Args[0], "-test.run=^TestLockedByAnotherProcess$")
	holder.Env = append(os.Environ(), where+"="+path)
	stdin, err := holder.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	stdout, err := holder.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil || line != "locked\n" {
		t.Errorf("holder says %q, %v", line, err)
	}
	_, err = identity.Open(path)
	if want := fmt.Sprintf("in use by \"identity.test\" (pid %d) (", holder.Process.Pid); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("Open: %v, want %s", err, want)
	}
	if err := holder.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = holder.Wait() // killed
	identity.MustOpen(t, path)
}

func FuzzState(f *testing.F) {
	f.Add([]byte(`{"schema": 1, "ca": "AA==", "leaf": "AA==", "ledger": {"issued": [], "tokens": [{"id": "0011223344556677", "used_by": null}]}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := identity.ParseState(b); err == nil && !bytes.Contains(bytes.ToLower(b), []byte("schema")) && !bytes.Contains(b, []byte(`\u`)) {
			t.Errorf("accepted %q without a schema", b)
		}
	})
}

func FuzzKey(f *testing.F) {
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f\n-----END PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := identity.ParseKey(b); err == nil && !bytes.Contains(b, []byte("PRIVATE KEY")) {
			t.Errorf("accepted %q", b)
		}
	})
}
