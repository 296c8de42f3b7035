// SPDX-License-Identifier: Apache-2.0

package control

import (
	"fmt"
	"net"
	"unsafe"

	"golang.org/x/sys/unix"
)

// callerOf asks the kernel who connected: the user and groups of that moment.
func callerOf(c *net.UnixConn) caller {
	raw, err := c.SyscallConn()
	if err != nil {
		return caller{err: err}
	}
	var who caller
	err = raw.Control(func(fd uintptr) {
		cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		if err != nil {
			who.err = err
			return
		}
		who.uid = int(cred.Uid)
		who.groups, who.err = peerGroups(fd)
		who.groups = append(who.groups, int(cred.Gid))
	})
	if err != nil {
		return caller{err: err}
	}
	return who
}

// peerGroups returns the supplementary groups of who connected (Linux 4.13; before,
// nothing is known of them).
func peerGroups(fd uintptr) ([]int, error) {
	for n := 64; ; {
		list := make([]uint32, n)
		size := uint32(n) * uint32(unsafe.Sizeof(list[0]))
		// list and size are alive until the call returns, and the kernel writes no
		// more than size bytes to list: the answer if it fits, else ERANGE and to size
		// what it takes (net/core/sock.c, SO_PEERGROUPS).
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&list[0])), uintptr(unsafe.Pointer(&size)), 0)
		needed := int(size) / int(unsafe.Sizeof(list[0]))
		switch {
		case errno == unix.ERANGE && needed > n:
			n = needed
			continue
		case errno == unix.ENOPROTOOPT:
			return nil, nil
		case errno != 0:
			return nil, fmt.Errorf("groups: %w", errno)
		}
		var groups []int
		for _, g := range list[:needed] {
			groups = append(groups, int(g))
		}
		return groups, nil
	}
}
