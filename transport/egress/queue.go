// SPDX-License-Identifier: Apache-2.0

// Package egress is what waits to leave for a peer.
package egress

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/l2bridge/l2bridge/internal/frame"
	"github.com/l2bridge/l2bridge/transport/wire"
)

// Bounds of a queue. The bytes are those of a long fat path (64 superframes);
// the frames keep the ring small when they are short. What has waited for
// MaxAge is stale: after a stall the LAN has asked again, or given up.
const (
	MaxFrames = 2048
	MaxBytes  = 4 << 20
	MaxAge    = time.Second
)

// Queue holds the frames for one peer in the order they came. Any goroutine
// may Push; one at a time takes, restarts and clears. It is a wire.Source.
type Queue struct {
	full, stale, cut atomic.Uint64

	ready chan struct{} // holds a token when a frame may wait

	// The taker's own.
	now  time.Time // its clock, read once a datagram
	item wire.Item // the oldest frame, with what is sent of it; Buf nil for none

	mu    sync.Mutex
	ring  [MaxFrames]entry
	first int // index of the oldest
	n     int // frames in the ring
	bytes int // of these frames
}

type entry struct {
	buf   *frame.Buf
	since time.Time
}

// New returns an empty Queue.
func New() *Queue { return &Queue{ready: make(chan struct{}, 1)} }

// Push adds frames at the end. It never blocks: frames that find the queue full
// are dropped and counted. The frames are borrowed; those that stay are
// retained.
func (q *Queue) Push(frames []*frame.Buf) {
	now := time.Now()
	q.mu.Lock()
	for i, b := range frames {
		if q.n == MaxFrames || q.bytes+b.Len() > MaxBytes {
			q.full.Add(uint64(len(frames) - i))
			break
		}
		q.ring[(q.first+q.n)%MaxFrames] = entry{b.Retain(), now}
		q.n++
		q.bytes += b.Len()
	}
	q.mu.Unlock()
	q.signal()
}

func (q *Queue) signal() {
	select {
	case q.ready <- struct{}{}:
	default:
	}
}

// Wait blocks until a frame waits, and reports false when ctx is done first.
// It is called before each datagram.
func (q *Queue) Wait(ctx context.Context) bool {
	for {
		q.mu.Lock()
		n := q.n
		q.mu.Unlock()
		if n > 0 {
			q.now = time.Now()
			return ctx.Err() == nil
		}
		select {
		case <-q.ready:
		case <-ctx.Done():
			return false
		}
	}
}

// Next implements wire.Source. Frames that are stale, and not begun, are
// dropped and counted.
func (q *Queue) Next() *wire.Item {
	if q.half() {
		return &q.item
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.n > 0 {
		if e := &q.ring[q.first]; q.now.Sub(e.since) < MaxAge {
			q.item = wire.Item{Buf: e.buf}
			return &q.item
		}
		q.stale.Add(1)
		q.popLocked()
	}
	return nil
}

// half reports whether the oldest frame is half sent.
func (q *Queue) half() bool { return q.item.Buf != nil && q.item.Begun() }

// Sent implements wire.Source.
func (q *Queue) Sent(_ int, done bool) {
	if done {
		q.item.Buf = nil // the rest of the item is still looked at
		q.mu.Lock()
		q.popLocked()
		q.mu.Unlock()
	}
}

func (q *Queue) popLocked() {
	e := &q.ring[q.first]
	q.bytes -= e.buf.Len()
	e.buf.Release()
	e.buf = nil
	q.first = (q.first + 1) % MaxFrames
	q.n--
}

// Restart drops the frame that is half sent, and counts it: the rest cannot
// follow on another lane, and to send all of it again could bring segments twice
// that the far side has salvaged.
func (q *Queue) Restart() {
	if q.half() {
		q.cut.Add(1)
		q.Sent(0, true)
	}
}

// Clear drops and counts what waits: nobody is there to have it.
func (q *Queue) Clear() {
	q.item = wire.Item{}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.cut.Add(uint64(q.n))
	for q.n > 0 {
		q.popLocked()
	}
}

// Drops returns how many frames found the queue full, how many grew stale in
// it, and how many were dropped by Restart and Clear.
func (q *Queue) Drops() (full, stale, cut uint64) {
	return q.full.Load(), q.stale.Load(), q.cut.Load()
}
