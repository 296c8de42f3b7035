// SPDX-License-Identifier: Apache-2.0

package confine

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// Permissions that a mode gives, as for others.
const (
	execute = 1 << iota // of a directory: to go on into it
	write
	read
)

// ToRead returns the capabilities that it takes to come to a file and read it, or to
// work in a directory that is ours. For root they are none, but where the mode of
// something on the way keeps everybody out but another user: a home directory, most
// often. What is not there takes nothing.
func ToRead(path string) []int {
	path, info := existing(path)
	if info == nil || !closed(path) && (info.IsDir() || allows(info, read)) {
		return nil
	}
	return []int{unix.CAP_DAC_READ_SEARCH}
}

// ToReplace returns the capabilities that it takes to replace a file, or to make it.
func ToReplace(path string) []int {
	dir, info := existing(filepath.Dir(path))
	if info == nil || !closed(dir) && allows(info, write) {
		return ToRead(path)
	}
	return []int{unix.CAP_DAC_OVERRIDE}
}

// existing returns what of a path there is, without symbolic links.
func existing(path string) (string, fs.FileInfo) {
	for {
		real, err := filepath.EvalSymlinks(path)
		if err == nil {
			path = real
			break
		}
		up := filepath.Dir(path)
		if up == path || !errors.Is(err, fs.ErrNotExist) {
			return path, nil
		}
		path = up
	}
	info, err := os.Stat(path)
	if err != nil {
		return path, nil
	}
	return path, info
}

// closed reports whether a directory on the way to what path names, or that itself,
// is closed to us without capabilities.
func closed(path string) bool {
	for {
		info, err := os.Stat(path)
		if err != nil || info.IsDir() && !allows(info, execute) {
			return true
		}
		up := filepath.Dir(path)
		if up == path {
			return false
		}
		path = up
	}
}

// allows reports whether the mode of a file gives us a permission
// (fs/namei.c, acl_permission_check, but for access control lists).
func allows(info fs.FileInfo, permission uint32) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return false
	}
	groups, _ := os.Getgroups()
	mode := st.Mode
	switch {
	case int(st.Uid) == os.Geteuid():
		mode >>= 6
	case int(st.Gid) == os.Getegid() || slices.Contains(groups, int(st.Gid)):
		mode >>= 3
	}
	return mode&permission == permission
}
