// SPDX-License-Identifier: Apache-2.0

//go:build linux

package test_test

import (
	"errors"
	"fmt"
	"math"
	"os"
	"testing"
	"time"

	"github.com/l2bridge/l2bridge/test/lab"
)

// A bad path costs the frames whose datagrams it lost, and does no other harm:
// nothing comes twice or altered.
func TestBadPath(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute")
	}
	const (
		count    = 12000
		interval = 5 * time.Millisecond
		slack    = 0.005
	)
	impair := lab.Impairment{
		Delay: 20 * time.Millisecond, Jitter: 5 * time.Millisecond,
		Loss: 0.01, Duplicate: 0.10, Reorder: 0.05, Corrupt: 0.01,
	}
	s, _, _ := join(t, lab.Options{Impair: &impair})
	a, b := bareHost(s, s.A), bareHost(s, s.B)

	// What a datagram holds once headers of QUIC (37 bytes) and of the record
	// are off. The path's size only grows, so this is the least.
	peers, err := s.A.Peers()
	if err != nil {
		t.Fatal(err)
	}
	room := peers[0].PathMTU - 37 - 16
	if room < 1000 {
		t.Fatalf("path_mtu %d, want 1200 at least", peers[0].PathMTU)
	}

	sent := make(chan error, 1)
	var allowed float64 // frames that the path may cost
	go func() {
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for i := range count {
			<-tick.C
			size := 60 + i*397%(1514-60+1)
			touched := (size + room - 1) / room
			allowed += 1 - math.Pow(1-impair.Loss-impair.Corrupt, float64(touched))
			if err := a.out.Send(lab.Numbered{Dst: macB, Src: macA, Number: uint32(i), Length: size}.Bytes()); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()

	var got lab.Record
	for sending := true; ; {
		frame, err := b.in.Recv(time.Second)
		switch {
		case err == nil:
			got.Add(frame)
			continue
		case !errors.Is(err, os.ErrDeadlineExceeded):
			t.Fatal(err)
		case !sending:
		default:
			select {
			case err := <-sent:
				if err != nil {
					t.Fatal(err)
				}
				sending = false
			default:
			}
			continue
		}
		break
	}

	lost := count - got.Received
	t.Logf("%v; %d lost, the path may cost %.0f; drops %v", &got, lost, allowed+slack*count, drops(t, s))
	if got.Duplicates != 0 || got.Altered != 0 {
		t.Errorf("%v, want no duplicates and none altered", &got)
	}
	if float64(lost) > allowed+slack*count {
		t.Errorf("%d of %d frames lost, want %.0f at most", lost, count, allowed+slack*count)
	}
	if n := s.Relay.Stats.Overflow.Load(); n != 0 {
		t.Errorf("the relay itself lost %d datagrams", n)
	}
}

// The tunnel never runs through itself: with the route to the peer pointing
// into the bridge, its own packets are dropped at the TAP and counted, and it
// comes back with the route.
func TestNeverThroughItself(t *testing.T) {
	s, _, upB := join(t, lab.Options{Hosts: 1})
	gw := s.B.Gateway
	mac := s.A.Gateway.Link(lab.BridgeName).Attrs().HardwareAddr.String()
	gw.MustRun("ip", "neighbour", "add", s.A.Addr4, "lladdr", mac, "dev", lab.BridgeName, "nud", "permanent")
	gw.MustRun("ip", "route", "add", s.A.Addr4+"/32", "dev", lab.BridgeName)
	lab.Wait(t, backWait, "own packets are dropped at the TAP", func() error {
		counts, err := s.B.Drops()
		if err == nil && counts["own_outer"] == 0 {
			err = fmt.Errorf("drops %v", counts)
		}
		return err
	})
	gw.MustRun("ip", "route", "del", s.A.Addr4+"/32", "dev", lab.BridgeName)
	ping(t, s.B.Hosts[0].Namespace, s.A.Hosts[0].Addr4, backWait)
	select {
	case <-upB.Done():
		t.Errorf("site b ended: %v", upB.Err())
	default:
	}
}
