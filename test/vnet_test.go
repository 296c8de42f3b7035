// SPDX-License-Identifier: Apache-2.0

//go:build linux

package test_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/l2bridge/l2bridge/internal/frame"
	"github.com/l2bridge/l2bridge/internal/tap"
	"github.com/l2bridge/l2bridge/test/lab"
	"github.com/l2bridge/l2bridge/test/wirepeer"
	"github.com/l2bridge/l2bridge/transport/wire"
)

// lanes is how many of them a test listens to, unless it is to be short. Each
// has laneLen datagrams: one lie about an id can make all that follows late.
const lanes, laneLen = 40, 300

// deliverAll calls f with all that lanes deliver, pieces of damaged superframes
// too, whose peer is honest half of the time. Of the datagrams one in ten is
// lost, and a lane pauses now and then, so that much is salvaged. The frames are
// released behind f.
func deliverAll(mtu int, f func([]*frame.Buf)) *wire.Drops {
	n := lanes
	if testing.Short() {
		n = lanes / 10
	}
	drops := new(wire.Drops)
	pass := func(frames []*frame.Buf) {
		if len(frames) > 0 {
			f(frames)
		}
		for _, b := range frames {
			b.Release()
		}
	}
	for seed := range uint64(n) {
		rng := rand.New(rand.NewPCG(seed, 2))
		r := wire.Receiver{MTU: mtu, Drops: drops, Salvage: true}
		now := time.Time{}.Add(time.Hour)
		for _, d := range wirepeer.Generate(rng, laneLen) {
			now = now.Add(time.Millisecond)
			if rng.IntN(10) > 0 {
				pass(r.Datagram(d, now, nil))
			}
			if rng.IntN(50) == 0 {
				now = now.Add(wire.SalvageAfter)
				pass(r.Idle(now, nil))
			}
		}
		pass(r.Idle(now.Add(time.Second), nil))
		r.Close()
	}
	return drops
}

// A hostile virtio-net header goes no further than the receiver: all that is
// delivered passes the check as it stands, the second reading of the wire's law
// too, and can be cut into frames that fit the LAN.
func TestDeliveredHeadersAreSound(t *testing.T) {
	for _, mtu := range []int{576, wireMTU, frame.MaxMTU} {
		t.Run(fmt.Sprint("mtu ", mtu), func(t *testing.T) {
			t.Parallel()
			frames, supers := 0, 0
			drops := deliverAll(mtu, func(all []*frame.Buf) {
				for _, b := range all {
					frames++
					if b.Header().GSOType != frame.GSONone {
						supers++
					}
					if err := sound(b, mtu); err != nil {
						t.Fatalf("%v: header %+v, frame %.120x of %d bytes", err, b.Header(), b.Bytes(), b.Len())
					}
				}
			})
			refused, lost := drops[wire.BadOffload].Load(), drops[wire.Reassembly].Load()
			t.Logf("%d frames, %d of them superframes; %d headers refused, %d objects damaged", frames, supers, refused, lost)
			if supers < lanes/10 || refused < lanes/10 || lost < lanes/10 {
				t.Error("this shows little")
			}
		})
	}
}

// sound reports what is wrong with a frame and its header.
func sound(b *frame.Buf, mtu int) error {
	h, f := b.Header(), b.Bytes()
	if again, err := frame.CheckVnet(h, f, mtu); err != nil || again != h {
		return fmt.Errorf("checked again: %+v, %v", again, err)
	}

	var header [frame.VnetLen]byte
	h.Put(header[:])
	const longest = 65535 // of an object in one record
	if frame.VnetLen+len(f) <= longest {
		second := wirepeer.New(mtu)
		events := second.Datagram(wirepeer.AppendWhole(make([]byte, 2), wirepeer.Object{Flags: wirepeer.VNET, Header: header, Frame: f}))
		if len(events) != 1 || !bytes.Equal(events[0].(wirepeer.Object).Frame, f) {
			return fmt.Errorf("the second reading drops it: %v", second.Drops())
		}
	}

	n, total := frame.Segments(h, f), 0
	var long error
	err := frame.Split(b, func(one *frame.Buf) {
		total++
		if limit := frame.HeaderLen + frame.TagBytes(one.Bytes()) + mtu; one.Len() > limit {
			long = fmt.Errorf("a segment of %d bytes, limit %d", one.Len(), limit)
		}
	})
	switch {
	case err != nil:
		return fmt.Errorf("cut: %w", err)
	case long != nil:
		return long
	case total != n:
		return fmt.Errorf("%d segments, counted as %d", total, n)
	}
	return nil
}

// What is delivered the kernel takes, every bit of it, through a real TAP in a
// real bridge whose other port has no offloads, so that it has to cut and sum:
//
//	peer -- wire.Receiver -- tap.Send | l2b0 | br0 | l2b1
//
// A header that it refuses would be one that our check lets by.
func TestKernelTakesAllDelivered(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	gw := lab.New(t).Namespace("gw")
	gw.Bridge(lab.BridgeName, frame.MaxMTU)
	open := func(name string, superframes bool) (d *tap.Device) {
		t.Helper()
		if err := gw.Do(func() (err error) {
			d, err = tap.Open(tap.Config{Name: name, Bridge: lab.BridgeName, Address: tap.Address([]byte(name)),
				Superframes: superframes, CarrierAlwaysOn: true})
			return err
		}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { d.Close() })
		return d
	}
	d, other := open(defaultTAP, true), open("l2b1", false)
	if f := d.Features(); !f.USO {
		t.Skipf("this kernel's TAP has %+v only", f)
	}
	var cut atomic.Uint64 // frames at the other port
	ctx, cancel := context.WithCancel(t.Context())
	read := make(chan error, 1)
	go func() { read <- other.Run(ctx, func(all []*frame.Buf) { cut.Add(uint64(len(all))) }) }()

	var frames, supers uint64
	deliverAll(frame.MaxMTU, func(all []*frame.Buf) {
		for _, b := range all {
			frames++
			if b.Header().GSOType != frame.GSONone {
				supers++
			}
		}
		d.Send(all)
	})
	// The TAP writes what it is given: that the kernel does refuse is seen here.
	b := frame.New(make([]byte, 60))
	b.SetHeader(frame.Vnet{GSOType: 77})
	d.Send([]*frame.Buf{b})
	b.Release()

	lab.Wait(t, recvWait, "the kernel has cut superframes for the other port", func() error {
		if n := cut.Load(); n < 2*supers {
			return fmt.Errorf("%d frames of %d superframes", n, supers)
		}
		return nil
	})
	cancel()
	if err := <-read; err != nil {
		t.Error(err)
	}
	s := d.Stats()
	if s.Tx.Frames != frames || s.Tx.Superframes != supers || supers < lanes/10 {
		t.Errorf("%d frames taken, %d of them superframes; of %d, %d", s.Tx.Frames, s.Tx.Superframes, frames, supers)
	}
	for _, drop := range s.Drops {
		want := uint64(0)
		switch drop.Reason {
		case "tap_refused":
			want = 1
		case "tap_overflow", "tap_malformed", "tap_bad_offload":
			continue // what was read
		}
		if drop.Count != want {
			t.Errorf("%s: %d, want %d", drop.Reason, drop.Count, want)
		}
	}
}
