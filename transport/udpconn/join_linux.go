// SPDX-License-Identifier: Apache-2.0

package udpconn

import (
	"bytes"
	"net/netip"
	"sync"
	"sync/atomic"
)

const (
	// fullBatch is what a batch of quic-go holds at most (protocol.
	// MaxLargePacketBufferSize). One that has no room for another packet has most
	// likely another one behind it: 32 datagrams that wait are 14, 14 and 4.
	fullBatch = 20 << 10
	// joinedBytes and joinedPackets bound what goes in one message: a UDP payload
	// over IPv4, and UDP_MAX_SEGMENTS of older kernels.
	joinedBytes   = 65507
	joinedPackets = 64
)

// joiner makes one batch of those that quic-go fills one behind the other:
//
//	quic-go -> batch --full: held--> buf --the next one does not fit, or is the
//	                                       last; or nobody has more--> send
//
// It knows no time. A batch that is held goes as soon as its sender has nothing
// more to give and run has its turn, which is next on the same P.
type joiner struct {
	send func(b, oob []byte, to netip.AddrPort, segment int) error
	wake chan struct{} // to run, of capacity 1
	done chan struct{}
	stop func()      // ends run
	held atomic.Bool // buf is not empty

	mu      sync.Mutex
	buf     []byte // packets of segment bytes each, to one address, with one oob
	oob     []byte
	to      netip.AddrPort
	segment int
	err     error // of what went later than it was given, for who gives next
}

func newJoiner(send func(b, oob []byte, to netip.AddrPort, segment int) error) *joiner {
	j := &joiner{
		send: send,
		wake: make(chan struct{}, 1),
		done: make(chan struct{}),
	}
	j.stop = sync.OnceFunc(func() { close(j.done) })
	return j
}

// run sends what is held when its turn comes, until stop is called.
func (j *joiner) run() {
	for {
		select {
		case <-j.wake:
			j.flush()
		case <-j.done:
			return
		}
	}
}

// batch sends b, packets of segment bytes of which the last one may be shorter, or
// holds a copy of it. An error may be that of a batch before it.
func (j *joiner) batch(b, oob []byte, to netip.AddrPort, segment int) error {
	more := len(b)%segment == 0 && len(b)+segment > fullBatch
	if !more && !j.held.Load() {
		return j.send(b, oob, to, segment)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.buf) > 0 && (to != j.to || segment != j.segment || !bytes.Equal(oob, j.oob) || !j.fits(len(b))) {
		j.flushLocked()
	}
	if j.buf == nil {
		j.buf, j.oob = make([]byte, 0, joinedBytes), make([]byte, 0, controlBytes)
	}
	if len(j.buf) == 0 {
		j.oob, j.to, j.segment = append(j.oob[:0], oob...), to, segment
	}
	j.buf = append(j.buf, b...)
	j.held.Store(true)
	if more && j.fits(len(b)) {
		select {
		case j.wake <- struct{}{}:
		default:
		}
	} else {
		j.flushLocked()
	}
	err := j.err
	j.err = nil
	return err
}

// fits reports whether so many bytes more can go in one message.
func (j *joiner) fits(n int) bool {
	n += len(j.buf)
	return n <= joinedBytes && n <= joinedPackets*j.segment
}

// flush sends what is held. A packet that is sent by itself comes after it.
func (j *joiner) flush() {
	if j.held.Load() {
		j.mu.Lock()
		defer j.mu.Unlock()
		j.flushLocked()
	}
}

func (j *joiner) flushLocked() {
	if len(j.buf) == 0 {
		return
	}
	if err := j.send(j.buf, j.oob, j.to, j.segment); err != nil {
		j.err = err
	}
	j.buf = j.buf[:0]
	j.held.Store(false)
}
