// SPDX-License-Identifier: Apache-2.0

package egress_test

import (
	"fmt"
	"testing"

	"github.com/l2bridge/l2bridge/internal/frame"
	"github.com/l2bridge/l2bridge/transport/egress"
	"github.com/l2bridge/l2bridge/transport/wire"
)

// A frame from the switch into a datagram: hash, queue, turn, CoDel, packer.
func BenchmarkThrough(b *testing.B) {
	for _, size := range []int{64, 1514, 62000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			q := egress.New()
			l := q.Open()
			f := udp(1, 0, size)
			if size > 9100 {
				f = tcp(1, size/1448, 1448)
			}
			defer f.Release()
			batch := []*frame.Buf{f}
			var p wire.Packer
			d := make([]byte, 1399)
			b.ReportAllocs()
			b.SetBytes(int64(size))
			for b.Loop() {
				q.Push(batch)
				for !l.Idle() {
					l.Wait(ended)
					p.Pack(d, l)
					l.Spent(1480)
				}
			}
		})
	}
}

// A frame that finds the queue full of as many flows as are told apart.
func BenchmarkFull(b *testing.B) {
	q := egress.New()
	var batch []*frame.Buf
	for i := range 4096 {
		batch = append(batch, udp(uint16(i), 0, 64))
	}
	q.Push(batch)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		q.Push(batch[i%4096 : i%4096+1])
	}
}
