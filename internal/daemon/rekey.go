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
	if !s.rekeying.TryLock() {
		return control.Rekeyed{}, errors.New("another change of the key is under way (wait for it)")
	}
	defer s.rekeying.Unlock()
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
