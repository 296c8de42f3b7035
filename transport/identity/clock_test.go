// SPDX-License-Identifier: Apache-2.0

package identity_test

import (
	"crypto/x509"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/l2bridge/l2bridge/transport/identity"
)

// jumps are what somebody may do to a machine's clock.
var jumps = []struct {
	name string
	to   func(now time.Time) time.Time
}{
	{"forwards by years", func(now time.Time) time.Time { return now.AddDate(30, 0, 0) }},
	{"backwards by years", func(now time.Time) time.Time { return now.AddDate(-30, 0, 0) }},
	{"to 1970", func(time.Time) time.Time { return time.Unix(0, 0) }},
	{"to the end of certificates", func(time.Time) time.Time { return time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC) }},
}

// jump has the clock go on from another time, until it is set right again. Tests
// that are not parallel are alone.
func jump(t *testing.T, to func(time.Time) time.Time) (right func()) {
	ahead := time.Until(to(time.Now()))
	return identity.SetClock(t, func() time.Time { return time.Now().Add(ahead).Round(0) })
}

// With a CA of l2bridge's the clock says nothing about members. An invitation ends by
// the founder's, and does so no more when that is right again; one that was made in
// the wrong time ends by that, and says when.
func TestClockJumps(t *testing.T) {
	for _, j := range jumps {
		t.Run(j.name, func(t *testing.T) {
			home := identity.MustFound(t, "home")
			cabin := identity.RenewOften(t, identity.MustJoin(t, home, "cabin"), home)
			before := invite(t, home, "")
			right := jump(t, j.to)
			if err := meet(cabin, home).Err(); err != nil {
				t.Errorf("members: %v", err)
			}
			cabin = identity.RenewOnce(t, cabin, home) // nobody is held up
			ended := strings.Contains(j.name, "forwards") || strings.Contains(j.name, "end")
			_, _, err := identity.JoinAt(newDir(t), home, before, "office")
			if ended != errors.Is(err, identity.ErrTokenEnded) || !ended && err != nil {
				t.Errorf("an invitation of before: %v", err)
			}
			within, unused := invite(t, home, ""), invite(t, home, "")
			if _, _, err := identity.JoinAt(newDir(t), home, within, "plant"); err != nil {
				t.Errorf("an invitation: %v", err)
			}
			right()
			if err := meet(cabin, home).Err(); err != nil {
				t.Errorf("members, by the right time: %v", err)
			}
			identity.RenewOnce(t, cabin, home)
			_, _, err = identity.JoinAt(newDir(t), home, unused, "late")
			if ended == errors.Is(err, identity.ErrTokenEnded) || ended && err != nil {
				t.Errorf("an invitation of then, by the right time: %v", err)
			}
		})
	}
}

// With a CA of the operator's own its dates count, at the handshake and in a session:
// a clock that is wrong puts the others out, says so, and lets them in again when it is
// right.
func TestOwnCAClockJumps(t *testing.T) {
	for _, j := range jumps {
		t.Run(j.name, func(t *testing.T) {
			c := newCompany(t, nil)
			office, _ := c.member("office", nil)
			plant, _ := c.member("plant", nil)
			p := meet(office, plant)
			if err := p.Err(); err != nil {
				t.Fatal(err)
			}
			right := jump(t, j.to)
			for name, err := range map[string]error{
				"handshake": meet(plant, office).ClientErr,
				"session":   office.Rejudge(p.Client),
				"its own":   office.Dated(),
				"heard of":  judged(office, plant.Leaf.Leaf),
			} {
				if !errors.Is(err, identity.ErrOutOfDate) || !strings.Contains(err.Error(), "clock") {
					t.Errorf("%s: %v, want that dates and clock do not go together", name, err)
				}
			}
			right()
			if err := errors.Join(meet(plant, office).Err(), office.Rejudge(p.Client), office.Dated(), judged(office, plant.Leaf.Leaf)); err != nil {
				t.Errorf("by the right time: %v", err)
			}
		})
	}
}

func judged(m *identity.Member, leaf *x509.Certificate) error {
	_, _, _, err := m.Judge(leaf.Raw)
	return err
}
