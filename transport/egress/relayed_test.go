// SPDX-License-Identifier: Apache-2.0

package egress_test

import (
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/l2bridge/l2bridge/internal/frame"
	"github.com/l2bridge/l2bridge/transport/egress"
	"github.com/l2bridge/l2bridge/transport/wire"
)

// pair returns who relays to the member n.
func pair(n int) *wire.Relayed {
	return &wire.Relayed{Destination: wire.ShortID{byte(n)}, Source: wire.ShortID{0xff}}
}

// pushTo gives relayed frames to a queue, and releases them.
func pushTo(q *egress.Queue, to *wire.Relayed, frames ...*frame.Buf) {
	q.PushRelayed(frames, to)
	for _, b := range frames {
		b.Release()
	}
}

// Equal flows of other pairs, and of the peer's own LAN, do not wait for one
// that floods. (A few may share its bucket.)
func TestRelayedFairness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const pairs = 40
		q := egress.New()
		l := q.Open()
		for range 500 {
			pushTo(q, pair(0), udp(1, 0, 1000))
		}
		push(q, udp(1, 0, 1000))
		for i := range pairs {
			pushTo(q, pair(1+i), udp(1, 0, 1000))
		}
		others := 0
		for range pairs + 4 {
			l.Wait(ended)
			it := l.Next(frame.MaxLen)
			if it.Relayed == nil || *it.Relayed != *pair(0) {
				others++
			}
			l.Sent(it.Buf.Len(), true)
		}
		if others < pairs*3/4 {
			t.Errorf("%d of %d other flows had their turn", others, pairs+1)
		}
	})
}

// Relayed ARP need not wait either.
func TestRelayedUrgent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := egress.New()
		l := q.Open()
		for range 100 {
			push(q, udp(1, 0, 1000))
		}
		arp := frame.Get(60)
		clear(arp.Bytes())
		arp.Bytes()[12], arp.Bytes()[13] = 8, 6
		pushTo(q, pair(7), arp)
		l.Wait(ended)
		if it := l.Next(frame.MaxLen); it.Relayed == nil || *it.Relayed != *pair(7) {
			t.Error("relayed ARP waits behind a bulk flow")
		}
	})
}

// Whatever becomes of a frame while it waits, it goes its way: in pieces, with a
// mark, and when CoDel has dropped a segment of it or those before it.
func TestRelayedWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := egress.New()
		l := q.Open()
		l.Limit(20000)
		ways := []*wire.Relayed{nil, pair(1), pair(2)}
		pieces := make([]int, len(ways))
		for range 100 {
			for flow, to := range ways {
				for _, b := range []*frame.Buf{tcp(uint16(flow), 40, 1448), udp(uint16(flow), 0, 1514)} {
					if flow == 2 {
						setECT(b)
					}
					if to == nil {
						push(q, b)
					} else {
						pushTo(q, to, b)
					}
				}
			}
			time.Sleep(50 * time.Millisecond)
			for range 9 {
				if !l.Wait(t.Context()) {
					t.Fatal("nothing waits")
				}
				it := l.Next(frame.MaxLen)
				if it == nil {
					break
				}
				flow := flowOf(it.Buf)
				if it.Relayed != ways[flow] {
					t.Fatalf("flow %d goes %v, want %v", flow, it.Relayed, ways[flow])
				}
				if n := it.Buf.Len(); n > 1514 && n < 54+40*1448 {
					pieces[flow]++
				}
				l.Sent(it.Size(), true)
			}
		}
		if s := q.Stats(); s.Dropped == 0 || s.Marked == 0 || pieces[1] == 0 || pieces[2] == 0 {
			t.Errorf("nothing has become of them: %+v, pieces %v", s, pieces)
		}
	})
}

// The end of a datagram is filled from what is open rather than by cutting a
// frame that its way makes too long.
func TestRelayedIsLonger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := egress.New()
		l := q.Open()
		push(q, tcp(1, 40, 1448))
		l.Wait(ended)
		open := l.Next(1400)
		l.Sent(2000, false) // its turn is over
		pushTo(q, pair(1), udp(2, 0, 1000))
		l.Wait(ended)
		const object = 16 + 10 + 1000 // at most
		if it := l.Next(object); it == open {
			t.Error("a relayed frame that fits is not sent")
		}
		if it := l.Next(object - 1); it != open {
			t.Error("a relayed frame would be cut")
		}
	})
}

// Relayed frames and others, about as long as a datagram, share a lane by the
// rules about what may be open at once, and each comes whole and its way.
func TestRelayedOpen(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const size = 1400
		q := egress.New()
		l := q.Open()
		want := map[int]int{} // frames, by destination; 0 for the LAN
		for flow := range rapid.IntRange(1, 60).Draw(t, "flows") {
			b := tcp(uint16(flow), 40, 1448)
			if rapid.Bool().Draw(t, "plain") {
				b = udp(uint16(flow), 0, rapid.OneOf(rapid.IntRange(size-50, size), rapid.IntRange(60, 9014)).Draw(t, "length"))
			}
			to := rapid.IntRange(0, 3).Draw(t, "to")
			want[to]++
			if to == 0 {
				push(q, b)
			} else {
				pushTo(q, pair(to), b)
			}
		}
		var (
			p     wire.Packer
			drops wire.Drops
			got   = map[int]int{}
			r     = wire.Receiver{MTU: frame.MaxMTU, Drops: &drops, Relayed: func(to wire.Relayed, _ *frame.Buf) { got[int(to.Destination[0])]++ }}
			d     = make([]byte, size)
			open  = map[uint16]bool{}
			next  uint16 // id of the object that is begun next
		)
		defer r.Close()
		for l.Wait(ended); ; {
			n := p.Pack(d, l)
			if n == 0 {
				break
			}
			for _, s := range slices(d[:n]) {
				if s.id == next {
					next++
				}
				if open[s.id] = !s.last; s.last {
					delete(open, s.id)
				}
				for id := range open {
					if next-1-id >= 32 {
						t.Fatalf("object %d is begun while %d is open", next-1, id)
					}
				}
			}
			if len(open) > 8 {
				t.Fatalf("%d objects are begun and not ended, want at most 8", len(open))
			}
			for _, b := range r.Datagram(d[:n], time.Now(), nil) {
				got[0]++
				b.Release()
			}
		}
		for to := range 4 {
			if got[to] != want[to] {
				t.Fatalf("%d frames came of %d to %d, drops %s", got[to], want[to], to, counts(&drops))
			}
		}
	})
}
