// SPDX-License-Identifier: Apache-2.0

package wire_test

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/l2bridge/l2bridge/transport/wire"
)

// Whatever is lost: what the Repairer passes on was sent, once, and in order.
func TestRepair(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		covers := rapid.IntRange(1, 20).Draw(t, "covers")
		lossy := rapid.Bool().Draw(t, "lossy")
		lose := rapid.SampledFrom([]int{5, 50, 1000}).Draw(t, "one in")
		seq := rapid.Uint16().Draw(t, "first")
		var (
			p     wire.Protector
			r     wire.Repairer
			sent  = make(map[uint16][]byte)
			got   = make(map[uint16]bool)
			order []uint16
			now   = time.Unix(0, 0)
		)
		pass := func(d []byte) {
			s := binary.BigEndian.Uint16(d)
			if d[2] == 6 {
				return
			}
			if want, ok := sent[s]; !ok || !bytes.Equal(d, want) {
				t.Fatalf("datagram %d was not sent, or is altered", s)
			}
			if got[s] {
				t.Fatalf("datagram %d came twice", s)
			}
			got[s] = true
			order = append(order, s)
		}
		deliver := func(d []byte) {
			if rapid.IntRange(1, lose).Draw(t, "fate") != 1 || !lossy {
				r.Datagram(bytes.Clone(d), now, pass)
			}
		}
		start := seq
		// The first PARITY switches it on.
		switchOn(&r, seq-2, now)
		for range rapid.IntRange(1, 300).Draw(t, "count") {
			now = now.Add(100 * time.Microsecond)
			d := binary.BigEndian.AppendUint16(nil, seq)
			d = append(d, rapid.SliceOfN(rapid.Byte(), 1, 40).Draw(t, "body")...)
			d[2] = 1
			sent[seq] = bytes.Clone(d)
			p.Add(d)
			deliver(d)
			seq++
			if p.Covers() == covers {
				deliver(p.Append(nil, seq))
				seq++
			}
		}
		r.Idle(now.Add(time.Second), pass)
		for i := 1; i < len(order); i++ {
			if order[i]-start <= order[i-1]-start {
				t.Fatalf("datagram %d after %d", order[i]-start, order[i-1]-start)
			}
		}
		if !lossy && len(got) != len(sent) {
			t.Fatalf("%d of %d datagrams came over a path that loses none", len(got), len(sent))
		}
	})
}

// However a path reorders, also what is about the first PARITY, and whenever there
// are none for a while: nothing comes twice or altered, and over one that loses
// nothing all comes.
func TestRepairReordered(t *testing.T) {
	type packet struct {
		at int // when it arrives, in hundreds of microseconds
		d  []byte
	}
	rapid.Check(t, func(t *rapid.T) {
		covers := rapid.IntRange(1, 20).Draw(t, "covers")
		lose := rapid.SampledFrom([]int{0, 5, 50}).Draw(t, "one in")
		late := rapid.IntRange(1, 30).Draw(t, "late") // and so less than 64 behind
		seq := rapid.Uint16().Draw(t, "first")
		var (
			p    wire.Protector
			path []packet
			sent = make(map[uint16][]byte)
		)
		at := 0
		send := func(d []byte) {
			if lose > 0 && rapid.IntRange(1, lose).Draw(t, "fate") == 1 {
				return
			}
			arrives := at
			if rapid.IntRange(1, 4).Draw(t, "order") == 1 {
				arrives += rapid.IntRange(0, late).Draw(t, "delay")
			}
			path = append(path, packet{arrives, bytes.Clone(d)})
		}
		protects := false
		for range rapid.IntRange(1, 200).Draw(t, "count") {
			at++
			if rapid.IntRange(1, 40).Draw(t, "change") == 1 {
				protects = !protects
				p.Reset()
				if rapid.Bool().Draw(t, "pause") {
					at += 60000
				}
			}
			d := append(binary.BigEndian.AppendUint16(nil, seq), 1, byte(seq), byte(at))
			d = append(d, make([]byte, rapid.IntRange(0, 9).Draw(t, "longer"))...)
			sent[seq] = d
			seq++
			send(d)
			if protects {
				if p.Add(d); p.Covers() == covers {
					send(p.Append(nil, seq))
					seq++
				}
			}
		}
		slices.SortStableFunc(path, func(a, b packet) int { return a.at - b.at })
		var r wire.Repairer
		got := make(map[uint16]bool)
		pass := func(d []byte) {
			s := binary.BigEndian.Uint16(d)
			switch want, ok := sent[s]; {
			case d[2] == 6:
			case !ok || !bytes.Equal(d, want):
				t.Fatalf("datagram %d was not sent, or is altered", s)
			case got[s]:
				t.Fatalf("datagram %d came twice", s)
			default:
				got[s] = true
			}
		}
		var now time.Time
		for _, packet := range path {
			now = time.Unix(0, 0).Add(time.Duration(packet.at) * 100 * time.Microsecond)
			r.Idle(now, pass)
			r.Datagram(packet.d, now, pass)
		}
		r.Idle(now.Add(time.Second), pass)
		if lose == 0 && len(got) != len(sent) {
			t.Fatalf("%d of %d datagrams came over a path that loses none", len(got), len(sent))
		}
	})
}

// What overtook the first PARITY, and so was not kept, is not made good.
func TestRepairOvertaken(t *testing.T) {
	var (
		p    wire.Protector
		r    wire.Repairer
		all  [][]byte
		came = make(map[uint16]int)
		now  = time.Unix(0, 0)
	)
	for seq := uint16(0); seq < 9; seq++ {
		if seq%3 == 2 {
			all = append(all, p.Append(nil, seq))
			continue
		}
		d := append(binary.BigEndian.AppendUint16(nil, seq), 1, byte(seq))
		p.Add(d)
		all = append(all, d)
	}
	for _, i := range []int{0, 1, 3, 2, 4, 5, 6, 7, 8} {
		r.Datagram(all[i], now, func(d []byte) { came[binary.BigEndian.Uint16(d)]++ })
	}
	for seq, n := range came {
		if n != 1 {
			t.Errorf("datagram %d came %d times", seq, n)
		}
	}
}

// One lost datagram of a group is made good, whichever it is.
func TestRepairOne(t *testing.T) {
	var covers = 10
	for lost := range covers {
		var (
			p    wire.Protector
			r    wire.Repairer
			got  [][]byte
			want [][]byte
			now  = time.Unix(0, 0)
		)
		pass := func(d []byte) {
			if d[2] != 6 {
				got = append(got, bytes.Clone(d))
			}
		}
		switchOn(&r, 65529, now)
		for i := range covers {
			d := binary.BigEndian.AppendUint16(nil, uint16(65531+i))
			d = append(d, bytes.Repeat([]byte{byte(100 + i)}, 100+10*i)...)
			want = append(want, d)
			p.Add(d)
			if i != lost {
				r.Datagram(d, now, pass)
			}
		}
		if len(got) != lost {
			t.Errorf("%d datagrams went on before number %d was repaired", len(got), lost)
		}
		r.Datagram(p.Append(nil, uint16(65531+covers)), now, pass)
		if r.Repaired != 1 || len(got) != covers {
			t.Fatalf("lost %d: %d repaired, %d came", lost, r.Repaired, len(got))
		}
		for i := range want {
			if !bytes.Equal(got[i], want[i]) {
				t.Errorf("lost %d: datagram %d is altered", lost, i)
			}
		}
	}
}

// Without a PARITY nothing waits; with one that never comes, not for long.
func TestRepairWaits(t *testing.T) {
	var (
		r   wire.Repairer
		got int
		now = time.Unix(0, 0)
	)
	pass := func(d []byte) { got++ }
	datagram := func(seq uint16) []byte { return append(binary.BigEndian.AppendUint16(nil, seq), 1, 0, 0) }
	r.Datagram(datagram(5), now, pass)
	r.Datagram(datagram(9), now, pass)
	if got != 2 || r.Waits() {
		t.Fatalf("%d datagrams went on, waits %v", got, r.Waits())
	}
	switchOn(&r, 9, now)
	r.Datagram(datagram(12), now, pass)
	if !r.Waits() {
		t.Fatal("does not wait for what is missing")
	}
	before := got
	r.Idle(now.Add(10*time.Millisecond), pass)
	if got != before {
		t.Error("gave up at once")
	}
	r.Idle(now.Add(50*time.Millisecond), pass)
	if got != before+1 || r.Waits() {
		t.Error("waits for too long")
	}
}

// What comes far too late takes nobody's place.
func TestRepairTooLate(t *testing.T) {
	var (
		r   wire.Repairer
		got []uint16
		now = time.Unix(0, 0)
	)
	pass := func(d []byte) { got = append(got, binary.BigEndian.Uint16(d)) }
	datagram := func(seq uint16) []byte { return append(binary.BigEndian.AppendUint16(nil, seq), 1, 0, 0) }
	switchOn(&r, 9, now)
	for seq := uint16(11); seq < 100; seq++ {
		if seq != 95 {
			r.Datagram(datagram(seq), now, pass) // from 96 on they wait
		}
	}
	r.Datagram(datagram(97-64), now, pass)
	r.Datagram(datagram(95), now, pass)
	for i, seq := range got[len(got)-5:] {
		if seq != uint16(95+i) {
			t.Fatalf("passed on %v at the end, want 95 to 99", got[len(got)-5:])
		}
	}
}

// Hostile PARITY records make nobody panic, nor keep memory.
func FuzzRepair(f *testing.F) {
	f.Add([]byte{0, 1, 6, 0, 10, 0, 0, 0, 0, 0, 1, 0, 2, 7, 7})
	f.Fuzz(func(t *testing.T, data []byte) {
		var r wire.Repairer
		now := time.Unix(0, 0)
		passed, fed := 0, 0
		for len(data) > 2 {
			n := min(2+int(data[0]), len(data))
			r.Datagram(bytes.Clone(data[1:n]), now, func([]byte) { passed++ })
			fed++
			data = data[n:]
			now = now.Add(time.Millisecond)
		}
		r.Idle(now.Add(time.Minute), func([]byte) { passed++ })
		if passed > 2*fed {
			t.Errorf("%d datagrams of %d", passed, fed)
		}
	})
}

// switchOn gives a Repairer the datagram with that sequence, and its PARITY.
func switchOn(r *wire.Repairer, seq uint16, now time.Time) {
	var p wire.Protector
	d := append(binary.BigEndian.AppendUint16(nil, seq), 0)
	p.Add(d)
	r.Datagram(d, now, func([]byte) {})
	r.Datagram(p.Append(nil, seq+1), now, func([]byte) {})
}

// A datagram covered, and a twentieth of its PARITY.
func BenchmarkProtect(b *testing.B) {
	var p wire.Protector
	d := make([]byte, 1388)
	out := make([]byte, 0, 2048)
	b.ReportAllocs()
	b.SetBytes(int64(len(d)))
	for i := 0; b.Loop(); i++ {
		binary.BigEndian.PutUint16(d, uint16(i))
		p.Add(d)
		if p.Covers() == 20 {
			p.Append(out, uint16(i))
		}
	}
}
