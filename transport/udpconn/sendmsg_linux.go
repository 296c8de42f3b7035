// SPDX-License-Identifier: Apache-2.0

package udpconn

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sender sends messages on a socket, as net.UDPConn.WriteMsgUDPAddrPort does, but
// with raw system calls; see docs/design.md, "System calls". It may be used by
// several goroutines at once.
type sender struct {
	udp   *net.UDPConn
	raw   syscall.RawConn
	six   bool      // an IPv6 socket: IPv4 addresses go in their IPv6 form
	calls sync.Pool // of *sendCall
}

func newSender(udp *net.UDPConn, raw syscall.RawConn, six bool) *sender {
	s := &sender{udp: udp, raw: raw, six: six}
	s.calls.New = func() any {
		c := new(sendCall)
		c.try = c.send
		return c
	}
	return s
}

// writeMsg sends b and the control messages oob to an address, IPv4 as such. It
// blocks while the send buffer is full.
func (s *sender) writeMsg(b, oob []byte, to netip.AddrPort) (n, oobn int, err error) {
	if to.Addr().Zone() != "" || to.Addr().Is6() && !s.six {
		// Package net knows which interface a zone is, and what to say of an
		// address that is not of the socket's family. Neither is often.
		return s.udp.WriteMsgUDPAddrPort(b, oob, to)
	}
	c := s.calls.Get().(*sendCall)
	c.point(b, oob)
	c.hdr.Namelen = c.name.set(to, s.six)
	if err = s.raw.Write(c.try); err == nil && c.errno != 0 {
		err = &net.OpError{Op: "write", Net: "udp", Source: s.udp.LocalAddr(), Addr: net.UDPAddrFromAddrPort(to),
			Err: os.NewSyscallError("sendmsg", c.errno)}
	}
	c.point(nil, nil) // it must not keep the caller's memory alive
	s.calls.Put(c)
	if err != nil {
		return 0, 0, err
	}
	return len(b), len(oob), nil
}

// sendCall is the memory of one sendmsg. It is pooled, since what a system call
// is given by pointer would be allocated for each.
type sendCall struct {
	hdr   unix.Msghdr
	iov   unix.Iovec
	name  sockaddr
	errno syscall.Errno
	try   func(fd uintptr) (done bool) // send
}

// point has the next call send b and oob.
func (c *sendCall) point(b, oob []byte) {
	c.iov = unix.Iovec{Base: unsafe.SliceData(b)}
	c.iov.SetLen(len(b))
	c.hdr = unix.Msghdr{Name: &c.name[0], Iov: &c.iov, Control: unsafe.SliceData(oob)}
	c.hdr.SetIovlen(1)
	c.hdr.SetControllen(len(oob))
}

// send is called by the runtime's poller when there may be room, and reports
// whether it is done.
func (c *sendCall) send(fd uintptr) (done bool) {
	for {
		// Safe: hdr is the kernel's own layout; each pointer and length in it was
		// set from one Go object by point and writeMsg, that holds them until
		// point is called again. The kernel keeps none of them after the call.
		_, _, c.errno = unix.RawSyscall(unix.SYS_SENDMSG, fd, uintptr(unsafe.Pointer(&c.hdr)), unix.MSG_DONTWAIT)
		runtime.KeepAlive(c)
		if c.errno != unix.EINTR {
			return c.errno != unix.EAGAIN
		}
	}
}

// set writes an address without a zone for a socket of a family, and returns
// its length.
func (s *sockaddr) set(to netip.AddrPort, six bool) uint32 {
	clear(s[:])
	binary.BigEndian.PutUint16(s[2:4], to.Port())
	if six {
		binary.NativeEndian.PutUint16(s[0:2], unix.AF_INET6)
		ip := to.Addr().As16()
		copy(s[8:24], ip[:])
		return unix.SizeofSockaddrInet6
	}
	binary.NativeEndian.PutUint16(s[0:2], unix.AF_INET)
	ip := to.Addr().As4()
	copy(s[4:8], ip[:])
	return unix.SizeofSockaddrInet4
}
