// SPDX-License-Identifier: Apache-2.0

package udpconn

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/quic-go/quic-go"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// Conn is one UDP socket, made to be the Conn of one quic.Transport, which
// finds [Conn.ReadBatch] and [Conn.WriteMsgUDP] by itself. It reads whole
// UDP_GRO batches, keeps receive credit for each [Flow], and never lets a
// passing network error end a QUIC connection.
//
// Reads come from one goroutine at a time; everything else may be called
// from any goroutine. Close ends a blocked read.
type Conn struct {
	socket

	flows flows
	rx    *receiver
	gate  atomic.Pointer[Gate] // nil: all is handed up
	end   func()               // tells Options.Closed, once
	send  func(b, oob []byte, to netip.AddrPort) (n, oobn int, err error)

	join    *joiner
	running sync.WaitGroup // join.run

	gro, gso bool
	tx       txCounters
	refusals refusals
	answers  answers
}

// socket is the part of *net.UDPConn that is right as it is. The read and
// write methods are not: they know nothing of coalesced packets.
type socket interface {
	Close() error
	LocalAddr() net.Addr
	SetDeadline(time.Time) error
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
	SetReadBuffer(bytes int) error
	SetWriteBuffer(bytes int) error
	SyscallConn() (syscall.RawConn, error)
}

var (
	_ quic.OOBCapablePacketConn = (*Conn)(nil)
	_ interface {
		ReadBatch([]ipv4.Message, int) (int, error)
	} = (*Conn)(nil)
)

// Listen opens a UDP socket on addr; port 0 takes any free port. The address
// [::] takes IPv4 as well, and becomes 0.0.0.0 on a host without IPv6. When
// the port is taken, the error names the process that has it, where /proc
// tells. The caller closes the Conn, after the quic.Transport that uses it.
func Listen(addr netip.AddrPort, opts Options) (*Conn, error) {
	return listen(addr, opts, openUDP)
}

// A dual-stack socket is what package net makes of "udp" and a wildcard
// address; any other combination names its family.
func openUDP(network string, addr netip.AddrPort) (*net.UDPConn, error) {
	return net.ListenUDP(network, net.UDPAddrFromAddrPort(addr))
}

func listen(addr netip.AddrPort, opts Options, open func(string, netip.AddrPort) (*net.UDPConn, error)) (*Conn, error) {
	if !addr.Addr().IsValid() {
		return nil, errors.New("listen udp: no address (want ADDR:PORT, for example [::]:4433)")
	}
	network := "udp4"
	if addr.Addr().Is6() && !addr.Addr().Is4In6() {
		network = "udp6"
		if addr.Addr() == netip.IPv6Unspecified() {
			network = "udp"
		}
	}
	udp, err := open(network, addr)
	if network == "udp" && (errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EADDRNOTAVAIL)) {
		udp, err = open("udp4", netip.AddrPortFrom(netip.IPv4Unspecified(), addr.Port()))
	}
	if errors.Is(err, unix.EADDRINUSE) {
		if owner := portOwner(addr.Port()); owner != "" {
			return nil, fmt.Errorf("listen udp %s: %w by %s (stop it or take another port)", addr, unix.EADDRINUSE, owner)
		}
	}
	if err != nil {
		return nil, err
	}
	c, err := newConn(udp, opts)
	if err != nil {
		udp.Close()
		return nil, fmt.Errorf("listen udp %s: %w", addr, err)
	}
	return c, nil
}

func newConn(udp *net.UDPConn, opts Options) (*Conn, error) {
	raw, err := udp.SyscallConn()
	if err != nil {
		return nil, err
	}
	c := &Conn{socket: udp}
	c.end = sync.OnceFunc(func() {
		if opts.Closed != nil {
			opts.Closed(c.Stats())
		}
	})
	err = raw.Control(func(fd uintptr) {
		s := int(fd)
		setBuffers(s, opts.bufferBytes())
		// Both are new in kernel 5.0 and 4.18; without them a packet is a
		// system call, and all else is the same.
		c.gro = unix.SetsockoptInt(s, unix.IPPROTO_UDP, unix.UDP_GRO, 1) == nil
		_, gsoErr := unix.GetsockoptInt(s, unix.IPPROTO_UDP, unix.UDP_SEGMENT)
		c.gso = gsoErr == nil
		// When a packet came says how long it waited (kernel 5.1).
		_ = unix.SetsockoptInt(s, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS_NEW, 1)
		family, _ := unix.GetsockoptInt(s, unix.SOL_SOCKET, unix.SO_DOMAIN)
		c.send = newSender(udp, raw, family == unix.AF_INET6).writeMsg
	})
	if err != nil {
		return nil, err
	}
	c.rx = newReceiver(raw, c.gro)
	c.join = newJoiner(c.sendBatch)
	c.running.Go(c.join.run)
	return c, nil
}

// setBuffers asks for bytes of socket buffer each way: without regard to
// net.core.rmem_max if we may (CAP_NET_ADMIN of the first user namespace), else
// up to it. Stats says what came of it.
func setBuffers(fd, bytes int) {
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, bytes) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, bytes)
	}
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, bytes) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, bytes)
	}
}

// Guard has a gate look at each packet before it is handed up. It is called before
// anybody reads, and again only when that one reads no more.
func (c *Conn) Guard(g *Gate) { c.gate.Store(g) }

// Close closes the socket, and ends a blocked read.
func (c *Conn) Close() error {
	c.end()
	err := c.socket.Close()
	c.join.stop()
	c.running.Wait()
	return err
}

// Flow registers the receiving side of conn for receive credit on this
// socket; see [Flow]. It ends with [Flow.Close], and its Receive returns
// ctx's error once ctx is done. beside are the other connections with conn's
// remote address: their packets take no credit. When two flows share one the
// newer keeps the credit.
func (c *Conn) Flow(ctx context.Context, conn Datagrams, beside ...Datagrams) *Flow {
	return c.flows.open(ctx, conn, beside)
}

// ReadFrom reads one packet. quic-go calls [Conn.ReadBatch] instead.
func (c *Conn) ReadFrom(b []byte) (int, net.Addr, error) {
	n, _, _, addr, err := c.ReadMsgUDP(b, nil)
	if err != nil {
		return 0, nil, err
	}
	return n, addr, nil
}

// ReadMsgUDP reads one packet and its control messages. quic-go calls
// [Conn.ReadBatch] instead.
func (c *Conn) ReadMsgUDP(b, oob []byte) (n, oobn, flags int, addr *net.UDPAddr, err error) {
	ms := []ipv4.Message{{Buffers: [][]byte{b}, OOB: oob}}
	if _, err := c.ReadBatch(ms, 0); err != nil {
		return 0, 0, 0, nil, err
	}
	return ms[0].N, ms[0].NN, 0, ms[0].Addr.(*net.UDPAddr), nil
}

// WriteTo sends one packet. quic-go calls [Conn.WriteMsgUDP] instead.
func (c *Conn) WriteTo(b []byte, addr net.Addr) (int, error) {
	to, ok := addr.(*net.UDPAddr)
	if !ok {
		return 0, fmt.Errorf("write udp: address %v: not a UDP address", addr)
	}
	n, _, err := c.WriteMsgUDP(b, nil, to)
	return n, err
}

// Stats returns the socket's counters and the sizes the kernel granted. The
// counters are each exact, but not read at one instant.
func (c *Conn) Stats() Stats {
	s := Stats{GRO: c.gro, GSO: c.gso}
	if raw, err := c.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) {
			s.ReceiveBufferBytes, _ = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF)
			s.SendBufferBytes, _ = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF)
			s.RxKernelDrops = uint64(kernelDrops(fd))
		})
	}
	c.rx.count.into(&s)
	c.tx.into(&s)
	c.refusals.into(&s)
	s.TxAnswersDropped = c.answers.dropped.Load()
	s.Holds = c.flows.holds.Load()
	s.HoldTimeouts = c.flows.timeouts.Load()
	return s
}

// fatal are the errors that no later send or receive mends: the socket is none any
// more.
var fatal = [...]syscall.Errno{unix.EBADF, unix.EFAULT, unix.ENOTSOCK}

// maxErrno is the greatest number of an error on Linux.
const maxErrno = 133

// errnoCounters counts errors by their number; those that Linux does not have at 0.
type errnoCounters [maxErrno + 1]atomic.Uint64

// swallow reports whether an error of one send or receive says nothing about the next
// one, and counts it if so. That is so of a route, a link, a firewall or memory that
// comes back, and these give what numbers they like: a policy, a BPF program, a
// security module. quic-go closes the connection on any write error but EMSGSIZE and
// the whole transport on a read error (quic-go#2809), so these must not reach it; to
// QUIC they are packets lost, and if they stay the peer is one that does not answer.
//
// Some are tried once more before they count: see sendAgain and sendBatch.
func (e *errnoCounters) swallow(errno syscall.Errno) bool {
	if slices.Contains(fatal[:], errno) {
		return false
	}
	if errno > maxErrno {
		errno = 0
	}
	e[errno].Add(1)
	return true
}

// byName returns the counts that are not zero, by name ("ENOBUFS").
func (e *errnoCounters) byName() map[string]uint64 {
	m := make(map[string]uint64)
	for i := range e {
		if n := e[i].Load(); n > 0 {
			m[cmp.Or(unix.ErrnoName(syscall.Errno(i)), "other")] = n
		}
	}
	return m
}

// nextControl returns the first control message of oob and what follows it;
// ok is false at the end and at a malformed one.
func nextControl(oob []byte) (level, kind int32, body, whole, rest []byte, ok bool) {
	h, body, rest, err := unix.ParseOneSocketControlMessage(oob)
	if err != nil {
		return 0, 0, nil, nil, nil, false
	}
	return h.Level, h.Type, body, oob[:len(oob)-len(rest)], rest, true
}

// isPktinfo reports whether a control message pins the source address of
// what is sent, or gives the destination address of what was received.
func isPktinfo(level, kind int32) bool {
	return level == unix.IPPROTO_IP && kind == unix.IP_PKTINFO ||
		level == unix.IPPROTO_IPV6 && kind == unix.IPV6_PKTINFO
}

// clearInterface zeroes the interface index of a received IP_PKTINFO or
// IPV6_PKTINFO. quic-go copies address and index into every reply of the
// connection; with the index a reply leaves where the first packet came in,
// whatever the routes say by then. A link-local address keeps its index: it
// means nothing without.
func clearInterface(level int32, body []byte) {
	const v4Len, v6Len = 12, 20 // struct in_pktinfo, struct in6_pktinfo
	switch {
	case level == unix.IPPROTO_IP && len(body) == v4Len:
		if !netip.AddrFrom4([4]byte(body[8:12])).IsLinkLocalUnicast() {
			binary.NativeEndian.PutUint32(body[0:4], 0)
		}
	case level == unix.IPPROTO_IPV6 && len(body) == v6Len:
		if !netip.AddrFrom16([16]byte(body[:16])).Unmap().IsLinkLocalUnicast() {
			binary.NativeEndian.PutUint32(body[16:20], 0)
		}
	}
}
