// SPDX-License-Identifier: Apache-2.0

package wire_test

import (
	"encoding/binary"
	"slices"
	"testing"
	"time"

	"github.com/l2bridge/l2bridge/internal/frame"
	"github.com/l2bridge/l2bridge/transport/wire"
)

// sliceOf returns a datagram with n bytes, from offset on, of an object of total.
func sliceOf(seq, id uint16, offset, n, total int) []byte {
	d := binary.BigEndian.AppendUint16(nil, seq)
	d = append(d, 2)
	d = binary.BigEndian.AppendUint16(d, uint16(8+n))
	d = binary.BigEndian.AppendUint16(d, id)
	for _, v := range []int{offset, total} {
		d = append(d, byte(v>>16), byte(v>>8), byte(v))
	}
	return append(d, make([]byte, n)...)
}

// Receivers that share memory have no more than that, all together, and get back
// what is whole, wrong, lost or left.
func TestMemoryIsShared(t *testing.T) {
	const most, total = 3, frame.MaxLen
	var drops wire.Drops
	b := frame.Get(total)
	memory := &wire.Memory{Most: int64(most * len(b.Room()))}
	b.Release()
	var lanes [4]*wire.Receiver
	begin := func() {
		for i := range lanes {
			lanes[i] = &wire.Receiver{MTU: frame.MaxMTU, Drops: &drops, Memory: memory}
		}
	}
	now, seq := time.Now(), uint16(0)
	put := func(lane int, id uint16, offset, n int) {
		for _, b := range lanes[lane].Datagram(sliceOf(seq, id, offset, n, total), now, nil) {
			b.Release()
		}
		seq++
	}
	// full checks that there is room for so many more, and takes it.
	full := func(when string, room int, firstID uint16) {
		t.Helper()
		before := drops[wire.Reassembly].Load()
		for i := range most {
			put(1, firstID+uint16(i), 0, 100)
		}
		if got := most - int(drops[wire.Reassembly].Load()-before); got != room {
			t.Errorf("%s: room for %d, want %d", when, got, room)
		}
	}
	for when, end := range map[string]func(){
		"whole":     func() { put(0, 0, 100, total-100) },
		"malformed": func() { put(0, 0, 50, 100) },
		"lost":      func() { put(0, 40, 0, 1); put(0, 40, 0, 1) }, // itself wrong at once
		"left":      func() { lanes[0].Close() },
	} {
		begin()
		put(0, 0, 0, 100)
		full("one is open", most-1, 0)
		end()
		before := drops[wire.Reassembly].Load()
		put(2, 0, 0, 100)
		if drops[wire.Reassembly].Load() != before {
			t.Errorf("%s: its memory is not given back", when)
		}
		for _, r := range lanes {
			r.Close()
		}
	}
	begin()
	full("all are closed", most, 0)
}

// A sequence that jumps costs no more than one that does not: what it skips is not
// walked through.
func TestRepairerJumps(t *testing.T) {
	const jumps = 200_000
	var r wire.Repairer
	passed := 0
	pass := func([]byte) { passed++ }
	parity := func(seq uint16) []byte {
		d := binary.BigEndian.AppendUint16(nil, seq)
		d = append(d, 6, 0, 9)
		d = binary.BigEndian.AppendUint16(d, seq-1)
		return append(d, 0, 0, 0, 1, 0, 0, 0)
	}
	now := time.Now()
	r.Datagram(parity(0), now, pass)
	for i := range jumps {
		r.Datagram(binary.BigEndian.AppendUint16(nil, uint16(i*32_000)), now, pass)
	}
	if took := time.Since(now); took > 10*time.Second {
		t.Errorf("%d jumps took %v", jumps, took)
	}
	// Those that wait come out in their order before what jumps ahead of them.
	r, passed = wire.Repairer{}, 0
	var order []uint16
	note := func(d []byte) { order = append(order, binary.BigEndian.Uint16(d)) }
	r.Datagram(parity(10), now, note)
	for _, seq := range []uint16{12, 14, 13, 20_000, 20_001} {
		r.Datagram(binary.BigEndian.AppendUint16(nil, seq), now, note)
	}
	for i := range 64 { // each may wait for one
		r.Idle(now.Add(time.Duration(i+1)*time.Second), note)
	}
	if want := []uint16{10, 12, 13, 14, 20_000, 20_001}; !slices.Equal(order, want) {
		t.Errorf("%v, want %v", order, want)
	}
}
