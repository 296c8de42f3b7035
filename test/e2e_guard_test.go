// SPDX-License-Identifier: Apache-2.0

//go:build linux

package test_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/l2bridge/l2bridge/test/lab"
)

// What the documents promise of broadcast that comes in by one port.
const (
	stormRate  = 500
	stormBurst = 1000
)

// hinted waits until the site's status has a hint that begins like that.
func hinted(t *testing.T, site *lab.Site, limit time.Duration, begin string) {
	t.Helper()
	lab.Wait(t, limit, fmt.Sprintf("site %s hints %q", site.Name, begin), func() error {
		st, err := site.Status()
		if err == nil && !slices.ContainsFunc(st.Hints, func(h string) bool { return strings.HasPrefix(h, begin) }) {
			err = fmt.Errorf("hints %q", st.Hints)
		}
		return err
	})
}

// A storm on one LAN is a trickle on the other, is counted and told of, and does
// not stop what two known hosts say to each other.
func TestStormIsCapped(t *testing.T) {
	s, upA, upB := join(t, lab.Options{Hosts: 2})
	a, b := s.A.Hosts[0], s.B.Hosts[0]
	ping(t, a.Namespace, b.Addr4, recvWait)
	from, to := s.A.Hosts[1].Wire(hostLink), s.B.Hosts[1].Wire(hostLink)
	to.Drain()

	const frames = 20000
	start := time.Now()
	for n := range uint32(frames) {
		f := lab.Numbered{Dst: broadcast, Src: macA, Number: n, Length: 100}
		if err := from.Send(f.Bytes()); err != nil {
			t.Fatal(err)
		}
		if n == frames/2 {
			a.MustRun("ping", "-n", "-c3", "-i0.1", "-W1", b.Addr4)
		}
	}
	took := time.Since(start)
	got := 0
	for {
		f, err := to.Recv(time.Second)
		if err != nil {
			break
		}
		if lab.IsNumbered(f) {
			got++
		}
	}
	most := stormBurst + stormRate*int(took/time.Second+1)
	t.Logf("%d of %d broadcasts crossed, sent in %v", got, frames, took)
	if got < stormBurst/2 || got > most {
		t.Errorf("%d of %d broadcasts crossed in %v, want %d at most", got, frames, took, most)
	}
	hinted(t, s.A, recvWait, "storm on this LAN: more broadcast")
	counts, err := s.A.Drops()
	if err != nil {
		t.Fatal(err)
	}
	if counts["storm"]+uint64(got) < frames*9/10 {
		t.Errorf("%d counted as storm, %d crossed, %d sent", counts["storm"], got, frames)
	}
	upA.WaitOutput(recvWait, "storm capped")
	ping(t, a.Namespace, b.Addr4, recvWait)
	alive(t, upA, upB)
}
