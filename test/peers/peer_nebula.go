// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"debug/buildinfo"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

const (
	nebulaModule = "github.com/slackhq/nebula"
	nebulaMTU    = 1440
)

// nebulaVersions are tried in this order: the newest may need a newer Go.
var nebulaVersions = []string{"latest", "v1.11.2", "v1.11.0", "v1.10.3"}

// nebula has VXLAN over it to bridge.
func nebula() *peer {
	p := &peer{name: "nebula-vxlan", title: "Nebula, AES, + VXLAN (hosts at MTU 1390)", mtu: nebulaMTU - 50}
	dir := ""
	p.install = func(ctx context.Context, b *bench) (version string, err error) {
		if dir, err = filepath.Abs(b.o.cache); err != nil {
			return "", err
		}
		if _, err := os.Stat(filepath.Join(dir, "nebula")); err != nil {
			var errs []error
			for _, version := range nebulaVersions {
				_, err := output(ctx, "", "env", "GOBIN="+dir, "CGO_ENABLED=0", b.o.goTool, "install",
					nebulaModule+"/cmd/nebula-cert@"+version, nebulaModule+"/cmd/nebula@"+version)
				if err == nil {
					errs = nil
					break
				}
				errs = append(errs, err)
			}
			if len(errs) > 0 {
				return "", errors.Join(errs...)
			}
		}
		info, err := buildinfo.ReadFile(filepath.Join(dir, "nebula"))
		if err != nil {
			return "", err
		}
		return info.Main.Version + " (" + info.GoVersion + ")", nil
	}
	p.prepare = func(r *rig) error {
		cert := func(args ...string) error {
			_, err := output(r.ctx, "", filepath.Join(dir, "nebula-cert"), args...)
			return err
		}
		ca := []string{filepath.Join(r.dir, "ca.crt"), filepath.Join(r.dir, "ca.key")}
		if err := cert("ca", "-name", "bench", "-out-crt", ca[0], "-out-key", ca[1]); err != nil {
			return err
		}
		for i, site := range []string{"a", "b"} {
			crt, key := filepath.Join(r.dir, site+".crt"), filepath.Join(r.dir, site+".key")
			if err := cert("sign", "-name", site, "-networks", fmt.Sprintf("10.98.0.%d/24", i+1),
				"-ca-crt", ca[0], "-ca-key", ca[1], "-out-crt", crt, "-out-key", key); err != nil {
				return err
			}
			if _, err := r.file(site+".yml", fmt.Sprintf(`pki: {ca: %s, cert: %s, key: %s}
static_host_map: {"10.98.0.1": ["%s:4242"], "10.98.0.2": ["%s:4242"]}
lighthouse: {am_lighthouse: false, hosts: []}
listen: {host: 0.0.0.0, port: 4242, read_buffer: 10485760, write_buffer: 10485760}
punchy: {punch: false}
cipher: aes
routines: 2
tun: {dev: nebula0, mtu: %d, tx_queue: 1000}
logging: {level: warning}
firewall:
  outbound: [{port: any, proto: any, host: any}]
  inbound: [{port: any, proto: any, host: any}]
`, ca[0], crt, key, wanAddrA, wanAddrB, nebulaMTU)); err != nil {
				return err
			}
		}
		return nil
	}
	p.start = func(r *rig) error {
		_, errA := r.daemon(r.gwA, filepath.Join(dir, "nebula"), "-config", filepath.Join(r.dir, "a.yml"))
		_, errB := r.daemon(r.gwB, filepath.Join(dir, "nebula"), "-config", filepath.Join(r.dir, "b.yml"))
		if err := errors.Join(errA, errB); err != nil {
			return err
		}
		if err := r.wait(10*time.Second, "nebula0", func() error {
			return errors.Join(r.ip(r.gwA, "link", "show", "nebula0"), r.ip(r.gwB, "link", "show", "nebula0"), r.alive())
		}); err != nil {
			return fmt.Errorf("%w; %s", err, r.said())
		}
		return r.addVXLAN("10.98.0.1", "10.98.0.2", "nebula0")
	}
	return p
}
