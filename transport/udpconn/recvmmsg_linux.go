// SPDX-License-Identifier: Apache-2.0

package udpconn

import (
	"encoding/binary"
	"net/netip"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// maxMessages is how many messages one recvmmsg may bring. quic-go asks
	// for 8 packets at a time, which must not cost a system call each; with GRO
	// one message may be 64 of them.
	maxMessages = 32
	// groBufferBytes holds the longest message UDP_GRO makes, an IP packet's
	// worth.
	groBufferBytes = 65535
	// packetBufferBytes holds a packet when there is no UDP_GRO. It is above
	// quic-go's 1452, so that longer packets are seen to be longer.
	packetBufferBytes = 2048
	// controlBytes holds all that quic-go and we enable, at once: GRO size,
	// both kinds of PKTINFO, TOS and traffic class, and the drop count.
	controlBytes = 256
)

// mmsghdr is struct mmsghdr of recvmmsg(2): unix.Msghdr's alignment is the
// kernel's, so the compiler pads the end as C does.
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
}

// messages is the memory of recvmmsg: buffers, and headers that point to them
// for good.
type messages struct {
	hdrs  [maxMessages]mmsghdr
	iovs  [maxMessages]unix.Iovec
	names [maxMessages]sockaddr
	oobs  [maxMessages][controlBytes]byte
	bufs  [maxMessages][]byte
}

// newMessages points every header at its buffers. The headers keep them
// alive, as they hold real pointers.
func newMessages(bufferBytes int) *messages {
	m := new(messages)
	for i := range m.hdrs {
		m.bufs[i] = make([]byte, bufferBytes)
		m.iovs[i].Base = &m.bufs[i][0]
		m.iovs[i].SetLen(bufferBytes)
		h := &m.hdrs[i].hdr
		h.Iov = &m.iovs[i]
		h.SetIovlen(1)
		h.Name = &m.names[i][0]
		h.Control = &m.oobs[i][0]
	}
	return m
}

// recv calls recvmmsg once, without waiting, and returns the number of
// messages that came. The call is raw; see docs/design.md, "System calls".
func (m *messages) recv(fd uintptr) (int, syscall.Errno) {
	for i := range m.hdrs {
		h := &m.hdrs[i].hdr
		h.Namelen = uint32(len(m.names[i]))
		h.SetControllen(controlBytes)
		h.Flags = 0
	}
	// Safe: hdrs is an array of the kernel's own layout, its length is passed,
	// and each pointer and length in it was set from one Go object by
	// newMessages and just above. The kernel keeps none of them after the
	// call, and KeepAlive holds m until then.
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, fd,
		uintptr(unsafe.Pointer(&m.hdrs[0])), maxMessages, unix.MSG_DONTWAIT, 0, 0)
	runtime.KeepAlive(m)
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

// message returns the payload and the control messages of message i, and
// whether all of both is there.
func (m *messages) message(i int) (payload, oob []byte, complete bool) {
	h := &m.hdrs[i]
	n := min(int(h.len), len(m.bufs[i]))
	oobn := min(int(h.hdr.Controllen), controlBytes)
	return m.bufs[i][:n], m.oobs[i][:oobn], h.hdr.Flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) == 0
}

// sockaddr is a struct sockaddr_in or sockaddr_in6 as it lies in memory.
type sockaddr [unix.SizeofSockaddrInet6]byte

// addr returns the address, IPv4 as such also when it came in its IPv6 form,
// and the interface of a link-local one, else 0.
func (s *sockaddr) addr() (ap netip.AddrPort, scope uint32) {
	port := binary.BigEndian.Uint16(s[2:4])
	if binary.NativeEndian.Uint16(s[0:2]) == unix.AF_INET {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(s[4:8])), port), 0
	}
	ip := netip.AddrFrom16([16]byte(s[8:24])).Unmap()
	return netip.AddrPortFrom(ip, port), binary.NativeEndian.Uint32(s[24:28])
}

// kernelDrops returns how many messages the kernel has dropped since the socket
// was opened, modulo 2^32: the receive buffer was full.
func kernelDrops(fd uintptr) uint32 {
	const drops = 8 // SK_MEMINFO_DROPS, include/uapi/linux/sock_diag.h
	var info [drops + 1]uint32
	n := uint32(unsafe.Sizeof(info))
	// Safe: the kernel writes at most n bytes to info, which is that long, and
	// a number to n; neither pointer outlives the call.
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_MEMINFO,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&n)), 0)
	if errno != 0 || n < uint32(unsafe.Sizeof(info)) {
		return 0
	}
	return info[drops]
}
