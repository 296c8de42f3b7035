// SPDX-License-Identifier: Apache-2.0

package egress_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/l2bridge/l2bridge/internal/frame"
	"github.com/l2bridge/l2bridge/transport/egress"
	"github.com/l2bridge/l2bridge/transport/wire"
)

// A flow that is alone keeps what came first; more is dropped and counted.
func TestBounds(t *testing.T) {
	for _, tt := range []struct {
		name         string
		length, fits int
	}{
		{"frames", 64, egress.MaxFrames},
		{"bytes", 65000, egress.MaxBytes / 65000},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { // in no time: else CoDel has its say
				q := egress.New()
				l := q.Open()
				for i := range tt.fits + 10 {
					push(q, udp(1, uint32(i), tt.length))
				}
				if full := q.Stats().Full; full != 10 {
					t.Errorf("%d frames found the queue full, want 10", full)
				}
				for want := range tt.fits {
					if got := numberOf(next(l)); got != want {
						t.Fatalf("took frame %d, want %d", got, want)
					}
				}
				push(q, udp(1, 7, tt.length))
				if got := numberOf(next(l)); got != 7 || next(l) != nil {
					t.Errorf("took %d of the queue that was full once, want 7 and no more", got)
				}
			})
		})
	}
}

// Whatever the length of frames, those that wait do not hold much more memory than
// MaxBytes.
func TestMemory(t *testing.T) {
	const most = 24 << 20
	for n := frame.HeaderLen; n <= frame.MaxLen; n += 1 + n/100 {
		b := frame.Get(n)
		if all := min(egress.MaxFrames, egress.MaxBytes/n) * len(b.Room()); all > most {
			t.Fatalf("frames of %d bytes: a full queue holds %d bytes, want %d at most", n, all, most)
		}
		b.Release()
	}
}

// A flood makes room for others: it is the fattest flow that loses.
func TestFloodMakesRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := egress.New()
		l := q.Open()
		for i := range 2 * egress.MaxFrames {
			push(q, udp(1, uint32(i), 64))
		}
		for i := range 100 {
			push(q, udp(uint16(2+i), 0, 64))
		}
		got := make(map[int]int)
		for b := next(l); b != nil; b = next(l) {
			got[flowOf(b)]++
		}
		for i := range 100 {
			if got[2+i] != 1 {
				t.Errorf("flow %d sent %d frames of 1 beside a flood", 2+i, got[2+i])
			}
		}
		if all := uint64(got[1]) + 100 + q.Stats().Full; all != 2*egress.MaxFrames+100 {
			t.Errorf("%d frames are accounted for, of %d", all, 2*egress.MaxFrames+100)
		}
	})
}

// So it does where each flow of it has but one superframe. Of the others some may share
// a bucket with one.
func TestSuperframesMakeRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const super, others = 64 << 10, 40
		q := egress.New()
		l := q.Open()
		for i := range 4 * egress.MaxBytes / super {
			push(q, udp(uint16(i), 0, super))
		}
		push(q, arp())
		for i := range others {
			push(q, udp(uint16(1000+i), 0, 100))
		}
		small, urgent := 0, 0
		for b := next(l); b != nil; b = next(l) {
			switch b.Len() {
			case 60:
				urgent++
			case 100:
				small++
			}
		}
		if small < others/2 || urgent != 1 {
			t.Errorf("beside a flood of superframes %d of %d flows' frames left, and %d of one urgent frame", small, others, urgent)
		}
	})
}

// Flows that have much to send get the same share in bytes, whatever their
// frames are like, and one that sends little need not wait for them.
func TestFairness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := egress.New()
		l := q.Open()
		fill := func() {
			push(q, tcp(1, 40, 1448), tcp(2, 20, 1448), tcp(2, 20, 1448))
			for range 40 {
				push(q, udp(3, 0, 1514))
			}
			for range 400 {
				push(q, udp(4, 0, 100))
			}
		}
		var p wire.Packer
		d := make([]byte, 1400)
		sent := make(map[int]int)
		src := counted{l, sent}
		fill()
		for range 100 {
			l.Wait(ended)
			p.Pack(d, src)
		}
		least, most := sent[1], sent[1]
		for flow := 1; flow <= 4; flow++ {
			least, most = min(least, sent[flow]), max(most, sent[flow])
		}
		if most-least > 2*1514+1400 {
			t.Errorf("bytes sent by flow: %v, want the same within a turn", sent)
		}
		push(q, udp(5, 0, 100))
		l.Wait(ended)
		p.Pack(d, src)
		l.Wait(ended)
		p.Pack(d, src)
		if sent[5] != 100 {
			t.Errorf("a flow that sends little waited for more than a datagram: %v", sent)
		}
	})
}

// counted counts the bytes that each flow has sent.
type counted struct {
	*egress.Lane
	sent map[int]int
}

func (c counted) Sent(n int, done bool) {
	c.sent[flowOf(c.Lane.Next(1500).Buf)] += n
	c.Lane.Sent(n, done)
}

// Many superframes share the lane, and no more are begun at once than the far
// side must keep.
func TestOpenObjects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := egress.New()
		l := q.Open()
		for flow := range 30 {
			push(q, tcp(uint16(flow), 40, 1448), tcp(uint16(flow), 40, 1448), udp(uint16(1000+flow), 0, 1200))
		}
		var (
			p      wire.Packer
			drops  wire.Drops
			r      = wire.Receiver{MTU: 1500, Drops: &drops}
			d      = make([]byte, 1400)
			frames []*frame.Buf
			open   = make(map[uint16]bool)
		)
		for l.Wait(ended); ; {
			n := p.Pack(d, l)
			if n == 0 {
				break
			}
			for _, s := range slices(d[:n]) {
				if open[s.id] = !s.last; s.last {
					delete(open, s.id)
				}
			}
			if len(open) > 8 {
				t.Fatalf("%d objects are begun and not ended, want at most 8", len(open))
			}
			frames = r.Datagram(d[:n], time.Now(), frames)
		}
		if len(frames) != 90 {
			t.Errorf("%d frames arrived of 90, drops %s", len(frames), counts(&drops))
		}
		for _, b := range frames {
			b.Release()
		}
	})
}

type slice struct {
	id   uint16
	last bool
}

// slices returns the slices in a datagram.
func slices(d []byte) (all []slice) {
	u24 := func(p []byte) int { return int(p[0])<<16 | int(p[1])<<8 | int(p[2]) }
	for p := d[2:]; len(p) > 3 && p[0]&15 != 0; {
		n := int(p[1])<<8 | int(p[2])
		if p[0]&15 == 2 {
			id := uint16(p[3])<<8 | uint16(p[4])
			all = append(all, slice{id, u24(p[5:])+n-8 == u24(p[8:])})
		}
		p = p[3+n:]
	}
	return all
}

// Urgent frames go before all others, but neither without bound nor for ever.
func TestUrgent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := egress.New()
		l := q.Open()
		arp := func() *frame.Buf {
			b := frame.Get(60)
			clear(b.Bytes())
			b.Bytes()[12], b.Bytes()[13] = 8, 6
			return b
		}
		isARP := func(b *frame.Buf) bool { return b.Bytes()[13] == 6 }
		for i := range 100 {
			push(q, udp(1, uint32(i), 1000))
		}
		push(q, arp())
		if b := next(l); b == nil || !isARP(b) {
			t.Error("ARP waits behind a bulk flow")
		}
		for range 1000 {
			push(q, arp())
		}
		bulk, arps := 0, 0 // bytes
		for range 400 {
			if b := next(l); isARP(b) {
				arps += b.Len()
			} else {
				bulk += b.Len()
			}
		}
		if bulk < arps/2 || arps < 64*60 {
			t.Errorf("beside a flood of ARP %d bytes of a bulk flow left, and %d of the flood's", bulk, arps)
		}
	})
}

// Who gives great frames the look of urgent ones has half of the lane while others wait,
// also where what others relay by way of us has half of it.
func TestUrgentFlood(t *testing.T) {
	for _, foreign := range []bool{false, true} {
		t.Run(fmt.Sprintf("foreign %v", foreign), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const bulk, relayed = 1, 2
				q := egress.New()
				l := q.Open()
				for i := range 500 {
					push(q, udp(bulk, uint32(i), 1514))
					if foreign {
						b := udp(relayed, uint32(i), 1514)
						q.PushForeign([]*frame.Buf{b}, pair(0))
						b.Release()
					}
				}
				sent := make(map[int]int)
				for range 400 {
					b := udp(0, 0, 1514)
					b.Bytes()[12], b.Bytes()[13] = 8, 6 // ARP
					push(q, b, b.Retain())
					if b := next(l); b != nil {
						sent[flowOf(b)]++
					}
				}
				// Of our half the flood has half as urgent frames and, beyond those
				// that may wait, as a flow like others half of the rest.
				if least := 400 / 10; sent[bulk] < least || sent[0] < least || foreign && sent[relayed] < least {
					t.Errorf("frames sent: %d of the flood, %d of a flow of ours, %d relayed; want %d of each at least",
						sent[0], sent[bulk], sent[relayed], least)
				}
			})
		})
	}
}

// A frame that has waited too long is dropped, unless it is half sent.
func TestStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := egress.New()
		l := q.Open()
		push(q, udp(1, 1, 2000), udp(1, 2, 100))
		var p wire.Packer
		d := make([]byte, 1200)
		if !l.Wait(t.Context()) || p.Pack(d, l) != len(d) {
			t.Fatal("no datagram")
		}
		time.Sleep(egress.MaxAge)
		push(q, udp(1, 3, 100))
		if !l.Wait(t.Context()) {
			t.Fatal("nothing waits")
		}
		it := l.Next(1500)
		if it == nil || numberOf(it.Buf) != 1 {
			t.Fatal("the rest of a frame does not follow")
		}
		l.Sent(0, true)
		if b := next(l); b == nil || numberOf(b) != 3 {
			t.Error("what came last does not follow")
		}
		if stale := q.Stats().Stale; stale != 1 {
			t.Errorf("%d frames are stale, want 1", stale)
		}
	})
}

// A lane ends: what it has begun is lost, once, and the rest leaves by another.
func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := egress.New()
		l := q.Open()
		push(q, udp(1, 1, 9014), udp(1, 2, 100), udp(1, 3, 1514), tcp(2, 10, 1448))
		d := make([]byte, 1200)
		var old wire.Packer
		if !l.Wait(t.Context()) || old.Pack(d, l) != len(d) {
			t.Fatal("no datagram")
		}
		l.Close()
		l = q.Open()
		var got []int
		for b := next(l); b != nil; b = next(l) {
			if b.Header().GSOType == frame.GSONone {
				got = append(got, numberOf(b))
			} else {
				got = append(got, -b.Len())
			}
		}
		if diff := cmp.Diff([]int{2, 3, -(54 + 14480)}, got); diff != "" && !cmp.Equal(got, []int{-(54 + 14480), 2, 3}) {
			t.Errorf("the new lane sent (-want +got):\n%s", diff)
		}
		if cut := q.Stats().Cut; cut != 1 {
			t.Errorf("%d frames were cut, want 1", cut)
		}
	})
}

// A lane that is told to end sends what it has begun, and nothing else: that leaves by
// the next one, and nothing is lost.
func TestEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := egress.New()
		l := q.Open()
		push(q, udp(1, 1, 9014), udp(1, 2, 100), tcp(2, 10, 1448), udp(3, 3, 100))
		var p wire.Packer
		d := make([]byte, 1200)
		var taken int
		pack := func(l *egress.Lane) {
			for l.Wait(t.Context()) {
				taken += p.Pack(d, l)
				l.End()
			}
		}
		pack(l)
		if taken < 9014 || taken > 9014+14480+2000 {
			t.Errorf("%d bytes were sent, want those of what was begun", taken)
		}
		if left := q.Stats().Frames; left != 2 && left != 3 {
			t.Errorf("%d frames are left, want what was not begun", left)
		}
		push(q, udp(1, 4, 100))
		if l.Wait(t.Context()) {
			t.Error("a lane that has ended goes on")
		}
		l.Close()
		l = q.Open()
		var got []int
		for b := next(l); b != nil; b = next(l) {
			if b.Header().GSOType == frame.GSONone {
				got = append(got, numberOf(b))
			}
		}
		if text := fmt.Sprint(got); !strings.Contains(text, "2") || !strings.Contains(text, "4") {
			t.Errorf("the next lane sent %v", got)
		}
		if s := q.Stats(); s.Cut != 0 || s.Frames != 0 {
			t.Errorf("after all: %+v, want none cut and none left", s)
		}
	})
}

// What a peer does not take any more is dropped of the queue, and nothing else.
func TestSift(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := egress.New()
		push(q, tcp(1, 3, 1448), udp(2, 1, 100), udp(2, 2, 100), tcp(2, 2, 1448), tcp(3, 1, 100), tcp(3, 5, 1448))
		q.Sift(func(h frame.Vnet) bool { return h.GSOType == frame.GSONone })
		push(q, udp(3, 3, 100))
		l := q.Open()
		got := make(map[int]bool)
		for b := next(l); b != nil; b = next(l) {
			if b.Header().GSOType != frame.GSONone {
				t.Error("a superframe is there still")
			} else if b.Len() == 100 {
				got[numberOf(b)] = true
			}
		}
		if !got[1] || !got[2] || !got[3] {
			t.Errorf("plain frames %v, want 1, 2 and 3", got)
		}
		if s := q.Stats(); s.Cut < 3+2+5 || s.Frames != 0 || s.Bytes != 0 {
			t.Errorf("after all: %+v, want the segments of three cut and none left", s)
		}
	})
}

func TestClear(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := egress.New()
		push(q, udp(1, 1, 100), udp(2, 2, 200), udp(1, 3, 300))
		q.Clear()
		l := q.Open()
		if b := next(l); b != nil {
			t.Errorf("took %d of an empty queue", numberOf(b))
		}
		if s := q.Stats(); s.Cut != 3 || s.Frames != 0 || s.Bytes != 0 {
			t.Errorf("after Clear: %+v, want 3 frames cut and none left", s)
		}
	})
}

// Wait sleeps until there is a frame, and ends with its context.
func TestWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := egress.New()
		l := q.Open()
		ctx, cancel := context.WithCancel(t.Context())
		woken := make(chan bool, 2)
		go func() {
			woken <- l.Wait(ctx)
			next(l)
			next(l)
			woken <- l.Wait(ctx)
		}()
		synctest.Wait()
		if len(woken) != 0 {
			t.Fatal("woke without a frame")
		}
		push(q, udp(1, 1, 64))
		if !<-woken {
			t.Error("a frame waits, and Wait says no")
		}
		synctest.Wait()
		cancel()
		if <-woken {
			t.Error("Wait says yes when its context is done")
		}
	})
}

// Whatever happens, each frame is sent once, by one lane, in the order of its
// flow, or counted; and a model knows how many wait.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var (
			q      = egress.New()
			lanes  []*egress.Lane
			number uint32
			sent   uint64
			last   = make(map[int]int)
		)
		take := func(l *egress.Lane) {
			b := next(l)
			if b == nil {
				return
			}
			if was, ok := last[flowOf(b)]; ok && numberOf(b) <= was {
				t.Fatalf("flow %d: frame %d after %d", flowOf(b), numberOf(b), was)
			}
			last[flowOf(b)] = numberOf(b)
			sent++
		}
		pick := func(t *rapid.T) *egress.Lane {
			if len(lanes) == 0 {
				t.Skip("no lane")
			}
			return lanes[rapid.IntRange(0, len(lanes)-1).Draw(t, "lane")]
		}
		t.Repeat(map[string]func(*rapid.T){
			"push": func(t *rapid.T) {
				flow := rapid.Uint16Range(1, 5).Draw(t, "flow")
				for _, n := range rapid.SliceOfN(rapid.SampledFrom([]int{60, 1514, 9014, 65000}), 1, 40).Draw(t, "lengths") {
					push(q, udp(flow, number, n))
					number++
				}
			},
			"take": func(t *rapid.T) { take(pick(t)) },
			"slice": func(t *rapid.T) {
				l := pick(t)
				l.Wait(ended)
				if it := l.Next(1500); it != nil && it.Buf.Len() > 1500 && !it.Begun() {
					var p wire.Packer
					one := single{l, it, 0}
					p.Pack(make([]byte, wire.MinSize), &one)
				}
			},
			"open": func(*rapid.T) {
				if len(lanes) < 5 {
					lanes = append(lanes, q.Open())
				}
			},
			"close": func(t *rapid.T) {
				l := pick(t)
				l.Close()
				for i := range lanes {
					if lanes[i] == l {
						lanes = append(lanes[:i], lanes[i+1:]...)
						break
					}
				}
			},
			"clear": func(t *rapid.T) {
				if len(lanes) > 0 {
					t.Skip("a lane is open")
				}
				q.Clear()
			},
			"": func(t *rapid.T) {
				s := q.Stats()
				if all := sent + s.Full + s.Stale + s.Cut + s.Dropped + uint64(s.Frames); all != uint64(number) {
					t.Fatalf("%d frames pushed, %d accounted for: %d sent, %+v", number, all, sent, s)
				}
			},
		})
		if len(lanes) == 0 {
			lanes = append(lanes, q.Open())
		}
		for range number {
			for _, l := range lanes {
				take(l)
			}
		}
		if s := q.Stats(); s.Frames != 0 || s.Bytes != 0 {
			t.Fatalf("%d frames and %d bytes are left that no lane sends", s.Frames, s.Bytes)
		}
	})
}

// single lets one slice of an item be packed.
type single struct {
	*egress.Lane
	it *wire.Item
	n  int
}

func (s *single) Next(int) *wire.Item {
	if s.n++; s.n > 1 {
		return nil
	}
	return s.it
}

// Many push while one takes: all is taken, each source's in its order.
func TestContention(t *testing.T) {
	const sources, each = 4, 2000
	q := egress.New()
	lanes := []*egress.Lane{q.Open(), q.Open()}
	var pushers, takers sync.WaitGroup
	for s := range sources {
		pushers.Go(func() {
			for i := range each {
				push(q, udp(uint16(s), uint32(i), 64))
			}
		})
	}
	ctx, cancel := context.WithCancel(context.Background())
	var mu sync.Mutex
	taken := 0
	last := [sources]int{-1, -1, -1, -1}
	take := func(l *egress.Lane) bool {
		b := next(l)
		if b == nil {
			return false
		}
		mu.Lock()
		defer mu.Unlock()
		if s, i := flowOf(b), numberOf(b); i <= last[s] {
			t.Errorf("frame %d of source %d after %d", i, s, last[s])
		} else {
			last[s] = i
		}
		taken++
		return true
	}
	for _, l := range lanes {
		takers.Go(func() {
			for l.Wait(ctx) {
				take(l)
			}
			for take(l) {
			}
		})
	}
	pushers.Wait()
	cancel()
	takers.Wait()
	if s := q.Stats(); taken+int(s.Full+s.Stale+s.Dropped) != sources*each {
		t.Errorf("%d frames taken, dropped %+v, of %d", taken, s, sources*each)
	}
}

// TestAllocs runs without the race detector, which allocates.
func TestAllocs(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	q := egress.New()
	l := q.Open()
	b := udp(1, 0, 1514)
	defer b.Release()
	frames := []*frame.Buf{b}
	to := &wire.Relayed{Source: wire.ShortID{1}}
	for name, push := range map[string]func(){
		"frame":         func() { q.Push(frames) },
		"relayed frame": func() { q.PushRelayed(frames, to) },
	} {
		if n := testing.AllocsPerRun(1000, func() {
			push()
			if !l.Wait(context.Background()) {
				t.Fatal("nothing waits")
			}
			l.Next(1500)
			l.Sent(1514, true)
			l.Spent(1600)
		}); n != 0 {
			t.Errorf("%v allocations a %s", n, name)
		}
	}
}

// counts returns the drops that are not zero.
func counts(drops *wire.Drops) string {
	var all []string
	for r := range wire.Reasons {
		if n := drops[r].Load(); n > 0 {
			all = append(all, fmt.Sprint(r, " ", n))
		}
	}
	return strings.Join(all, ", ")
}
