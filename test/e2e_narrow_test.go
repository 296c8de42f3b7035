// SPDX-License-Identifier: Apache-2.0

//go:build linux

package test_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/l2bridge/l2bridge/test/lab"
)

// A path that becomes narrower under a session swallows full packets without a
// word. Full frames pass again all the same, and no process has ended.
func TestPathNarrows(t *testing.T) {
	t.Parallel()
	s, upA, upB := join(t, lab.Options{Hosts: 1, Narrow: 1500})
	a, b := s.A.Hosts[0], s.B.Hosts[0]
	full := func() error {
		_, err := a.Run("ping", "-n", "-c1", "-W1", "-M", "do", "-s", "1472", b.Addr4)
		return err
	}
	lab.Wait(t, recvWait, "a full frame passes", full)
	lab.Wait(t, outageWait, "the path has been measured", func() error {
		peers, err := s.A.Peers()
		if err != nil {
			return err
		}
		if len(peers) != 1 || peers[0].PathMTU <= 1400 {
			_ = full() // it is measured while frames flow
			return fmt.Errorf("peers %+v", peers)
		}
		return nil
	})

	for _, router := range s.WAN {
		router.Filter("output", "drop",
			"icmp type destination-unreachable icmp code frag-needed", "icmpv6 type packet-too-big")
		router.MustRun("ip", "link", "set", "dev", "middle", "mtu", "1280")
	}
	if err := full(); err == nil {
		t.Error("the path is not narrower")
	}
	const narrowWait = 20 * time.Second
	lab.Wait(t, narrowWait, "a full frame passes on the narrower path", full)
	alive(t, upA, upB)
	for range 5 {
		if err := full(); err != nil {
			t.Errorf("after that a full frame is lost again: %v", err)
		}
	}
}
