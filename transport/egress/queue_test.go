// SPDX-License-Identifier: Apache-2.0

package egress_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/l2bridge/l2bridge/internal/frame"
	"github.com/l2bridge/l2bridge/transport/egress"
	"github.com/l2bridge/l2bridge/transport/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// push puts frames of the given lengths in a queue, each with its number.
func push(q *egress.Queue, first uint32, lengths ...int) {
	var frames []*frame.Buf
	for i, n := range lengths {
		b := frame.Get(n)
		b.SetHeader(frame.Vnet{})
		binary.BigEndian.PutUint32(b.Bytes()[14:], first+uint32(i))
		frames = append(frames, b)
	}
	q.Push(frames)
	for _, b := range frames {
		b.Release()
	}
}

// take sends the next frame whole and returns its number, or -1 without one.
func take(q *egress.Queue) int {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	q.Wait(ctx) // sets the clock
	it := q.Next()
	if it == nil {
		return -1
	}
	n := int(binary.BigEndian.Uint32(it.Buf.Bytes()[14:]))
	q.Sent(it.Buf.Len(), true)
	return n
}

func TestBounds(t *testing.T) {
	for _, tt := range []struct {
		name         string
		length, fits int
	}{
		{"frames", 64, egress.MaxFrames},
		{"bytes", 65000, egress.MaxBytes / 65000},
	} {
		t.Run(tt.name, func(t *testing.T) {
			q := egress.New()
			for i := range tt.fits + 10 {
				push(q, uint32(i), tt.length)
			}
			if full, _, _ := q.Drops(); full != 10 {
				t.Errorf("%d frames found the queue full, want 10", full)
			}
			for want := range tt.fits {
				if got := take(q); got != want {
					t.Fatalf("took frame %d, want %d", got, want)
				}
			}
			push(q, 7, tt.length)
			if got := []int{take(q), take(q)}; !cmp.Equal(got, []int{7, -1}) {
				t.Errorf("took %v of the queue that was full once", got)
			}
		})
	}
}

// A frame that has waited too long is dropped, unless it is half sent.
func TestStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := egress.New()
		push(q, 1, 2000, 100)
		var p wire.Packer
		d := make([]byte, 1200)
		if !q.Wait(t.Context()) || p.Pack(d, q) != len(d) {
			t.Fatal("no datagram")
		}
		time.Sleep(egress.MaxAge)
		push(q, 3, 100)
		if !q.Wait(t.Context()) {
			t.Fatal("nothing waits")
		}
		n := p.Pack(d, q)
		if got := payloads(t, d[:n]); !cmp.Equal(got, []int{-2, 3}) {
			t.Errorf("datagram holds %v, want the rest of a frame and number 3", got)
		}
		if _, stale, _ := q.Drops(); stale != 1 {
			t.Errorf("%d frames are stale, want 1", stale)
		}
	})
}

// payloads returns the numbers of the whole frames in a datagram, -2 for a slice.
func payloads(t *testing.T, d []byte) (all []int) {
	t.Helper()
	for p := d[2:]; len(p) > 3 && p[0]&15 != 0; p = p[3+int(binary.BigEndian.Uint16(p[1:])):] {
		if p[0]&15 == 1 {
			all = append(all, int(binary.BigEndian.Uint32(p[3+14:])))
		} else {
			all = append(all, -2)
		}
	}
	return all
}

// A lane ends in the middle of a frame: no other lane sends any of it.
func TestRestart(t *testing.T) {
	q := egress.New()
	push(q, 1, 9014, 100, 1514)
	d := make([]byte, 1200)
	var old, next wire.Packer
	if !q.Wait(t.Context()) || old.Pack(d, q) != len(d) {
		t.Fatal("no datagram")
	}
	q.Restart()
	q.Restart() // nothing is half sent any more
	var drops wire.Drops
	r := wire.Receiver{MTU: 9000, Drops: &drops}
	var frames []*frame.Buf
	for n := next.Pack(d, q); n > 0; n = next.Pack(d, q) {
		frames = r.Datagram(d[:n], time.Now(), frames)
	}
	var got []int
	for _, b := range frames {
		got = append(got, int(binary.BigEndian.Uint32(b.Bytes()[14:])))
		b.Release()
	}
	if !cmp.Equal(got, []int{2, 3}) {
		t.Errorf("the new lane sent %v, want 2 and 3", got)
	}
	if _, _, cut := q.Drops(); cut != 1 {
		t.Errorf("%d frames were cut, want 1", cut)
	}
	r.Close()
}

func TestClear(t *testing.T) {
	q := egress.New()
	push(q, 1, 100, 200, 300)
	q.Clear()
	if got := take(q); got != -1 {
		t.Errorf("took %d of an empty queue", got)
	}
	if _, _, cut := q.Drops(); cut != 3 {
		t.Errorf("%d frames were cleared, want 3", cut)
	}
	push(q, 4, egress.MaxBytes/64)
	if got := take(q); got != 4 {
		t.Errorf("took %d, want 4: are bytes still counted?", got)
	}
}

// Wait sleeps until there is a frame, and ends with its context.
func TestWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := egress.New()
		ctx, cancel := context.WithCancel(t.Context())
		woken := make(chan bool, 2)
		go func() {
			woken <- q.Wait(ctx)
			take(q)
			woken <- q.Wait(ctx)
		}()
		synctest.Wait()
		if len(woken) != 0 {
			t.Fatal("woke without a frame")
		}
		push(q, 1, 64)
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

// What is taken is what a plain list would give.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type entry struct{ number, length int }
		var (
			q               = egress.New()
			list            []entry
			size, full, cut int
			begun           bool
			next            uint32
		)
		pop := func() {
			size -= list[0].length
			list = list[1:]
			begun = false
		}
		now, cancel := context.WithCancel(context.Background())
		cancel()
		t.Repeat(map[string]func(*rapid.T){
			"push": func(t *rapid.T) {
				lengths := rapid.SliceOfN(rapid.SampledFrom([]int{60, 1514, 9014, 65000}), 1, 40).Draw(t, "lengths")
				push(q, next, lengths...)
				for i, n := range lengths {
					if len(list) == egress.MaxFrames || size+n > egress.MaxBytes {
						full += len(lengths) - i
						break
					}
					list = append(list, entry{int(next) + i, n})
					size += n
				}
				next += uint32(len(lengths))
			},
			"slice": func(t *rapid.T) {
				if len(list) == 0 || list[0].length < 1500 {
					return
				}
				q.Wait(now)
				var p wire.Packer
				if !begun {
					p.Pack(make([]byte, wire.MinSize), q)
					begun = true
				}
			},
			"take": func(t *rapid.T) {
				want := -1
				if len(list) > 0 {
					want = list[0].number
					pop()
				}
				if got := take(q); got != want {
					t.Fatalf("took %d, want %d", got, want)
				}
			},
			"restart": func(*rapid.T) {
				if begun {
					pop()
					cut++
				}
				q.Restart()
			},
			"clear": func(*rapid.T) {
				cut += len(list)
				list, size, begun = nil, 0, false
				q.Clear()
			},
			"": func(t *rapid.T) {
				gotFull, stale, gotCut := q.Drops()
				if diff := cmp.Diff([]int{full, 0, cut}, []int{int(gotFull), int(stale), int(gotCut)}); diff != "" {
					t.Fatalf("drops (-want +got):\n%s", diff)
				}
			},
		})
	})
}

// Many push while one takes: all is taken, each source's in its order.
func TestContention(t *testing.T) {
	const sources, each = 4, 2000
	q := egress.New()
	var pushers sync.WaitGroup
	for s := range sources {
		pushers.Go(func() {
			for i := range each {
				push(q, uint32(s<<16|i), 64)
			}
		})
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() { pushers.Wait(); cancel() }()
	last := [sources]int{-1, -1, -1, -1}
	taken := 0
	one := func(n int) {
		if s, i := n>>16, n&0xffff; i <= last[s] {
			t.Errorf("frame %d of source %d after %d", i, s, last[s])
		} else {
			last[s] = i
		}
		taken++
	}
	for q.Wait(ctx) {
		one(take(q))
	}
	for n := take(q); n >= 0; n = take(q) {
		one(n)
	}
	full, stale, _ := q.Drops()
	if taken+int(full+stale) != sources*each {
		t.Errorf("%d frames taken, %d dropped, of %d", taken, full+stale, sources*each)
	}
}

func TestAllocs(t *testing.T) {
	q := egress.New()
	frames := []*frame.Buf{frame.New(bytes.Repeat([]byte{1}, 1514))}
	if n := testing.AllocsPerRun(1000, func() {
		q.Push(frames)
		if !q.Wait(context.Background()) {
			t.Fatal("nothing waits")
		}
		q.Next()
		q.Sent(1514, true)
	}); n != 0 {
		t.Errorf("%v allocations a frame", n)
	}
}
