// SPDX-License-Identifier: Apache-2.0

package udpconn

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// txCounters is written by every goroutine that sends.
type txCounters struct {
	packets, bytes, syscalls, unpinned atomic.Uint64
	errors                             errnoCounters
}

func (t *txCounters) into(s *Stats) {
	s.TxPackets = t.packets.Load()
	s.TxBytes = t.bytes.Load()
	s.TxSyscalls = t.syscalls.Load()
	s.TxUnpinned = t.unpinned.Load()
	s.TxErrors = t.errors.byName()
}

// WriteMsgUDP sends b to addr as one packet, or as the several that a
// UDP_SEGMENT control message in oob says. Both slices are borrowed. It blocks
// while the socket's send buffer is full. An error that may pass is counted
// and b reported as sent; returned are only
//
//   - EMSGSIZE, from which quic-go's path MTU discovery learns,
//   - what no later send could mend, net.ErrClosed above all.
func (c *Conn) WriteMsgUDP(b, oob []byte, addr *net.UDPAddr) (n, oobn int, err error) {
	// By value, and IPv4 as such: that way package net allocates nothing.
	to := addr.AddrPort()
	to = netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
	segment, pinned := scanControl(oob)
	_, _, err = c.send(b, oob, to)
	if err != nil {
		err = c.sendAgain(err, b, oob, to, pinned)
	}
	if err != nil {
		var errno syscall.Errno
		switch {
		case errors.As(err, &errno) && errno == unix.EIO && segment > 0:
			err = c.sendSingly(b, oob, addr, segment)
		case errno != 0 && c.tx.errors.swallow(errno):
			err = nil
		}
		if err != nil {
			return 0, 0, err
		}
		return len(b), len(oob), nil
	}
	packets := 1
	if segment > 0 {
		packets = (len(b) + segment - 1) / segment
	}
	c.tx.packets.Add(uint64(packets))
	c.tx.bytes.Add(uint64(len(b)))
	c.tx.syscalls.Add(1)
	return len(b), len(oob), nil
}

// sendAgain makes the second try where one may help, and returns the error
// that stands.
func (c *Conn) sendAgain(err error, b, oob []byte, to netip.AddrPort, pinned bool) error {
	switch {
	case errors.Is(err, unix.EPERM):
		// The first send on a new socket can fail for no reason (golang/go
		// #63322). quic-go has this retry as well, but does not see EPERM.
		_, _, err = c.send(b, oob, to)
	case pinned && (errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENETUNREACH) || errors.Is(err, unix.EADDRNOTAVAIL)):
		// The address that the connection began on may be gone: Linux says
		// EINVAL for IPv6 (ip6_datagram_send_ctl) and ENETUNREACH for IPv4.
		// The routes may still have another; QUIC validates the new path.
		if _, _, retry := c.send(b, without(oob, isPktinfo), to); retry != nil {
			return err
		}
		c.tx.unpinned.Add(1)
		return nil
	}
	return err
}

// sendSingly sends a batch packet by packet, for a driver without checksum
// offload (udp_send_skb in net/ipv4/udp.c gives EIO). quic-go could do that as
// well, but it would remember in a field that two of its goroutines share
// without a lock (sconn.gotGSOError).
func (c *Conn) sendSingly(b, oob []byte, addr *net.UDPAddr, segment int) error {
	oob = without(oob, func(level, kind int32) bool {
		return level == unix.IPPROTO_UDP && kind == unix.UDP_SEGMENT
	})
	for len(b) > 0 {
		n := min(segment, len(b))
		if _, _, err := c.WriteMsgUDP(b[:n], oob, addr); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// scanControl returns the segment size of a batch, 0 for a single packet, and
// whether oob pins the source address.
func scanControl(oob []byte) (segment int, pinned bool) {
	for len(oob) > 0 {
		level, kind, body, _, rest, ok := nextControl(oob)
		if !ok {
			break
		}
		switch {
		case level == unix.IPPROTO_UDP && kind == unix.UDP_SEGMENT && len(body) >= 2:
			segment = int(binary.NativeEndian.Uint16(body))
		case isPktinfo(level, kind):
			pinned = true
		}
		oob = rest
	}
	return segment, pinned
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
