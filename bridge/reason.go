// SPDX-License-Identifier: Apache-2.0

package bridge

import (
	"sync/atomic"

	"github.com/l2bridge/l2bridge/bridge/guard"
)

// Reason says why the switch dropped a frame. docs/operations.md tells users
// what each one means.
type Reason uint8

// The reasons, named as in `l2bridge drops`.
const (
	Malformed    Reason = iota // shorter than an Ethernet header, or than its tag
	BadSource                  // the source is a group address or zero
	OwnSource                  // a peer sent a frame with our TAP's address as its source
	Reserved                   // 802.1Q reserved address that forward_reserved does not let through
	PVST                       // Cisco per-VLAN spanning tree
	OwnOuter                   // the tunnel's own packet
	Static                     // the source is bound to another port by a static entry
	SamePort                   // the destination is behind the port that the frame came from
	SplitHorizon               // from a peer, for a station behind another peer
	NoPort                     // nowhere to flood to
	Loop                       // this LAN is cut off, since it is joined with another site's elsewhere
	Storm                      // more broadcast, multicast or unknown unicast than a LAN has
	reasons
)

var reasonNames = [reasons]string{
	"malformed", "bad_source", "own_source", "reserved", "pvst", "own_outer",
	"static", "same_port", "split_horizon", "no_port", "loop", "storm",
}

func (r Reason) String() string { return reasonNames[r] }

// record is what is kept of the frames that came in by one port. It outlives the
// port, so that a site that comes back goes on where it was: with its counts, and
// without a fresh burst.
type record struct {
	drops [reasons]atomic.Uint64
	storm guard.Policer

	flushed atomic.Uint32 // tick of the latest flush that the peer asked for, and one
}

// Drop is one counter of `l2bridge drops`.
type Drop struct {
	Reason string
	Port   string // where the frames came in
	Count  uint64 // of frames; a superframe counts for each of its segments
}
