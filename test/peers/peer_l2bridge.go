// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const enrolLimit = 15 * time.Second

// l2bridge is a build of l2bridge. The environment says which, and how it is
// run: L2BRIDGE, L2BRIDGE_FLAGS and L2BRIDGE_ENV for "l2bridge"; L2BRIDGE_B and
// so on for "l2bridge-b", where what is not set is as for the first.
func l2bridge(name string) *peer {
	variable := strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
	setting := func(suffix string) string {
		if value, ok := os.LookupEnv(variable + suffix); ok {
			return value
		}
		return os.Getenv("L2BRIDGE" + suffix)
	}
	binary := setting("")
	if binary == "" {
		binary = "bin/l2bridge"
	}
	binary, absErr := filepath.Abs(binary)
	flags := strings.Fields(setting("_FLAGS"))
	enrolled := ""
	p := &peer{name: name, title: "l2bridge", mtu: 1500, long: true, env: strings.Fields(setting("_ENV"))}
	if name != "l2bridge" {
		p.title = name
	}
	if len(flags) > 0 {
		p.title += " " + strings.Join(flags, " ")
	}
	if len(p.env) > 0 {
		p.title += " (" + strings.Join(p.env, " ") + ")"
	}
	p.install = func(ctx context.Context, _ *bench) (string, error) {
		if absErr != nil {
			return "", absErr
		}
		text, err := output(ctx, "", binary, "version")
		if err != nil {
			return "", err
		}
		// A build of a changed tree names a version that others have too.
		program, err := os.ReadFile(binary)
		return fmt.Sprintf("%s, sha256 %.8x", strings.TrimPrefix(firstLine(text), "l2bridge "), sha256.Sum256(program)), err
	}
	// A site's own files, in the directory of the whole run: enrolled once.
	paths := func(r *rig, site string) []string {
		dir := filepath.Join(filepath.Dir(r.dir), name+"-"+site)
		return []string{"--config", filepath.Join(dir, "config.toml"), "--state-dir", filepath.Join(dir, "state"), "--socket", filepath.Join(dir, "sock")}
	}
	cli := func(r *rig, ns, site string, args ...string) (string, error) {
		return output(r.ctx, ns, binary, append(args, paths(r, site)...)...)
	}
	up := func(r *rig, extra []string) error {
		_, errA := r.daemon(r.gwA, binary, append(append([]string{"up"}, extra...), paths(r, "a")...)...)
		_, errB := r.daemon(r.gwB, binary, append(append([]string{"up"}, extra...), paths(r, "b")...)...)
		return errors.Join(errA, errB)
	}
	p.prepare = func(r *rig) error {
		if enrolled == r.peer.name {
			return nil
		}
		for _, site := range []string{"a", "b"} {
			if err := os.MkdirAll(filepath.Join(filepath.Dir(r.dir), name+"-"+site), 0o700); err != nil {
				return err
			}
		}
		if _, err := cli(r, r.gwA, "a", "init", "--site", "a", "--advertise", wanAddrA+":4433"); err != nil {
			return err
		}
		a, err := r.daemon(r.gwA, binary, append([]string{"up"}, paths(r, "a")...)...)
		if err != nil {
			return err
		}
		token := ""
		if err := r.wait(enrolLimit, "a token", func() error {
			if err := a.running(); err != nil {
				return err
			}
			token, err = cli(r, r.gwA, "a", "invite", "b")
			return err
		}); err != nil {
			return err
		}
		b, err := r.daemon(r.gwB, binary, append([]string{"join", strings.TrimSpace(token), "--site", "b"}, paths(r, "b")...)...)
		if err != nil {
			return err
		}
		if err := r.wait(enrolLimit, "both sites", func() error {
			if err := b.running(); err != nil {
				return err
			}
			_, errA := cli(r, r.gwA, "a", "status", "--check")
			_, errB := cli(r, r.gwB, "b", "status", "--check")
			return errors.Join(errA, errB)
		}); err != nil {
			return fmt.Errorf("%w; %s", err, r.said())
		}
		a.stop()
		b.stop()
		r.daemons = nil
		enrolled = r.peer.name
		return nil
	}
	p.start = func(r *rig) error {
		extra := flags
		if r.wan.name == shapedWAN.name && !strings.Contains(strings.Join(flags, " "), "--rate") {
			extra = append(append([]string{}, flags...), "--rate", "19m")
		}
		return up(r, extra)
	}
	return p
}
