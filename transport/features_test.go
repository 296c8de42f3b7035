// SPDX-License-Identifier: Apache-2.0

package transport_test

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/l2bridge/l2bridge/internal/frame"
	"github.com/l2bridge/l2bridge/transport"
	"github.com/l2bridge/l2bridge/transport/wire"
)

// A site knows what each connected peer takes, also after the peer's TAP has
// changed, and nothing of one that has gone.
func TestFeaturesOfPeers(t *testing.T) {
	ms := members(t, "home", "office")
	synctest.Test(t, func(t *testing.T) {
		const all, few = wire.FeatureCsum | wire.FeatureTSO | wire.FeatureUSO, wire.FeatureCsum | wire.FeatureTSO
		w := newWorld()
		home := w.run(t, ms[0], homeAddr, nil)
		office := w.run(t, ms[1], officeAddr, []string{homePort}, func(c *transport.Config) { c.Features = 0 })
		takes := func(at *node, want wire.Features) func() bool {
			return func() bool {
				other := ms[0].ID
				if at == home {
					other = ms[1].ID
				}
				all := at.Peers()
				return len(all) == 1 && all[0].State == "up" && all[0].ID == other && all[0].Takes == want
			}
		}
		until(t, "home knows that office takes nothing", 5*time.Second, takes(home, 0))
		until(t, "office knows what home takes", 5*time.Second, takes(office, all))
		office.SetLAN(1500, few)
		until(t, "home knows what office takes now", 5*time.Second, takes(home, few))
		office.stop()
		until(t, "home has no peer", 10*time.Second, func() bool {
			all := home.Peers()
			return len(all) == 1 && all[0].State == "down" && all[0].Takes == 0
		})
	})
}

// A superframe whose segments are too long for the peer's LAN is dropped by itself,
// whether the peer takes superframes or not: what is sent with it arrives.
func TestUnfitSuperframe(t *testing.T) {
	ms := members(t, "home", "office")
	for _, takes := range []wire.Features{0, wire.FeatureCsum | wire.FeatureTSO | wire.FeatureUSO} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			home := w.run(t, ms[0], homeAddr, nil)
			office := w.run(t, ms[1], officeAddr, []string{homePort}, func(c *transport.Config) { c.Features = takes })
			until(t, "up", 5*time.Second, connected(home, office))
			var batch []*frame.Buf
			for i := range 5 {
				b := numbered(i, 100)
				if i%2 == 1 {
					b.Release()
					b = superframe(i, 8)
					h := b.Header()
					h.GSOSize = 15000 // of a LAN whose frames are longer than any that we know
					b.SetHeader(h)
				}
				batch = append(batch, b)
			}
			home.peer("office").Send(batch)
			for _, b := range batch {
				b.Release()
			}
			time.Sleep(time.Second)
			synctest.Wait()
			if got := office.received(); len(got) != 3 {
				t.Errorf("%d frames of 3 came", len(got))
			}
			if n := dropped(office, "mtu_peer"); n != 2 {
				t.Errorf("%d superframes were counted, want 2", n)
			}
		})
	}
}

// What this site cannot cut for a peer is no fault of the peer, which has sent nothing.
func TestUncutIsNobodysFault(t *testing.T) {
	ms := members(t, "home", "office")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		home := w.run(t, ms[0], homeAddr, nil)
		office := w.run(t, ms[1], officeAddr, []string{homePort}, func(c *transport.Config) { c.Features = 0 })
		until(t, "up", 5*time.Second, connected(home, office))
		const times, each = 4, 150 // more than a peer may have wrong, until it is cut off
		bad := superframe(1, 3)
		h := bad.Header()
		h.CsumStart = 60000
		bad.SetHeader(h)
		port := home.peer("office")
		for range times {
			port.Send(slices.Repeat([]*frame.Buf{bad}, each))
			time.Sleep(time.Second)
		}
		bad.Release()
		if lines := append(home.log.lines("breaks the protocol"), home.log.lines("cut off")...); len(lines) > 0 {
			t.Errorf("office is blamed: %q", lines)
		}
		if n := dropped(home, "peer_offload"); n != times*each {
			t.Errorf("%d counted, want %d", n, times*each)
		}
	})
}
