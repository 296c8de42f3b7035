// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"encoding/binary"
	"maps"
	"slices"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/l2bridge/l2bridge/test/wirepeer"
)

// room is what a datagram may hold on a path of which nothing is known yet.
const room = 1100

const whole = 1 // kind of record

func kinds() []string {
	return slices.Concat(slices.Sorted(maps.Keys(datagrams)), slices.Sorted(maps.Keys(besides)))
}

// datagrams are the kinds that are made of datagrams.
var datagrams = map[string]func(r *rogue) []byte{
	// What breaks the protocol.
	"noise":   func(r *rogue) []byte { return r.noise[r.rng.IntN(len(r.noise))] },
	"random":  func(r *rogue) []byte { return r.fill(r.rng.IntN(room)) },
	"totals":  func(r *rogue) []byte { return r.slice(0xffffff-r.rng.IntN(2)*0xfffff0, 0, 1) },
	"overlap": func(r *rogue) []byte { return r.overlap() },
	"headers": func(r *rogue) []byte { return r.records(whole, wirepeer.VNET, r.header) },

	// What keeps to the letter of it, or nearly so.
	"bombs":   func(r *rogue) []byte { return r.slice(greatest, 0, 1) },
	"frames":  func(r *rogue) []byte { return r.records(whole, 0, r.least) },
	"macs":    func(r *rogue) []byte { return r.records(whole, 0, r.stranger) },
	"pings":   func(r *rogue) []byte { return r.heartbeat(byte(1+2*r.rng.IntN(2)), r.rng.Uint64()) },
	"parity":  func(r *rogue) []byte { return r.parity() },
	"tests":   func(r *rogue) []byte { return r.records(whole, wirepeer.Test, r.test) },
	"relayed": func(r *rogue) []byte { return r.relayed() },
}

const greatest = 65_597 // bytes of a frame

func (r *rogue) fill(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.rng.Uint32())
	}
	return b
}

// begun returns the beginning of a datagram.
func (r *rogue) begun() []byte { return binary.BigEndian.AppendUint16(nil, uint16(r.count)) }

// records returns a datagram that is full of records of one kind.
func (r *rogue) records(kind byte, flags wirepeer.Flags, body func() []byte) []byte {
	d := r.begun()
	for {
		b := wirepeer.AppendRecord(nil, kind, flags, body())
		if len(d)+len(b) > room {
			return d
		}
		d = append(d, b...)
	}
}

// slice returns a part of an object that nobody has heard of yet.
func (r *rogue) slice(total, offset, n int) []byte {
	return wirepeer.AppendSlice(r.begun(), 0, uint16(r.count), offset, total, r.fill(n))
}

func (r *rogue) overlap() []byte {
	d, id := r.begun(), uint16(r.count)
	for range 20 {
		d = wirepeer.AppendSlice(d, 0, id, r.rng.IntN(2000), 3000, r.fill(10+r.rng.IntN(20)))
	}
	return d
}

// ethernet returns the addresses and the type of a frame to the station.
func (r *rogue) ethernet(src uint64, ether uint16) []byte {
	b := append([]byte(nil), r.station...)
	b = append(b, byte(src>>40)&^1|2, byte(src>>32), byte(src>>24), byte(src>>16), byte(src>>8), byte(src))
	return binary.BigEndian.AppendUint16(b, ether)
}

// header returns a virtio-net header that has been made up, and a packet.
func (r *rogue) header() []byte {
	b := r.fill(10)
	if r.rng.IntN(2) == 0 {
		b[0], b[1] = 1, byte([]int{1, 4, 5, 0x81}[r.rng.IntN(4)])
	}
	b = append(b, r.ethernet(0x0277000000cc, 0x0800)...)
	b = append(b, 0x45, 0, 0, byte(r.rng.Uint32()), 0, 0, 0, 0, 64, byte(6+11*r.rng.IntN(2)))
	return append(b, r.fill(60)...)
}

// least returns the shortest frame that there is, to a station that is known.
func (r *rogue) least() []byte { return r.ethernet(0x0277000000cc, 0x88b5) }

// stranger returns a frame of a station that was never seen before.
func (r *rogue) stranger() []byte {
	r.macs++
	return r.ethernet(r.macs*0x9e3779b97f4a7c15>>16, 0x88b5)
}

// parity returns datagrams whose sequence jumps, with a PARITY now and then.
func (r *rogue) parity() []byte {
	seq := uint16(r.count * 32_000)
	d := binary.BigEndian.AppendUint16(nil, seq)
	if r.rng.IntN(4) > 0 {
		return d
	}
	body := binary.BigEndian.AppendUint16(nil, seq-uint16(r.rng.IntN(32)))
	body = binary.BigEndian.AppendUint32(body, r.rng.Uint32()|1)
	return wirepeer.AppendRecord(d, 6, 0, append(body, r.fill(2+r.rng.IntN(1000))...))
}

// test returns an ECHO, UP or GRANT, or what looks like one.
func (r *rogue) test() []byte {
	b := []byte{0x02, 0x6c, 0x32, 0x62, byte(r.rng.IntN(17)), byte(1 + r.rng.IntN(6)), 2, 0, 0, 0, 0, byte(r.rng.IntN(3)), 0x88, 0xb5}
	return append(b, r.fill(14)...)
}

// relayed returns a frame to the third, in a flow of its own.
func (r *rogue) relayed() []byte {
	o := wirepeer.Object{Flags: wirepeer.Relayed, Destination: r.third}
	copy(o.Source[:], r.member.ID[:])
	o.Frame = append(r.ethernet(r.rng.Uint64(), 0x0800), 0x45, 0, 0x03, 0xe8, 0, 0, 0, 0, 64, 17, 0, 0)
	o.Frame = append(o.Frame, r.fill(980)...)
	return wirepeer.AppendWhole(r.begun(), o)
}

// besides are the kinds that go on beside datagrams, until ctx ends.
var besides = map[string]func(ctx context.Context, s *session){
	"messages": flood,
	"wrong":    wrong,
	"halfopen": halfOpen,
}

// flood says on the control stream what it may, without end.
func flood(ctx context.Context, s *session) {
	stop := context.AfterFunc(ctx, func() { s.stream.CancelWrite(0) })
	defer stop()
	var self wirepeer.Member
	copy(self[:], s.member.ID[:])
	links := make(wirepeer.Links, 1024)
	for i := uint64(0); ; i++ {
		binary.BigEndian.PutUint64(links[i%1024][:], i)
		seen := wirepeer.Seen{Address: [16]byte{10: 0xff, 11: 0xff, 12: 203, 13: 0, 14: 113, 15: byte(i)}, Port: uint16(1 + i%60_000)}
		b := links.Append(nil)
		b = seen.Append(b)
		b = wirepeer.Punch{Destination: s.third, Source: self}.Append(b)
		b = wirepeer.Have{{Member: self, Version: i}}.Append(b)
		b = wirepeer.Lanes{Want: byte(i)}.Append(b)
		b = wirepeer.AppendMessage(b, 200, make([]byte, i%16_000))
		if _, err := s.stream.Write(b); err != nil {
			return
		}
	}
}

// wrong says, after a second, what it may not.
func wrong(ctx context.Context, s *session) {
	pause(ctx, time.Second)
	s.stream.Write([]byte{3, 0, 1, 0}) // a PROBE_ACK that is too short
}

// halfOpen makes connections that never come to a session, some with a stream that
// ends in the middle of a HELLO.
func halfOpen(ctx context.Context, s *session) {
	const most = 100
	var open []*quic.Conn
	for ctx.Err() == nil {
		conn, err := s.dial(ctx, s.socket)
		if err != nil {
			pause(ctx, 50*time.Millisecond)
			continue
		}
		if len(open)%2 == 0 {
			if stream, err := conn.OpenStream(); err == nil {
				stream.Write([]byte{1, 0, 56, 1, 2, 3})
			}
		}
		if open = append(open, conn); len(open) > most {
			open[0].CloseWithError(0, "")
			open = open[1:]
		}
		pause(ctx, 20*time.Millisecond)
	}
	for _, conn := range open {
		conn.CloseWithError(0, "")
	}
}
