// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/l2bridge/l2bridge/internal/control"
)

// rekeyWait bounds what a change of the key takes: the command waits no longer.
const rekeyWait = 8 * time.Second

// Rekey implements control.Backend.
func (b backend) Rekey(ctx context.Context, site string) (control.Rekeyed, error) {
	s := b.s
	if err := s.refuseOwnCA(); err != nil {
		return control.Rekeyed{}, err
	}
	done, err := s.change()
	if err != nil {
		return control.Rekeyed{}, err
	}
	defer done()
	ctx, cancel := context.WithTimeout(ctx, rekeyWait)
	defer cancel()
	was := s.member()
	m, err := s.mesh.Renew(ctx, cmp.Or(site, was.Site))
	if m == nil {
		if err = judged(err); errors.Is(err, ErrRefused) {
			err = fmt.Errorf("%w: %w", control.ErrNotAuthorised, err)
		}
		return control.Rekeyed{}, err
	}
	s.become(m)
	s.log.Info("key changed", "site", m.Site, "id", m.ID, "was", was.Site, "was_id", was.ID)
	if err != nil { // it is stored all the same
		s.log.Warn("key changed, and not all of that is stored", "error", err)
	}
	return control.Rekeyed{Site: m.Site, ID: m.ID.String()}, nil
}

// change begins a change of who this site is, and what it has, until done is called.
// Of two at once the one that is stored last need not be the last that is taken on.
func (s *site) change() (done func(), err error) {
	if !s.changing.TryLock() {
		return nil, errors.New("another change of a key is under way (wait for it)")
	}
	return s.changing.Unlock, nil
}
