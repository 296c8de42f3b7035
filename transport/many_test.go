// SPDX-License-Identifier: Apache-2.0

package transport_test

import (
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/l2bridge/l2bridge/transport"
)

// A hub with a hundred peers, that reach each other by way of it alone, keeps less
// than 2 MB for each; what is measured holds both ends, and the network. All
// are there soon, and are back soon when it was killed.
func TestHundredPeers(t *testing.T) {
	if testing.Short() || raceEnabled {
		t.Skip("memory is not what it is without the race detector")
	}
	const count = 100
	names := []string{"hub"}
	for i := range count {
		names = append(names, fmt.Sprintf("site-%d", i))
	}
	ms := members(t, names...)
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapInuse + m.StackInuse
	}
	// The sites reach each other by way of the hub alone.
	onlyHub := func(c *transport.Config) {
		c.Through = func(a netip.Addr) bool { return a.String() != homeAddr }
	}
	synctest.Test(t, func(t *testing.T) {
		before := heap()
		w := newWorld()
		hub := w.run(t, ms[0], homeAddr, nil)
		var sites []*node
		for i, m := range ms[1:] {
			sites = append(sites, w.run(t, m, fmt.Sprintf("192.0.2.%d", 100+i), []string{homePort}, onlyHub))
		}
		took := until(t, "all up", 30*time.Second, func() bool { return hub.Up() == count })
		more := until(t, "all relayed", 30*time.Second, func() bool {
			return !slices.ContainsFunc(sites, func(s *node) bool { return s.Up() != count })
		})
		t.Logf("and to each other after %v more", more)
		for i, s := range sites {
			hub.send(s.member.Site, numbered(i, 1514))
			s.send("hub", numbered(i, 1514))
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		held := heap() - before
		t.Logf("%d peers up within %v of fake time; %d MB for both ends and the network", count, took, held>>20)
		// A session, at both ends, and at each site the others, which are relayed.
		if most := uint64(count*2<<20 + count*count*32<<10); held > most {
			t.Errorf("%d MB, want at most %d", held>>20, most>>20)
		}
		hub.kill()
		time.Sleep(10 * time.Second)
		hub = w.run(t, ms[0], homeAddr, nil)
		took = until(t, "all back", 10*time.Second, func() bool { return hub.Up() == count })
		t.Logf("the hub was killed and started: all back after %v", took)
		for _, s := range sites {
			s.stop()
		}
		hub.stop()
	})
}
