// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// runTimeout bounds one command, so that a hung one fails its own test and not
// the whole run.
const runTimeout = 60 * time.Second

// Namespace is one network namespace: a host, a gateway or a router.
type Namespace struct {
	// Name is what "ip netns exec" takes.
	Name string

	t  testing.TB
	fd netns.NsHandle
	nl *netlink.Handle
}

func newNamespace(t testing.TB, name string) (*Namespace, error) {
	n := &Namespace{Name: name, t: t, fd: netns.None()}
	// unshare moves the calling thread, hence the detour by a thread of its own.
	err := onThread(func() (err error) {
		n.fd, err = netns.NewNamed(name)
		return err
	})
	if err != nil {
		return nil, err
	}
	if n.nl, err = netlink.NewHandleAt(n.fd); err != nil {
		n.remove()
		return nil, err
	}
	return n, nil
}

// quiet takes away what would put frames of the namespace's own on the wire,
// filter bridged frames, or delay an address.
func (n *Namespace) quiet() {
	n.t.Helper()
	// br_netfilter, where loaded, is on in each new namespace: it strips padding
	// and drops odd IPv4 frames beside whatever is under test.
	for _, table := range []string{"iptables", "ip6tables", "arptables"} {
		n.trySysctl("net/bridge/bridge-nf-call-"+table, "0")
	}
	// Hosts have CUBIC, as most users' do. A kernel may keep all but a few
	// algorithms from new namespaces (tcp_allowed_congestion_control); Reno is
	// always there and the nearest.
	if n.writeSysctl("net/ipv4/tcp_congestion_control", "cubic") != nil {
		n.Sysctl("net/ipv4/tcp_congestion_control", "reno")
	}
	n.Sysctl("net/ipv6/conf/all/accept_dad", "0")
	n.Sysctl("net/ipv6/conf/default/accept_dad", "0")
	n.Sysctl("net/ipv6/conf/default/accept_ra", "0")
	n.SetUp("lo")
}

func (n *Namespace) remove() {
	if n.nl != nil {
		n.nl.Close()
	}
	if n.fd.IsOpen() {
		n.fd.Close()
	}
	if err := removeNamed(n.Name); err != nil {
		n.t.Errorf("remove namespace %s: %v", n.Name, err)
	}
}

// Do calls f on an OS thread inside the namespace and returns its error.
// Sockets that f opens stay in the namespace and may be used from anywhere;
// goroutines that f starts are not in it. f must not end the test.
func (n *Namespace) Do(f func() error) error {
	return onThread(func() error {
		if err := netns.Set(n.fd); err != nil {
			return fmt.Errorf("enter namespace %s: %w", n.Name, err)
		}
		return f()
	})
}

// onThread calls f with an OS thread that may change its namespace. The thread
// goes back to the one it came from, or is thrown away if it cannot.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		home, err := netns.Get()
		if err != nil {
			done <- err
			return
		}
		defer home.Close()
		err = f()
		if back := netns.Set(home); back == nil {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}

// Command returns name to be run in the namespace, with the mounts of
// "ip netns exec" (a /sys of the namespace's own). It dies with the test.
func (n *Namespace) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", n.Name, name}, args...)...)
	cmd.SysProcAttr = ownGroup()
	cmd.Cancel = func() error { return killGroup(cmd) }
	cmd.WaitDelay = time.Second
	return cmd
}

// Run runs a command in the namespace to its end, a minute at most, and returns its
// standard output. The error of one that failed is an [*exec.ExitError] and
// says what was run and what it wrote to standard error.
func (n *Namespace) Run(name string, args ...string) (string, error) {
	return n.RunFor(runTimeout, name, args...)
}

// RunFor is Run with another bound.
func (n *Namespace) RunFor(limit time.Duration, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := n.Command(ctx, name, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if ctx.Err() != nil {
		err = errors.Join(fmt.Errorf("still running after %v", limit), err)
	}
	if err != nil {
		err = fmt.Errorf("%s: %s %s: %w\n%s", n.Name, filepath.Base(name), strings.Join(args, " "), err,
			strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), err
}

// MustRun is Run, ending the test on an error.
func (n *Namespace) MustRun(name string, args ...string) string {
	n.t.Helper()
	out, err := n.Run(name, args...)
	if err != nil {
		n.t.Fatalf("%v\n%s", err, out)
	}
	return out
}

// Sysctl sets a key below /proc/sys, as net/ipv4/ip_forward.
func (n *Namespace) Sysctl(key, value string) {
	n.t.Helper()
	if err := n.writeSysctl(key, value); err != nil {
		n.t.Fatalf("%s: %v", n.Name, err)
	}
}

// trySysctl is Sysctl for a key or value that the kernel may not have.
func (n *Namespace) trySysctl(key, value string) {
	n.t.Helper()
	if err := n.writeSysctl(key, value); err != nil && !errors.Is(err, os.ErrNotExist) {
		n.t.Fatalf("%s: %v", n.Name, err)
	}
}

func (n *Namespace) writeSysctl(key, value string) error {
	return n.Do(func() error { return os.WriteFile(filepath.Join("/proc/sys", key), []byte(value), 0) })
}

// Etc gives what runs in the namespace from now on a file of its own in /etc,
// such as resolv.conf.
func (n *Namespace) Etc(name, content string) {
	n.t.Helper()
	path := filepath.Join(etcDir, n.Name, name)
	n.must("make directory", os.MkdirAll(filepath.Dir(path), 0o755))
	n.must("write", os.WriteFile(path, []byte(content), 0o644))
}

// ListenUDP opens a UDP socket in the namespace. It is closed when the test
// ends.
func (n *Namespace) ListenUDP(address string) *net.UDPConn {
	n.t.Helper()
	var conn *net.UDPConn
	err := n.Do(func() error {
		addr, err := net.ResolveUDPAddr("udp", address)
		if err != nil {
			return err
		}
		conn, err = net.ListenUDP("udp", addr)
		return err
	})
	if err != nil {
		n.t.Fatalf("%s: %v", n.Name, err)
	}
	n.t.Cleanup(func() { conn.Close() })
	return conn
}

// ListenMulticast joins group, as 224.0.0.251:5353, on an interface of the
// namespace. It is closed when the test ends; closing it sooner leaves the
// group.
func (n *Namespace) ListenMulticast(ifname, group string) *net.UDPConn {
	n.t.Helper()
	var conn *net.UDPConn
	err := n.Do(func() error {
		addr, err := net.ResolveUDPAddr("udp", group)
		if err != nil {
			return err
		}
		ifi, err := net.InterfaceByName(ifname)
		if err != nil {
			return err
		}
		conn, err = net.ListenMulticastUDP("udp", ifi, addr)
		return err
	})
	if err != nil {
		n.t.Fatalf("%s: join %s on %s: %v", n.Name, group, ifname, err)
	}
	n.t.Cleanup(func() { conn.Close() })
	return conn
}
