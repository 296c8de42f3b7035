// SPDX-License-Identifier: Apache-2.0

package control_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/l2bridge/l2bridge/internal/control"
)

// gate is a daemon whom sites ask to let them in.
type gate struct {
	control.Backend // nil: a call that a test does not expect panics
	pending         []control.Pending
	err             error
}

func (g *gate) Pending() ([]control.Pending, error) { return g.pending, g.err }

func (g *gate) Approve(ref string) (control.Pending, error) {
	if ref != "cabin" {
		return control.Pending{}, fmt.Errorf("%w: nobody is %q", control.ErrNotFound, ref)
	}
	return g.pending[0], g.err
}

func (g *gate) Deny(ref string) (control.Pending, error) {
	if g.err != nil {
		return control.Pending{}, g.err
	}
	return control.Pending{Site: "no " + ref}, nil
}

func TestPending(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	cabin := control.Pending{Site: "cabin", ID: "9f86", Addr: "192.0.2.1:4433", AgeMS: 1, LeftMS: 2, Phrase: "legal winner", CAPhrase: "letter advice"}
	c := control.Dial(serve(t, &gate{pending: []control.Pending{cabin}}))
	all, err := c.Pending(ctx)
	if diff := cmp.Diff([]control.Pending{cabin}, all); diff != "" || err != nil {
		t.Errorf("Pending: %v (-want +got):\n%s", err, diff)
	}
	if p, err := c.Approve(ctx, "cabin"); p != cabin || err != nil {
		t.Errorf("Approve: %+v, %v", p, err)
	}
	if p, err := c.Deny(ctx, "cabin"); p.Site != "no cabin" || err != nil {
		t.Errorf("Deny: %+v, %v", p, err)
	}
	if _, err := c.Approve(ctx, "attic"); !errors.Is(err, control.ErrNotFound) {
		t.Errorf("Approve of nobody: %v", err)
	}
	for _, ref := range []string{"", "Cabin", "a b", "\x1b[2J", "../x", string(make([]byte, 65))} {
		if _, err := c.Approve(ctx, ref); !errors.Is(err, control.ErrInvalid) {
			t.Errorf("Approve of %q: %v", ref, err)
		}
		if _, err := c.Deny(ctx, ref); !errors.Is(err, control.ErrInvalid) {
			t.Errorf("Deny of %q: %v", ref, err)
		}
	}

	none, err := control.Dial(serve(t, &gate{})).Pending(ctx)
	if none == nil || len(none) > 0 || err != nil {
		t.Errorf("Pending of nobody: %v, %v, want a list", none, err)
	}
	guest := control.Dial(serve(t, &gate{err: fmt.Errorf("%w: the CA key is at site home", control.ErrNotAuthorised), pending: []control.Pending{cabin}}))
	_, pending := guest.Pending(ctx)
	_, approve := guest.Approve(ctx, "cabin")
	_, deny := guest.Deny(ctx, "cabin")
	for what, err := range map[string]error{"Pending": pending, "Approve": approve, "Deny": deny} {
		if !errors.Is(err, control.ErrNotAuthorised) {
			t.Errorf("%s at a guest: %v", what, err)
		}
	}
}
