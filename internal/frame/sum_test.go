// SPDX-License-Identifier: Apache-2.0

package frame_test

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/l2bridge/l2bridge/internal/frame"
)

func TestSum(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		p       []byte
		partial uint16
		want    uint16
	}{
		{"nothing", nil, 0, 0},
		{"nothing but a partial sum", nil, 0x1234, 0x1234},
		{"RFC 1071, section 3", []byte{0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7}, 0, 0xddf2},
		{"odd byte is the upper half", []byte{0x12}, 0, 0x1200},
		{"carry comes around", []byte{0xff, 0xff}, 0x0001, 0x0001},
		{"carry out of the last bytes", bytes.Repeat([]byte{0xff}, 15), 0, 0xff00},
		{"minus zero stays", []byte{0xff, 0xff, 0xff, 0xff}, 0xffff, 0xffff},
	} {
		if got := frame.Sum(tt.p, tt.partial); got != tt.want {
			t.Errorf("%s: %#04x, want %#04x", tt.name, got, tt.want)
		}
	}
}

func TestSumAgainstModel(t *testing.T) {
	t.Parallel()
	// Many 0xff bytes, so that carries happen everywhere.
	anything := rapid.SliceOfN(rapid.OneOf(rapid.Just[byte](0xff), rapid.Byte()), 0, 200)
	rapid.Check(t, func(t *rapid.T) {
		p := anything.Draw(t, "p")
		partial := rapid.Uint16().Draw(t, "partial")
		if got, want := frame.Sum(p, partial), naiveSum(p, partial); got != want {
			t.Fatalf("%#04x, want %#04x", got, want)
		}
	})
}

func TestComplete(t *testing.T) {
	t.Parallel()
	frameWith := func(h frame.Vnet, p []byte) *frame.Buf {
		b := frame.New(p)
		b.SetHeader(h)
		return b
	}
	csum := frame.Vnet{Flags: frame.VnetNeedsCsum, CsumStart: 2, CsumOffset: 2}
	for _, tt := range []struct {
		name string
		h    frame.Vnet
		p    []byte
		want []byte
	}{
		{"nothing to do", frame.Vnet{}, []byte{1, 2, 3, 4, 5, 6}, []byte{1, 2, 3, 4, 5, 6}},
		{"sum from start to end", csum, []byte{9, 9, 0x10, 0x20, 0x01, 0x01, 0x30}, []byte{9, 9, 0x10, 0x20, 0xbe, 0xde, 0x30}},
		{"zero is written as minus zero", csum, []byte{9, 9, 0xff, 0x00, 0x00, 0xff}, []byte{9, 9, 0xff, 0x00, 0xff, 0xff}},
	} {
		b := frameWith(tt.h, tt.p)
		frame.Complete(b)
		if diff := cmp.Diff(tt.want, b.Bytes()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
		if h := b.Header(); h != (frame.Vnet{}) {
			t.Errorf("%s: header %+v is left", tt.name, h)
		}
		b.Release()
	}
}

func BenchmarkSum(b *testing.B) {
	p := make([]byte, 1500)
	b.SetBytes(int64(len(p)))
	for b.Loop() {
		frame.Sum(p, 0)
	}
}
