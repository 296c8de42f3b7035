// SPDX-License-Identifier: Apache-2.0

//go:build linux

package tap_test

import (
	"context"
	"encoding/binary"
	"testing"

	"github.com/l2bridge/l2bridge/internal/frame"
	"github.com/l2bridge/l2bridge/internal/tap"
)

// BenchmarkRead tells what one goroutine reads from one queue of a TAP, which is
// all that there is: frames that wait already, with the kernel's part of it and
// without the sender's.
//
//	Device -- l2b1 | br0 | l2b0 -- Device that reads
func BenchmarkRead(b *testing.B) {
	superframe := frame.Vnet{Flags: frame.VnetNeedsCsum, GSOType: frame.GSOTCPv4, GSOSize: 1448, CsumStart: 34, CsumOffset: 16}
	const waiting = 400 // the queue takes 500 (drivers/net/tun.c, TUN_READQ_SIZE)
	for _, bench := range []struct {
		name   string
		bytes  int
		header frame.Vnet
	}{
		{"64 bytes", 64, frame.Vnet{}},
		{"1514 bytes", 1514, frame.Vnet{}},
		{"20 KB", 54 + 14*1448, superframe},
		{"64 KB", 54 + 44*1448, superframe},
	} {
		b.Run(bench.name, func(b *testing.B) {
			newNamespace(b)
			ip(b, "link", "add", "br0", "up", "type", "bridge", "mcast_snooping", "0")
			reads := openTAP(b, tap.Config{Name: "l2b0", Bridge: "br0", CarrierAlwaysOn: true, Superframes: true})
			defer reads.Close()
			sends := openTAP(b, tap.Config{Name: "l2b1", Bridge: "br0", CarrierAlwaysOn: true, Superframes: true})
			defer sends.Close()
			f := frame.New(tcpFrame(bench.bytes))
			defer f.Release()
			f.SetHeader(bench.header)
			var batch []*frame.Buf
			for range waiting {
				batch = append(batch, f)
			}
			b.SetBytes(int64(bench.bytes))
			b.ReportAllocs()
			b.ResetTimer()
			for left := b.N; left > 0; {
				b.StopTimer()
				n := min(left, waiting)
				left -= n
				sends.Send(batch[:n])
				ctx, cancel := context.WithCancel(b.Context())
				b.StartTimer()
				err := reads.Run(ctx, func(got []*frame.Buf) {
					if n -= len(got); n <= 0 {
						cancel()
					}
				})
				cancel()
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// tcpFrame returns a frame of n bytes that is a segment of TCP over IPv4, as far as
// segmentation looks.
func tcpFrame(n int) []byte {
	p := make([]byte, n)
	copy(p, mac("02:00:00:00:00:0b"))
	copy(p[6:], mac("02:00:00:00:00:0a"))
	copy(p[12:], []byte{0x08, 0, 0x45})
	binary.BigEndian.PutUint16(p[16:], uint16(n-14))
	copy(p[22:], []byte{64, 6})
	copy(p[26:], []byte{192, 0, 2, 1, 192, 0, 2, 2})
	p[46] = 5 << 4 // the length of TCP's header
	return p
}
