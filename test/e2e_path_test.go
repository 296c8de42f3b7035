// SPDX-License-Identifier: Apache-2.0

//go:build linux

package test_test

import (
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/l2bridge/l2bridge/test/lab"
)

// A bad path costs the frames whose datagrams it lost, and does no other harm:
// nothing comes twice or altered.
func TestBadPath(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute")
	}
	t.Parallel()
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

	ways := []*flow{
		{name: "a to b", from: a.out, to: b.in, src: macA, dst: macB},
		{name: "b to a", from: b.out, to: a.in, src: macB, dst: macA},
	}
	var g errgroup.Group
	for _, f := range ways {
		g.Go(f.send)
		g.Go(f.receive)
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	t.Logf("drops %v", drops(t, s))
	for _, f := range ways {
		allowed := f.cost(impair.Loss+impair.Corrupt, room)
		lost := flowFrames - f.got.Received
		t.Logf("%s: %v; %d lost, the path may cost %.0f", f.name, &f.got, lost, allowed)
		if f.got.Duplicates != 0 || f.got.Altered != 0 {
			t.Errorf("%s: %v, want no duplicates and none altered", f.name, &f.got)
		}
		if float64(lost) > allowed {
			t.Errorf("%s: %d of %d frames lost, want %.0f at most", f.name, lost, flowFrames, allowed)
		}
	}
	if n := s.Relay.Stats.Overflow.Load(); n != 0 {
		t.Errorf("the relay itself lost %d datagrams", n)
	}
}

const (
	flowFrames = 12000
	flowPause  = 5 * time.Millisecond // from one frame to the next
)

// flow is a row of numbered frames of mixed sizes in one direction.
type flow struct {
	name     string
	from, to *lab.Wire
	src, dst net.HardwareAddr

	sent atomic.Bool // the last one
	got  lab.Record
}

// size returns how long a frame is.
func (f *flow) size(number int) int { return 60 + number*397%(1514-60+1) }

func (f *flow) send() error {
	defer f.sent.Store(true)
	tick := time.NewTicker(flowPause)
	defer tick.Stop()
	for i := range flowFrames {
		<-tick.C
		if err := f.from.Send(lab.Numbered{Dst: f.dst, Src: f.src, Number: uint32(i), Length: f.size(i)}.Bytes()); err != nil {
			return err
		}
	}
	return nil
}

// receive returns when the last frame was sent and nothing more comes.
func (f *flow) receive() error {
	quiet := time.Now()
	for {
		last := f.sent.Load()
		frame, err := f.to.Recv(time.Second)
		switch {
		case err == nil && lab.IsNumbered(frame): // and no gateway's probe
			f.got.Add(frame)
			quiet = time.Now()
		case err != nil && !errors.Is(err, os.ErrDeadlineExceeded):
			return err
		case last && time.Since(quiet) >= time.Second:
			return nil
		}
	}
}

// cost returns how many frames a path may cost that loses a datagram with
// probability p, with half a percent on top for chance. A frame is gone with
// any of the datagrams, of room bytes, that it lies in.
func (f *flow) cost(p float64, room int) (frames float64) {
	const slack = 0.005
	for i := range flowFrames {
		frames += slack + 1 - math.Pow(1-p, float64((f.size(i)+room-1)/room))
	}
	return frames
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
	alive(t, upB)
}
