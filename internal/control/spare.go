// SPDX-License-Identifier: Apache-2.0

package control

import (
	"errors"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// acceptUnix waits for a connection. When the process has no descriptor left it
// gives the spare one for it: who wants to know what is wrong is to be answered, one
// after the other.
func (s *socket) acceptUnix() (*net.UnixConn, error) {
	for {
		c, err := s.AcceptUnix()
		if !errors.Is(err, unix.EMFILE) && !errors.Is(err, unix.ENFILE) {
			return c, err
		}
		if !s.useSpare() {
			select {
			case <-s.freed:
			case <-time.After(time.Second): // or another part of the process has closed one
			}
			s.keepSpare()
		}
	}
}

// connClosed tells that a connection has closed.
func (s *socket) connClosed() {
	s.keepSpare()
	select {
	case s.freed <- struct{}{}:
	default:
	}
}

// keepSpare takes a spare descriptor, if there is none and one to be had.
func (s *socket) keepSpare() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.spare == nil && !s.closed {
		s.spare, _ = os.Open(os.DevNull) // or else after the next connection
	}
}

// useSpare gives the spare descriptor back, and reports whether there was one.
func (s *socket) useSpare() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.spare == nil {
		return false
	}
	s.spare.Close()
	s.spare = nil
	return true
}
