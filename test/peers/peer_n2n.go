// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"errors"
)

// n2n, with its supernode in the router. Debian has 1.3, which encrypts with
// Twofish, and which sends directly only what is for an edge's own address: what
// it bridges goes by the supernode, which counts as one of its daemons.
func n2n() *peer {
	p := &peer{name: "n2n", title: "n2n, Twofish, by its supernode", mtu: 1500}
	var root unpacked
	p.install = func(ctx context.Context, b *bench) (version string, err error) {
		root, err = b.debian(ctx, "n2n")
		p.env = root.env()
		return root.version, err
	}
	p.prepare = func(r *rig) error {
		if _, err := r.daemon(r.router, root.program("usr/bin/supernode"), "-l", "7654"); err != nil {
			return err
		}
		return r.addTAPs("tap0")
	}
	p.start = func(r *rig) error {
		edge := func(ns, addr, mac string) error {
			// -r: also what is not of or for the edge itself.
			_, err := r.daemon(ns, root.program("usr/sbin/edge"), "-d", "tap0", "-a", addr, "-m", mac, "-c", "bench", "-k", "bench",
				"-l", routerA+":7654", "-M", "1500", "-r")
			return err
		}
		return errors.Join(edge(r.gwA, "10.97.0.1", "02:97:00:00:00:01"), edge(r.gwB, "10.97.0.2", "02:97:00:00:00:02"))
	}
	return p
}
