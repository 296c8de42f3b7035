// SPDX-License-Identifier: Apache-2.0

//go:build linux

package tap_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/l2bridge/l2bridge/internal/tap"
)

func TestConfig(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		cfg  tap.Config
		want string
	}{
		{"no name", tap.Config{Address: tap.Address()}, `tap "": a device name is 1 to 15`},
		{"pattern", tap.Config{Name: "tap%d", Address: tap.Address()}, `choose another with --tap`},
		{"path", tap.Config{Name: "..", Address: tap.Address()}, `choose another with --tap`},
		{"long bridge", tap.Config{Name: "l2b0", Bridge: "abcdefghijklmnop", Address: tap.Address()}, `choose another with --bridge`},
		{"same name", tap.Config{Name: "br0", Bridge: "br0", Address: tap.Address()}, `tap br0: the bridge has the same name`},
		{"small mtu", tap.Config{Name: "l2b0", MTU: 67, Address: tap.Address()}, `mtu 67: an MTU is 68 to 9000`},
		{"large mtu", tap.Config{Name: "l2b0", MTU: 9001, Address: tap.Address()}, `mtu 9001: an MTU is 68 to 9000`},
		{"no address", tap.Config{Name: "l2b0"}, `needs a unicast MAC`},
		{"group address", tap.Config{Name: "l2b0", Address: mac("01:00:5e:00:00:01")}, `needs a unicast MAC`},
		{"zero address", tap.Config{Name: "l2b0", Address: mac("00:00:00:00:00:00")}, `needs a unicast MAC`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if _, err := tap.Open(tt.cfg); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Open: %v, want %q", err, tt.want)
			}
		})
	}
}

func TestOpenCloseLeavesNothing(t *testing.T) {
	newNamespace(t)
	before := links(t)
	for _, cfg := range []tap.Config{{Bridge: "br0"}, {}, {Bridge: "br0", MTU: 9000, Superframes: true}} {
		d := openTAP(t, cfg)
		if got := link(t, "l2b0"); got.HardwareAddr.String() != withDefaults(cfg).Address.String() || got.MTU != d.MTU() {
			t.Errorf("TAP has address %s, mtu %d", got.HardwareAddr, got.MTU)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(before, links(t)); diff != "" {
			t.Errorf("devices after Close of %+v (-want +got):\n%s", cfg, diff)
		}
	}
}

func TestOpenFailureLeavesNothing(t *testing.T) {
	newNamespace(t)
	before := links(t)
	for _, request := range []uint{0, unix.TUNSETIFF, unix.TUNSETCARRIER} {
		_, err := tap.OpenWith(withDefaults(tap.Config{Bridge: "br0"}), func(r uint, _ int) error {
			if r == request {
				return unix.ENOMEM
			}
			return nil
		})
		if !errors.Is(err, unix.ENOMEM) {
			t.Errorf("Open: %v, want ENOMEM", err)
		}
		if diff := cmp.Diff(before, links(t)); diff != "" {
			t.Errorf("devices after failure of request %#x (-want +got):\n%s", request, diff)
		}
	}
}

func TestFeatures(t *testing.T) {
	newNamespace(t)
	const (
		tso = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_TSO_ECN
		uso = tso | unix.TUN_F_USO4 | unix.TUN_F_USO6
	)
	none := func(uint, int) error { return nil }
	refuse := func(request uint, value int) tap.Refuse {
		return func(r uint, v int) error {
			if r == request && v&value == value {
				return unix.EINVAL
			}
			return nil
		}
	}
	for _, tt := range []struct {
		name   string
		plain  bool
		kernel tap.Refuse
		want   tap.Features
	}{
		{"all", false, none, tap.Features{VnetHeader: true, TSO: true, USO: true}},
		{"not wanted", true, none, tap.Features{VnetHeader: true}},
		{"before 6.2", false, refuse(unix.TUNSETOFFLOAD, uso), tap.Features{VnetHeader: true, TSO: true}},
		{"no offloads", false, refuse(unix.TUNSETOFFLOAD, tso), tap.Features{VnetHeader: true}},
		{"no header", false, refuse(unix.TUNSETIFF, unix.IFF_VNET_HDR), tap.Features{}},
		{"no header size", false, refuse(unix.TUNSETVNETHDRSZ, 0), tap.Features{}},
		{"no byte order", false, refuse(unix.TUNSETVNETLE, 0), tap.Features{}},
	} {
		d, err := tap.OpenWith(withDefaults(tap.Config{Superframes: !tt.plain}), tt.kernel)
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		if got := d.Features(); got != tt.want {
			t.Errorf("%s: Features = %+v, want %+v", tt.name, got, tt.want)
		}
		d.Close()
	}
}

func TestCarrier(t *testing.T) {
	newNamespace(t)
	set := func(d *tap.Device, up, want bool) {
		t.Helper()
		if err := d.SetCarrier(up); err != nil {
			t.Error(err)
		}
		if hasCarrier(t, "l2b0") != want {
			t.Errorf("carrier after SetCarrier(%t) is %t", up, !want)
		}
	}
	for _, tt := range []struct {
		cfg    tap.Config
		starts bool
	}{
		{tap.Config{Bridge: "br0"}, false},
		{tap.Config{Bridge: "br0", CarrierAlwaysOn: true}, true},
		{tap.Config{}, true},
	} {
		d := openTAP(t, tt.cfg)
		if got := hasCarrier(t, "l2b0"); got != tt.starts {
			t.Errorf("%+v starts with carrier %t", tt.cfg, got)
		}
		set(d, true, true)
		set(d, false, tt.cfg.CarrierAlwaysOn)
		d.Close()
		if err := d.SetCarrier(true); err == nil && !tt.cfg.CarrierAlwaysOn {
			t.Error("SetCarrier worked on a closed device")
		}
	}
}

func TestCarrierOnOldKernel(t *testing.T) {
	newNamespace(t)
	var log bytes.Buffer
	d, err := tap.OpenWith(withDefaults(tap.Config{Bridge: "br0", Log: slog.New(slog.NewTextHandler(&log, nil))}),
		func(r uint, _ int) error {
			if r == unix.TUNSETCARRIER {
				return unix.EINVAL
			}
			return nil
		})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for range 3 {
		if err := d.SetCarrier(true); err != nil {
			t.Error(err)
		}
	}
	if n := strings.Count(log.String(), "carrier stays on"); n != 1 {
		t.Errorf("said %d times that the carrier stays on, want once", n)
	}
}

func TestOpenErrors(t *testing.T) {
	newNamespace(t)
	ip(t, "link", "add", "veth0", "type", "veth", "peer", "veth1")
	ip(t, "link", "add", "br1", "type", "bridge")
	ip(t, "link", "add", "br9", "type", "bridge")
	ip(t, "link", "set", "br9", "mtu", "9216")
	ip(t, "tuntap", "add", "tun0", "mode", "tun")
	ip(t, "tuntap", "add", "tap0", "mode", "tap")
	ip(t, "link", "set", "tap0", "master", "br1")
	ip(t, "tuntap", "add", "tapq", "mode", "tap", "multi_queue")
	before := links(t)
	for _, tt := range []struct {
		name string
		cfg  tap.Config
		err  error
		want string
	}{
		{"a veth", tap.Config{Name: "veth0"}, nil, "tap veth0: there is a device of that name which is no TAP but of type veth"},
		{"a TUN", tap.Config{Name: "tun0"}, nil, "no TAP but of type tuntap"},
		{"several queues", tap.Config{Name: "tapq"}, nil, "ip link del tapq"},
		{"another's port", tap.Config{Name: "tap0", Bridge: "br0"}, nil, "ip link set tap0 nomaster"},
		{"no bridge", tap.Config{Bridge: "veth0"}, nil, "bridge veth0: it is a device of type veth; a Linux bridge is needed"},
		{"mtu above", tap.Config{Bridge: "br1", MTU: 9000}, nil, "tap l2b0: mtu 9000: bridge br1 has 1500"},
		{"mtu below", tap.Config{Bridge: "br1", MTU: 1400}, nil, "ip link set br1 mtu 1400"},
		{"mtu of bridge", tap.Config{Bridge: "br9"}, nil, "bridge br9: mtu 9216: at most 9000"},
		{"no driver", tap.Config{Bridge: "br0"}, unix.ENOENT, "modprobe tun"},
		{"driver not loaded", tap.Config{Bridge: "br0"}, unix.ENODEV, "modprobe tun"},
		{"no access", tap.Config{Bridge: "br0"}, unix.EACCES, "run as root"},
	} {
		_, err := tap.OpenWith(withDefaults(tt.cfg), func(request uint, _ int) error {
			if request == 0 {
				return tt.err
			}
			return nil
		})
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
		if diff := cmp.Diff(before, links(t)); diff != "" {
			t.Errorf("%s: devices (-want +got):\n%s", tt.name, diff)
		}
	}
}

// TestPortHasNoAddress compares with a bare TAP, which is an interface of the
// host like any other.
func TestPortHasNoAddress(t *testing.T) {
	newNamespace(t)
	for _, bridge := range []string{"", "br0"} {
		d := openTAP(t, tap.Config{Bridge: bridge, CarrierAlwaysOn: true})
		l, err := netlink.LinkByName("l2b0")
		if err != nil {
			t.Fatal(err)
		}
		addresses, err := netlink.AddrList(l, netlink.FAMILY_V6)
		if err != nil {
			t.Fatal(err)
		}
		if bridge == "" && len(addresses) == 0 {
			t.Skip("needs IPv6")
		}
		if bridge != "" && len(addresses) > 0 {
			t.Errorf("the port of a bridge has the address %s", addresses[0])
		}
		d.Close()
	}
}

// TestNoCapability drops CAP_NET_ADMIN, on this thread alone, which ends with
// the test.
func TestNoCapability(t *testing.T) {
	newNamespace(t)
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		t.Fatal(err)
	}
	data[0].Effective &^= 1 << unix.CAP_NET_ADMIN
	if err := unix.Capset(&header, &data[0]); err != nil {
		t.Fatal(err)
	}
	_, err := tap.Open(withDefaults(tap.Config{Bridge: "br0"}))
	if !errors.Is(err, unix.EPERM) || !strings.Contains(err.Error(), "CAP_NET_ADMIN is needed") {
		t.Errorf("Open: %v, want EPERM and what is needed", err)
	}
}

func TestBusyNamesItsOwner(t *testing.T) {
	newNamespace(t)
	other := exec.Command(os.Args[0])
	other.Env = append(os.Environ(), "TAP_TEST_HOLD=l2b0")
	stdin, err := other.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := other.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer other.Wait()
	defer stdin.Close()
	said := make([]byte, 500)
	if n, _ := stdout.Read(said); string(said[:n]) != "ready" {
		t.Fatalf("the other process: %s", said[:n])
	}

	_, err = tap.Open(withDefaults(tap.Config{}))
	if want := fmt.Sprintf("held by %q (pid %d)", "tap.test", other.Process.Pid); !errors.Is(err, unix.EBUSY) || !strings.Contains(err.Error(), want) {
		t.Errorf("Open: %v, want %q", err, want)
	}
}

func TestPersistentStays(t *testing.T) {
	newNamespace(t)
	ip(t, "tuntap", "add", "l2b0", "mode", "tap")
	ip(t, "link", "add", "br1", "type", "bridge")
	before := links(t)
	d := openTAP(t, tap.Config{Bridge: "br1", Superframes: true})
	if !isIn("l2b0", "br1")() {
		t.Error("the TAP is not in the bridge")
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(before, links(t)); diff != "" {
		t.Errorf("devices after Close (-want +got):\n%s", diff)
	}
	if link(t, "l2b0").MasterIndex != 0 {
		t.Error("the TAP was left in the bridge")
	}
}
