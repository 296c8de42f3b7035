// SPDX-License-Identifier: Apache-2.0

// Package confine gives up for good what a process does not need: capabilities,
// the way to new ones, writing elsewhere than in a few places, core dumps.
//
// Capabilities, no_new_privs and Landlock belong to a thread, and Go has several
// before main runs. (syscall.AllThreadsSyscall is not to be had with cgo, hence
// not under the race detector.) So Enter limits the one thread that it runs on and
// has that execute the program again, with the same arguments. Every thread then
// is a child of this one:
//
//	not limited --limit this thread, execve--> limited --> Enter returns
//
// Whether it has happened is not noted down but seen: Enter asks the kernel.
package confine

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// Limits says what a process keeps.
type Limits struct {
	// Caps are the capabilities to keep, of those that the process has, such as
	// unix.CAP_NET_ADMIN.
	Caps []int
	// Group is one more group to belong to, 0 for none. Without CAP_SETGID it is
	// left out.
	Group int
	// Files are the only places to write to; nil for no limit. One that is not
	// there is left out. A kernel without Landlock sets no limit.
	Files []Place
}

// Place is a place in the file system, and what may be done there.
type Place struct {
	Path string
	Use  Use
}

// Use is what may be done at a place.
type Use int

// Reading is free everywhere.
const (
	Files   Use = iota // make, write and remove files in a directory
	Sockets            // make and remove sockets in a directory
	Device             // write to a device, and control it
)

// marker is in the environment of a program that Enter has executed. It only
// keeps Enter from doing so for ever: the limits in force are what counts.
const marker = "L2BRIDGE_CONFINED"

// Enter puts the limits in force. Where they are not it calls before, which may
// look at what can be seen no more afterwards, and executes the program again:
// then it returns only an error. Call it before anything is open that is not to be lost.
func Enter(l Limits, before func() error) error {
	stage := "capabilities"
	if l.Files != nil {
		stage = "files"
	}
	again := os.Getenv(marker) == stage
	if again {
		os.Unsetenv(marker)
	}
	if l.inForce() {
		return undumpable()
	}
	if again {
		return fmt.Errorf("limit privileges: the limit of %s is not in force after all (run without %s in the environment)", stage, marker)
	}
	if err := before(); err != nil {
		return err
	}
	return fmt.Errorf("limit privileges: %w", l.execute(marker+"="+stage))
}

// inForce reports whether this process is limited. One that has less than l lets
// it keep is.
func (l *Limits) inForce() bool {
	have, err := capabilities()
	// What is ambient is permitted too.
	if err != nil || (have.permitted|have.inheritable)&^l.keep() != 0 || !noNewPrivs() {
		return false
	}
	return l.Files == nil || landlockABI() == 0 || filesLimited()
}

// keep is the set of capabilities to keep.
func (l *Limits) keep() (set uint64) {
	for _, c := range l.Caps {
		set |= 1 << c
	}
	return set
}

// execute limits this thread and executes the program again in it.
func (l *Limits) execute(env string) error {
	runtime.LockOSThread() // for good: no other goroutine is to run on this thread
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if err := l.joinGroup(); err != nil {
		return err
	}
	if err := l.dropCapabilities(); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no new privileges: %w", err)
	}
	if l.Files != nil {
		if err := limitFiles(l.Files); err != nil {
			return fmt.Errorf("landlock: %w", err)
		}
	}
	environ := append(os.Environ(), env)
	err = syscall.Exec(self, os.Args, environ)
	if errors.Is(err, unix.EACCES) {
		// Below a home directory the way to it may be closed by now, but not to what
		// this process runs already.
		err = syscall.Exec(running, os.Args, environ)
	}
	return &os.PathError{Op: "execute", Path: self, Err: err}
}

// running is the program of this process. Executed by that way it is "exe" in lists
// of processes.
const running = "/proc/self/exe"

// joinGroup makes the process a member of the group. The owner of a file may then
// give it to that group without CAP_CHOWN.
func (l *Limits) joinGroup() error {
	groups, err := unix.Getgroups()
	if err != nil {
		return fmt.Errorf("groups: %w", err)
	}
	if l.Group == 0 || slices.Contains(groups, l.Group) {
		return nil
	}
	err = unix.Setgroups(append(groups, l.Group))
	if err != nil && !errors.Is(err, unix.EPERM) { // without CAP_SETGID, or in a user namespace that denies it
		return fmt.Errorf("join group %d: %w", l.Group, err)
	}
	return nil
}

// dropCapabilities takes from each of this thread's sets what is not kept.
func (l *Limits) dropCapabilities() error {
	keep := l.keep()
	have, err := capabilities()
	if err != nil {
		return fmt.Errorf("capabilities: %w", err)
	}
	for c := range uintptr(64) {
		in, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, c, 0, 0, 0)
		if err != nil {
			break // the kernel knows no more of them
		}
		if in == 0 || keep>>c&1 == 1 {
			continue
		}
		err = unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0)
		if errors.Is(err, unix.EPERM) {
			break // without CAP_SETPCAP; what is permitted cannot grow without new privileges either
		}
		if err != nil {
			return fmt.Errorf("bounding set: capability %d: %w", c, err)
		}
	}
	for c := range uintptr(64) {
		if (have.permitted&have.inheritable&^keep)>>c&1 == 0 {
			continue
		}
		if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_LOWER, c, 0, 0); err != nil {
			return fmt.Errorf("ambient set: capability %d: %w", c, err)
		}
	}
	have.effective &= keep
	have.permitted &= keep
	have.inheritable &= keep
	return have.set()
}

// sets are the capabilities of a thread.
type sets struct{ effective, permitted, inheritable uint64 }

// capabilities returns those of this thread.
func capabilities() (sets, error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return sets{}, err
	}
	join := func(low, high uint32) uint64 { return uint64(high)<<32 | uint64(low) }
	return sets{
		join(data[0].Effective, data[1].Effective),
		join(data[0].Permitted, data[1].Permitted),
		join(data[0].Inheritable, data[1].Inheritable),
	}, nil
}

// set gives them to this thread.
func (s sets) set() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := [2]unix.CapUserData{
		{Effective: uint32(s.effective), Permitted: uint32(s.permitted), Inheritable: uint32(s.inheritable)},
		{Effective: uint32(s.effective >> 32), Permitted: uint32(s.permitted >> 32), Inheritable: uint32(s.inheritable >> 32)},
	}
	if err := unix.Capset(&header, &data[0]); err != nil {
		return fmt.Errorf("capabilities: %w", err)
	}
	return nil
}

func noNewPrivs() bool {
	set, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
	return err == nil && set == 1
}

// undumpable keeps memory, and the keys in it, from core dumps and from ptrace by
// others of the same user. It belongs to the process, and ends with execve.
func undumpable() error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("no core dumps: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("no core dumps: %w", err)
	}
	return nil
}

// State is what limits this process.
type State struct {
	Caps       []string // its capabilities, such as cap_net_admin
	NoNewPrivs bool
	Landlock   int // version of the Landlock that limits where it may write; 0 for none
}

// Now returns what limits this process.
func Now() State {
	s := State{Caps: []string{}, NoNewPrivs: noNewPrivs()}
	if have, err := capabilities(); err == nil {
		for c := range 64 {
			if have.permitted>>c&1 == 1 {
				s.Caps = append(s.Caps, capName(c))
			}
		}
	}
	if filesLimited() {
		s.Landlock = landlockABI()
	}
	return s
}

func capName(c int) string {
	switch c {
	case unix.CAP_NET_ADMIN:
		return "cap_net_admin"
	case unix.CAP_NET_BIND_SERVICE:
		return "cap_net_bind_service"
	case unix.CAP_DAC_READ_SEARCH:
		return "cap_dac_read_search"
	case unix.CAP_DAC_OVERRIDE:
		return "cap_dac_override"
	}
	return fmt.Sprintf("cap_%d", c) // only of a process that is not limited
}
