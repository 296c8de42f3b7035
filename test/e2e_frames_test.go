// SPDX-License-Identifier: Apache-2.0

//go:build linux

package test_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/l2bridge/l2bridge/test/lab"
)

// Every frame size passes whatever the path carries: byte for byte, once, in
// order. The path is narrow in its middle, so that neither gateway's own
// interface tells, and a silent one has routers that never say so either.
func TestEveryFrameSize(t *testing.T) {
	for _, path := range []struct {
		name   string
		narrow int
		silent bool
	}{
		{name: "1500", narrow: 1500},
		{name: "1400", narrow: 1400},
		{name: "1280", narrow: 1280},
		{name: "1280 silent", narrow: 1280, silent: true},
	} {
		t.Run(path.name, func(t *testing.T) {
			s := lab.TwoSites(t, lab.Options{Narrow: path.narrow})
			if path.silent {
				for _, router := range s.WAN {
					hole := router.Filter("output", "drop",
						"icmp type destination-unreachable icmp code frag-needed", "icmpv6 type packet-too-big")
					defer func() {
						if hole.Hits() == 0 {
							t.Errorf("%s had nothing to be silent about", router.Name)
						}
					}()
				}
			}
			link(t, s)
			a, b := bareHost(s, s.A), bareHost(s, s.B)
			for _, way := range []struct {
				name     string
				from, to host
				src, dst []byte
			}{{"a to b", a, b, macA, macB}, {"b to a", b, a, macB, macA}} {
				t.Run(way.name, func(t *testing.T) {
					everySize(t, way.from, way.to, way.src, way.dst, 1500, 1)
				})
			}
		})
	}
}

// The same with jumbo frames, which no datagram holds whole.
func TestEveryJumboSize(t *testing.T) {
	s, _, _ := join(t, lab.Options{MTU: 9000})
	a, b := bareHost(s, s.A), bareHost(s, s.B)
	everySize(t, a, b, macA, macB, 9000, 7)
}

// everySize sends frames of every size from the shortest to the longest that
// the MTU allows, in steps, without a tag, with one and with two.
func everySize(t *testing.T, from, to host, src, dst []byte, mtu, step int) {
	t.Helper()
	const header, tag = 14, 4
	number := uint32(0)
	for _, tags := range [][]lab.Tag{
		nil,
		{{TPID: 0x8100, TCI: 100}},
		{{TPID: 0x88a8, TCI: 7}, {TPID: 0x8100, TCI: 0xe000 | 100}},
	} {
		shortest, longest := header+tag*len(tags), header+tag*len(tags)+mtu
		if len(tags) == 1 {
			shortest += 2 // less than that behind a tag and the kernel drops it, see skb_vlan_untag
		}
		var frames [][]byte
		add := func(length int) {
			frames = append(frames, lab.Numbered{Dst: dst, Src: src, Tags: tags, Number: number, Length: length}.Bytes())
			number++
		}
		for length := shortest; length < longest; length += step {
			add(length)
		}
		add(longest)
		carry(t, from, to, frames)
	}
}

// carry sends frames, few enough at a time that no queue is full, and wants
// exactly those at the other end.
func carry(t *testing.T, from, to host, frames [][]byte) {
	t.Helper()
	const window = 32
	for len(frames) > 0 {
		part := frames[:min(window, len(frames))]
		frames = frames[len(part):]
		for _, frame := range part {
			if err := from.out.Send(frame); err != nil {
				t.Fatalf("send frame of %d bytes: %v", len(frame), err)
			}
		}
		for _, want := range part {
			got := to.in.Next(recvWait, fmt.Sprintf("frame of %d bytes", len(want)), lab.IsNumbered)
			if !bytes.Equal(got, want) {
				t.Fatalf("got frame of %d bytes, want that of %d bytes\ngot  %x\nwant %x", len(got), len(want), got, want)
			}
		}
	}
	if extra, err := to.in.Recv(time.Millisecond); err == nil && lab.IsNumbered(extra) {
		t.Fatalf("one frame more, of %d bytes: %x", len(extra), extra)
	}
}

// Odd frames come out as they went in. What may not cross is counted under a
// reason.
func TestOddFrames(t *testing.T) {
	s, _, _ := join(t, lab.Options{})
	a, b := bareHost(s, s.A), bareHost(s, s.B)
	for i, odd := range oddFrames() {
		t.Run(odd.name, func(t *testing.T) {
			before := drops(t, s)
			if err := a.out.Send(odd.frame); err != nil {
				t.Fatal(err)
			}
			arrived := b.upTo(t, a, odd.frame, uint32(i))
			if arrived > 1 {
				t.Errorf("arrived %d times", arrived)
			}
			if arrived > 0 {
				return
			}
			reasons := dropped(before, drops(t, s))
			if !odd.mayDrop || len(reasons) == 0 {
				t.Errorf("did not arrive; drops counted: %v", reasons)
			}
			t.Logf("dropped: %v", reasons)
		})
	}
}

// The same frames over nothing but the lab: what does not pass here cannot be
// asked of the program.
func TestOddFramesOverAWire(t *testing.T) {
	l := lab.New(t)
	near, gateway, far := l.Namespace("near"), l.Namespace("gateway"), l.Namespace("far")
	lab.Connect(near, hostLink, gateway, "in", 9100)
	lab.Connect(gateway, "out", far, hostLink, 9100)
	gateway.Splice("in", "out")
	from, to := near.Wire(hostLink), far.Wire(hostLink)
	for _, odd := range oddFrames() {
		if err := from.Send(odd.frame); err != nil {
			t.Errorf("%s: %v", odd.name, err)
			continue
		}
		to.Next(recvWait, odd.name, func(got []byte) bool { return bytes.Equal(got, odd.frame) })
	}
}

// upTo sends a numbered frame behind the odd one and counts how often the odd
// one arrives before it. One that is not identical fails the test.
func (h host) upTo(t *testing.T, from host, odd []byte, number uint32) (arrived int) {
	t.Helper()
	// The same addresses where they may be: the two are one flow, in order.
	marker := lab.Numbered{Dst: macB, Src: macA, Number: number, Length: 64}.Bytes()
	if err := from.out.Send(marker); err != nil {
		t.Fatal(err)
	}
	seen, deadline := false, time.Now().Add(recvWait)
	for !seen || arrived == 0 {
		got, err := h.in.Recv(time.Until(deadline))
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded) && seen:
			return arrived
		case err != nil:
			t.Fatalf("no frame behind the odd one: %v", err)
		case bytes.Equal(got, marker):
			seen, deadline = true, time.Now().Add(100*time.Millisecond) // another lane may be a little later
		case bytes.Equal(got, odd):
			arrived++
		case bytes.HasPrefix(got, odd[:12]):
			t.Errorf("altered:\ngot  %x\nwant %x", got, odd)
		}
	}
	return arrived
}
