// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lab_test

import (
	"net"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/l2bridge/l2bridge/test/lab"
)

var (
	macA = net.HardwareAddr{0x02, 0, 0, 0, 0, 0xa}
	macB = net.HardwareAddr{0x02, 0, 0, 0, 0, 0xb}
)

func TestNumberedSurvives(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		f := drawNumbered(t)
		b := f.Bytes()
		if len(b) != f.Length {
			t.Fatalf("frame has %d bytes, want %d", len(b), f.Length)
		}
		got, err := lab.ParseNumber(b)
		if err != nil || got != f.Number {
			t.Fatalf("ParseNumber = %d, %v, want %d", got, err, f.Number)
		}
	})
}

func TestNumberedShowsDamage(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		b := drawNumbered(t).Bytes()
		damaged := append([]byte(nil), b...)
		switch rapid.IntRange(0, 2).Draw(t, "kind") {
		case 0:
			damaged[rapid.IntRange(0, len(b)-1).Draw(t, "byte")] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		case 1:
			damaged = damaged[:rapid.IntRange(0, len(b)-1).Draw(t, "length")]
		case 2:
			damaged = append(damaged, 0)
		}
		if n, err := lab.ParseNumber(damaged); err == nil {
			t.Fatalf("damaged frame is taken for number %d", n)
		}
	})
}

func drawNumbered(t *rapid.T) lab.Numbered {
	tags := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) lab.Tag {
		return lab.Tag{
			TPID: rapid.SampledFrom([]uint16{0x8100, 0x88a8}).Draw(t, "tpid"),
			TCI:  rapid.Uint16().Draw(t, "tci"),
		}
	}), 0, 2).Draw(t, "tags")
	shortest := lab.NumberedMin + 4*len(tags)
	return lab.Numbered{
		Dst: macA, Src: macB, Tags: tags,
		Number: rapid.Uint32().Draw(t, "number"),
		Length: rapid.IntRange(shortest, 9022).Draw(t, "length"),
	}
}

func TestRecord(t *testing.T) {
	t.Parallel()
	frame := func(number uint32) []byte {
		return lab.Numbered{Dst: macA, Src: macB, Number: number, Length: 100}.Bytes()
	}
	altered := frame(3)
	altered[50] ^= 1
	other := frame(9)
	other[12] = 0x08

	var got lab.Record
	for _, f := range [][]byte{frame(0), frame(2), frame(1), frame(2), altered, other, frame(4)} {
		got.Add(f)
	}
	want := lab.Record{Received: 4, Duplicates: 1, Altered: 1, Late: 1}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(lab.Record{})); diff != "" {
		t.Errorf("record (-want +got):\n%s", diff)
	}
}
