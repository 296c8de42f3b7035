// SPDX-License-Identifier: Apache-2.0

package wire_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/l2bridge/l2bridge/internal/frame"
	"github.com/l2bridge/l2bridge/transport/wire"
)

// line is a Source of frames that wait.
type line []*wire.Item

func (l *line) Next(int) *wire.Item {
	if len(*l) == 0 {
		return nil
	}
	return (*l)[0]
}

func (l *line) Sent(_ int, done bool) {
	if done {
		(*l)[0].Buf.Release()
		*l = (*l)[1:]
	}
}

// Frames of a test travel among others, cut like them, and come out beside
// them; who takes none, or does not expect one, counts it.
func TestTestFrames(t *testing.T) {
	for _, tt := range []struct {
		name        string
		take        func([]byte) bool
		took, drops int
	}{
		{"taken", func([]byte) bool { return true }, 2, 0},
		{"not expected", func([]byte) bool { return false }, 2, 2},
		{"not said", nil, 0, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out line
			for i, n := range []int{60, 1514, 1000, 14} {
				b := frame.New(bytes.Repeat([]byte{byte(i + 2)}, n))
				if i%2 == 1 {
					b.SetTest()
				}
				out = append(out, &wire.Item{Buf: b})
			}
			var took, came []int
			r := wire.Receiver{MTU: 1500, Drops: new(wire.Drops)}
			if tt.take != nil {
				r.Test = func(f []byte) bool {
					took = append(took, len(f))
					return tt.take(f)
				}
			}
			defer r.Close()
			var p wire.Packer
			var frames []*frame.Buf
			for d := make([]byte, 1200); ; {
				n := p.Pack(d, &out)
				if n == 0 {
					break
				}
				frames = r.Datagram(d[:n], time.Time{}, frames)
			}
			for _, b := range frames {
				came = append(came, b.Len())
				b.Release()
			}
			if len(came) != 2 || came[0] != 60 || came[1] != 1000 || len(took) != tt.took || int(r.Drops[wire.Test].Load()) != tt.drops {
				t.Errorf("frames %v, of the test %v, %d drops", came, took, r.Drops[wire.Test].Load())
			}
		})
	}
	if b := frame.Get(60); b.IsTest() {
		t.Error("a new Buf is of a test")
	}
}
