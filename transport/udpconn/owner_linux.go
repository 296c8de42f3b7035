// SPDX-License-Identifier: Apache-2.0

package udpconn

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

// Bounds on what is read of /proc: it answers a person's mistake, and may take
// a moment, not forever.
const (
	maxSocketTable = 4 << 20 // bytes of /proc/net/udp
	maxProcesses   = 1 << 14
	maxFiles       = 1 << 16 // over all processes
)

// portOwner names the process that has a UDP socket on port, "" if it cannot
// be told (it takes root to look into others' processes).
func portOwner(port uint16) string {
	inodes := make(map[string]bool)
	for _, table := range []string{"/proc/thread-self/net/udp", "/proc/thread-self/net/udp6"} {
		b, err := readBounded(table, maxSocketTable)
		if err != nil {
			continue
		}
		for _, inode := range inodesOf(b, port) {
			inodes[fmt.Sprintf("socket:[%d]", inode)] = true
		}
	}
	if len(inodes) == 0 {
		return ""
	}
	files := 0
	for i, pid := range names("/proc") {
		if i == maxProcesses || files >= maxFiles {
			break
		}
		if _, err := strconv.Atoi(pid); err != nil {
			continue
		}
		for _, fd := range names("/proc/" + pid + "/fd") {
			files++
			if link, err := os.Readlink("/proc/" + pid + "/fd/" + fd); err == nil && inodes[link] {
				return process(pid)
			}
		}
	}
	return ""
}

// inodesOf returns the sockets on port in the text of /proc/net/udp:
//
//	sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ...
//	1:  00000000:1151 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 31337 ...
func inodesOf(table []byte, port uint16) []uint64 {
	const localField, inodeField = 1, 9
	var inodes []uint64
	for line := range bytes.Lines(table) {
		fields := bytes.Fields(line)
		if len(fields) <= inodeField {
			continue
		}
		_, hexPort, ok := strings.Cut(string(fields[localField]), ":")
		if !ok {
			continue
		}
		p, err := strconv.ParseUint(hexPort, 16, 16)
		if err != nil || uint16(p) != port {
			continue
		}
		inode, err := strconv.ParseUint(string(fields[inodeField]), 10, 64)
		if err != nil || inode == 0 {
			continue
		}
		inodes = append(inodes, inode)
	}
	return inodes
}

// process returns what a person calls the process: name and number.
func process(pid string) string {
	const maxName = 64 // TASK_COMM_LEN is 16
	name, err := readBounded("/proc/"+pid+"/comm", maxName)
	if err != nil {
		return "process " + pid
	}
	return fmt.Sprintf("%q (pid %s)", bytes.TrimSpace(name), pid)
}

func readBounded(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, limit))
}

// names lists a directory, nothing of one that cannot be read.
func names(dir string) []string {
	f, err := os.Open(dir)
	if err != nil {
		return nil
	}
	defer f.Close()
	list, _ := f.Readdirnames(maxFiles)
	return list
}
