// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
)

// peer is a program that joins two LANs, and how it is set up.
type peer struct {
	name  string
	title string
	mtu   int      // of hosts behind it
	env   []string // of its daemons

	kernel   bool // has no daemons
	straight bool // does not cross the WAN
	plain    bool // does not encrypt: an upper bound, no rival
	layer3   bool // routes, does not bridge: for offload only
	long     bool // is measured on the long paths too

	install func(ctx context.Context, b *bench) (version string, err error) // once a run
	prepare func(r *rig) error                                              // before each start; nil: nothing
	start   func(r *rig) error                                              // both ends, at once
}

func inOffload(p *peer) bool {
	return isL2bridge(p.name) || strings.HasPrefix(p.name, "softether") || p.layer3
}

func onLongPaths(p *peer) bool { return p.long }

// peers in the order in which they are measured.
func allPeers() []*peer {
	return []*peer{
		l2bridge("l2bridge"),
		vxlan(),
		plainBridge(),
		softether("softether"),
		softether("softether-udp"),
		fastd("fastd", "fastd, encrypted", "salsa2012+umac"),
		fastd("fastd-null", "fastd, authenticated only", "null+salsa2012+umac"),
		openvpn(),
		tinc(),
		n2n(),
		wireguard("wireguard-vxlan"),
		nebula(),
		wireguard("wireguard"),
	}
}

func peerNames() []string {
	var names []string
	for _, p := range allPeers() {
		names = append(names, p.name)
	}
	return names
}

// findPeer returns a program by its name: also l2bridge-b and so on, which are
// further builds of l2bridge.
func findPeer(name string) *peer {
	for _, p := range allPeers() {
		if p.name == name {
			return p
		}
	}
	if isL2bridge(name) {
		return l2bridge(name)
	}
	return nil
}

func isPeer(name string) bool { return findPeer(name) != nil }

func isL2bridge(name string) bool {
	return name == "l2bridge" || strings.HasPrefix(name, "l2bridge-")
}

// vxlan is the kernel's, without encryption.
func vxlan() *peer {
	return &peer{
		name: "vxlan", title: "kernel VXLAN, no encryption (hosts at MTU 1450)", mtu: 1450, kernel: true, plain: true, long: true,
		install: kernelVersion,
		prepare: func(r *rig) error { return r.addVXLAN(wanAddrA, wanAddrB, "wan0") },
	}
}

// addVXLAN puts a VXLAN device between two addresses into each bridge.
func (r *rig) addVXLAN(a, b, link string) error {
	for _, end := range [][3]string{{r.gwA, a, b}, {r.gwB, b, a}} {
		if err := r.ip(end[0], "link", "add", "vx0", "type", "vxlan", "id", "7", "local", end[1], "remote", end[2],
			"dstport", "4789", "dev", link); err != nil {
			return err
		}
		if err := r.ip(end[0], "link", "set", "vx0", "master", "br0", "up"); err != nil {
			return err
		}
	}
	return nil
}

// plainBridge is a cable between the two bridges, offloads and all.
func plainBridge() *peer {
	return &peer{
		name: "bridge", title: "plain bridge", mtu: 1500, kernel: true, straight: true, plain: true,
		install: kernelVersion,
		prepare: func(r *rig) error {
			if err := r.veth(r.gwA, "cable", r.gwB, "cable"); err != nil {
				return err
			}
			for _, gw := range []string{r.gwA, r.gwB} {
				if err := r.ip(gw, "link", "set", "cable", "master", "br0"); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func kernelVersion(context.Context, *bench) (string, error) {
	text, err := os.ReadFile("/proc/sys/kernel/osrelease")
	return "Linux " + strings.TrimSpace(string(text)), err
}

// addTAPs makes a TAP device in each bridge, to be opened by the daemons.
func (r *rig) addTAPs(name string) error {
	for _, gw := range []string{r.gwA, r.gwB} {
		if err := r.ip(gw, "tuntap", "add", name, "mode", "tap"); err != nil {
			return err
		}
		if err := r.ip(gw, "link", "set", name, "mtu", "1500", "master", "br0", "up"); err != nil {
			return err
		}
	}
	return nil
}

// file writes a file of the rig's and returns its path.
func (r *rig) file(name, text string) (string, error) {
	path := filepath.Join(r.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", err
	}
	return path, os.WriteFile(path, []byte(text), 0o600)
}
