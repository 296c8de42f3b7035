// SPDX-License-Identifier: Apache-2.0

package frame_test

import (
	"bytes"
	"errors"
	"fmt"
	"runtime/debug"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/l2bridge/l2bridge/internal/frame"
)

// split returns copies of the frames that b turns into, and checks that nothing
// is left to do to them.
func split(t rapid.TB, b *frame.Buf) (frames [][]byte) {
	t.Helper()
	err := frame.Split(b, func(p *frame.Buf) {
		if h := p.Header(); h != (frame.Vnet{}) {
			t.Fatalf("frame %d: virtio-net header %+v, want none", len(frames), h)
		}
		frames = append(frames, bytes.Clone(p.Bytes()))
	})
	if err != nil {
		t.Fatal(err)
	}
	return frames
}

// diffFrames is cmp.Diff of the first pair of frames that differ: cmp takes
// long over bytes that do not.
func diffFrames(want, got [][]byte) string {
	if len(want) != len(got) {
		return fmt.Sprintf("%d and %d frames", len(want), len(got))
	}
	for i := range want {
		if !bytes.Equal(want[i], got[i]) {
			return fmt.Sprintf("frame %d: %s", i, cmp.Diff(want[i], got[i]))
		}
	}
	return ""
}

func TestSplitAgainstGopacket(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		s := drawSuper(r)
		b := s.build(t)
		defer b.Release()
		h := b.Header()
		h.HdrLen = rapid.Uint16().Draw(r, "lie")
		b.SetHeader(h)
		before := bytes.Clone(b.Raw())

		got := split(r, b)
		if n := frame.Segments(b.Header(), b.Bytes()); n != s.count() || len(got) != n {
			r.Fatalf("%d frames, Segments says %d, want %d", len(got), n, s.count())
		}
		payload, want := s.payload(), [][]byte(nil)
		for i := range got {
			want = append(want, s.segment(t, payload, i))
		}
		if diff := diffFrames(want, got); diff != "" {
			r.Fatalf("(-want +got):\n%s", diff)
		}
		if !bytes.Equal(before, b.Raw()) {
			r.Fatal("Split changed the superframe")
		}
	})
}

func TestCutIsSplitInPieces(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		s := drawSuper(r)
		b := s.build(t)
		defer b.Release()
		whole := split(r, b)

		h, f := b.Header(), b.Bytes()
		hdr, payload := f[:h.HdrLen], f[h.HdrLen:]
		var pieces [][]byte
		for from := 0; from < s.count(); {
			to := rapid.IntRange(from+1, s.count()).Draw(r, "to")
			piece := frame.Cut(h, hdr, payload[from*s.Size:min(to*s.Size, len(payload))], from)
			ph := piece.Header()
			if n := frame.Segments(ph, piece.Bytes()); n != to-from {
				r.Fatalf("piece %d to %d has %d segments", from, to, n)
			}
			checked, err := frame.CheckVnet(ph, piece.Bytes(), 1500)
			if err != nil {
				r.Fatalf("piece %d to %d: %v", from, to, err)
			}
			if diff := cmp.Diff(checked, ph); diff != "" {
				r.Fatalf("header of piece %d to %d (-CheckVnet +Cut):\n%s", from, to, diff)
			}
			if ecn := ph.GSOType&frame.GSOECN != 0; ecn != (s.ECN && from == 0 && to > 1) {
				r.Fatalf("piece %d to %d: ECN %t", from, to, ecn)
			}
			if from == 0 && to == s.count() && !bytes.Equal(piece.Raw(), b.Raw()) {
				r.Fatalf("all segments are not the superframe: %s", cmp.Diff(b.Raw(), piece.Raw()))
			}
			pieces = append(pieces, split(r, piece)...)
			piece.Release()
			from = to
		}
		if diff := diffFrames(whole, pieces); diff != "" {
			r.Fatalf("(-Split +Cut):\n%s", diff)
		}
	})
}

func TestCutPanics(t *testing.T) {
	t.Parallel()
	s := super{Size: 100, Payload: 250, Flags: ack}
	b := s.build(t)
	defer b.Release()
	h, f := b.Header(), b.Bytes()
	hdr, payload := f[:h.HdrLen], f[h.HdrLen:]
	for name, cut := range map[string]struct {
		payload []byte
		from    int
	}{
		"no payload":                  {nil, 0},
		"part of a segment":           {payload[:150], 0},
		"part of the last segment":    {payload[200:249], 2},
		"more than there is":          {payload, 1},
		"segment before the first":    {payload[:100], -1},
		"segment behind the last one": {payload[:50], 3},
	} {
		mustPanic(t, name, func() { frame.Cut(h, hdr, cut.payload, cut.from) })
	}
}

// mustPanic checks that f finds a broken invariant.
func mustPanic(t *testing.T, name string, f func()) {
	t.Helper()
	defer func() {
		t.Helper()
		if recover() == nil {
			t.Errorf("%s: no panic", name)
		}
	}()
	f()
}

func TestSplitPlain(t *testing.T) {
	t.Parallel()
	want := super{Size: 100, Payload: 100, Flags: ack}.segment(t, make([]byte, 100), 0)

	b := frame.New(want)
	defer b.Release()
	if err := frame.Split(b, func(p *frame.Buf) {
		if p != b {
			t.Error("a frame with nothing to do was copied")
		}
	}); err != nil {
		t.Error(err)
	}

	s := super{Size: 100, Payload: 100, Flags: ack} // a superframe of one segment
	partial := s.build(t)
	defer partial.Release()
	before := bytes.Clone(partial.Raw())
	got := split(t, partial)
	if diff := cmp.Diff([][]byte{s.segment(t, s.payload(), 0)}, got); diff != "" {
		t.Errorf("frame without its checksum (-want +got):\n%s", diff)
	}
	if !bytes.Equal(before, partial.Raw()) {
		t.Error("Split changed a frame that may be shared")
	}
}

// A bridge passes superframes on whatever the length of their segments
// (net/core/dev.c, is_skb_forwardable). Those that are too long for the far LAN are
// refused there: what was read of the TAP can be split.
func TestSplitLongSegments(t *testing.T) {
	t.Parallel()
	s := super{Payload: 50000, Size: 20000, Flags: ack}
	b := s.build(t)
	defer b.Release()
	if _, err := frame.CheckVnet(b.Header(), b.Bytes(), frame.MaxLen); err != nil {
		t.Fatal(err)
	}
	got := split(t, b)
	for i := range got {
		if want := s.segment(t, s.payload(), i); !bytes.Equal(got[i], want) {
			t.Errorf("segment %d differs: %d bytes, want %d", i, len(got[i]), len(want))
		}
	}
	if len(got) != s.count() {
		t.Errorf("%d segments, want %d", len(got), s.count())
	}
}

func TestSplitRefuses(t *testing.T) {
	t.Parallel()
	s := super{Size: 100, Payload: 250}
	b := s.build(t)
	defer b.Release()
	h := b.Header()
	h.CsumStart--
	b.SetHeader(h)
	err := frame.Split(b, func(*frame.Buf) { t.Error("a frame was yielded") })
	if !errors.Is(err, frame.ErrVnet) {
		t.Errorf("%v, want %v", err, frame.ErrVnet)
	}
}

func TestSegmentsCount(t *testing.T) {
	t.Parallel()
	udp := func(size, start uint16) frame.Vnet {
		return frame.Vnet{Flags: frame.VnetNeedsCsum, GSOType: frame.GSOUDP, GSOSize: size, CsumStart: start}
	}
	for _, tt := range []struct {
		h    frame.Vnet
		n    int
		want int
	}{
		{frame.Vnet{}, 60, 1},
		{frame.Vnet{GSOSize: 10}, 60, 1},
		{udp(0, 34), 1000, 1},
		{udp(100, 34), 42 + 101, 2},
		{udp(100, 34), 42 + 200, 2},
		{udp(100, 34), 42 + 201, 3},
		{udp(100, 34), 42, 1},
		{udp(100, 34), 14, 1},
		{udp(100, 0xffff), 14, 1},
	} {
		if got := frame.Segments(tt.h, make([]byte, tt.n)); got != tt.want {
			t.Errorf("Segments(%+v, %d bytes) = %d, want %d", tt.h, tt.n, got, tt.want)
		}
	}
}

func TestSplitDoesNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector empties pools at random")
	}
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	s := super{Size: 1400, Payload: 60000, Flags: ack}
	b := s.build(t)
	defer b.Release()
	frames := 0
	if n := testing.AllocsPerRun(20, func() { frame.Split(b, func(*frame.Buf) { frames++ }) }); n != 0 {
		t.Errorf("Split of %d frames allocates %v times", frames, n)
	}
}

func BenchmarkSplit(b *testing.B) {
	s := super{Size: 1448, Payload: 64000, Flags: ack}
	buf := s.build(b)
	defer buf.Release()
	b.SetBytes(int64(buf.Len()))
	for b.Loop() {
		frame.Split(buf, func(*frame.Buf) {})
	}
}
