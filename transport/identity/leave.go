// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// ErrOthers says that a site may not leave its network: it holds the CA key, and
// there are other members.
var ErrOthers = errors.New("this site holds the network's CA key, and others are members still")

// MayLeave returns nil if this site may leave its network, or else ErrOthers
// (errors.Is) with what to do first.
func (m *Member) MayLeave() error {
	m.dir.mu.Lock()
	defer m.dir.mu.Unlock()
	st, err := m.dir.readStateLocked()
	if err != nil {
		return err
	}
	return m.mayLeaveLocked(st)
}

func (m *Member) mayLeaveLocked(st *state) error {
	if !m.Founder() || st.Ledger == nil {
		return nil
	}
	var others []string
	for _, c := range st.Ledger.Issued {
		if c.ID != m.ID && !m.Revoked(c.ID) {
			others = append(others, c.Site)
		}
	}
	if len(others) == 0 {
		return nil
	}
	const most = 5
	names := strings.Join(others[:min(most, len(others))], ", ")
	if len(others) > most {
		names += ", ..."
	}
	return fmt.Errorf("%w (%s): move the key first (l2bridge ca export --move, and ca import at another site), or revoke them", ErrOthers, names)
}

// Leave takes away all that makes this site a member, and the files others. Where
// there is nothing it does nothing; after an error it may be called again. The
// error is ErrOthers (errors.Is), and nothing is taken away, at a site that holds
// the CA key while there are other members, or that may for all that can be read.
func (d *Dir) Leave(others ...string) error {
	for _, name := range others {
		if err := checkOther(name); err != nil {
			return err
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.checkLeaveLocked(); err != nil {
		return err
	}
	// The CA key first: what is left without it is no founder's, and may go whatever
	// can be read of it. The membership last: while it is there without a key it is
	// seen that something is left to do, and a key without it would be taken for a
	// new one.
	steps := [][]string{{caKeyFile}, append(others, siteKeyFile, nextKeyFile), {revokedFile, stateFile}}
	for _, names := range steps {
		for _, name := range names {
			for _, file := range []string{name, name + newSuffix} {
				if err := d.files.remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
					return fmt.Errorf("take %s away: %w (make %s writable, then try again)", file, err, d.path)
				}
			}
		}
		if err := d.files.sync(); err != nil {
			return fmt.Errorf("take %s away: %w (try again)", names[0], err)
		}
	}
	d.revoked.Store(nil)
	return nil
}

func (d *Dir) checkLeaveLocked() error {
	if d.files == nil {
		return fmt.Errorf("state directory %s: %w", d.path, os.ErrClosed)
	}
	_, noKey := d.files.read(caKeyFile)
	st, err := d.readStateLocked()
	var m *Member
	if err == nil {
		m, err = d.memberLocked(st)
	}
	switch {
	case err == nil:
		return m.mayLeaveLocked(st)
	case errors.Is(noKey, fs.ErrNotExist):
		return nil // whatever is wrong, no network is lost with it
	}
	return fmt.Errorf("%w, for all that can be told: %w (restore the state directory, or remove it by hand)", ErrOthers, err)
}
