// SPDX-License-Identifier: Apache-2.0

package fdb

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
