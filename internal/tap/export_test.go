// SPDX-License-Identifier: Apache-2.0

//go:build linux

package tap

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// BridgeAlias marks a bridge of ours.
const BridgeAlias = bridgeAlias

// Refuse says which requests the kernel refuses, and how: request is an ioctl
// number, 0 for opening the device.
type Refuse func(request uint, value int) error

// OpenWith is Open on a kernel that refuses what older or bare ones do.
func OpenWith(cfg Config, refuse Refuse) (*Device, error) {
	return open(cfg, refusing{refuse: refuse})
}

type refusing struct {
	linux
	refuse Refuse
}

func (k refusing) open() (int, error) {
	if err := k.refuse(0, 0); err != nil {
		return -1, err
	}
	return k.linux.open()
}

func (k refusing) attach(fd int, name string, flags uint16) error {
	if err := k.refuse(unix.TUNSETIFF, int(flags)); err != nil {
		return err
	}
	return k.linux.attach(fd, name, flags)
}

func (k refusing) offload(fd, flags int) error {
	if err := k.refuse(unix.TUNSETOFFLOAD, flags); err != nil {
		return err
	}
	return k.linux.offload(fd, flags)
}

func (k refusing) set(fd int, request uint, value int) error {
	if err := k.refuse(request, value); err != nil {
		return err
	}
	return k.linux.set(fd, request, value)
}

// Stream is the part of a Device that moves frames.
type Stream struct{ *stream }

// NewStream is a stream on any descriptor that keeps message boundaries.
func NewStream(file *os.File, vnet bool) (Stream, error) {
	s, err := newStream("l2b0", file, vnet)
	return Stream{s}, err
}

// SetCalls replaces the system calls by what change makes of them. Nobody uses the
// stream yet.
func (s Stream) SetCalls(read, write func(Call) Call) {
	s.calls = calls{read(s.calls.read), write(s.calls.write)}
}

type Call = func(fd uintptr, p []byte) (int, syscall.Errno)

// Stats returns the counters.
func (s Stream) Stats() Stats { return s.snapshot() }
