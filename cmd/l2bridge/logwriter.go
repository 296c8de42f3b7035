// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// logWait is how long, in milliseconds, a line of the log waits for its reader.
const logWait = 500

// logWriter writes the log to a pipe or a terminal whose reader may stop reading, such
// as a pager, or ssh from a laptop that sleeps: nothing of the tunnel, nor its end, is to
// wait for that. What is not taken in time is lost, and its lines are counted.
type logWriter struct {
	file *os.File

	mu   sync.Mutex // guards what follows, and has lines whole
	lost int
}

// newLogWriter returns what writes the log to w, which is w itself where that is no file.
func newLogWriter(w io.Writer) io.Writer {
	if f, ok := w.(*os.File); ok {
		return &logWriter{file: f}
	}
	return w
}

// Write writes a line. It never blocks for longer than logWait, and behind a line that
// was lost not at all.
func (w *logWriter) Write(line []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	wait := logWait
	if w.lost > 0 {
		wait = 0
	}
	if !writable(w.file, wait) {
		w.lost++
		return len(line), nil
	}
	if w.lost > 0 {
		fmt.Fprintf(w.file, "l2bridge: %d lines of the log were lost: nobody read them\n", w.lost)
		w.lost = 0
	}
	return w.file.Write(line)
}

// writable reports whether f takes a line, within so many milliseconds. A pipe that is
// writable has room for PIPE_BUF bytes (pipe(7)), which is more than a line has.
func writable(f *os.File, wait int) bool {
	raw, err := f.SyscallConn()
	if err != nil {
		return true // the write says what is wrong
	}
	ready := true
	_ = raw.Control(func(fd uintptr) {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
		n, err := unix.Poll(fds, wait)
		for err == unix.EINTR { // by Go's own signals, as a rule
			n, err = unix.Poll(fds, wait)
		}
		ready = err != nil || n > 0
	})
	return ready
}
