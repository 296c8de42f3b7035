// SPDX-License-Identifier: Apache-2.0

package control

import (
	"fmt"
	"net"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// owner names the process that listens at the other end.
func owner(c *net.UnixConn) string {
	raw, err := c.SyscallConn()
	if err != nil {
		return "another process"
	}
	var peer *unix.Ucred
	raw.Control(func(fd uintptr) { peer, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err != nil || peer == nil {
		return "another process"
	}
	name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", peer.Pid))
	if err != nil {
		return fmt.Sprintf("process %d", peer.Pid)
	}
	return fmt.Sprintf("%+q (pid %d)", strings.TrimSpace(string(name)), peer.Pid)
}
