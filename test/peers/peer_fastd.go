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
)

// fastd with a method of protection: "null" of "null+salsa2012+umac" means that
// packets are authenticated and not encrypted.
func fastd(name, title, method string) *peer {
	p := &peer{name: name, title: title, mtu: 1500}
	var root unpacked
	var secrets, publics [2]string
	p.install = func(ctx context.Context, b *bench) (version string, err error) {
		if root, err = b.debian(ctx, "fastd"); err != nil {
			return "", err
		}
		p.env = root.env()
		run := func(args ...string) (string, error) {
			return output(ctx, "", "env", append([]string{p.env[0], root.program("usr/bin/fastd")}, args...)...)
		}
		for i := range secrets {
			text, err := run("--machine-readable", "--generate-key")
			if err != nil {
				return "", err
			}
			secrets[i] = strings.TrimSpace(text)
			conf := filepath.Join(b.dir, "fastd.conf")
			if err := os.WriteFile(conf, []byte("secret \""+secrets[i]+"\";\n"), 0o600); err != nil {
				return "", err
			}
			if text, err = run("--machine-readable", "--config", conf, "--show-key"); err != nil {
				return "", err
			}
			publics[i] = strings.TrimSpace(text)
		}
		text, err := run("--version")
		return strings.TrimPrefix(firstLine(text), "fastd "), err
	}
	p.prepare = func(r *rig) error {
		for i, site := range []string{"a", "b"} {
			own, other := wanAddrA, wanAddrB
			if i == 1 {
				own, other = other, own
			}
			if _, err := r.file("fastd-"+site+".conf", fmt.Sprintf(`log level warn;
bind %s:10000;
mode tap;
interface "tap0";
mtu 1500;
secret "%s";
method "%s";
peer "other" { key "%s"; remote %s:10000; }
`, own, secrets[i], method, publics[1-i], other)); err != nil {
				return err
			}
		}
		return r.addTAPs("tap0")
	}
	p.start = func(r *rig) error {
		_, errA := r.daemon(r.gwA, root.program("usr/bin/fastd"), "--config", r.dir+"/fastd-a.conf")
		_, errB := r.daemon(r.gwB, root.program("usr/bin/fastd"), "--config", r.dir+"/fastd-b.conf")
		return errors.Join(errA, errB)
	}
	return p
}
