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

// arp returns what may pass for ARP.
func arp() *frame.Buf {
	b := frame.Get(60)
	clear(b.Bytes())
	b.Bytes()[12], b.Bytes()[13] = 8, 6
	return b
}

// Relayed ARP of ours need not wait either.
func TestRelayedUrgent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := egress.New()
		l := q.Open()
		for range 100 {
			push(q, udp(1, 0, 1000))
		}
		pushTo(q, pair(7), arp())
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
		f := udp(2, 0, 1000)
		to := 1 // with a bucket of its own
		for egress.Bucket(f, pair(to)) == egress.Bucket(open.Buf, nil) {
			to++
		}
		pushTo(q, pair(to), f)
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
			switch {
			case to == 0:
				push(q, b)
			case rapid.Bool().Draw(t, "foreign"):
				q.PushForeign([]*frame.Buf{b}, pair(to))
				b.Release()
			default:
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
		if q.Stats().Stale > 0 {
			t.Skip("this machine stood still for a second")
		}
		for to := range 4 {
			if got[to] != want[to] {
				t.Fatalf("%d frames came of %d to %d, drops %s", got[to], want[to], to, counts(&drops))
			}
		}
	})
}

// take has a lane send so many bytes, and returns how many of them were of frames
// that others send by way of us.
func take(l *egress.Lane, bytes int) (ours, foreign int) {
	for ours+foreign < bytes {
		l.Wait(ended)
		it := l.Next(frame.MaxLen)
		if it == nil {
			break
		}
		n := it.Buf.Len()
		if it.Relayed != nil {
			foreign += n
		} else {
			ours += n
		}
		l.Sent(n, true)
	}
	return ours, foreign
}

// Who has a flood relayed by way of us, of as many flows as it has frames, has half
// of the lane while frames of ours wait, and does not have ours dropped.
func TestRelayedFlood(t *testing.T) {
	for name, flood := range map[string]func(i int) *frame.Buf{
		"many flows": func(i int) *frame.Buf { return udp(uint16(i), 0, 1000) },
		"urgent":     func(i int) *frame.Buf { return arp() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const mine, each = 100, 1000
				q := egress.New()
				l := q.Open()
				full := func() {
					for i := range 3 * egress.MaxFrames {
						f := flood(i)
						q.PushForeign([]*frame.Buf{f}, pair(0))
						f.Release()
					}
				}
				full()
				for range mine {
					push(q, udp(1, 0, each))
				}
				full()
				ours, foreign := take(l, mine*each)
				if ours < mine*each*45/100 {
					t.Errorf("%d bytes of ours went, %d of the flood", ours, foreign)
				}
				// Another's relayed frames have their share of the other half.
				for range 20 {
					f := udp(9, 0, each)
					q.PushForeign([]*frame.Buf{f}, pair(7))
					f.Release()
				}
				ours2, _ := take(l, 3*mine*each)
				if ours+ours2 != mine*each {
					t.Errorf("%d bytes of ours went of %d", ours+ours2, mine*each)
				}
			})
		})
	}
}
