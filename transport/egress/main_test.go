// SPDX-License-Identifier: Apache-2.0

package egress_test

import (
	"context"
	"encoding/binary"
	"testing"

	"go.uber.org/goleak"

	"github.com/l2bridge/l2bridge/internal/frame"
	"github.com/l2bridge/l2bridge/transport/egress"
)

func TestMain(m *testing.M) {
	for !apart() {
		receiver[3]++
	}
	goleak.VerifyTestMain(m)
}

// receiver is the address that flows of tests go to.
var receiver = [4]byte{10, 0, 0, 2}

// apart reports whether no two of the flows that tests compare share a bucket of a
// queue; which do is another draw in each process.
func apart() bool {
	const flows = 8
	taken := make(map[uint32]bool)
	for flow := range uint16(flows) {
		for _, b := range []*frame.Buf{udp(flow, 0, 60), tcp(flow, 1, 1)} {
			taken[egress.Bucket(b, nil)] = true
			b.Release()
		}
	}
	return len(taken) == 2*flows
}

// udp returns a frame of n bytes, 46 at least, of the UDP flow with that source
// port, with a number in its payload.
func udp(flow uint16, number uint32, n int) *frame.Buf {
	b := frame.Get(n)
	f := b.Bytes()
	clear(f)
	copy(f, []byte{2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0, 0x45})
	binary.BigEndian.PutUint16(f[16:], uint16(n-14))
	f[22], f[23] = 64, frame.ProtoUDP
	copy(f[26:], []byte{10, 0, 0, 1})
	copy(f[30:], receiver[:])
	binary.BigEndian.PutUint16(f[34:], flow)
	binary.BigEndian.PutUint16(f[36:], 7)
	binary.BigEndian.PutUint16(f[38:], uint16(n-34))
	binary.BigEndian.PutUint32(f[42:], number)
	return b
}

// flowOf and numberOf read what udp wrote.
func flowOf(b *frame.Buf) int   { return int(binary.BigEndian.Uint16(b.Bytes()[34:])) }
func numberOf(b *frame.Buf) int { return int(binary.BigEndian.Uint32(b.Bytes()[42:])) }

// tcp returns a superframe of TCP over IPv4 with that many segments of size
// bytes, and the sequence number 1 in its first.
func tcp(flow uint16, segments, size int) *frame.Buf {
	const headers = 54
	b := frame.Get(headers + segments*size)
	f := b.Bytes()
	clear(f)
	copy(f, []byte{2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0, 0x45})
	binary.BigEndian.PutUint16(f[16:], uint16(len(f)-14))
	f[22], f[23] = 64, frame.ProtoTCP
	copy(f[26:], []byte{10, 0, 0, 1})
	copy(f[30:], receiver[:])
	binary.BigEndian.PutUint16(f[34:], flow)
	binary.BigEndian.PutUint16(f[36:], 7)
	binary.BigEndian.PutUint32(f[38:], 1)
	f[46], f[47] = 0x50, 0x10
	for i := range segments * size {
		f[headers+i] = byte(i / size)
	}
	h, err := frame.CheckVnet(frame.Vnet{
		Flags: frame.VnetNeedsCsum, GSOType: frame.GSOTCPv4, GSOSize: uint16(size), CsumStart: 34, CsumOffset: 16,
	}, f, frame.MaxMTU)
	if err != nil {
		panic(err)
	}
	b.SetHeader(h)
	return b
}

// push gives frames to a queue, and releases them.
func push(q *egress.Queue, frames ...*frame.Buf) {
	q.Push(frames)
	for _, b := range frames {
		b.Release()
	}
}

// next returns a copy of the frame whose turn it is on the lane, which is sent
// whole, or nil without one.
func next(l *egress.Lane) *frame.Buf {
	l.Wait(ended) // reads the clock
	it := l.Next(frame.MaxLen)
	if it == nil {
		return nil
	}
	b := frame.New(it.Buf.Bytes())
	b.SetHeader(it.Buf.Header())
	l.Sent(it.Buf.Len(), true)
	return b
}

// ended is a context that is done.
var ended = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()
