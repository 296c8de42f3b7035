// SPDX-License-Identifier: Apache-2.0

package frame_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	"pgregory.net/rapid"

	"github.com/l2bridge/l2bridge/internal/frame"
)

// udpFrame makes a frame of UDP; what is left to be done of it is if partial.
func udpFrame(v6, tagged, partial bool, port, id uint16, ttl byte, payload []byte) *frame.Buf {
	be := binary.BigEndian
	f := append([]byte{2, 0, 0, 0, 0, 2}, 2, 0, 0, 0, 0, 1)
	if tagged {
		f = append(f, 0x81, 0, 0, 7)
	}
	udp := be.AppendUint16(nil, port)
	udp = be.AppendUint16(udp, 53)
	udp = be.AppendUint16(udp, uint16(8+len(payload)))
	udp = append(be.AppendUint16(udp, 0), payload...)
	var addresses []byte
	if v6 {
		f = append(f, 0x86, 0xdd, 0x60, 0, 0, 0)
		f = be.AppendUint16(f, uint16(len(udp)))
		f = append(f, 17, ttl)
		addresses = append(bytes.Repeat([]byte{0x20}, 16), bytes.Repeat([]byte{0x21}, 16)...)
		f = append(f, addresses...)
	} else {
		ip := []byte{0x45, 0}
		ip = be.AppendUint16(ip, uint16(20+len(udp)))
		ip = be.AppendUint16(ip, id)
		ip = append(ip, 0x40, 0, ttl, 17, 0, 0)
		addresses = []byte{10, 0, 0, 1, 10, 0, 0, 2}
		ip = append(ip, addresses...)
		be.PutUint16(ip[10:], ^frame.Sum(ip, 0))
		f = append(append(f, 8, 0), ip...)
	}
	l4 := len(f)
	pseudo := frame.Sum(addresses, frame.Sum([]byte{0, 17, byte(len(udp) >> 8), byte(len(udp))}, 0))
	be.PutUint16(udp[6:], pseudo)
	b := frame.New(append(f, udp...))
	b.SetHeader(frame.Vnet{Flags: frame.VnetNeedsCsum, CsumStart: uint16(l4), CsumOffset: 6})
	if !partial {
		frame.Complete(b)
	}
	return b
}

// What was joined comes apart as it was, complete with sums; what CheckVnet would
// refuse is never made.
func TestJoin(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var (
			j     frame.Joiner
			batch []*frame.Buf
			want  [][]byte
			v6    = rapid.Bool().Draw(t, "v6")
			tag   = rapid.Bool().Draw(t, "tagged")
			part  = rapid.Bool().Draw(t, "partial")
			size  = rapid.SampledFrom([]int{1, 18, 64, 1000, 1472}).Draw(t, "size")
			id    = rapid.Uint16().Draw(t, "id")
			port  = uint16(1000)
		)
		for range rapid.IntRange(1, 200).Draw(t, "count") {
			n, ttl := size, byte(64)
			switch rapid.IntRange(0, 40).Draw(t, "odd") {
			case 0:
				n = rapid.IntRange(1, 1472).Draw(t, "other size")
			case 1:
				port++
			case 2:
				id += 5
			case 3:
				ttl = 63
			case 4:
				part = !part
			}
			b := udpFrame(v6, tag, part, port, id, ttl, bytes.Repeat([]byte{byte(id)}, n))
			if rapid.IntRange(0, 60).Draw(t, "damage") == 0 {
				b.Bytes()[b.Len()-1]++ // a wrong sum, unless it is still to be done
			}
			id++
			whole := frame.New(b.Bytes())
			whole.SetHeader(b.Header())
			frame.Complete(whole)
			want = append(want, bytes.Clone(whole.Bytes()))
			whole.Release()
			if len(batch) > 0 {
				last := batch[len(batch)-1]
				if both := j.Join(last, b); both != nil {
					if both != last {
						last.Release()
						batch[len(batch)-1] = both
					}
					b.Release()
					continue
				}
			}
			j.Begin(b)
			batch = append(batch, b)
		}
		var got [][]byte
		for _, b := range batch {
			if b.Header().GSOType != frame.GSONone {
				h, err := frame.CheckVnet(b.Header(), b.Bytes(), frame.MaxMTU)
				if err != nil || h != b.Header() {
					t.Fatalf("made %+v, of which CheckVnet says %+v, %v", b.Header(), h, err)
				}
			}
			if err := frame.Split(b, func(p *frame.Buf) { got = append(got, bytes.Clone(p.Bytes())) }); err != nil {
				t.Fatal(err)
			}
			b.Release()
		}
		if len(got) != len(want) {
			t.Fatalf("%d frames of %d", len(got), len(want))
		}
		for i := range want {
			if !bytes.Equal(got[i], want[i]) {
				t.Fatalf("frame %d is altered:\n%x\n%x", i, want[i], got[i])
			}
		}
	})
}

// Addresses of IPv6 may be whatever a sender likes, such as what would be an IPv4 header
// in their place.
func TestJoinLikeIPv4(t *testing.T) {
	const l4 = 14 + 40
	be := binary.BigEndian
	like := func(id uint16) *frame.Buf {
		b := udpFrame(true, false, false, 1, 0, 64, make([]byte, 1400))
		ip, udp := b.Bytes()[l4-20:l4], b.Bytes()[l4:]
		be.PutUint16(b.Bytes()[l4-22:], frame.TypeIPv4)
		ip[0] = 0x45
		be.PutUint16(ip[4:], id)
		be.PutUint16(ip[10:], 0)
		be.PutUint16(ip[10:], ^frame.Sum(ip, 0))
		be.PutUint16(udp[6:], 0)
		pseudo := frame.Sum([]byte{0, 17, byte(len(udp) >> 8), byte(len(udp))}, frame.Sum(ip[12:], 0))
		be.PutUint16(udp[6:], ^frame.Sum(udp, pseudo))
		return b
	}
	var j frame.Joiner
	last, b := like(0x2001), like(0x2002)
	j.Begin(last)
	if both := j.Join(last, b); both != nil {
		_, err := frame.CheckVnet(both.Header(), both.Bytes(), frame.MaxMTU)
		t.Errorf("two IPv6 packets to different addresses are joined; of the result CheckVnet says %v", err)
	}
}

// An address of IPv6 that has the EtherType and version of IPv4 keeps no flow from
// being joined.
func TestJoinIPv6Address(t *testing.T) {
	const l4 = 14 + 40
	var pair [2]*frame.Buf
	for i := range pair {
		b := udpFrame(true, false, true, 1, 0, 64, make([]byte, 1400))
		f := b.Bytes()
		copy(f[l4-22:], []byte{8, 0, 0x45})
		binary.BigEndian.PutUint16(f[l4+6:], frame.Sum(f[l4-32:l4], frame.Sum([]byte{0, 17, 5, 0x80}, 0)))
		pair[i] = b
	}
	var j frame.Joiner
	j.Begin(pair[0])
	if j.Join(pair[0], pair[1]) == nil {
		t.Error("equal datagrams from an address with 08 00 45 in it are not joined")
	}
}

// A flow of equal datagrams becomes one superframe.
func TestJoinMany(t *testing.T) {
	var j frame.Joiner
	last := udpFrame(false, false, true, 1, 0, 64, make([]byte, 400))
	j.Begin(last)
	for i := range 127 {
		b := udpFrame(false, false, true, 1, uint16(1+i), 64, make([]byte, 400))
		both := j.Join(last, b)
		if both == nil {
			t.Fatalf("datagram %d is not joined", i)
		}
		if both != last {
			last.Release()
		}
		last = both
		b.Release()
		if room := len(last.Room()); room > max(2048, 6*last.Len()) {
			t.Fatalf("%d datagrams, %d bytes, hold %d", 2+i, last.Len(), room)
		}
	}
	if n := frame.Segments(last.Header(), last.Bytes()); n != 128 {
		t.Errorf("%d segments, want 128", n)
	}
	b := udpFrame(false, false, true, 1, 128, 64, make([]byte, 400))
	if j.Join(last, b) != nil {
		t.Error("more than 128 are joined")
	}
	b.Release()
	last.Release()
}

func FuzzJoin(f *testing.F) {
	f.Add([]byte{0, 0, 0}, []byte{1, 1, 1})
	a := udpFrame(true, true, true, 1, 1, 64, []byte("payload"))
	f.Add(a.Bytes(), a.Bytes())
	f.Fuzz(func(t *testing.T, first, second []byte) {
		if len(first) < frame.HeaderLen || len(second) < frame.HeaderLen || len(first)+len(second) > 60000 {
			return
		}
		a, b := frame.New(first), frame.New(second)
		var j frame.Joiner
		j.Begin(a)
		both := j.Join(a, b)
		if both == nil {
			return
		}
		var got []byte
		if err := frame.Split(both, func(p *frame.Buf) { got = append(got, p.Bytes()...) }); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, append(bytes.Clone(first), second...)) {
			t.Errorf("altered:\n%x\n%x\n%x", first, second, got)
		}
	})
}

// A datagram of many that become one superframe.
func BenchmarkJoinMany(b *testing.B) {
	var all [44]*frame.Buf
	for i := range all {
		all[i] = udpFrame(false, false, true, 1, uint16(i), 64, make([]byte, 1400))
	}
	b.ReportAllocs()
	for b.Loop() {
		var j frame.Joiner
		last := all[0]
		j.Begin(last)
		for _, d := range all[1:] {
			both := j.Join(last, d)
			if both != last && last != all[0] {
				last.Release()
			}
			last = both
		}
		last.Release()
	}
}

func BenchmarkJoin(b *testing.B) {
	first := udpFrame(false, false, true, 1, 0, 64, make([]byte, 1400))
	second := udpFrame(false, false, true, 1, 1, 64, make([]byte, 1400))
	b.ReportAllocs()
	for b.Loop() {
		var j frame.Joiner
		j.Begin(first)
		both := j.Join(first, second)
		both.Release()
	}
}
