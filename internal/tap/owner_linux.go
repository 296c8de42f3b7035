// SPDX-License-Identifier: Apache-2.0

package tap

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

// ownerSearchLimit bounds how many open files of other processes are looked at
// for one error message.
const ownerSearchLimit = 100_000

// owner returns the process of our network namespace that holds the TAP, with
// its name, which it chose itself, quoted: "qemu" (pid 123). The name alone is not enough: every namespace may have an
// l2b0 of its own.
func owner(name string) string {
	const unknown = "another process"
	self, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		return unknown
	}
	procs, _ := filepath.Glob("/proc/[0-9]*")
	looked := 0
	for _, proc := range procs {
		if ns, err := os.Readlink(proc + "/ns/net"); err != nil || ns != self {
			continue
		}
		fds, _ := os.ReadDir(proc + "/fd")
		for _, fd := range fds {
			if looked++; looked > ownerSearchLimit {
				return unknown
			}
			if holds(proc, fd.Name(), name) {
				pid, _ := strconv.Atoi(filepath.Base(proc))
				comm, _ := os.ReadFile(proc + "/comm")
				return fmt.Sprintf("%q (pid %d)", bytes.TrimSpace(comm), pid)
			}
		}
	}
	return unknown
}

// holds reports whether an open file of a process is the TAP
// (drivers/net/tun.c, tun_chr_show_fdinfo).
func holds(proc, fd, name string) bool {
	if file, err := os.Readlink(proc + "/fd/" + fd); err != nil || file != Path {
		return false
	}
	info, _ := os.ReadFile(proc + "/fdinfo/" + fd)
	for line := range bytes.Lines(info) {
		if iff, ok := bytes.CutPrefix(line, []byte("iff:\t")); ok {
			return string(bytes.TrimSpace(iff)) == name
		}
	}
	return false
}
