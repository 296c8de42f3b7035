// SPDX-License-Identifier: Apache-2.0

//go:build linux

package tap_test

import (
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/l2bridge/l2bridge/internal/tap"
)

// patience is how long a test waits before it calls a thing hung. No test
// passes or fails by how fast the machine is.
const patience = 30 * time.Second

func TestMain(m *testing.M) {
	if name := os.Getenv("TAP_TEST_HOLD"); name != "" {
		hold(name)
	}
	goleak.VerifyTestMain(m)
}

// hold is another process that has a TAP open, until its standard input ends.
func hold(name string) {
	if _, err := tap.Open(tap.Config{Name: name, Address: tap.Address()}); err != nil {
		os.Stdout.WriteString(err.Error())
		os.Exit(1)
	}
	os.Stdout.WriteString("ready")
	os.Stdin.Read(make([]byte, 1))
	os.Exit(0)
}

// newNamespace puts the test into an empty network namespace that ends with
// it. The test's thread stays locked: subtests and goroutines are not in the
// namespace unless they enter it.
func newNamespace(t testing.TB) netns.NsHandle {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	runtime.LockOSThread()
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	// Netfilter on bridges strips padding and drops odd frames beside us.
	for _, table := range []string{"iptables", "ip6tables", "arptables"} {
		os.WriteFile("/proc/sys/net/bridge/bridge-nf-call-"+table, []byte("0"), 0)
	}
	return ns
}

// in runs f in a goroutine in the namespace. The channel gives what f returns.
func in(t *testing.T, ns netns.NsHandle, f func() error) <-chan error {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		if err := netns.Set(ns); err != nil {
			done <- err
			return
		}
		done <- f()
	}()
	return done
}

// wait returns what c gives.
func wait[T any](t *testing.T, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("%s: nothing happened", what)
		panic("unreachable")
	}
}

// openTAP opens a Device that the test closes.
func openTAP(t testing.TB, cfg tap.Config) *tap.Device {
	t.Helper()
	d, err := tap.Open(withDefaults(cfg))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func withDefaults(cfg tap.Config) tap.Config {
	if cfg.Name == "" {
		cfg.Name = "l2b0"
	}
	if cfg.Address == nil {
		cfg.Address = tap.Address([]byte(cfg.Name))
	}
	return cfg
}

// ip runs ip(8), which says what it does better than netlink calls.
func ip(t testing.TB, args ...string) {
	t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		t.Fatalf("ip %v: %v: %s", args, err, out)
	}
}

func link(t testing.TB, name string) *netlink.LinkAttrs {
	t.Helper()
	l, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return l.Attrs()
}

// links returns the names of the devices in the namespace.
func links(t *testing.T) []string {
	t.Helper()
	all, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, l := range all {
		names = append(names, l.Attrs().Name)
	}
	slices.Sort(names)
	return names
}

// events gives a value whenever something happens to a device.
func events(t *testing.T) <-chan netlink.LinkUpdate {
	t.Helper()
	c, done := make(chan netlink.LinkUpdate), make(chan struct{})
	if err := netlink.LinkSubscribe(c, done); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		close(done)
		for range c { // until the subscription's goroutine has ended
		}
	})
	return c
}

// until waits until something that happens makes the condition true.
func until(t *testing.T, what string, c <-chan netlink.LinkUpdate, true func() bool) {
	t.Helper()
	for !true() {
		wait(t, what, c)
	}
}

// isIn reports whether the TAP is a port of the bridge, and both exist.
func isIn(port, bridge string) func() bool {
	return func() bool {
		p, err1 := netlink.LinkByName(port)
		b, err2 := netlink.LinkByName(bridge)
		return err1 == nil && err2 == nil && p.Attrs().MasterIndex == b.Attrs().Index
	}
}

func hasCarrier(t *testing.T, name string) bool {
	t.Helper()
	return link(t, name).RawFlags&unix.IFF_LOWER_UP != 0
}

func mac(s string) net.HardwareAddr {
	a, err := net.ParseMAC(s)
	if err != nil {
		panic(err)
	}
	return a
}
