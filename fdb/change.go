// SPDX-License-Identifier: Apache-2.0

package fdb

import (
	"fmt"

	"github.com/l2bridge/l2bridge/internal/frame"
)

// ChangeKind says what has happened to a station.
type ChangeKind uint8

// What happens to a station.
const (
	Appeared  ChangeKind = iota // it was not known, and is now
	Relocated                   // it is behind another port than before
	Aged                        // it was silent for the ageing time, and is forgotten
	Deleted                     // Delete or Flush has forgotten it
	Fixed                       // AddStatic has put it where it is

	wentWithPort // is not told: the port's end says it for all of them
)

// String returns the kind in one word for people.
func (k ChangeKind) String() string {
	switch k {
	case Appeared:
		return "learned"
	case Relocated:
		return "moved"
	case Aged:
		return "aged"
	case Deleted:
		return "deleted"
	case Fixed:
		return "added"
	}
	return fmt.Sprintf("change(%d)", uint8(k))
}

// Change is something that has happened to a station.
type Change struct {
	Kind    ChangeKind
	Station frame.Station
	Port    Port // where it is, or was when it is forgotten
	From    Port // where a station that was Relocated was before; else 0
}

// tell passes a change on. No lock is held.
func (t *Table) tell(c Change) {
	if t.changed != nil && c.Kind != wentWithPort {
		t.changed(c)
	}
}
