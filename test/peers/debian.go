// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// debian returns the path of a program's Debian package, unpacked and not
// installed: installing would enable its service, and start it at once or at
// the next boot. Packages that it depends on and the machine lacks come along.
func (b *bench) debian(ctx context.Context, names ...string) (root unpacked, err error) {
	dir, err := filepath.Abs(filepath.Join(b.o.cache, names[0]))
	if err != nil {
		return root, err
	}
	root.dir = filepath.Join(dir, "root")
	if text, err := os.ReadFile(filepath.Join(dir, "version")); err == nil {
		root.version = string(text)
		return root, nil
	}
	debs := filepath.Join(dir, "debs")
	if err := os.MkdirAll(filepath.Join(debs, "partial"), 0o755); err != nil {
		return root, err
	}
	if err := os.MkdirAll(root.dir, 0o755); err != nil {
		return root, err
	}
	download := append([]string{"install", "-q", "-y", "--download-only", "--reinstall", "--no-install-recommends",
		"-o", "Dir::Cache::archives=" + debs}, names...)
	if _, err := output(ctx, "", "apt-get", download...); err != nil {
		if _, err := output(ctx, "", "apt-get", "update", "-q"); err != nil {
			return root, err
		}
		if _, err := output(ctx, "", "apt-get", download...); err != nil {
			return root, err
		}
	}
	files, err := filepath.Glob(filepath.Join(debs, "*.deb"))
	if err != nil || len(files) == 0 {
		return root, errors.Join(err, fmt.Errorf("apt-get brought no package for %s", names[0]))
	}
	for _, file := range files {
		if _, err := output(ctx, "", "dpkg-deb", "-x", file, root.dir); err != nil {
			return root, err
		}
		if strings.HasPrefix(filepath.Base(file), names[0]+"_") {
			text, err := output(ctx, "", "dpkg-deb", "-f", file, "Version")
			if err != nil {
				return root, err
			}
			root.version = strings.TrimSpace(text)
		}
	}
	// Written last: a run that was interrupted begins anew.
	return root, os.WriteFile(filepath.Join(dir, "version"), []byte(root.version), 0o644)
}

// unpacked is the files of some packages.
type unpacked struct {
	dir     string
	version string
}

// program returns the path of a program, given as it is in the package.
func (u unpacked) program(path string) string { return filepath.Join(u.dir, path) }

// env makes programs find the libraries that came along.
func (u unpacked) env() []string {
	var dirs []string
	for _, pattern := range []string{"usr/lib/*-linux-gnu", "lib/*-linux-gnu", "usr/lib"} {
		found, _ := filepath.Glob(filepath.Join(u.dir, pattern))
		dirs = append(dirs, found...)
	}
	return []string{"LD_LIBRARY_PATH=" + strings.Join(dirs, ":")}
}
