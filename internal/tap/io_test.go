// SPDX-License-Identifier: Apache-2.0

//go:build linux

package tap_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/l2bridge/l2bridge/internal/frame"
	"github.com/l2bridge/l2bridge/internal/tap"
)

// newStream returns a stream and the descriptor of its other end, which reads
// and writes what the kernel would. A SEQPACKET socket keeps message
// boundaries as a TAP does, and needs no root.
func newStream(t *testing.T, vnet bool) (tap.Stream, *os.File, int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(fds[0]), "tap")
	s, err := tap.NewStream(file, vnet)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		file.Close()
		unix.Close(fds[1])
	})
	return s, file, fds[1]
}

// start runs run until the test ends or it fails, which the channel tells.
func start(t *testing.T, run func(context.Context, func([]*frame.Buf)) error, deliver func([]*frame.Buf)) (stop func() error, result <-chan error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	c := make(chan error, 1)
	go func() { c <- run(ctx, deliver) }()
	return func() error {
		cancel()
		return wait(t, "Run to end", c)
	}, c
}

// drops returns what was dropped, without the reasons that never happened.
func drops(s tap.Stats) map[string]uint64 {
	m := map[string]uint64{}
	for _, d := range s.Drops {
		if d.Count > 0 {
			m[d.Reason] = d.Count
		}
	}
	return m
}

// read is a frame that Run delivered.
type read struct {
	Header frame.Vnet
	Frame  []byte
}

func TestReadIsWhatWasWritten(t *testing.T) {
	for _, vnet := range []bool{true, false} {
		s, _, peer := newStream(t, vnet)
		got := make(chan read, 1)
		stop, _ := start(t, s.Run, func(frames []*frame.Buf) {
			for _, b := range frames {
				got <- read{b.Header(), bytes.Clone(b.Bytes())}
			}
		})
		var want tap.Counters
		var refused uint64
		rapid.Check(t, func(rt *rapid.T) {
			// Lengths around the classes of Buf as well as any.
			n := rapid.OneOf(rapid.IntRange(14, 1600), rapid.IntRange(9000, 9100), rapid.IntRange(14, frame.MaxLen-1)).Draw(rt, "length")
			p := bytes.Repeat([]byte{rapid.Byte().Draw(rt, "fill")}, n)
			p[n-1]++
			var sent frame.Vnet
			msg := p
			if vnet {
				sent = frame.Vnet{
					Flags:   rapid.Byte().Draw(rt, "flags"),
					GSOType: rapid.SampledFrom([]byte{0, frame.GSOTCPv4, frame.GSOTCPv6 | frame.GSOECN, frame.GSOUDP}).Draw(rt, "type"),
					HdrLen:  rapid.Uint16().Draw(rt, "hdr len"), GSOSize: rapid.Uint16().Draw(rt, "size"),
					CsumStart: rapid.Uint16().Draw(rt, "start"), CsumOffset: rapid.Uint16().Draw(rt, "offset"),
				}
				msg = make([]byte, frame.VnetLen, frame.VnetLen+n)
				sent.Put(msg)
				msg = append(msg, p...)
			}
			if _, err := unix.Write(peer, msg); err != nil {
				rt.Fatal(err)
			}
			expect, err := checked(sent, p)
			if err != nil {
				for refused++; drops(s.Stats())["tap_bad_offload"] < refused; {
					runtime.Gosched()
				}
				return
			}
			r := wait(t, "a frame", got)
			if r.Header != expect || !bytes.Equal(r.Frame, p) {
				rt.Fatalf("vnet %t: read %+v and %d bytes, want %+v and %d", vnet, r.Header, len(r.Frame), expect, n)
			}
			want.Frames++
			want.Bytes += uint64(n)
			if expect.GSOType != 0 {
				want.Superframes++
			}
		})
		if err := stop(); err != nil {
			t.Errorf("Run: %v, want nil when ctx ends", err)
		}
		if diff := cmp.Diff(want, s.Stats().Rx); diff != "" {
			t.Errorf("Rx (-want +got):\n%s", diff)
		}
		if n := drops(s.Stats())["tap_bad_offload"]; n != refused {
			t.Errorf("%d frames dropped for their offload, want %d", n, refused)
		}
	}
}

// checked returns what becomes of a header on its way in.
func checked(h frame.Vnet, f []byte) (frame.Vnet, error) {
	h.Flags &= frame.VnetNeedsCsum
	return frame.CheckVnet(h, f, frame.MaxLen)
}

// TestBatches finds a queue and expects it in full batches, in order.
func TestBatches(t *testing.T) {
	s, _, peer := newStream(t, false)
	if err := unix.SetsockoptInt(peer, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 4<<20); err != nil {
		t.Skip("needs root for a long queue")
	}
	const frames = 150
	for i := range frames {
		p := make([]byte, 60)
		p[59] = byte(i)
		if _, err := unix.Write(peer, p); err != nil {
			t.Fatal(err)
		}
	}
	var sizes []int
	var kept []*frame.Buf
	all := make(chan struct{})
	stop, _ := start(t, s.Run, func(frames []*frame.Buf) {
		sizes = append(sizes, len(frames))
		for _, b := range frames {
			kept = append(kept, b.Retain())
		}
		if len(kept) == 150 {
			close(all)
		}
	})
	wait(t, "all frames", all)
	stop()
	if diff := cmp.Diff([]int{64, 64, 22}, sizes); diff != "" {
		t.Errorf("batches (-want +got):\n%s", diff)
	}
	for i, b := range kept {
		if b.Bytes()[59] != byte(i) {
			t.Fatalf("frame %d is number %d", i, b.Bytes()[59])
		}
		if n := len(b.Room()); n > 2048 {
			t.Fatalf("a frame of 60 bytes holds %d", n)
		}
		b.Release()
	}
}

// A short superframe does not hold the memory of the longest one.
func TestRoom(t *testing.T) {
	s, _, peer := newStream(t, false)
	got := make(chan [2]int, 1)
	stop, _ := start(t, s.Run, func(frames []*frame.Buf) {
		got <- [2]int{frames[0].Len(), len(frames[0].Room())}
	})
	for _, n := range []int{9023, 15000, 24000, 25000, 60000} {
		if _, err := unix.Write(peer, make([]byte, n)); err != nil {
			t.Fatal(err)
		}
		if r := wait(t, "a frame", got); r[0] != n || r[1] > 3*n {
			t.Errorf("a frame of %d bytes: read %d, which hold %d", n, r[0], r[1])
		}
	}
	stop()
}

func TestMalformedIsCounted(t *testing.T) {
	for _, vnet := range []bool{true, false} {
		s, _, peer := newStream(t, vnet)
		header := 0
		if vnet {
			header = frame.VnetLen
		}
		got := make(chan int, 10)
		stop, _ := start(t, s.Run, func(frames []*frame.Buf) {
			for _, b := range frames {
				got <- b.Len()
			}
		})
		for _, n := range []int{1, header + 13, header + frame.MaxLen, header + 14} {
			if _, err := unix.Write(peer, make([]byte, n)); err != nil {
				t.Fatal(err)
			}
		}
		if n := wait(t, "the good frame", got); n != 14 {
			t.Errorf("a frame of %d bytes came through", n)
		}
		stop()
		if diff := cmp.Diff(map[string]uint64{"tap_malformed": 3}, drops(s.Stats())); diff != "" {
			t.Errorf("vnet %t: drops (-want +got):\n%s", vnet, diff)
		}
	}
}

func TestRunAgain(t *testing.T) {
	s, file, peer := newStream(t, false)
	got := make(chan int, 1)
	deliver := func(frames []*frame.Buf) { got <- len(frames) }
	for range 3 {
		stop, _ := start(t, s.Run, deliver)
		unix.Write(peer, make([]byte, 60))
		wait(t, "a frame", got)
		if err := stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
	}
	_, result := start(t, s.Run, deliver)
	unix.Write(peer, make([]byte, 60))
	wait(t, "a frame", got) // it is running
	file.Close()
	if err := wait(t, "Run", result); err == nil {
		t.Error("Run on a closed file returned nil")
	}
}

func TestSendDropsWhatDoesNotFit(t *testing.T) {
	s, file, peer := newStream(t, true)
	p := make([]byte, 1514)
	p[100] = 7
	b := frame.New(p)
	defer b.Release()
	b.SetHeader(frame.Vnet{Flags: frame.VnetNeedsCsum, CsumStart: 34, CsumOffset: 16})
	const sent = 5000 // more than any socket buffer
	for range sent / 50 {
		batch := make([]*frame.Buf, 50)
		for i := range batch {
			batch[i] = b
		}
		s.Send(batch)
	}
	stats := s.Stats()
	full := drops(stats)["tap_full"]
	if full == 0 || full+stats.Tx.Frames != sent || stats.Tx.Bytes != stats.Tx.Frames*1514 {
		t.Errorf("of %d frames: %+v", sent, stats)
	}
	for i := range stats.Tx.Frames {
		msg := make([]byte, 2000)
		n, err := unix.Read(peer, msg)
		if err != nil || !bytes.Equal(msg[:n], b.Raw()) {
			t.Fatalf("message %d of %d: %d bytes, %v", i, stats.Tx.Frames, n, err)
		}
	}
	file.Close()
	s.Send([]*frame.Buf{b, b})
	if got := drops(s.Stats())["tap_gone"]; got != 2 {
		t.Errorf("after Close %d frames were counted as tap_gone, want 2", got)
	}
}

// Frames that are no good, or that the kernel cannot hand over, and come without end,
// keep neither a good one from being delivered nor Run from ending.
func TestBadFramesHoldNothingUp(t *testing.T) {
	for _, bad := range []struct {
		n     int
		errno syscall.Errno
	}{{frame.HeaderLen - 1, 0}, {0, unix.EINVAL}} {
		s, _, peer := newStream(t, false)
		first := true
		s.SetCalls(func(tap.Call) tap.Call {
			return func(uintptr, []byte) (int, syscall.Errno) {
				if first {
					first = false
					return 60, 0
				}
				return bad.n, bad.errno
			}
		}, func(c tap.Call) tap.Call { return c })
		if _, err := unix.Write(peer, make([]byte, 60)); err != nil {
			t.Fatal(err)
		}
		got := make(chan int, 1)
		stop, _ := start(t, s.Run, func(frames []*frame.Buf) { got <- len(frames) })
		if n := wait(t, "a frame", got); n != 1 {
			t.Errorf("%+v: %d frames, want 1", bad, n)
		}
		if err := stop(); err != nil {
			t.Errorf("%+v: Run: %v", bad, err)
		}
	}
}

// Whatever error the kernel gives for a frame, that one is dropped and counted, and the
// next one goes. Whatever it gives for a read, what came before is delivered, and Run
// goes on where there is nothing else to it, or only the one frame is lost by it, or
// says why it cannot: then the TAP is opened again.
func TestEveryErrno(t *testing.T) {
	const last = 133
	for errno := syscall.Errno(1); errno <= last; errno++ {
		name := unix.ErrnoName(errno)
		if name == "" {
			continue
		}
		s, _, peer := newStream(t, false)
		failing := func(when int) func(tap.Call) tap.Call { // the call of that number fails
			calls := 0
			return func(call tap.Call) tap.Call {
				return func(fd uintptr, p []byte) (int, syscall.Errno) {
					if calls++; calls == when {
						return 0, errno
					}
					return call(fd, p)
				}
			}
		}
		s.SetCalls(failing(2), failing(2))

		b := frame.New(make([]byte, 60))
		s.Send([]*frame.Buf{b, b, b})
		b.Release()
		var dropped uint64
		for _, n := range drops(s.Stats()) {
			dropped += n
		}
		if sent := s.Stats().Tx.Frames; sent != 2 || dropped != 1 {
			t.Errorf("%s: %d sent and %v dropped of 3 of which one failed", name, sent, drops(s.Stats()))
		}

		send := func() {
			if _, err := unix.Write(peer, make([]byte, 60)); err != nil {
				t.Fatal(err)
			}
		}
		send()
		got := make(chan int, 2)
		stop, result := start(t, s.Run, func(frames []*frame.Buf) { got <- len(frames) })
		frames := wait(t, name+": a frame", got)
		if errno == unix.EAGAIN || errno == unix.EINTR || errno == unix.EINVAL {
			send() // now: the poller tells of what comes, not of what waits already
			wait(t, name+": the second frame", got)
			if err := stop(); err != nil {
				t.Errorf("%s: Run: %v", name, err)
			}
			if n := drops(s.Stats())["tap_bad_offload"]; (n == 1) != (errno == unix.EINVAL) {
				t.Errorf("%s: %d dropped for their offload", name, n)
			}
			continue
		}
		if err := wait(t, name+": Run", result); !errors.Is(err, errno) || !strings.Contains(err.Error(), "tap l2b0: ") {
			t.Errorf("%s: Run: %v, after %d frames", name, err, frames)
		}
	}
}

// TestSendWithoutHeader leaves no frame with work for a kernel that cannot be
// told of it.
func TestSendWithoutHeader(t *testing.T) {
	s, _, peer := newStream(t, false)
	plain, unfinished, super := frame.New(make([]byte, 60)), frame.New(make([]byte, 60)), frame.New(make([]byte, 60))
	plain.SetHeader(frame.Vnet{HdrLen: 54}) // a hint is no work
	unfinished.SetHeader(frame.Vnet{Flags: frame.VnetNeedsCsum})
	super.SetHeader(frame.Vnet{GSOType: frame.GSOUDP})
	s.Send([]*frame.Buf{unfinished, super, plain})
	msg := make([]byte, 100)
	if n, err := unix.Read(peer, msg); n != 60 || err != nil {
		t.Errorf("read %d bytes, %v, want the plain frame", n, err)
	}
	if _, err := unix.Read(peer, msg); err != unix.EAGAIN {
		t.Errorf("then %v, want EAGAIN", err)
	}
	if diff := cmp.Diff(map[string]uint64{"tap_offload": 2}, drops(s.Stats())); diff != "" {
		t.Errorf("drops (-want +got):\n%s", diff)
	}
	for _, b := range []*frame.Buf{plain, unfinished, super} {
		b.Release()
	}
}

func TestSendFromManyGoroutines(t *testing.T) {
	s, file, peer := newStream(t, true)
	var senders sync.WaitGroup
	const goroutines, each = 4, 500
	for g := range goroutines {
		senders.Go(func() {
			b := frame.New(bytes.Repeat([]byte{byte(g)}, 60))
			defer b.Release()
			for i := range each {
				s.Send([]*frame.Buf{b})
				if i == each/2 && g == 0 {
					file.Close()
				}
			}
		})
	}
	senders.Wait()
	stats := s.Stats()
	var dropped uint64
	for _, n := range drops(stats) {
		dropped += n
	}
	if stats.Tx.Frames+dropped != goroutines*each {
		t.Errorf("%d frames written and %d dropped of %d", stats.Tx.Frames, dropped, goroutines*each)
	}
	for range stats.Tx.Frames {
		msg := make([]byte, 100)
		if n, err := unix.Read(peer, msg); err != nil || n != frame.VnetLen+60 || msg[10] != msg[69] {
			t.Fatalf("a message of %d bytes, %v: % x", n, err, msg[:max(n, 0)])
		}
	}
}

func TestNoAllocation(t *testing.T) {
	if raceEnabled {
		t.Skip("sync.Pool drops at random under the race detector")
	}
	s, _, peer := newStream(t, true)
	got := make(chan struct{}, 1)
	stop, _ := start(t, s.Run, func([]*frame.Buf) { got <- struct{}{} })
	defer stop()
	for _, n := range []int{60, 1514, 9014, 65000} {
		b := frame.New(make([]byte, n))
		batch, msg := []*frame.Buf{b}, make([]byte, n+frame.VnetLen)
		allocs := testing.AllocsPerRun(200, func() {
			unix.Write(peer, msg)
			<-got
			s.Send(batch)
			unix.Read(peer, msg)
		})
		if allocs != 0 {
			t.Errorf("a frame of %d bytes in and out: %v allocations, want 0", n, allocs)
		}
		b.Release()
	}
}
