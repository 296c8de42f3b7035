// SPDX-License-Identifier: Apache-2.0

package transport_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/l2bridge/l2bridge/transport/identity"
	"github.com/l2bridge/l2bridge/transport/wire"
)

// Whenever the way between two sites changes, from a relay to a direct one and back,
// to another relay, or to a session made anew, and whatever the paths do to packets
// meanwhile: no frame comes twice, nor to or from somebody else.
func TestWaysChange(t *testing.T) {
	t.Parallel()
	ms := members(t, "home", "vps", "office", "cabin")
	runs := *runsFlag
	if raceEnabled {
		runs = 1
	}
	for range runs {
		seed := *seedFlag
		if seed == 0 {
			seed = rand.Uint64() >> 1
		}
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { changeWays(t, ms, seed) })
		})
	}
}

func changeWays(t *testing.T, ms []*identity.Member, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 0))
	between := func(from, to time.Duration) time.Duration { return from + time.Duration(rng.Int64N(int64(to-from))) }
	w := newWorld()
	w.rng = rand.New(rand.NewPCG(seed, 1))
	w.latency = between(0, 25*time.Millisecond)
	if rng.IntN(2) == 0 {
		w.reorder = 2 + rng.IntN(20)
	}
	f := &traffic{t: t}
	var sites []*node
	var addrs []netip.Addr
	for i, m := range ms {
		addr := fmt.Sprintf("192.0.2.%d", 1+i)
		addrs = append(addrs, netip.MustParseAddr(addr))
		n := w.run(t, m, addr, []string{homePort}, known(addr))
		f.at(n)
		sites = append(sites, n)
	}
	until(t, "mesh", 5*time.Second, func() bool {
		for _, n := range sites {
			if n.Up() != len(ms)-1 {
				return false
			}
		}
		return true
	})
	office, cabin := sites[2], sites[3]
	for range 6 {
		apart := map[[2]netip.Addr]bool{}
		for range rng.IntN(3) {
			pair := [][2]int{{2, 3}, {2, 3}, {3, 2}, {0, 2}, {1, 3}, {0, 3}}[rng.IntN(6)]
			apart[[2]netip.Addr{addrs[pair[0]], addrs[pair[1]]}] = true
			if rng.IntN(3) > 0 {
				apart[[2]netip.Addr{addrs[pair[1]], addrs[pair[0]]}] = true
			}
		}
		loss := max(0, rng.Float64()*0.1-0.05) // often none
		w.set(func() {
			w.cut = func(from, to netip.Addr) bool { return apart[[2]netip.Addr{from, to}] }
			w.loss = loss
		})
		switch n := sites[rng.IntN(len(sites))]; rng.IntN(4) {
		case 0:
			n.Moved()
		case 1:
			n.SetLAN(1500+rng.IntN(2), wire.FeatureCsum|wire.FeatureTSO|wire.FeatureUSO)
		}
		for end := time.Now().Add(between(50*time.Millisecond, 2*time.Second)); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
			f.send(office, "cabin", 60+rng.IntN(1400))
			f.send(cabin, "office", 60+rng.IntN(1400))
		}
	}
	time.Sleep(2 * time.Second)
	synctest.Wait()
	if lost := f.lost(time.Time{}); len(lost) == len(f.sent) {
		t.Error("no frame came")
	}
}
