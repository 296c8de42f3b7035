// SPDX-License-Identifier: Apache-2.0

package fdb

import (
	"fmt"
	"sync/atomic"
)

// Port is a number that Attach has given to one way out of the switch, and 0 is
// none. Numbers are small, so that they can index a slice.
type Port uint16

// MaxPorts is how many ports can be attached at once, and the greatest Port.
const MaxPorts = 4095

// port is a port's share of the table.
type port struct {
	limit atomic.Int32 // stations reserved, or detached; changed under the mutex
	used  atomic.Int32 // stations held, at most limit; changed under the mutex
	taken bool         // not to be given out; guarded by the mutex
}

const detached = -1

func (t *Table) isAttached(p Port) bool {
	return 0 < p && p <= MaxPorts && t.ports[p].limit.Load() != detached
}

// isFull reports whether p is attached and has no room for one more station.
func (t *Table) isFull(p Port) bool {
	return t.isAttached(p) && t.ports[p].used.Load() >= t.ports[p].limit.Load()
}

// Attach adds a port and reserves room for quota stations of it, or for as many
// as other ports have left over, which may be none: then the port works and
// learns nothing. It returns how many were granted. The number of the port goes
// round: one that was detached is given out again only after all the others, so
// that whoever still holds it does not hit upon its successor. It fails when
// MaxPorts ports are attached.
func (t *Table) Attach(quota int) (p Port, granted int, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p = t.last
	for range MaxPorts {
		p = p%MaxPorts + 1
		if !t.ports[p].taken {
			granted = max(0, min(quota, t.size()-t.reserved))
			t.last = p
			t.reserved += granted
			t.ports[p].taken = true
			t.ports[p].limit.Store(int32(granted))
			return p, granted, nil
		}
	}
	return 0, 0, fmt.Errorf("attach port: all %d are in use", MaxPorts)
}

// Detach takes a port away, forgets all its stations, static ones too, and gives
// its room back. When it returns no lookup finds the port; from its start on
// nothing is learned there. It takes a pass over the table and holds up no
// lookup. A port that is not attached is left alone.
func (t *Table) Detach(p Port) {
	t.mu.Lock()
	if !t.isAttached(p) {
		t.mu.Unlock()
		return
	}
	granted := t.ports[p].limit.Swap(detached)
	t.mu.Unlock()

	t.removeAll(wentWithPort, func(v value) bool { return v.port() == p })

	t.mu.Lock()
	t.reserved -= int(granted)
	t.ports[p].taken = false
	t.mu.Unlock()
}

// Count returns how many stations p holds, silent ones that no Sweep has taken
// yet included.
func (t *Table) Count(p Port) int {
	if p > MaxPorts {
		return 0
	}
	return int(t.ports[p].used.Load())
}
