// SPDX-License-Identifier: Apache-2.0

package transport_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/l2bridge/l2bridge/transport"
)

// A site that goes on as another member is met as that one, by all, and within a
// second; the one that it was is down.
func TestBecome(t *testing.T) {
	ms := members(t, "home", "office", "attic", "cabin")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		home := w.run(t, ms[0], homeAddr, nil)
		// Known by what it has learned only, not by name.
		cabin := w.run(t, ms[3], "192.0.2.4", []string{homePort}, func(c *transport.Config) {
			c.Addresses = func() []string { return []string{"192.0.2.4:4433"} }
		})
		office := w.run(t, ms[1], officeAddr, []string{homePort})
		for _, n := range []*node{home, cabin} {
			until(t, "up", 10*time.Second, connected(n, office))
		}
		for range 3 {
			for _, next := range []int{2, 1} {
				office.Become(ms[next])
				office.member = ms[next]
				for _, n := range []*node{home, cabin} {
					until(t, "up as another", time.Second, connected(n, office))
				}
				exchange(t, home, office, 10)
				exchange(t, office, cabin, 10)
				for _, p := range home.Peers() {
					if want := p.Site == "cabin" || p.ID == ms[next].ID; (p.State == "up") != want {
						t.Errorf("peer %s is %s", p.Site, p.State)
					}
				}
			}
		}
	})
}

// It may be so before it runs, and while it stops.
func TestBecomeAtTheEdges(t *testing.T) {
	ms := members(t, "home", "office", "attic")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		home := w.run(t, ms[0], homeAddr, nil)
		office := w.run(t, ms[1], officeAddr, []string{homePort})
		office.Become(ms[2])
		office.member = ms[2]
		until(t, "up", 2*time.Second, connected(home, office))
		office.Become(ms[1])
		office.stop()
		office.Become(ms[2])
		home.stop()
	})
}
