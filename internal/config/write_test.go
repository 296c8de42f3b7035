// SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/l2bridge/l2bridge/internal/config"
)

func load(t *testing.T, p config.Paths, flags ...config.Given) config.Config {
	t.Helper()
	c, err := config.Load(p, flags)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestCommit(t *testing.T) {
	p := paths(t, "-")
	p.File = filepath.Join(filepath.Dir(p.File), "made", "l2.toml")
	c := load(t, p, config.Given{"site", []string{"home"}}, config.Given{"peers", []string{"b:4433"}},
		config.Given{"forward_reserved", []string{"16384"}})
	d, err := config.Prepare(c)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(p.File); err == nil {
		t.Error("Prepare made the file")
	}
	if err := d.Commit(); err != nil {
		t.Fatal(err)
	}
	d.Discard()

	r := strings.NewReplacer(`#site = "home"`, `site = "home"`, `#peers = []`, `peers = ["b:4433"]`,
		`#forward_reserved = 0x0`, `forward_reserved = 0x4000`)
	got, err := os.ReadFile(p.File)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(r.Replace(config.Reference), string(got)); diff != "" {
		t.Errorf("file (-want +got):\n%s", diff)
	}
	if info, err := os.Stat(p.File); err != nil || info.Mode() != 0o644 {
		t.Errorf("mode %v, %v; want 0644", info.Mode(), err)
	}
	only(t, p.File)
	equal(t, "read back", c, load(t, p))
}

// only checks that nothing lies beside path.
func only(t *testing.T, path ...string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path[0]))
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != len(path) {
		t.Errorf("left behind: %v", entries)
	}
}

func TestDiscard(t *testing.T) {
	p := paths(t, "-")
	d, err := config.Prepare(load(t, p))
	if err != nil {
		t.Fatal(err)
	}
	d.Discard()
	if entries, _ := os.ReadDir(filepath.Dir(p.File)); len(entries) != 0 {
		t.Errorf("left behind: %v", entries)
	}
}

// Neither a file nor a link that comes in between is written over or through.
func TestCommitNeverOverwrites(t *testing.T) {
	for _, name := range []string{"file", "link", "dangling"} {
		t.Run(name, func(t *testing.T) {
			p := paths(t, "-")
			target := filepath.Join(t.TempDir(), "target")
			d, err := config.Prepare(load(t, p))
			if err != nil {
				t.Fatal(err)
			}
			switch name {
			case "file":
				err = os.WriteFile(p.File, []byte("theirs"), 0o600)
			case "link":
				err = os.WriteFile(target, []byte("theirs"), 0o600)
				fallthrough
			default:
				if err == nil {
					err = os.Symlink(target, p.File)
				}
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := d.Commit(); err == nil || !strings.Contains(err.Error(), "kept") {
				t.Errorf("got %v, want a refusal", err)
			}
			text, _ := os.ReadFile(p.File)
			if want := "theirs"; name != "dangling" && string(text) != want || name == "dangling" && len(text) > 0 {
				t.Errorf("the file now holds %q", text)
			}
			only(t, p.File)
		})
	}
}

func TestPrepareDangling(t *testing.T) {
	p := paths(t, "-")
	if err := os.Symlink("nowhere", p.File); err != nil {
		t.Fatal(err)
	}
	if _, err := config.Prepare(load(t, p)); err == nil || !strings.Contains(err.Error(), "a symbolic link to nothing") {
		t.Errorf("got %v, want a refusal", err)
	}
	only(t, p.File)
}

func TestPrepareKeepsTheFile(t *testing.T) {
	const theirs = "# mine\nmtu = 1400\npeers = [\"b:1\"]\n"
	tests := map[string]struct {
		flags   []config.Given
		thisRun []string
		want    string
	}{
		"no flags":         {},
		"same":             {flags: []config.Given{{"mtu", []string{"1400"}}, {"peers", []string{"b:1"}}}},
		"the default":      {flags: []config.Given{{"bridge", []string{"br0"}}}},
		"other":            {flags: []config.Given{{"mtu", []string{"1500"}}}, want: `(write mtu = 1500 there, or leave the flag out)`},
		"default for file": {flags: []config.Given{{"mtu", []string{"0"}}}, want: `--mtu: `},
		"new":              {flags: []config.Given{{"bridge", []string{""}}}, want: `(write bridge = "" there,`},
		"list":             {flags: []config.Given{{"peers", []string{"c:1"}}}, want: `(write peers = ["c:1"] there,`},
		"for this run":     {flags: []config.Given{{"peers", []string{"c:1"}}}, thisRun: []string{"peers"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p := paths(t, theirs)
			d, err := config.Prepare(load(t, p, tt.flags...), tt.thisRun...)
			if err == nil {
				err = d.Commit()
			}
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if text, _ := os.ReadFile(p.File); string(text) != theirs {
				t.Errorf("the file now holds %q", text)
			}
			only(t, p.File)
		})
	}
}
