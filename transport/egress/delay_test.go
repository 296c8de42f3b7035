// SPDX-License-Identifier: Apache-2.0

package egress_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/l2bridge/l2bridge/internal/frame"
	"github.com/l2bridge/l2bridge/transport/egress"
)

// A flow that waits for 50 ms on end loses single frames, ever more often; one
// that speaks ECN none: it is told by marks, in copies.
func TestCoDel(t *testing.T) {
	for _, ect := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			q := egress.New()
			l := q.Open()
			b := udp(1, 0, 1514)
			defer b.Release()
			if ect {
				setECT(b)
			}
			const waiting = 50
			for range waiting {
				q.Push([]*frame.Buf{b})
			}
			marked := 0
			for range 1000 { // one a millisecond: each waits for 50 ms
				time.Sleep(time.Millisecond)
				q.Push([]*frame.Buf{b})
				got := next(l)
				if got == nil {
					t.Fatal("nothing waits")
				}
				if ect && got.Bytes()[15]&3 == 3 {
					marked++
					if frame.Sum(got.Bytes()[14:34], 0) != 0xffff {
						t.Error("a marked frame has a wrong IPv4 checksum")
					}
				}
			}
			s := q.Stats()
			if ect && (s.Dropped != 0 || marked < 10 || marked != int(s.Marked)) {
				t.Errorf("ECN: %d dropped, %d marked, %d of them seen", s.Dropped, s.Marked, marked)
			}
			if !ect && (s.Dropped < 10 || s.Dropped > 50) {
				t.Errorf("%d of 1000 dropped, want some and not many", s.Dropped)
			}
			if ect && b.Bytes()[15]&3 == 3 {
				t.Error("the frame itself is marked, which others may hold")
			}
		})
	}
}

func setECT(b *frame.Buf) {
	f := b.Bytes()
	f[15] |= 2
	f[24], f[25] = 0, 0
	sum := ^frame.Sum(f[14:34], 0)
	f[24], f[25] = byte(sum>>8), byte(sum)
}

// A short wait, or a long one that is soon over, costs nothing.
func TestCoDelSpares(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := egress.New()
		l := q.Open()
		for range 200 {
			for range 3 {
				push(q, udp(1, 0, 1514))
			}
			time.Sleep(4 * time.Millisecond)
			for next(l) != nil {
			}
		}
		for range 30 {
			push(q, udp(1, 0, 1514))
		}
		time.Sleep(80 * time.Millisecond)
		for next(l) != nil {
		}
		if s := q.Stats(); s.Dropped != 0 {
			t.Errorf("%d dropped", s.Dropped)
		}
	})
}

// What a flow was like before all that it had went stale does not count any more.
func TestCoDelForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := egress.New()
		l := q.Open()
		for i := range 1000 { // one a millisecond, of which each waits for 200 ms
			push(q, udp(1, uint32(i), 1514))
			if time.Sleep(time.Millisecond); i >= 200 {
				next(l)
			}
		}
		before := q.Stats()
		if before.Dropped == 0 {
			t.Fatal("nothing was dropped")
		}
		time.Sleep(10 * time.Second) // the lane stands still
		if b := next(l); b != nil {
			t.Fatal("what is stale was sent")
		}
		time.Sleep(10 * time.Second)
		const burst = 50
		for range burst {
			push(q, udp(1, 0, 1514))
		}
		time.Sleep(20 * time.Millisecond)
		for next(l) != nil {
		}
		if dropped := q.Stats().Dropped - before.Dropped; dropped != 0 {
			t.Errorf("%d of %d frames that waited for 20 ms were dropped", dropped, burst)
		}
	})
}

// Of a superframe CoDel drops a segment; the rest arrives, numbered as before.
func TestCoDelDropsSegments(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := egress.New()
		l := q.Open()
		sent, got := 0, 0
		for range 100 {
			push(q, tcp(1, 40, 1448), tcp(1, 40, 1448))
			sent += 80
			time.Sleep(50 * time.Millisecond)
			if b := next(l); b != nil {
				got += frame.Segments(b.Header(), b.Bytes())
				if _, err := frame.CheckVnet(b.Header(), b.Bytes(), 1500); err != nil {
					t.Fatal(err)
				}
			}
		}
		for b := next(l); b != nil; b = next(l) {
			got += frame.Segments(b.Header(), b.Bytes())
		}
		s := q.Stats()
		if s.Dropped == 0 || got+int(s.Dropped+s.Full+s.Stale) < sent {
			t.Errorf("of %d segments %d came; %+v", sent, got, s)
		}
	})
}

// A superframe on a slow lane goes in pieces, which together are the whole.
func TestPieces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := egress.New()
		l := q.Open()
		l.Limit(3000)
		push(q, tcp(1, 41, 1448))
		first, pieces := 0, 0
		for b := next(l); b != nil; b = next(l) {
			pieces++
			if n := frame.Segments(b.Header(), b.Bytes()); n > 2 {
				t.Errorf("a piece of %d segments", n)
			}
			payload := b.Bytes()[54:]
			for i := 0; i < len(payload); i += 1448 {
				if payload[i] != byte(first) {
					t.Errorf("segment %d where %d is due", payload[i], first)
				}
				first++
			}
		}
		if first != 41 || pieces != 21 {
			t.Errorf("%d segments in %d pieces, want 41 in 21", first, pieces)
		}
	})
}

// A rate holds, over all lanes together, within a slack.
func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := egress.New()
		q.SetRate(8_000_000) // a byte a microsecond
		lanes := []*egress.Lane{q.Open(), q.Open()}
		began, sent := time.Now(), 0
		for i := range 1000 {
			push(q, udp(uint16(i%7), 0, 1000))
			for _, l := range lanes {
				if l.Idle() {
					continue
				}
				if !l.Wait(t.Context()) {
					t.Fatal("no turn")
				}
				if it := l.Next(2000); it != nil {
					l.Sent(it.Buf.Len(), true)
					l.Spent(1000)
					sent += 1000
				}
			}
		}
		took := time.Since(began)
		if want := time.Duration(sent) * time.Microsecond; took < want-5*time.Millisecond || took > want+5*time.Millisecond {
			t.Errorf("%d bytes at 8 Mbit/s took %v", sent, took)
		}
	})
}

// Flows that wait are spread over the lanes, each only when its lane is clear.
func TestBalance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const flows = 8
		q := egress.New()
		first := q.Open()
		number := make(map[int]int)
		fill := func() {
			for f := range flows {
				push(q, udp(uint16(f), uint32(number[f]), 1514))
				number[f]++
			}
		}
		for range 10 {
			fill()
		}
		time.Sleep(20 * time.Millisecond)
		home := make(map[int]int) // flow: lane
		expect := make(map[int]int)
		take := func(i int, l *egress.Lane) {
			b := next(l)
			if b == nil {
				return
			}
			if f := flowOf(b); numberOf(b) != expect[f] {
				t.Fatalf("flow %d: frame %d where %d is due", f, numberOf(b), expect[f])
			} else {
				expect[f]++
				home[f] = i
			}
		}
		lanes := []*egress.Lane{first}
		for len(lanes) < 4 {
			lanes = append(lanes, q.Open())
		}
		for range flows {
			take(0, first) // sees that they wait
		}
		q.Balance()
		for range 30 {
			fill()
			time.Sleep(10 * time.Millisecond)
			for range 3 * flows {
				for i, l := range lanes {
					take(i, l)
				}
			}
			for _, l := range lanes {
				if at, due := l.Ping(); due {
					l.Cleared(at + 1) // never sent: no effect
					l.Cleared(at)
				}
			}
			q.Balance()
		}
		count := make(map[int]int)
		for _, l := range home {
			count[l]++
		}
		for i := range lanes {
			if n := count[i]; n < 1 || n > 3 {
				t.Errorf("lane %d has %d flows of 8, want about 2: %v", i, n, home)
			}
		}
	})
}

// A flow that waits to move to a lane goes on where it is when that lane ends. The
// answer that it waited for may never come: nobody asks again while there is one
// lane.
func TestBalanceGoalEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const flows = 4
		q := egress.New()
		first := q.Open()
		fill := func(number uint32) {
			for f := range flows {
				push(q, udp(uint16(f), number, 1514))
			}
		}
		fill(0)
		fill(1)
		time.Sleep(20 * time.Millisecond)
		second := q.Open()
		for range flows {
			next(first) // sees that they wait
		}
		q.Balance()
		left := flows
		for b := next(first); b != nil; b = next(first) {
			left--
		}
		if left == 0 {
			t.Fatal("no flow waits to move to the other lane")
		}
		first.Ping() // is lost
		second.Close()
		for b := next(first); b != nil; b = next(first) {
			left--
		}
		if left != 0 {
			t.Errorf("%d flows wait for ever", left)
		}
	})
}
