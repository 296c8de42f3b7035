// SPDX-License-Identifier: Apache-2.0

package bridge_test

import (
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"github.com/l2bridge/l2bridge/bridge"
	"github.com/l2bridge/l2bridge/internal/frame"
)

// Ever new stations are made up behind a port, a peer's or the LAN's, and speak to
// one that is known. Traffic between those that were there before goes where it
// always did and nowhere else, and of what has no room a few frames pass.
func TestStationsBeyondShare(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const made, share, passes = 200_000, 1 << 10, 10_000
		s := newSite(t, bridge.Config{})
		s.local.input(hello(here))
		s.a.input(hello(a1))
		s.b.input(hello(b1))
		sent := make(map[string]int)
		for _, p := range []*port{s.local, s.a, s.b, s.c} {
			p.onSend = func(frames []*frame.Buf) { sent[p.name] += len(frames) }
		}
		known := func() {
			t.Helper()
			clear(sent)
			for range 1000 {
				s.local.input(between(here, a1))
				s.a.input(between(a1, here))
			}
			if diff := cmp.Diff(map[string]int{"local": 1000, "site-a": 1000}, sent); diff != "" {
				t.Errorf("between those that are known (-want +got):\n%s", diff)
			}
		}
		for _, flooder := range []struct {
			*port
			to   uint32
			want map[string]int // and nowhere else
		}{
			{s.b, here, map[string]int{"local": share - 1 + passes}},
			{s.local, a1, map[string]int{"site-a": share - 1 + passes}},
		} {
			clear(sent)
			b := frame.New(between(1<<30, flooder.to))
			for i := range made {
				copy(b.Bytes()[8:12], mac(uint32(1<<30 + i))[2:])
				flooder.deliver([]*frame.Buf{b})
			}
			b.Release()
			if diff := cmp.Diff(flooder.want, sent); diff != "" {
				t.Errorf("flood by %s (-want +got):\n%s", flooder, diff)
			}
			if n := s.Count(flooder.name); n != share {
				t.Errorf("%d stations behind %s, want %d", n, flooder, share)
			}
			known()
		}
		want := []bridge.Drop{
			{Reason: "storm", Port: "local", Count: made - share + 1 - passes},
			{Reason: "storm", Port: "site-b", Count: made - share + 1 - passes},
		}
		if diff := cmp.Diff(want, s.Drops()); diff != "" {
			t.Errorf("drops (-want +got):\n%s", diff)
		}
	})
}
