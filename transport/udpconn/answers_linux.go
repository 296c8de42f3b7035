// SPDX-License-Identifier: Apache-2.0

package udpconn

import (
	"sync"
	"sync/atomic"
	"time"
)

const (
	// maxAnswers is how many packets a second go out that belong to no
	// connection: stateless resets, refusals, and repeated words of farewell.
	// Each is for one that came, and most are shorter; but the sender's address
	// is anybody's word. A site that was started again owes one to each peer.
	maxAnswers = 500

	// longestAnswer is their length: three times the least that is admitted, since
	// what quic-go says to a connection that it has closed may be a reply to that.
	longestAnswer = amplification * leastPacket

	// leastProbe is the length of what quic-go sends to find out whether a peer
	// is at a new address (RFC 9000, section 8.2.1): that is no answer.
	leastProbe = 1200
)

// answers counts the packets that belong to no connection. quic-go marks those of
// connections with their ECN bits, zero or not, and no others.
type answers struct {
	marks atomic.Bool // quic-go does mark; with QUIC_GO_DISABLE_ECN it does not

	mu      sync.Mutex
	since   time.Time
	n       int
	dropped atomic.Uint64
}

// isMarked notes that a packet had ECN bits.
func (a *answers) isMarked() {
	if !a.marks.Load() {
		a.marks.Store(true)
	}
}

// admits reports whether a packet without ECN bits may go now.
func (a *answers) admits(packet []byte, now time.Time) bool {
	// A Retry is an eighth of what asked for it, and lets honest ones in while a
	// flood lasts.
	const kind, retry = 0xf0, 0xf0
	if !a.marks.Load() || len(packet) == 0 || len(packet) >= leastProbe || packet[0]&kind == retry {
		return true
	}
	if len(packet) > longestAnswer {
		a.dropped.Add(1)
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if now.Sub(a.since) >= time.Second {
		a.since, a.n = now, 0
	}
	if a.n++; a.n > maxAnswers {
		a.dropped.Add(1)
		return false
	}
	return true
}
