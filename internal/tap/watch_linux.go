// SPDX-License-Identifier: Apache-2.0

package tap

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// watchInterval is how often Watch looks without being told to: netlink drops
// messages when its buffer is full.
const watchInterval = 2 * time.Second

// Watch keeps the TAP in its place until ctx ends; then it returns nil. A TAP
// that was taken out of its bridge is put back, a bridge of ours that was
// deleted is made again, one that was not ours is waited for. An error says
// that the TAP was deleted or no longer fits its bridge: Close it and Open it
// again. Watch must be called in the network namespace of Open.
func (d *Device) Watch(ctx context.Context) error {
	events, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK)
	if err != nil {
		return fmt.Errorf("tap %s: watch network devices: %w", d.cfg.Name, err)
	}
	defer events.Close()
	timeout := unix.NsecToTimeval(watchInterval.Nanoseconds())
	if err := events.SetReceiveTimeout(&timeout); err != nil {
		return fmt.Errorf("tap %s: watch network devices: %w", d.cfg.Name, err)
	}
	defer context.AfterFunc(ctx, events.Close)()

	w := watcher{Device: d}
	for {
		if err := w.look(); err != nil {
			return err
		}
		// What happened does not matter, only that something did.
		_, _, err := events.Receive()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil && !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("tap %s: watch network devices: %w", d.cfg.Name, err)
		}
	}
}

// watcher is the state of Watch.
type watcher struct {
	*Device
	waiting bool // for a bridge that is not ours to come back
}

// look puts the TAP back in its place.
func (w *watcher) look() error {
	tap, err := w.links.LinkByIndex(w.index)
	if isNotFound(err) {
		return fmt.Errorf("tap %s: the device was deleted", w.cfg.Name)
	}
	if err != nil {
		return fmt.Errorf("tap %s: %w", w.cfg.Name, err)
	}
	if w.cfg.Bridge == "" {
		return nil
	}
	bridge, err := w.lookUpBridge()
	if err != nil {
		return err
	}
	if bridge == nil && !w.ours {
		if !w.waiting {
			w.cfg.Log.Warn("bridge was deleted, waiting for it", "port", w.cfg.Name, "bridge", w.cfg.Bridge)
		}
		w.waiting = true
		return nil
	}
	w.waiting = false
	if bridge != nil {
		w.ours = isOurs(bridge)
	}
	if bridge == nil || tap.Attrs().MasterIndex != bridge.Attrs().Index {
		if err := w.join(); err != nil {
			return err
		}
		w.cfg.Log.Warn("tap was taken out of its bridge, put back", "port", w.cfg.Name, "bridge", w.cfg.Bridge)
	}
	return nil
}

// Finding is one thing wrong around the TAP.
type Finding struct {
	Problem string // place, value and rule
	Remedy  string // the command that mends it; "" when it mends itself
}

// Check returns the names of the bridge's other ports, and what is wrong with
// the TAP and its bridge at the moment. It asks the kernel each time.
func (d *Device) Check() (ports []string, findings []Finding, err error) {
	report := func(remedy, format string, a ...any) {
		findings = append(findings, Finding{fmt.Sprintf(format, a...), remedy})
	}
	tap, err := d.links.LinkByIndex(d.index)
	if isNotFound(err) {
		report("", "tap %s: the device was deleted; it is made again within 5 s", d.cfg.Name)
		return nil, findings, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("tap %s: %w", d.cfg.Name, err)
	}
	if tap.Attrs().Flags&net.FlagUp == 0 {
		report("ip link set "+d.cfg.Name+" up", "tap %s: it is down; nothing passes", d.cfg.Name)
	}
	if mtu := tap.Attrs().MTU; mtu != d.mtu {
		report(fmt.Sprintf("ip link set %s mtu %d", d.cfg.Name, d.mtu),
			"tap %s: mtu %d, the tunnel's is %d; they must be the same", d.cfg.Name, mtu, d.mtu)
	}
	if d.cfg.Bridge == "" {
		return nil, findings, nil
	}

	bridge, err := d.lookUpBridge()
	if err != nil {
		return nil, nil, err
	}
	if bridge == nil {
		report("ip link add "+d.cfg.Bridge+" up type bridge", "bridge %s: it was deleted; nothing passes", d.cfg.Bridge)
		return nil, findings, nil
	}
	if tap.Attrs().MasterIndex != bridge.Attrs().Index {
		report("ip link set "+d.cfg.Name+" master "+d.cfg.Bridge, "tap %s: it is not a port of bridge %s; nothing passes", d.cfg.Name, d.cfg.Bridge)
	}
	if bridge.Attrs().Flags&net.FlagUp == 0 {
		report("ip link set "+d.cfg.Bridge+" up", "bridge %s: it is down; nothing passes", d.cfg.Bridge)
	}
	if mtu := bridge.Attrs().MTU; mtu != d.mtu {
		report(fmt.Sprintf("ip link set %s mtu %d", d.cfg.Bridge, d.mtu),
			"bridge %s: mtu %d, the tunnel's is %d; they must be the same", d.cfg.Bridge, mtu, d.mtu)
	}
	others, err := d.others(bridge)
	if err != nil {
		return nil, nil, err
	}
	if len(others) == 0 {
		report("ip link set NIC master "+d.cfg.Bridge+" (first move the NIC's addresses to "+d.cfg.Bridge+"; README, \"Put a NIC into the bridge\")", "bridge %s: the TAP is its only port; no LAN is bridged, only this host", d.cfg.Bridge)
	}
	for _, port := range others {
		ports = append(ports, port.Attrs().Name)
	}
	return ports, findings, nil
}
