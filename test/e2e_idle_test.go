// SPDX-License-Identifier: Apache-2.0

//go:build linux

package test_test

import (
	"testing"
	"time"

	"github.com/l2bridge/l2bridge/test/lab"
)

// A NAT that knows what it translates for 20 s only does not cut off a link that
// has nothing to carry: the first frame towards the site behind it arrives.
func TestIdleBehindNAT(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute")
	}
	t.Parallel()
	idle := 65 * time.Second
	if *faultFull {
		idle = 2 * time.Minute
	}
	s := lab.TwoSites(t, lab.Options{Hosts: 1, NAT: map[string]lab.NAT{"b": {Timeout: 20 * time.Second}}})
	upA, upB := link(t, s)
	ping(t, s.A.Hosts[0].Namespace, s.B.Hosts[0].Addr4, recvWait)
	out, in := s.A.Hosts[0].Wire(hostLink), s.B.Hosts[0].Wire(hostLink)
	time.Sleep(idle)
	b := s.B.Hosts[0].Link(hostLink).Attrs().HardwareAddr
	if err := out.Send(lab.Numbered{Dst: b, Src: macA, Number: 7, Length: 100}.Bytes()); err != nil {
		t.Fatal(err)
	}
	in.Next(slack, "frame, the first one in a while,", func(frame []byte) bool {
		number, err := lab.ParseNumber(frame)
		return err == nil && number == 7
	})
	for _, site := range []*lab.Site{s.A, s.B} {
		if err := isWell(site, 1); err != nil {
			t.Error(err)
		}
	}
	alive(t, upA, upB)
}
