// SPDX-License-Identifier: Apache-2.0

package fdb

import "github.com/l2bridge/l2bridge/internal/frame"

// Chains returns how long the chain of each bucket is.
func (t *Table) Chains() []int {
	lengths := make([]int, len(t.store.buckets))
	for b := range lengths {
		for i := uint32(t.store.buckets[b].Load()); i != 0; i = t.store.entries[i].next.Load() {
			lengths[b]++
		}
	}
	return lengths
}

// Colliding returns n stations that are filed in one chain.
func (t *Table) Colliding(n int) []frame.Station {
	var found []frame.Station
	for s := frame.Station(0x02_00_00_00_00_00); len(found) < n; s++ {
		if t.store.bucket(s) == &t.store.buckets[0] {
			found = append(found, s)
		}
	}
	return found
}
