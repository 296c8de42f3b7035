// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"fmt"
	"os"
	"slices"
	"strings"
)

// ReadFile returns the content of one of the other files that the daemon keeps
// in the state directory. The error is os.ErrNotExist (errors.Is) when there is
// none of that name. A name that is this package's own, or leads elsewhere, is
// refused, here and in WriteFile.
func (d *Dir) ReadFile(name string) ([]byte, error) {
	if err := checkOther(name); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.files == nil {
		return nil, os.ErrClosed
	}
	return d.files.read(name)
}

// WriteFile gives one of the other files in the state directory the content
// data, borrowed, or leaves it as it was, whatever happens meanwhile.
func (d *Dir) WriteFile(name string, data []byte) error {
	if err := checkOther(name); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.files == nil {
		return os.ErrClosed
	}
	return d.replaceLocked(name, data)
}

// checkOther refuses the names under which keys and membership are kept, those
// that replace gives to files half written, and any way out of the directory.
func checkOther(name string) error {
	taken := []string{siteKeyFile, nextKeyFile, caKeyFile, stateFile, revokedFile, pidFile, "", ".", ".."}
	if slices.Contains(taken, name) || strings.HasSuffix(name, newSuffix) || strings.ContainsAny(name, "/\x00") {
		return fmt.Errorf("identity: %q is not a name for another file in the state directory", name)
	}
	return nil
}
