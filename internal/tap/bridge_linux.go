// SPDX-License-Identifier: Apache-2.0

package tap

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"

	"github.com/l2bridge/l2bridge/internal/frame"
)

// bridgeAlias marks a bridge as made by us. The mark is kept with the bridge
// so that it outlives a process that was killed, and is shared by the
// instances whose TAPs are in one bridge: the last one removes it.
const bridgeAlias = "made by l2bridge"

// isOurs reports whether the bridge was made by us.
func isOurs(bridge netlink.Link) bool { return bridge.Attrs().Alias == bridgeAlias }

// lookUpBridge returns the configured bridge, nil when there is none yet or
// the TAP is to be bare.
func (d *Device) lookUpBridge() (netlink.Link, error) {
	if d.cfg.Bridge == "" {
		return nil, nil
	}
	link, err := d.links.LinkByName(d.cfg.Bridge)
	if isNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("bridge %s: %w", d.cfg.Bridge, err)
	}
	if link.Type() != "bridge" {
		return nil, fmt.Errorf("bridge %s: it is a device of type %s; a Linux bridge is needed: "+
			"choose another with --bridge, or put this device in one with \"ip link set %s master br0\"",
			d.cfg.Bridge, link.Type(), d.cfg.Bridge)
	}
	return link, nil
}

// chooseMTU returns the MTU for the TAP. A bridge takes the lowest MTU of its
// ports unless somebody set it (net/bridge/br_if.c, br_mtu_auto_adjust), and
// hosts behind it rely on the one it has: the TAP must have the same. A bridge
// of ours without other ports, left by a run that was killed, counts as none.
func (d *Device) chooseMTU(bridge netlink.Link) (int, error) {
	want := d.cfg.MTU
	left := false
	if bridge != nil && isOurs(bridge) {
		others, err := d.others(bridge)
		if err != nil {
			return 0, err
		}
		left = len(others) == 0
	}
	if bridge == nil || left {
		return cmp.Or(want, defaultMTU), nil
	}
	has := bridge.Attrs().MTU
	switch {
	case want == 0 && has > frame.MaxMTU:
		return 0, fmt.Errorf("bridge %s: mtu %d: at most %d can be bridged; run \"ip link set %s mtu %d\"",
			d.cfg.Bridge, has, frame.MaxMTU, d.cfg.Bridge, frame.MaxMTU)
	case want != 0 && want != has:
		return 0, fmt.Errorf("tap %s: mtu %d: bridge %s has %d, which l2bridge never changes; "+
			"leave --mtu out, or run \"ip link set %s mtu %d\" and the same for its ports",
			d.cfg.Name, want, d.cfg.Bridge, has, d.cfg.Bridge, want)
	}
	return has, nil
}

// join makes the TAP a port of the bridge, which it makes when there is none.
func (d *Device) join() error {
	bridge, err := d.lookUpBridge()
	if err != nil {
		return err
	}
	if bridge == nil {
		if bridge, err = d.makeBridge(); err != nil {
			return err
		}
	}
	d.ours = isOurs(bridge)
	tap, err := d.links.LinkByIndex(d.index)
	if err != nil {
		return fmt.Errorf("tap %s: %w", d.cfg.Name, err)
	}
	if tap.Attrs().MasterIndex == bridge.Attrs().Index {
		return nil
	}
	others, err := d.others(bridge)
	if err != nil {
		return err
	}
	if len(others) == 0 && d.ours {
		// Nobody relies on the MTU that it has. Setting it also keeps the bridge from going back to 1500 when its last
		// port leaves.
		if err := d.links.LinkSetMTU(bridge, d.mtu); err != nil {
			return fmt.Errorf("bridge %s: mtu %d: %w", d.cfg.Bridge, d.mtu, err)
		}
	} else if mtu := bridge.Attrs().MTU; mtu != d.mtu {
		return fmt.Errorf("tap %s: mtu %d: bridge %s has %d now; the TAP has to be opened again",
			d.cfg.Name, d.mtu, d.cfg.Bridge, mtu)
	}
	if err := d.keepAddress(bridge, others); err != nil {
		return err
	}
	if err := d.links.LinkSetMaster(tap, bridge); err != nil {
		return fmt.Errorf("tap %s: make it a port of bridge %s: %w", d.cfg.Name, d.cfg.Bridge, err)
	}
	d.joined = true
	return nil
}

// keepAddress keeps the TAP from changing the bridge's MAC, and with it the
// host's DHCP lease. A bridge whose MAC nobody has set takes the lowest of its
// ports', which would be the TAP's if there are no others or only higher ones
// (libvirt's begin with fe: too). Setting the MAC that it has pins it
// (net/bridge/br_stp_if.c, br_stp_recalculate_bridge_id).
func (d *Device) keepAddress(bridge netlink.Link, others []netlink.Link) error {
	for _, port := range others {
		if bytes.Compare(port.Attrs().HardwareAddr, d.cfg.Address) <= 0 {
			return nil
		}
	}
	if err := d.links.LinkSetHardwareAddr(bridge, bridge.Attrs().HardwareAddr); err != nil {
		return fmt.Errorf("bridge %s: pin address %s: %w", d.cfg.Bridge, bridge.Attrs().HardwareAddr, err)
	}
	return nil
}

// makeBridge makes the bridge, with a MAC that depends on the TAP's and its
// name alone. STP is off as the kernel has it, so ports forward at once.
func (d *Device) makeBridge() (netlink.Link, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = d.cfg.Bridge
	attrs.HardwareAddr = bridgeAddress(d.cfg.Address, d.cfg.Bridge)
	bridge := &netlink.Bridge{LinkAttrs: attrs}
	if err := d.links.LinkAdd(bridge); err != nil {
		return nil, fmt.Errorf("bridge %s: make it: %w", d.cfg.Bridge, err)
	}
	err := d.links.LinkSetAlias(bridge, bridgeAlias)
	if err == nil {
		err = d.links.LinkSetUp(bridge)
	}
	if err != nil {
		err = errors.Join(err, d.links.LinkDel(bridge))
		return nil, fmt.Errorf("bridge %s: set it up: %w", d.cfg.Bridge, err)
	}
	return d.links.LinkByName(d.cfg.Bridge)
}

// bridgeAddress returns the MAC of a bridge of ours. It begins with 02: so that
// no TAP is below it.
func bridgeAddress(tap net.HardwareAddr, name string) net.HardwareAddr {
	return hashedAddress(0x02, []byte("bridge"), tap, []byte(name))
}

// leave removes the bridge if we made it and nothing else uses it: no port, and
// no device on top of it such as a VLAN or macvlan.
func (d *Device) leave() error {
	bridge, err := d.lookUpBridge()
	if err != nil || bridge == nil || !isOurs(bridge) {
		return err
	}
	all, err := d.list()
	if err != nil {
		return err
	}
	index := bridge.Attrs().Index
	for _, link := range all {
		if a := link.Attrs(); a.MasterIndex == index || a.ParentIndex == index {
			return nil
		}
	}
	if err := d.links.LinkDel(bridge); err != nil {
		return fmt.Errorf("bridge %s: remove it: %w", d.cfg.Bridge, err)
	}
	return nil
}

// others returns the bridge's ports but for the TAP.
func (d *Device) others(bridge netlink.Link) ([]netlink.Link, error) {
	all, err := d.list()
	if err != nil {
		return nil, err
	}
	var ports []netlink.Link
	for _, link := range all {
		a := link.Attrs()
		if a.MasterIndex == bridge.Attrs().Index && a.Name != d.cfg.Name {
			ports = append(ports, link)
		}
	}
	return ports, nil
}

// list returns all links. A dump during which something changed may be
// incomplete and is taken again.
func (d *Device) list() (all []netlink.Link, err error) {
	const tries = 10
	for range tries {
		if all, err = d.links.LinkList(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("list network devices: %w", err)
	}
	return all, nil
}
