// SPDX-License-Identifier: Apache-2.0

package tap

import (
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// Counters counts frames that passed one way.
type Counters struct {
	Frames      uint64
	Bytes       uint64 // of Ethernet frames, virtio-net headers not counted
	Superframes uint64 // of Frames, those that are TSO or USO superframes
}

// Drop is one reason for which frames were dropped, and how many.
type Drop struct {
	Reason string
	Count  uint64
}

// Stats is a snapshot of a Device's counters.
type Stats struct {
	Rx    Counters // from the LAN
	Tx    Counters // to the LAN
	Drops []Drop   // every reason, those that never happened too
}

// reason says why a frame was dropped on its way through the TAP.
type reason uint8

const (
	rxOverflow  reason = iota // read too slowly: the kernel's queue was full
	rxMalformed               // shorter than an Ethernet header, or cut off
	rxOffload                 // from the LAN, with an offload that does not fit the frame, or EINVAL: that no header can say
	txFull                    // EAGAIN, ENOBUFS, ENOMEM: the kernel has no room
	txDown                    // EIO: the TAP is administratively down
	txGone                    // EBADFD: the TAP was deleted, or closed by us
	txRefused                 // EINVAL: the kernel refuses the virtio-net header
	txOffload                 // work left to the kernel, but no virtio-net header to say so
	txError                   // any other errno
	reasons
)

var reasonNames = [reasons]string{
	"tap_overflow", "tap_malformed", "tap_bad_offload", "tap_full", "tap_down", "tap_gone",
	"tap_refused", "tap_offload", "tap_error",
}

func (r reason) String() string { return reasonNames[r] }

// reasonOf returns why the kernel did not take a frame.
func reasonOf(errno syscall.Errno) reason {
	switch errno {
	case unix.EAGAIN, unix.ENOBUFS, unix.ENOMEM:
		return txFull
	case unix.EIO:
		return txDown
	case unix.EBADFD:
		return txGone
	case unix.EINVAL:
		return txRefused
	}
	return txError
}

// traffic is Counters while they are counted.
type traffic struct{ frames, bytes, superframes atomic.Uint64 }

func (t *traffic) add(c Counters) {
	t.frames.Add(c.Frames)
	t.bytes.Add(c.Bytes)
	if c.Superframes > 0 {
		t.superframes.Add(c.Superframes)
	}
}

func (t *traffic) snapshot() Counters {
	return Counters{t.frames.Load(), t.bytes.Load(), t.superframes.Load()}
}

// counters are those of one Device. The reader and the writers of a TAP run on
// different cores: each way has a cache line of its own.
type counters struct {
	rx    traffic
	_     [64]byte
	tx    traffic
	_     [64]byte
	drops [reasons]atomic.Uint64
}

func (c *counters) snapshot() Stats {
	s := Stats{Rx: c.rx.snapshot(), Tx: c.tx.snapshot(), Drops: make([]Drop, reasons)}
	for r := range reasons {
		s.Drops[r] = Drop{r.String(), c.drops[r].Load()}
	}
	return s
}
