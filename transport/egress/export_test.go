// SPDX-License-Identifier: Apache-2.0

package egress

import (
	"hash/maphash"

	"github.com/l2bridge/l2bridge/internal/frame"
	"github.com/l2bridge/l2bridge/transport/wire"
)

// Bucket returns the number of the flow that a frame of our own belongs to; to is nil
// where it is not relayed.
func Bucket(b *frame.Buf, to *wire.Relayed) uint32 {
	hash := frame.FlowHash(b.Bytes())
	if to != nil {
		hash ^= uint32(maphash.Comparable(pairSeed, *to))
	}
	return hash % buckets
}
