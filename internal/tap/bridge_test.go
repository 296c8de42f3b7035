// SPDX-License-Identifier: Apache-2.0

//go:build linux

package tap_test

import (
	"bytes"
	"context"
	"net"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netns"

	"github.com/l2bridge/l2bridge/internal/tap"
)

func TestBridgeKeepsAddressAndMTU(t *testing.T) {
	for _, tt := range []struct {
		name string
		port string // MAC of another port; "" for none
		mtu  string
	}{
		{"empty", "", "1500"},
		{"lower port", "02:00:00:00:00:01", "1500"},
		{"higher port", "fe:ff:ff:ff:ff:ff", "1500"},
		{"jumbo", "02:00:00:00:00:01", "9000"},
		{"small", "02:00:00:00:00:01", "1400"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			newNamespace(t)
			ip(t, "link", "add", "br0", "type", "bridge")
			if tt.port != "" {
				ip(t, "link", "add", "veth0", "address", tt.port, "mtu", tt.mtu, "type", "veth", "peer", "veth1")
				ip(t, "link", "set", "veth0", "master", "br0")
			}
			before := link(t, "br0")
			d := openTAP(t, tap.Config{Bridge: "br0"})
			same := func(when string) {
				t.Helper()
				now := link(t, "br0")
				if now.MTU != before.MTU || !bytes.Equal(now.HardwareAddr, before.HardwareAddr) {
					t.Errorf("bridge %s: mtu %d address %s, before %d %s",
						when, now.MTU, now.HardwareAddr, before.MTU, before.HardwareAddr)
				}
			}
			same("with the TAP")
			if d.MTU() != before.MTU || link(t, "l2b0").MTU != before.MTU {
				t.Errorf("MTU = %d, TAP has %d, bridge has %d", d.MTU(), link(t, "l2b0").MTU, before.MTU)
			}
			if err := d.Close(); err != nil {
				t.Error(err)
			}
			same("after Close")
		})
	}
}

func TestMadeBridge(t *testing.T) {
	newNamespace(t)
	d := openTAP(t, tap.Config{Bridge: "br0", MTU: 9000})
	br := link(t, "br0")
	if br.MTU != 9000 || br.Flags&net.FlagUp == 0 || br.HardwareAddr[0] != 2 {
		t.Errorf("bridge has mtu %d, flags %s, address %s", br.MTU, br.Flags, br.HardwareAddr)
	}
	d.Close()
	d = openTAP(t, tap.Config{Bridge: "br0"})
	if again := link(t, "br0"); !bytes.Equal(again.HardwareAddr, br.HardwareAddr) {
		t.Errorf("bridge has address %s, the first time %s", again.HardwareAddr, br.HardwareAddr)
	}

	// What somebody else put in it stays.
	ip(t, "link", "add", "veth0", "type", "veth", "peer", "veth1")
	ip(t, "link", "set", "veth0", "master", "br0")
	d.Close()
	if !slices.Contains(links(t), "br0") {
		t.Fatal("the bridge was removed with another's port in it")
	}

	// It is still ours: of two instances the last one removes it.
	one := openTAP(t, tap.Config{Name: "l2b0", Bridge: "br0"})
	two := openTAP(t, tap.Config{Name: "l2b1", Bridge: "br0"})
	ip(t, "link", "del", "veth0")
	one.Close()
	if !slices.Contains(links(t), "br0") {
		t.Fatal("the bridge was removed with another instance's TAP in it")
	}
	two.Close()
	if slices.Contains(links(t), "br0") {
		t.Error("the bridge was left behind")
	}
}

// TestLeftBridge takes over what a killed process of ours left.
func TestLeftBridge(t *testing.T) {
	newNamespace(t)
	for _, tt := range []struct{ left, mtu, want int }{{1500, 9000, 9000}, {9000, 0, 1500}} {
		ip(t, "link", "add", "br0", "type", "bridge")
		ip(t, "link", "set", "br0", "alias", tap.BridgeAlias, "mtu", strconv.Itoa(tt.left))
		d := openTAP(t, tap.Config{Bridge: "br0", MTU: tt.mtu})
		if got := link(t, "br0").MTU; got != tt.want || d.MTU() != tt.want {
			t.Errorf("left %d, asked for %d: bridge has mtu %d, TAP %d, want %d", tt.left, tt.mtu, got, d.MTU(), tt.want)
		}
		d.Close()
		if slices.Contains(links(t), "br0") {
			t.Error("the bridge was left behind again")
		}
	}
}

// TestUsedBridgeStays has a device on top of a bridge of ours.
func TestUsedBridgeStays(t *testing.T) {
	newNamespace(t)
	d := openTAP(t, tap.Config{Bridge: "br0"})
	ip(t, "link", "add", "mv0", "link", "br0", "type", "macvlan")
	d.Close()
	if !slices.Contains(links(t), "mv0") {
		t.Error("a macvlan on the bridge was removed with it")
	}
}

// watch runs Watch until the test ends, or until it fails, which the channel
// tells.
func watch(t *testing.T, d *tap.Device) <-chan error {
	t.Helper()
	ns, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	ctx, cancel := context.WithCancel(context.Background())
	failed := make(chan error, 1)
	done := in(t, ns, func() error {
		err := d.Watch(ctx)
		if ctx.Err() == nil {
			failed <- err
			return nil
		}
		return err
	})
	t.Cleanup(func() {
		cancel()
		if err := wait(t, "Watch to end", done); err != nil {
			t.Errorf("Watch: %v, want nil when its context ends", err)
		}
	})
	return failed
}

func TestWatchPutsBack(t *testing.T) {
	newNamespace(t)
	ip(t, "link", "add", "br0", "type", "bridge")
	ip(t, "link", "add", "br1", "type", "bridge")
	changes := events(t)
	d := openTAP(t, tap.Config{Bridge: "br0"})
	t.Cleanup(func() { d.Close() })
	result := watch(t, d)

	ip(t, "link", "set", "l2b0", "nomaster")
	until(t, "the TAP back in the bridge", changes, isIn("l2b0", "br0"))
	ip(t, "link", "set", "l2b0", "master", "br1")
	until(t, "the TAP back from another bridge", changes, isIn("l2b0", "br0"))

	ip(t, "link", "del", "br0")
	ip(t, "link", "add", "br0", "type", "bridge")
	until(t, "the TAP in the new bridge", changes, isIn("l2b0", "br0"))

	// A bridge that the TAP would change is not joined.
	ip(t, "link", "del", "br0")
	ip(t, "link", "add", "br0", "mtu", "1400", "type", "bridge")
	if err := wait(t, "Watch", result); err == nil || !strings.Contains(err.Error(), "bridge br0 has 1400 now") {
		t.Errorf("Watch: %v, want that the bridge's MTU is another", err)
	}
}

func TestWatchMakesItsBridgeAgain(t *testing.T) {
	newNamespace(t)
	changes := events(t)
	d := openTAP(t, tap.Config{Bridge: "br0", MTU: 9000})
	t.Cleanup(func() { d.Close() })
	watch(t, d)
	ip(t, "link", "del", "br0")
	until(t, "the bridge back", changes, isIn("l2b0", "br0"))
	if got := link(t, "br0"); got.MTU != 9000 || got.Alias != tap.BridgeAlias {
		t.Errorf("the new bridge has mtu %d, alias %q", got.MTU, got.Alias)
	}
}

func TestWatchSaysDeleted(t *testing.T) {
	for _, cfg := range []tap.Config{{}, {Bridge: "br0"}} {
		newNamespace(t)
		d := openTAP(t, cfg)
		result := watch(t, d)
		ip(t, "link", "del", "l2b0")
		if err := wait(t, "Watch", result); err == nil || !strings.Contains(err.Error(), "tap l2b0: the device was deleted") {
			t.Errorf("Watch: %v, want that the device was deleted", err)
		}
		// What its caller does then.
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		openTAP(t, cfg).Close()
	}
}

func TestCheck(t *testing.T) {
	newNamespace(t)
	ip(t, "link", "add", "br0", "up", "type", "bridge")
	d := openTAP(t, tap.Config{Bridge: "br0"})
	defer d.Close()
	check := func(wantPorts []string, wantRemedies ...string) {
		t.Helper()
		ports, findings, err := d.Check()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(wantPorts, ports); diff != "" {
			t.Errorf("ports (-want +got):\n%s", diff)
		}
		var remedies []string
		for _, f := range findings {
			remedies = append(remedies, f.Remedy)
		}
		if diff := cmp.Diff(wantRemedies, remedies); diff != "" {
			t.Errorf("remedies (-want +got):\n%s", diff)
		}
	}
	check(nil, `ip link set NIC master br0 (first move the NIC's addresses to br0; README, "Put a NIC into the bridge")`)
	ip(t, "link", "add", "veth0", "type", "veth", "peer", "veth1")
	ip(t, "link", "set", "veth0", "master", "br0")
	check([]string{"veth0"})
	ip(t, "link", "set", "l2b0", "mtu", "1400") // the bridge follows
	check([]string{"veth0"}, "ip link set l2b0 mtu 1500", "ip link set br0 mtu 1500")
	ip(t, "link", "set", "br0", "mtu", "1500") // from now on it does not
	check([]string{"veth0"}, "ip link set l2b0 mtu 1500")
	ip(t, "link", "set", "l2b0", "mtu", "1500")
	check([]string{"veth0"})
	ip(t, "link", "set", "br0", "down")
	ip(t, "link", "set", "br0", "mtu", "1400")
	check([]string{"veth0"}, "ip link set br0 up", "ip link set br0 mtu 1500")
	ip(t, "link", "set", "l2b0", "down", "nomaster")
	ip(t, "link", "del", "br0")
	check(nil, "ip link set l2b0 up", "ip link add br0 up type bridge")
	ip(t, "link", "add", "br0", "up", "type", "bridge")
	ip(t, "link", "set", "veth0", "master", "br0")
	check([]string{"veth0"}, "ip link set l2b0 up", "ip link set l2b0 master br0")
	ip(t, "link", "del", "l2b0")
	check(nil, "")
}

func TestFlushBridge(t *testing.T) {
	newNamespace(t)
	d := openTAP(t, tap.Config{Bridge: "br0"})
	defer d.Close()
	const learned, static = "02:00:00:00:00:07", "02:00:00:00:00:08"
	ip(t, "link", "add", "veth0", "type", "veth", "peer", "veth1")
	ip(t, "link", "set", "veth0", "master", "br0")
	ip(t, "link", "set", "veth1", "up")
	ip(t, "link", "set", "veth0", "up")
	for mac, kind := range map[string]string{learned: "dynamic", static: "static"} {
		// The kernel notes a carrier in the background, and until it has, the
		// port takes no entry.
		for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
			out, err := exec.Command("bridge", "fdb", "add", mac, "dev", "veth0", "master", kind).CombinedOutput()
			if err == nil {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%v: %s", err, out)
			}
		}
	}
	has := func() string {
		out, err := exec.Command("bridge", "fdb", "show", "br", "br0").Output()
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	if !strings.Contains(has(), learned) {
		t.Fatalf("the bridge has not learned: %s", has())
	}
	if err := d.FlushBridge(); err != nil {
		t.Fatal(err)
	}
	if fdb := has(); strings.Contains(fdb, learned) || !strings.Contains(fdb, static) {
		t.Errorf("after the flush it has\n%s", fdb)
	}

	bare := openTAP(t, tap.Config{Name: "l2b1"})
	defer bare.Close()
	if err := bare.FlushBridge(); err != nil {
		t.Errorf("without a bridge: %v", err)
	}
}
