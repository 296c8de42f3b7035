// SPDX-License-Identifier: Apache-2.0

package transport_test

import (
	"fmt"
	"runtime"
	"testing"
	"testing/synctest"
	"time"
)

// A hub with a hundred peers that have exchanged frames and are idle keeps less
// than a megabyte for each; what is measured holds both ends, and the network.
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
	synctest.Test(t, func(t *testing.T) {
		before := heap()
		w := newWorld()
		hub := w.run(t, ms[0], homeAddr, nil)
		var sites []*node
		for i, m := range ms[1:] {
			sites = append(sites, w.run(t, m, fmt.Sprintf("192.0.2.%d", 100+i), []string{homePort}))
		}
		took := until(t, "all up", 30*time.Second, func() bool { return hub.Up() == count })
		for i, s := range sites {
			hub.send(s.member.Site, numbered(i, 1514))
			s.send("hub", numbered(i, 1514))
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		each := (heap() - before) / count
		t.Logf("%d peers up within %v of fake time; %d kB for each, both ends and the network", count, took, each>>10)
		if each > 2<<20 {
			t.Errorf("%d kB for each peer", each>>10)
		}
		for _, s := range sites {
			s.stop()
		}
		hub.stop()
	})
}
