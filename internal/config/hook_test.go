// SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/l2bridge/l2bridge/internal/config"
)

// program makes a file of that mode and returns its path.
func program(t *testing.T, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "on-peer")
	if err := errors.Join(os.WriteFile(path, []byte("#!/bin/sh\n"), 0o600), os.Chmod(path, mode)); err != nil {
		t.Fatal(err)
	}
	return path
}

// A command is kept word for word, the same words twice included.
func TestHook(t *testing.T) {
	t.Parallel()
	path := program(t, 0o755)
	link := path + "-link"
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("on_up = [%q, '-v', '-v', '', '$HOME \"a\" \\ ; ü\u200b']\non_down = [%q]\n", path, link)
	c, err := config.Load(paths(t, text), nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{path, "-v", "-v", "", "$HOME \"a\" \\ ; ü\u200b"}, c.OnUp); diff != "" {
		t.Errorf("on_up (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{link}, c.OnDown); diff != "" {
		t.Errorf("on_down (-want +got):\n%s", diff)
	}
	if again, err := config.Load(paths(t, c.TOML()), nil); err != nil || cmp.Diff(c.OnUp, again.OnUp) != "" {
		t.Errorf("printed and read: %q, %v", again.OnUp, err)
	}
	for _, none := range []string{"", "on_up = []\n"} {
		if c, err := config.Load(paths(t, none), nil); err != nil || len(c.OnUp) > 0 {
			t.Errorf("%q: %q, %v", none, c.OnUp, err)
		}
	}
}

func TestHookRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, tt := range map[string]struct{ value, want string }{
		"a text":        {`"/bin/sh -c true"`, `"/bin/sh -c true": want a list of strings: the path of a program, and its arguments`},
		"numbers":       {`["/bin/sh", 1]`, `want a list of strings: the path of a program, and its arguments`},
		"relative":      {`["on-peer"]`, `"on-peer": want the absolute path of a program (such as /usr/local/bin/on-peer)`},
		"no name":       {`[""]`, `"": want the absolute path`},
		"not there":     {`["/nowhere/on-peer", "x"]`, `"/nowhere/on-peer": no such file (make it, or take the setting out)`},
		"a directory":   {fmt.Sprintf("[%q]", dir), fmt.Sprintf(`%q: not a regular file (want a program or a script)`, dir)},
		"a device":      {`["/dev/null"]`, `"/dev/null": not a regular file`},
		"below a file":  {`["/bin/sh/x"]`, `"/bin/sh/x": not a directory (want the path of a program that can be read)`},
		"long":          {fmt.Sprintf("[%q]", "/"+strings.Repeat("x", 5000)), `: file name too long (`},
		"not to run":    {fmt.Sprintf("[%q]", program(t, 0o644)), `: not executable (chmod +x it)`},
		"to be changed": {fmt.Sprintf("[%q]", program(t, 0o757)), `: anybody may write to it, and it runs as root (chmod o-w it)`},
		"control":       {`["/bin/sh", "a\nb"]`, `"a\nb": a control character (put what needs it in a script)`},
		"zero":          {`["/bin/sh\u0000"]`, `"/bin/sh\x00": a control character`},
		"escape":        {`["/bin/sh", "\u009b31m"]`, `"\u009b31m": a control character`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := paths(t, "\non_down = "+tt.value+"\n")
			_, err := config.Load(p, nil)
			if err == nil || !strings.HasPrefix(err.Error(), p.File+":2: on_down ") || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v\nwant %s:2: on_down ... %s", err, p.File, tt.want)
			}
			if strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' || r > '~' }) {
				t.Errorf("%+q: not printable ASCII", err.Error())
			}
		})
	}
}
