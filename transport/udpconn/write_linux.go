// SPDX-License-Identifier: Apache-2.0

package udpconn

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// txCounters is written by every goroutine that sends.
type txCounters struct {
	packets, bytes, syscalls, unpinned, unproven atomic.Uint64
	errors                                       errnoCounters
}

func (t *txCounters) into(s *Stats) {
	s.TxPackets = t.packets.Load()
	s.TxBytes = t.bytes.Load()
	s.TxSyscalls = t.syscalls.Load()
	s.TxUnpinned = t.unpinned.Load()
	s.TxUnproven = t.unproven.Load()
	s.TxErrors = t.errors.byName()
}

// WriteMsgUDP sends b to addr as one packet, or as the several that a
// UDP_SEGMENT control message in oob says; a batch may be held for a moment, for
// the next one to join it. Both slices are borrowed. It blocks while the socket's
// send buffer is full. An error that may pass is counted and b reported as sent;
// returned are only, perhaps later,
//
//   - EMSGSIZE, from which quic-go's path MTU discovery learns,
//   - what no later send mends, net.ErrClosed above all.
func (c *Conn) WriteMsgUDP(b, oob []byte, addr *net.UDPAddr) (n, oobn int, err error) {
	// By value, and IPv4 as such: that way package net allocates nothing.
	to := addr.AddrPort()
	to = netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
	segment, marked := scanControl(oob)
	if marked {
		c.answers.isMarked()
	} else if !c.answers.admits(b, time.Now()) {
		return len(b), len(oob), nil
	}
	if g := c.gate.Load(); g != nil && !g.MaySend(b, to) {
		c.tx.unproven.Add(1)
		return len(b), len(oob), nil // as if lost
	}
	if segment > 0 {
		err = c.join.batch(b, oob, to, segment)
	} else {
		c.join.flush()
		err = c.swallow(c.sendMessage(b, oob, to, 1))
	}
	if err != nil {
		return 0, 0, err
	}
	return len(b), len(oob), nil
}

// sendBatch sends a batch in one message, or packet by packet where that is
// refused.
func (c *Conn) sendBatch(b, oob []byte, to netip.AddrPort, segment int) error {
	if c.refusals.standing(to.Addr()) {
		_, err := c.sendSingly(b, oob, to, segment)
		return err
	}
	err := c.sendMessage(b, oob, to, (len(b)+segment-1)/segment)
	if errors.Is(err, unix.EIO) || errors.Is(err, unix.EINVAL) {
		// The batch, or the way? A packet by itself tells.
		went, err := c.sendSingly(b, oob, to, segment)
		if went {
			c.refusals.add(to.Addr())
		}
		return err
	}
	if err == nil {
		c.refusals.forget(to.Addr())
	}
	return c.swallow(err)
}

// sendSingly sends a batch packet by packet, and reports whether the first one
// went. quic-go could do that as well, but it would remember in a field that
// two of its goroutines share without a lock (sconn.gotGSOError).
func (c *Conn) sendSingly(b, oob []byte, to netip.AddrPort, segment int) (went bool, err error) {
	oob = without(oob, func(level, kind int32) bool {
		return level == unix.IPPROTO_UDP && kind == unix.UDP_SEGMENT
	})
	var tooLong error
	for rest := b; len(rest) > 0; {
		packet := rest[:min(segment, len(rest))]
		err := c.sendMessage(packet, oob, to, 1)
		if err == nil && len(rest) == len(b) {
			went = true
		}
		switch err := c.swallow(err); {
		case errors.Is(err, unix.EMSGSIZE):
			tooLong = err // the last one may be shorter
		case err != nil:
			return went, err
		}
		rest = rest[len(packet):]
	}
	return went, tooLong
}

// sendMessage makes one message of b, trying twice where that may help, and
// counts what went.
func (c *Conn) sendMessage(b, oob []byte, to netip.AddrPort, packets int) error {
	_, _, err := c.send(b, oob, to)
	if err != nil {
		err = c.sendAgain(err, b, oob, to)
	}
	if err != nil {
		return err
	}
	c.tx.packets.Add(uint64(packets))
	c.tx.bytes.Add(uint64(len(b)))
	c.tx.syscalls.Add(1)
	return nil
}

// swallow counts an error that may pass and returns nil for it; others it
// returns.
func (c *Conn) swallow(err error) error {
	if err == nil {
		return nil // before errno, which is allocated
	}
	var errno syscall.Errno
	if errors.As(err, &errno) && errno != unix.EMSGSIZE && c.tx.errors.swallow(errno) {
		return nil
	}
	return err
}

// sendAgain makes the second try where one may help, and returns the error
// that stands.
func (c *Conn) sendAgain(err error, b, oob []byte, to netip.AddrPort) error {
	switch {
	case errors.Is(err, unix.EPERM):
		// The first send on a new socket can fail for no reason (golang/go
		// #63322). quic-go has this retry as well, but does not see EPERM.
		_, _, err = c.send(b, oob, to)
	case errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENETUNREACH) || errors.Is(err, unix.EADDRNOTAVAIL):
		// The address that the connection began on may be gone: Linux says
		// EINVAL for IPv6 (ip6_datagram_send_ctl) and ENETUNREACH for IPv4.
		// The routes may still have another; QUIC validates the new path.
		unpinned := without(oob, isPktinfo)
		if len(unpinned) == len(oob) {
			return err
		}
		if _, _, retry := c.send(b, unpinned, to); retry != nil {
			return err
		}
		c.tx.unpinned.Add(1)
		return nil
	}
	return err
}

// scanControl returns the segment size of a batch, 0 for a single packet, and
// whether oob has ECN bits.
func scanControl(oob []byte) (segment int, marked bool) {
	for len(oob) > 0 {
		level, kind, body, _, rest, ok := nextControl(oob)
		if !ok {
			break
		}
		switch {
		case level == unix.IPPROTO_UDP && kind == unix.UDP_SEGMENT && len(body) >= 2:
			segment = int(binary.NativeEndian.Uint16(body))
		case isTOS(level, kind):
			marked = true
		}
		oob = rest
	}
	return segment, marked
}

// without returns a copy of oob that lacks the control messages of a kind.
func without(oob []byte, kindOf func(level, kind int32) bool) []byte {
	kept := make([]byte, 0, len(oob))
	for len(oob) > 0 {
		level, kind, _, whole, rest, ok := nextControl(oob)
		if !ok {
			break
		}
		if !kindOf(level, kind) {
			kept = append(kept, whole...)
		}
		oob = rest
	}
	return kept
}
