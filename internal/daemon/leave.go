// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"fmt"

	"github.com/l2bridge/l2bridge/internal/config"
	"github.com/l2bridge/l2bridge/internal/control"
	"github.com/l2bridge/l2bridge/transport/identity"
)

// errLeft ends the daemon of a site that has left, in a way in which systemd does
// not start it again.
var errLeft = fmt.Errorf("%w: it has just left one (join another with \"l2bridge join TOKEN\")", ErrNotMember)

// ours are the files in the state directory that a site which leaves has no use for
// any more, beside those of package identity.
var ours = []string{membersFile, askedFile, learnedFile, staticsFile}

// Revoke implements control.Backend.
func (b backend) Revoke(_ context.Context, site string) (control.Revoked, error) {
	if err := config.CheckSite(site); err != nil {
		return control.Revoked{}, fmt.Errorf("%w: site %.64q: %w", control.ErrInvalid, site, err)
	}
	m := b.s.member()
	if err := m.MayEnrol(); err != nil {
		return control.Revoked{}, fmt.Errorf("%w: %w", control.ErrNotAuthorised, err)
	}
	if site == m.Site {
		return control.Revoked{}, fmt.Errorf("%w: %q is this site, which holds the network's CA key: move that first (l2bridge ca export --move, and ca import at another site), then run \"l2bridge leave\" here", control.ErrInvalid, site)
	}
	news, known, err := b.s.mesh.Revoke(site)
	if err != nil {
		return control.Revoked{}, err // of the disk; its text says which
	}
	if !known {
		return control.Revoked{}, fmt.Errorf("%w: no site %q has ever joined (l2bridge peers shows those that have)", control.ErrNotFound, site)
	}
	r := control.Revoked{Site: site}
	for _, k := range news {
		r.IDs = append(r.IDs, k.ID.String())
	}
	return r, nil
}

// Leave implements control.Backend.
func (b backend) Leave(ctx context.Context) (control.Left, error) {
	s := b.s
	if err := s.refuseOwnCA(); err != nil {
		return control.Left{}, err
	}
	done, err := s.change()
	if err != nil {
		return control.Left{}, err
	}
	defer done()
	m := s.member()
	if err := m.MayLeave(); err != nil {
		return control.Left{}, leaveError(err)
	}
	left := control.Left{Network: m.Network, Site: m.Site, Founder: m.FounderSite()}
	if left.Told, left.Peers, err = s.mesh.Leave(ctx); err != nil {
		return control.Left{}, err
	}
	// From here on the others have no more to do with this site, and to try again
	// is all that there is to do about an error.
	s.left.Store(true)
	if err := s.dir.Leave(ours...); err != nil {
		return control.Left{}, leaveError(err)
	}
	s.log.Info("left the network", "network", m.Network, "site", m.Site, "told", left.Told, "peers", left.Peers)
	s.stop(errLeft)
	return left, nil
}

// Leave is what control.Backend has, while no daemon runs: nobody is told.
func Leave(stateDir string) (control.Left, error) {
	dir, err := identity.Open(stateDir)
	if err != nil {
		return control.Left{}, err
	}
	defer dir.Close()
	var left control.Left
	if m, err := dir.Load(); err == nil {
		left = control.Left{Network: m.Network, Site: m.Site, Founder: m.FounderSite()}
	}
	return left, leaveError(dir.Leave(ours...))
}

func leaveError(err error) error {
	if errors.Is(err, identity.ErrOthers) {
		return fmt.Errorf("%w: %w", control.ErrInvalid, err)
	}
	return err
}
