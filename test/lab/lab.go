// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package lab builds networks out of namespaces for tests that must see real
// packets: sites with hosts, Linux bridges and gateways, a routed WAN between
// them that may be narrow or lossy, and tools that send, number and check raw
// frames. It needs root and changes nothing outside the namespaces it makes.
//
// Everything a lab makes carries the test's process id in its name and goes
// when the test ends, passed or not. What a killed run left behind is swept
// away by the next one.
package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

const (
	namespaceDir    = "/run/netns" // where ip-netns(8) looks
	etcDir          = "/etc/netns" // what it puts over /etc
	namespacePrefix = "l2b-"
)

// Lab is the set of namespaces of one test.
type Lab struct {
	t  testing.TB
	id int64
}

var (
	labs  atomic.Int64
	sweep = sync.OnceValue(sweepDead)
)

// New returns an empty lab that is taken down when t ends. It skips t without
// root.
func New(t testing.TB) *Lab {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	if err := sweep(); err != nil {
		t.Fatalf("sweep namespaces of earlier runs: %v", err)
	}
	return &Lab{t: t, id: labs.Add(1)}
}

// T returns the test that the lab is of.
func (l *Lab) T() testing.TB { return l.t }

// Namespace makes a network namespace with loopback up. It shows in
// "ip netns" as l2b-PID-LAB-name, so that a stopped test can be looked into.
func (l *Lab) Namespace(name string) *Namespace {
	l.t.Helper()
	n, err := newNamespace(l.t, fmt.Sprintf("%s%d-%d-%s", namespacePrefix, os.Getpid(), l.id, name))
	if err != nil {
		l.t.Fatalf("make namespace %s: %v", name, err)
	}
	l.t.Cleanup(n.remove)
	n.quiet()
	return n
}

// sweepDead removes namespaces whose test process is gone. What ran in them
// is gone already: processes start with a parent-death signal.
func sweepDead() error {
	names, err := filepath.Glob(filepath.Join(namespaceDir, namespacePrefix+"*"))
	if err != nil {
		return err
	}
	var errs []error
	for _, path := range names {
		name := filepath.Base(path)
		pid, _, _ := strings.Cut(strings.TrimPrefix(name, namespacePrefix), "-")
		owner, err := strconv.Atoi(pid)
		if err != nil || owner <= 0 {
			continue // not one of a lab
		}
		if err := unix.Kill(owner, 0); !errors.Is(err, unix.ESRCH) {
			continue
		}
		errs = append(errs, removeNamed(name))
	}
	return errors.Join(errs...)
}

// removeNamed deletes a namespace's name and its files. Two processes may sweep at once, and
// a name whose mount never came about is a plain file.
func removeNamed(name string) error {
	err := netns.DeleteNamed(name)
	if errors.Is(err, unix.EINVAL) { // not a mount point
		err = os.Remove(filepath.Join(namespaceDir, name))
	}
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, os.RemoveAll(filepath.Join(etcDir, name)))
}
