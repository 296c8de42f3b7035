// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"fmt"
	"os"
)

// ReadFile returns the content of one of the other files that the daemon keeps
// in the state directory. The error is os.ErrNotExist (errors.Is) when there is
// none of that name.
func (d *Dir) ReadFile(name string) ([]byte, error) {
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
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.files == nil {
		return os.ErrClosed
	}
	if err := replace(d.files, name, data); err != nil {
		return fmt.Errorf("write %s in state directory %s: %w", name, d.path, err)
	}
	return nil
}
