// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const softetherTAP = "tap_soft" // what it makes of the name "soft"

// softether is a VPN Bridge at site A that cascades to a VPN Server at site B,
// each with a TAP device. Encrypted, not compressed, over eight TCP connections
// as it has by default. "softether-udp" also has what it calls UDP acceleration,
// which is on by default too: here a little faster with one stream, and slower
// with four.
func softether(name string) *peer {
	p := &peer{name: name, title: "SoftEther, cascade over TLS", mtu: 1500}
	acceleration := "bool NoUdpAcceleration true"
	if name == "softether-udp" {
		p.title, acceleration = "SoftEther, cascade with UDP acceleration", "bool NoUdpAcceleration false"
	}
	var root unpacked
	configured := false
	p.install = func(ctx context.Context, b *bench) (version string, err error) {
		root, err = b.debian(ctx, "softether-vpnserver", "softether-vpnbridge", "softether-vpncmd")
		return root.version, err
	}
	program := func(name string) string { return root.program("usr/libexec/softether/" + name + "/" + name) }
	// Debian's keeps its files in fixed places. In the mounts of its own that
	// "ip netns exec" gives it, these are empty but for its site's settings.
	run := func(r *rig, ns, name string) error {
		state := filepath.Join(filepath.Dir(r.dir), p.name+"-"+name)
		if err := os.MkdirAll(state, 0o700); err != nil {
			return err
		}
		_, err := r.daemon(ns, "sh", "-c", `for dir in /run /var/lib /var/log; do mount -t tmpfs tmpfs $dir && mkdir $dir/softether || exit; done
			mount --bind "$1" /var/lib/softether && mount --bind /dev/null /etc/resolv.conf && exec "$2" execsvc`, "sh", state, program(name))
		return err
	}
	// The bridge starts when the server listens. Were it to come first, by a few
	// milliseconds, it would try again after 14 s only.
	start := func(r *rig) error {
		if err := run(r, r.gwB, "vpnserver"); err != nil {
			return err
		}
		if err := r.listening(r.gwB, 5555); err != nil {
			return err
		}
		return run(r, r.gwA, "vpnbridge")
	}
	attach := func(r *rig) error {
		for _, gw := range []string{r.gwA, r.gwB} {
			if err := r.wait(15*time.Second, softetherTAP, func() error {
				return r.ip(gw, "link", "set", softetherTAP, "master", "br0", "up")
			}); err != nil {
				return fmt.Errorf("%w; %s", err, r.said())
			}
		}
		return nil
	}
	tell := func(r *rig, ns string, commands ...string) error {
		in, err := r.file("vpncmd.txt", strings.Join(commands, "\n")+"\n")
		if err != nil {
			return err
		}
		return r.wait(20*time.Second, "vpncmd", func() error {
			_, err := output(r.ctx, ns, program("vpncmd"), "127.0.0.1:5555", "/SERVER", "/IN:"+in)
			return err
		})
	}
	p.prepare = func(r *rig) error {
		if configured {
			return nil
		}
		if err := start(r); err != nil {
			return err
		}
		if err := tell(r, r.gwB,
			"KeepDisable",
			"Hub DEFAULT",
			"UserCreate a /GROUP:none /REALNAME:none /NOTE:none",
			"UserPasswordSet a /PASSWORD:bench",
			"BridgeCreate DEFAULT /DEVICE:soft /TAP:yes",
			"Flush"); err != nil {
			return err
		}
		if err := tell(r, r.gwA,
			"KeepDisable",
			"Hub BRIDGE",
			"CascadeCreate b /SERVER:"+wanAddrB+":5555 /HUB:DEFAULT /USERNAME:a",
			"CascadePasswordSet b /PASSWORD:bench /TYPE:standard",
			"CascadeDetailSet b /MAXTCP:8 /INTERVAL:1 /TTL:0 /HALF:no /BRIDGE:yes /MONITOR:no /NOTRACK:no /NOQOS:no",
			"CascadeEncryptEnable b",
			"CascadeCompressDisable b",
			"CascadeOnline b",
			"BridgeCreate BRIDGE /DEVICE:soft /TAP:yes",
			"Flush"); err != nil {
			return err
		}
		if err := attach(r); err != nil {
			return err
		}
		for _, d := range r.daemons {
			d.stop()
		}
		r.daemons = nil
		configured = true
		// What vpncmd cannot set: it shall ask no one on the Internet for its name
		// and address.
		for _, name := range []string{"vpnserver/vpn_server.config", "vpnbridge/vpn_bridge.config"} {
			path := filepath.Join(filepath.Dir(r.dir), p.name+"-"+name)
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			changed := strings.NewReplacer("bool Disabled false", "bool Disabled true",
				"bool DisableNatTraversal false", "bool DisableNatTraversal true",
				"bool UseKeepConnect true", "bool UseKeepConnect false",
				"bool DisableCoreDumpOnUnix false", "bool DisableCoreDumpOnUnix true",
				"bool NoUdpAcceleration false", acceleration).Replace(string(text))
			if err := os.WriteFile(path, []byte(changed), 0o600); err != nil {
				return err
			}
		}
		return nil
	}
	p.start = func(r *rig) error {
		return errors.Join(start(r), attach(r))
	}
	return p
}
