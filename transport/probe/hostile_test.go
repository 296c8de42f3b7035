// SPDX-License-Identifier: Apache-2.0

package probe_test

import (
	"context"
	"encoding/binary"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/l2bridge/l2bridge/internal/frame"
	"github.com/l2bridge/l2bridge/transport/egress"
	"github.com/l2bridge/l2bridge/transport/probe"
)

// sink counts what is sent.
type sink struct {
	mu    sync.Mutex // guards what follows
	n     [8]int     // by kind
	waits int        // bytes, as it says
	queue int        // frames
	last  []byte
}

func (s *sink) Push(frames []*frame.Buf) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range frames {
		s.n[b.Bytes()[5]&7]++
		s.last = append(s.last[:0], b.Bytes()...)
		if !b.IsTest() {
			panic("a frame of a test would go to the LAN")
		}
	}
}

func (s *sink) Stats() egress.Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return egress.Stats{Bytes: s.waits, Frames: s.queue}
}

// message is a frame as section 8 of docs/wire.md draws it.
func message(kind, stream byte, run uint32, fields ...byte) []byte {
	f := []byte{0x02, 0x6c, 0x32, 0x62, stream, kind, 0x02, 0x00}
	f = binary.BigEndian.AppendUint32(f, run)
	return append(append(f, 0x88, 0xb5), fields...)
}

func up(run, number uint32, ask byte) []byte {
	return message(3, 0, run, append(binary.BigEndian.AppendUint32(nil, number), ask, 1, 2, 3, 4, 5, 6, 7, 8)...)
}

func grant(run, total uint32, length uint16) []byte {
	p := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint32(nil, total), length)
	return message(5, 0, run, append(p, 1, 2, 3, 4, 5, 6, 7, 8)...)
}

// What is answered is little, and bounded by what was asked.
func TestAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sink{}
		e := probe.New(s)
		take := func(want bool, f []byte) {
			t.Helper()
			if got := e.Take(f, 1500); got != want {
				t.Errorf("%x: taken is %t", f, got)
			}
		}
		sent := func(kind, want int) {
			t.Helper()
			if got := s.n[kind]; got != want {
				t.Errorf("%d frames of kind %d, want %d", got, kind, want)
			}
		}
		take(true, message(1, 14, 7))
		take(true, append(message(1, 15, 7), make([]byte, 9000)...))
		sent(2, 2)
		if s.last[5] != 2 || s.last[4] != 15 || len(s.last) != 9014 {
			t.Errorf("reply %x", s.last[:14])
		}

		take(true, up(7, 0, 0))
		take(true, up(7, 5, 1))
		sent(4, 1)
		if got := s.last[14:34]; string(got) != "\x00\x00\x00\x05\x01\x02\x03\x04\x05\x06\x07\x08\x00\x00\x00\x06\x00\x00\x00\x02" {
			t.Errorf("count %x", got)
		}

		take(true, grant(7, 300, 100))
		sent(6, 256) // one grant is good for so many
		take(true, grant(7, 300, 100))
		take(true, grant(7, 300, 100))
		sent(6, 300)
		s.waits = 1<<20 + 1
		take(true, grant(7, 1000, 100))
		sent(6, 300)
		s.waits, s.queue = 0, 1025
		take(true, grant(7, 1000, 100))
		sent(6, 300)
		s.queue = 0
		for _, length := range []uint16{0, 31, 1515, 65535} {
			take(false, grant(7, 1000, length))
		}
		sent(6, 300)

		// The newest run is the one; of the one before nothing is taken.
		take(true, grant(8, 10, 1514))
		sent(6, 310)
		take(false, grant(7, 1000, 100))
		take(false, up(7, 1, 1))
		time.Sleep(34 * time.Second)
		take(true, grant(8, 20, 1514))
		time.Sleep(time.Second)
		take(false, grant(8, 30, 1514))
		take(false, up(8, 1, 1))
		sent(6, 320)

		for _, f := range [][]byte{
			nil, message(1, 0, 7)[:13], message(0, 0, 7), message(7, 0, 7), message(1, 16, 7),
			up(9, 1, 1)[:26], grant(9, 1, 100)[:27], message(2, 0, 8), message(4, 0, 8, make([]byte, 20)...),
			message(6, 0, 8, make([]byte, 16)...), append([]byte{2, 0, 0, 0, 0, 1}, message(1, 0, 7)[6:]...),
		} {
			take(false, f)
		}
	})
}

// liar is a gateway that answers with what nobody asked for.
type liar struct {
	sink
	to *probe.End
	wg sync.WaitGroup
}

func (l *liar) Push(frames []*frame.Buf) {
	l.sink.Push(frames)
	for _, b := range frames {
		f := append([]byte{}, b.Bytes()...)
		l.wg.Go(func() {
			run := binary.BigEndian.Uint32(f[8:])
			all := ^uint32(0)
			word := func(n ...uint32) (p []byte) {
				for _, v := range n {
					p = binary.BigEndian.AppendUint32(p, v)
				}
				return p
			}
			for range 3 {
				l.to.Take(message(4, f[4], run, word(all, 0, 0, all, all)...), 1500)
				l.to.Take(message(4, f[4], run, word(0, all, all, 1, all)...), 1500)
				l.to.Take(message(4, f[4], run, word(0, 0, 0, 1, 1)...), 1500)
				l.to.Take(message(6, f[4], run, word(all, 0, 0, all)...), 1500)
				l.to.Take(message(6, f[4], run, word(0, all, 0, all)...), 1500)
				l.to.Take(message(2, 15, run, append(word(0, 0, 1), make([]byte, 34)...)...), 1500)
				l.to.Take(message(2, 15, run, append(word(all, 0, 1), make([]byte, 34)...)...), 1500)
				l.to.Take(message(2, 14, run, make([]byte, 2000)...), 1500)
			}
		})
	}
}

// Whatever the other gateway answers, a test ends in its time, with figures that
// can be.
func TestLies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &liar{}
		l.to = probe.New(l)
		begin := time.Now()
		r, err := l.to.Run(t.Context(), time.Second, 1500, 1500, func(probe.Progress) {})
		if took := time.Since(begin); took > 30*time.Second {
			t.Errorf("took %v", took)
		}
		for _, d := range []probe.Direction{r.Up, r.Down} {
			if d.Received > d.Sent || d.Lost > d.Sent || d.Dropped > d.Sent {
				t.Errorf("%+v, %v", d, err)
			}
		}
		if len(r.Sizes.Failed) > r.Sizes.Sent || r.Sizes.Received > 1 {
			t.Errorf("%+v", r.Sizes)
		}
		if n := l.n[3] + l.n[5]; n > 100_000 {
			t.Errorf("%d frames were sent to one who lies", n)
		}
		l.wg.Wait()
	})
}

// Nobody answers; or only frames up to a length pass; or the caller goes.
func TestNoWay(t *testing.T) {
	quiet := func(probe.Progress) {}
	t.Run("silence", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			begin := time.Now()
			if _, err := probe.New(&sink{}).Run(t.Context(), time.Second, 1500, 1500, quiet); !errors.Is(err, probe.ErrNoAnswer) {
				t.Errorf("got %v", err)
			}
			if took := time.Since(begin); took > 3*time.Second {
				t.Errorf("took %v", took)
			}
		})
	})
	t.Run("narrow", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			there, back := &way{rate: 20e6, delay: time.Millisecond, most: 1200, mtu: 9000}, &way{rate: 20e6, delay: time.Millisecond, mtu: 9000}
			a, _ := pair(there, back)
			begin := time.Now()
			r, err := a.Run(t.Context(), time.Second, 9000, 9000, quiet)
			if err != nil {
				t.Fatal(err)
			}
			if len(r.Sizes.Failed) != 1 || r.Sizes.Failed[0] != (probe.Range{From: 1201, To: 9014}) || r.Sizes.Most != 9014 {
				t.Errorf("%+v", r.Sizes)
			}
			if r.Up.BitsPS != 0 {
				t.Errorf("%+v came of what is too long", r.Up)
			}
			if took := time.Since(begin); took > 30*time.Second {
				t.Errorf("took %v", took)
			}
			there.wg.Wait()
			back.wg.Wait()
		})
	})
	t.Run("cancelled", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			there, back := &way{rate: 20e6, delay: time.Millisecond}, &way{rate: 20e6, delay: time.Millisecond}
			a, _ := pair(there, back)
			for _, after := range []time.Duration{0, 500 * time.Millisecond, 1500 * time.Millisecond, 2500 * time.Millisecond, 3200 * time.Millisecond} {
				ctx, cancel := context.WithTimeout(t.Context(), after)
				begin := time.Now()
				if _, err := a.Run(ctx, time.Second, 1500, 1500, quiet); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("after %v: %v", after, err)
				}
				if took := time.Since(begin); took > after+20*time.Millisecond {
					t.Errorf("after %v: took %v", after, took)
				}
				cancel()
			}
			time.Sleep(time.Second)
			there.wg.Wait()
			back.wg.Wait()
		})
	})
}

// Whatever comes, it is taken or not, and answered by no more than it may be.
func FuzzTake(f *testing.F) {
	for _, m := range [][]byte{message(1, 14, 1), up(1, 3, 1), grant(1, 300, 100), message(4, 1, 1, make([]byte, 20)...), message(6, 1, 1, make([]byte, 16)...)} {
		f.Add(m)
	}
	f.Fuzz(func(t *testing.T, m []byte) {
		if len(m) > frame.MaxLen {
			return
		}
		s := &sink{}
		e := probe.New(s)
		taken := false
		for range 3 {
			taken = e.Take(m, 1500)
		}
		answers := 0
		for _, n := range s.n {
			answers += n
		}
		if !taken && answers > 0 || answers > 3*256 || len(m) > 5 && m[5] != 5 && answers > 3 {
			t.Errorf("%x: taken is %t, %d answers", m, taken, answers)
		}
	})
}
