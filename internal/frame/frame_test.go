// SPDX-License-Identifier: Apache-2.0

package frame_test

import (
	"bytes"
	"runtime/debug"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/l2bridge/l2bridge/internal/frame"
)

func TestGet(t *testing.T) {
	t.Parallel()
	const small, jumbo, short = 1522, 9022, 24 << 10
	for _, tt := range []struct{ n, room int }{
		{0, small},
		{14, small},
		{small, small},
		{small + 1, jumbo},
		{jumbo, jumbo},
		{jumbo + 1, short},
		{short, short},
		{short + 1, frame.MaxLen},
		{65536 + 1, frame.MaxLen},
		{frame.MaxLen, frame.MaxLen},
	} {
		b := frame.Get(tt.n)
		if got := len(b.Room()); got != frame.VnetLen+tt.room {
			t.Errorf("Get(%d) has room for %d bytes, want %d", tt.n, got, frame.VnetLen+tt.room)
		}
		if b.Len() != tt.n || len(b.Bytes()) != tt.n || len(b.Raw()) != frame.VnetLen+tt.n {
			t.Errorf("Get(%d): length %d, %d bytes, %d with header", tt.n, b.Len(), len(b.Bytes()), len(b.Raw()))
		}
		b.Release()
	}
}

func TestMaxLenHoldsLongestPacket(t *testing.T) {
	t.Parallel()
	for name, s := range map[string]super{
		"IPv4": {Tags: []uint16{0x88a8, 0x8100}, Size: 1400, Payload: 65535 - 40},
		"IPv6": {Tags: []uint16{0x88a8, 0x8100}, V6: true, Size: 1400, Payload: 65535 - 20},
	} {
		b := s.build(t)
		if _, err := frame.CheckVnet(b.Header(), b.Bytes(), 1500); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got := split(t, b); !bytes.Equal(got[len(got)-1], s.segment(t, s.payload(), s.count()-1)) {
			t.Errorf("%s: last segment of the longest superframe differs", name)
		}
		b.Release()
	}
}

func TestGetZeroesHeader(t *testing.T) {
	t.Parallel()
	for range 100 {
		b := frame.Get(60)
		if h := b.Header(); h != (frame.Vnet{}) {
			t.Fatalf("header of a fresh Buf: %+v", h)
		}
		b.SetHeader(frame.Vnet{Flags: 1, GSOType: 2, HdrLen: 3, GSOSize: 4, CsumStart: 5, CsumOffset: 6})
		b.Release()
	}
}

func TestHeaderAndFrameAreOne(t *testing.T) {
	t.Parallel()
	b := frame.New([]byte("frame"))
	defer b.Release()
	want := frame.Vnet{Flags: 1, GSOType: 2, HdrLen: 0x0304, GSOSize: 0x0506, CsumStart: 0x0708, CsumOffset: 0x090a}
	b.SetHeader(want)
	// Little-endian, whatever this machine is (virtio 1.2, 5.1.6.1).
	raw := []byte("\x01\x02\x04\x03\x06\x05\x08\x07\x0a\x09frame")
	if diff := cmp.Diff(raw, b.Raw()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(want, b.Header()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}

	// As a TAP is read: into the room, then the length is known.
	n := copy(b.Room(), raw[:12])
	b.SetLen(n - frame.VnetLen)
	if got := string(b.Bytes()); got != "fr" {
		t.Errorf("after SetLen: %q, want %q", got, "fr")
	}
}

func TestVnetRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		raw := rapid.SliceOfN(rapid.Byte(), frame.VnetLen, frame.VnetLen).Draw(t, "raw")
		got := make([]byte, frame.VnetLen)
		frame.ParseVnet(raw).Put(got)
		if diff := cmp.Diff(raw, got); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
	})
}

func TestRetainAndRelease(t *testing.T) {
	t.Parallel()
	b := frame.New([]byte("shared"))
	if b.Retain() != b {
		t.Error("Retain returned another Buf")
	}
	b.Release()
	if got := string(b.Bytes()); got != "shared" {
		t.Errorf("after one of two references went: %q", got)
	}
	b.Release()
}

func TestBrokenInvariantsPanic(t *testing.T) {
	t.Parallel()
	mustPanic(t, "Get of less than nothing", func() { frame.Get(-1) })
	mustPanic(t, "Get of more than MaxLen", func() { frame.Get(frame.MaxLen + 1) })

	b := frame.Get(60)
	mustPanic(t, "SetLen below zero", func() { b.SetLen(-1) })
	mustPanic(t, "SetLen beyond the room", func() { b.SetLen(len(b.Room()) - frame.VnetLen + 1) })
	b.Release()

	// The zero Buf stands for a released one: a real one may have a new owner.
	mustPanic(t, "second Release", new(frame.Buf).Release)
	mustPanic(t, "Retain after Release", func() { new(frame.Buf).Retain() })
}

func TestBufDoesNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector empties pools at random")
	}
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	p := make([]byte, 1514)
	if n := testing.AllocsPerRun(100, func() { frame.New(p).Release() }); n != 0 {
		t.Errorf("New and Release allocate %v times", n)
	}
}
