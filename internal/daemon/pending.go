// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"errors"
	"fmt"
	"time"

	"github.com/l2bridge/l2bridge/internal/control"
	"github.com/l2bridge/l2bridge/transport"
	"github.com/l2bridge/l2bridge/transport/identity"
)

// Pending implements control.Backend.
func (b backend) Pending() ([]control.Pending, error) {
	requests, err := b.s.mesh.Requests()
	if err != nil {
		return nil, founderError(err)
	}
	all := make([]control.Pending, 0, len(requests))
	for _, r := range requests {
		all = append(all, b.pending(r))
	}
	return all, nil
}

// Approve implements control.Backend.
func (b backend) Approve(ref string) (control.Pending, error) {
	r, err := b.s.mesh.Approve(ref)
	if err != nil {
		return control.Pending{}, founderError(err)
	}
	return b.pending(r), nil
}

// Deny implements control.Backend.
func (b backend) Deny(ref string) (control.Pending, error) {
	r, err := b.s.mesh.Deny(ref)
	if err != nil {
		return control.Pending{}, founderError(err)
	}
	return b.pending(r), nil
}

func (b backend) pending(r transport.Request) control.Pending {
	return control.Pending{
		Site: r.Site, ID: r.ID.String(), Addr: r.Addr.String(), AgeMS: since(r.Since), LeftMS: time.Until(r.Until).Milliseconds(),
		Phrase: r.ID.Phrase(), CAPhrase: b.s.member().CAID().Phrase(),
	}
}

// founderError tells commands of the founder which kind an error is of.
func founderError(err error) error {
	switch {
	case errors.Is(err, identity.ErrNotFounder):
		return fmt.Errorf("%w: %w", control.ErrNotAuthorised, err)
	case errors.Is(err, transport.ErrNoRequest):
		return fmt.Errorf("%w: %w", control.ErrNotFound, err)
	}
	return err
}

// pendingHints tells a person that somebody waits.
func (s *site) pendingHints() []string {
	n, oldest := s.mesh.Asking()
	switch n {
	case 0:
		return nil
	case 1:
		return []string{fmt.Sprintf(`site %s at %s asks to join: "l2bridge pending" shows what to compare before you approve or deny it`, oldest.Site, oldest.Addr)}
	}
	return []string{fmt.Sprintf(`%d sites ask to join, %s is the first: "l2bridge pending" shows what to compare before you approve or deny them`, n, oldest.Site)}
}
