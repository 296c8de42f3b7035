// SPDX-License-Identifier: Apache-2.0

package transport_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

// On machines of which one or another is too busy to answer for a moment all frames
// arrive all the same, once each; between two that only others relay for, too.
func TestBusyMachines(t *testing.T) {
	t.Parallel()
	ms := members(t, "home", "a", "b", "c", "d")
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64() >> 1
	}
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.latency = time.Millisecond
		w.busy = make(map[netip.Addr]time.Time)
		var nodes []*node
		var addrs []netip.Addr
		for i, m := range ms {
			addr := fmt.Sprintf("192.0.2.%d", 1+i)
			addrs = append(addrs, netip.MustParseAddr(addr))
			var peers []string
			if i > 0 {
				peers = []string{homePort}
			}
			nodes = append(nodes, w.run(t, m, addr, peers, known(addr)))
		}
		w.set(func() {
			w.cut = func(a, b netip.Addr) bool { return a == addrs[2] && b == addrs[4] || a == addrs[4] && b == addrs[2] }
		})
		until(t, "mesh", 5*time.Second, func() bool {
			for _, n := range nodes {
				if n.Up() != len(ms)-1 {
					return false
				}
			}
			return true
		})
		time.Sleep(10 * time.Second)
		f := &traffic{t: t}
		for _, n := range nodes {
			f.at(n)
		}
		long := 25 * time.Second
		if raceEnabled {
			long = 10 * time.Second
		}
		began := time.Now()
		var next time.Time
		for time.Since(began) < long {
			if now := time.Now(); now.After(next) {
				who := addrs[rng.IntN(len(addrs))]
				lasts := time.Duration(rng.Int64N(int64(3 * time.Second)))
				w.set(func() { w.busy[who] = now.Add(lasts) })
				next = now.Add(lasts + time.Second + time.Duration(rng.Int64N(int64(2*time.Second))))
			}
			for _, from := range nodes {
				for _, to := range ms {
					if to != from.member {
						f.send(from, to.Site, 100)
					}
				}
			}
			time.Sleep(50 * time.Millisecond)
		}
		time.Sleep(4 * time.Second)
		if lost := f.lost(began); len(lost) > 0 {
			t.Errorf("%d of %d frames are lost: %v", len(lost), len(f.sent), lost[:min(8, len(lost))])
			for _, n := range nodes {
				t.Logf("%s drops %v, attached %d times", n.member.Site, n.Drops(), n.attaches())
			}
		}
	})
}
