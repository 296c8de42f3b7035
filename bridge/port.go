// SPDX-License-Identifier: Apache-2.0

package bridge

import (
	"context"

	"github.com/l2bridge/l2bridge/internal/frame"
)

// Port is one way out of the switch: the local TAP, or one peer.
type Port interface {
	// Send passes frames out. It may be called from several goroutines at
	// once, keeps the order of frames that one goroutine sends, and never
	// blocks: what finds the queue full is dropped and counted by the port.
	// Frames are borrowed and shared with other ports: a port that keeps one
	// retains it, and none changes one. A batch that was on its way when the
	// port was detached may still be sent after Run has returned.
	Send(frames []*frame.Buf)

	// Run calls deliver with each batch that comes in, until ctx ends or the
	// port fails. It may call deliver from several goroutines at once; deliver
	// does not keep frames. Run returns after the last call of deliver has:
	// nil when ctx ended, else why the port failed.
	Run(ctx context.Context, deliver func(frames []*frame.Buf)) error

	// String returns the port's name in tables, drops and logs: "local" or
	// the site at the other end.
	String() string
}

// Group says which ports frames may go to from a port.
type Group uint8

const (
	// Local ports reach every other port.
	Local Group = iota
	// Mesh ports reach Local ports only: a frame that came from one peer never
	// goes to another (split horizon), since in a full mesh every peer has had
	// its own copy. So a mesh has no loops.
	Mesh
)
