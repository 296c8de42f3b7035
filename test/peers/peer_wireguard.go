// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"debug/buildinfo"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const (
	wireguardModule = "golang.zx2c4.com/wireguard"
	wireguardMTU    = 1420 // its default
	wireguardWait   = 10 * time.Second
)

// wireguard is wireguard-go, built of its newest module, with VXLAN over it to
// bridge; or, alone, routing between the hosts.
func wireguard(name string) *peer {
	p := &peer{name: name, title: "wireguard-go + VXLAN (hosts at MTU 1370)", mtu: wireguardMTU - 50}
	if name == "wireguard" {
		p.title, p.mtu, p.layer3 = "wireguard-go alone, routed (hosts at MTU 1420)", wireguardMTU, true
	}
	binary := ""
	var keys [2]*ecdh.PrivateKey
	p.install = func(ctx context.Context, b *bench) (string, error) {
		dir, err := filepath.Abs(b.o.cache)
		if err != nil {
			return "", err
		}
		binary = filepath.Join(dir, "wireguard")
		for i := range keys {
			if keys[i], err = ecdh.X25519().GenerateKey(rand.Reader); err != nil {
				return "", err
			}
		}
		if _, err := os.Stat(binary); err != nil {
			if _, err := output(ctx, "", "env", "GOBIN="+dir, "CGO_ENABLED=0", b.o.goTool, "install", wireguardModule+"@latest"); err != nil {
				return "", err
			}
		}
		info, err := buildinfo.ReadFile(binary)
		if err != nil {
			return "", err
		}
		return info.Main.Version + " (" + info.GoVersion + ")", nil
	}
	p.start = func(r *rig) error {
		for _, gw := range []string{r.gwA, r.gwB} {
			// Its control socket is in the /run of its own mounts.
			if _, err := r.daemon(gw, "sh", "-c", `mount -t tmpfs tmpfs /run && exec "$1" --foreground wg0`, "sh", binary); err != nil {
				return err
			}
		}
		n := len(r.daemons)
		for i, end := range []struct{ ns, addr, other, remote string }{
			{r.gwA, "10.98.0.1/24", "10.98.0.2", wanAddrB}, {r.gwB, "10.98.0.2/24", "10.98.0.1", wanAddrA},
		} {
			var text bytes.Buffer
			fmt.Fprintf(&text, "set=1\nprivate_key=%s\nlisten_port=51820\npublic_key=%s\nendpoint=%s:51820\n",
				hex.EncodeToString(keys[i].Bytes()), hex.EncodeToString(keys[1-i].PublicKey().Bytes()), end.remote)
			fmt.Fprintf(&text, "allowed_ip=0.0.0.0/0\n\n")
			socket := fmt.Sprintf("/proc/%d/root/run/wireguard/wg0.sock", r.daemons[n-2+i].cmd.Process.Pid)
			if err := r.wait(wireguardWait, "wireguard-go's socket", func() error { return tellWireGuard(socket, text.Bytes()) }); err != nil {
				return err
			}
			if err := errors.Join(
				r.ip(end.ns, "addr", "add", end.addr, "dev", "wg0"),
				r.ip(end.ns, "link", "set", "wg0", "up"),
			); err != nil {
				return err
			}
		}
		if !p.layer3 {
			return r.addVXLAN("10.98.0.1", "10.98.0.2", "wg0")
		}
		// The hosts think that they are on one LAN: the gateways answer for what is
		// behind the other.
		for _, end := range [][3]string{{r.gwA, hostAddrA, hostAddrB}, {r.gwB, hostAddrB, hostAddrA}} {
			if err := errors.Join(
				r.sysctl(end[0], "net/ipv4/ip_forward", "1"),
				r.sysctl(end[0], "net/ipv4/conf/br0/proxy_arp", "1"),
				r.sysctl(end[0], "net/ipv4/neigh/br0/proxy_delay", "0"),
				r.ip(end[0], "route", "add", end[1]+"/32", "dev", "br0"),
				r.ip(end[0], "route", "add", end[2]+"/32", "dev", "wg0"),
			); err != nil {
				return err
			}
		}
		return nil
	}
	return p
}

// tellWireGuard speaks WireGuard's cross-platform configuration protocol.
func tellWireGuard(socket string, text []byte) error {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(wireguardWait))
	if _, err := conn.Write(text); err != nil {
		return err
	}
	answer := make([]byte, 256)
	n, err := conn.Read(answer)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if got := strings.TrimSpace(string(answer[:n])); got != "errno=0" {
		return fmt.Errorf("wireguard-go says %q", got)
	}
	return nil
}
