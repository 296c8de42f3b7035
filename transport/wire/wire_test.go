// SPDX-License-Identifier: Apache-2.0

package wire_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/l2bridge/l2bridge/internal/frame"
	"github.com/l2bridge/l2bridge/transport/wire"
	"pgregory.net/rapid"
)

// fifo is a Source that hands out its items one after the other.
type fifo struct{ items []*wire.Item }

func (q *fifo) Next(int) *wire.Item {
	if len(q.items) == 0 {
		return nil
	}
	return q.items[0]
}

func (q *fifo) Sent(_ int, done bool) {
	if done {
		q.items[0].Buf.Release()
		q.items = q.items[1:]
	}
}

func (q *fifo) push(b *frame.Buf) { q.items = append(q.items, &wire.Item{Buf: b}) }

// plain returns a frame of n bytes with a source and destination, else random.
func plain(rng *rand.Rand, n int) []byte {
	f := make([]byte, n)
	for i := range f {
		f[i] = byte(rng.Uint32())
	}
	copy(f, []byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb5})
	return f
}

// tcp4 returns a TSO superframe with the given payload and segment size.
func tcp4(payload, size int) *frame.Buf {
	const hdr = 14 + 20 + 20
	b := frame.Get(hdr + payload)
	f := b.Bytes()
	for i := range f {
		f[i] = byte(i * 7)
	}
	copy(f, []byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0})
	ip := f[14:]
	clear(ip[:40])
	ip[0], ip[8], ip[9] = 0x45, 64, 6
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
	copy(ip[12:], []byte{10, 0, 0, 1, 10, 0, 0, 2})
	tcp := ip[20:]
	binary.BigEndian.PutUint32(tcp[4:], 1000)
	tcp[12], tcp[13] = 5<<4, 0x18
	b.SetHeader(frame.Vnet{Flags: 1, GSOType: 1, GSOSize: uint16(size), CsumStart: 34, CsumOffset: 16})
	h, err := frame.CheckVnet(b.Header(), f, 1500)
	if err != nil {
		panic(err)
	}
	b.SetHeader(h)
	return b
}

// pack empties the source into datagrams of the given size.
func pack(p *wire.Packer, q *fifo, size int) (datagrams [][]byte) {
	for {
		d := make([]byte, size)
		n := p.Pack(d, q)
		if n == 0 {
			return datagrams
		}
		datagrams = append(datagrams, d[:n])
	}
}

func receiver() *wire.Receiver {
	return &wire.Receiver{MTU: 9000, Drops: new(wire.Drops), Salvage: true}
}

func drops(r *wire.Receiver) string {
	var s string
	for i := range wire.Reasons {
		if n := r.Drops[i].Load(); n > 0 {
			s += fmt.Sprintf("%s=%d ", i, n)
		}
	}
	return s
}

// Whatever is packed comes out again, byte for byte and in order, and every
// datagram but the last is full.
func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		size := rapid.IntRange(wire.MinSize, 1450).Draw(t, "size")
		var p wire.Packer
		q, r := new(fifo), receiver()
		var want [][]byte
		for range rapid.IntRange(1, 40).Draw(t, "frames") {
			var b *frame.Buf
			if rng.IntN(4) == 0 {
				b = tcp4(1+rng.IntN(60000), 1448)
			} else {
				b = frame.New(plain(rng, 14+rng.IntN(9000)))
			}
			want = append(want, bytes.Clone(b.Raw()))
			q.push(b)
		}
		datagrams := pack(&p, q, size)
		var got [][]byte
		for i, d := range datagrams {
			if i < len(datagrams)-1 && len(d) != size {
				t.Fatalf("datagram %d of %d has %d bytes of %d", i, len(datagrams), len(d), size)
			}
			for _, b := range r.Datagram(d, time.Time{}, nil) {
				got = append(got, bytes.Clone(b.Raw()))
				b.Release()
			}
		}
		if len(got) != len(want) {
			t.Fatalf("%d frames came of %d; %s", len(got), len(want), drops(r))
		}
		for i := range want {
			if !bytes.Equal(got[i], want[i]) {
				t.Fatalf("frame %d differs: %d bytes, want %d", i, len(got[i]), len(want[i]))
			}
		}
	})
}

// The header length in a virtio-net header is sent 0, whatever it is here, in
// each record that carries one.
func TestHeaderLengthSentZero(t *testing.T) {
	for _, c := range []struct {
		name string
		size int
		at   []int // where the header stands in each datagram
	}{
		{"whole", 8000, []int{2 + 3}},
		{"slice and head", 3000, []int{2 + 11, 2 + 8}},
	} {
		t.Run(c.name, func(t *testing.T) {
			q := new(fifo)
			super := tcp4(5000, 1448)
			if super.Header().HdrLen == 0 {
				t.Fatal("nothing to hide")
			}
			q.push(super)
			datagrams := pack(new(wire.Packer), q, c.size)
			if len(datagrams) < len(c.at) {
				t.Fatalf("%d datagrams, want at least %d", len(datagrams), len(c.at))
			}
			for i, at := range c.at {
				want := [frame.VnetLen]byte{1, 1, 0, 0, 0xa8, 0x05, 34, 0, 16, 0}
				if got := datagrams[i][at : at+frame.VnetLen]; !bytes.Equal(got, want[:]) {
					t.Errorf("datagram %d: virtio-net header %x, want %x", i, got, want)
				}
			}
		})
	}
}

// What a receiver does not take is dropped before anything else about it is
// looked at, its length too (section 4).
func TestNotTakenBeforeLength(t *testing.T) {
	for _, c := range []struct {
		tag  byte
		want wire.Reason
	}{
		{0x01, wire.Malformed},
		{0x11, wire.Malformed},
		{0x21, wire.Relay},
		{0x41, wire.UnknownRecord},
		{0x61, wire.UnknownRecord},
	} {
		r := receiver()
		r.Datagram([]byte{0, 0, c.tag, 0, 1, 0}, time.Time{}, nil)
		for why := range wire.Reasons {
			var want uint64
			if why == c.want {
				want = 1
			}
			if got := r.Drops[why].Load(); got != want {
				t.Errorf("tag %#x: %v = %d, want %d", c.tag, why, got, want)
			}
		}
	}
}

// Of a superframe that loses datagrams every segment arrives whose bytes, and
// those of the headers, were not in them; and nothing else does.
func TestSalvage(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const size, hdr, gso = 1163, 54, 1448
		payload := rapid.IntRange(gso+1, 60000).Draw(t, "payload")
		parts := frame.VnetLen
		var to *wire.Relayed
		if rapid.Bool().Draw(t, "relayed") {
			parts += 16
			to = &wire.Relayed{Destination: wire.ShortID{1}, Source: wire.ShortID{2}}
		}
		var p wire.Packer
		q, r := new(fifo), receiver()
		var relayed []*frame.Buf
		r.Relayed = func(got wire.Relayed, b *frame.Buf) {
			if to == nil || got != *to {
				t.Fatalf("relayed as %x, want %x", got, to)
			}
			relayed = append(relayed, b.Retain())
		}
		// A plain frame before it leaves any room for its first slice.
		room := rapid.OneOf(rapid.IntRange(0, 120), rapid.IntRange(0, size-2-17)).Draw(t, "room")
		q.push(frame.New(make([]byte, size-2-3-room)))
		super := tcp4(payload, gso)
		whole := bytes.Clone(super.Bytes())
		q.items = append(q.items, &wire.Item{Buf: super, Relayed: to})
		datagrams := pack(&p, q, size)
		lost := map[int]bool{}
		for range rapid.IntRange(1, 3).Draw(t, "losses") {
			lost[rapid.OneOf(rapid.IntRange(0, min(2, len(datagrams)-1)), rapid.IntRange(0, len(datagrams)-1)).Draw(t, "lost")] = true
		}
		for range 4 { // what comes later
			q.push(frame.New(plain(rand.New(rand.NewPCG(1, 1)), 60)))
			datagrams = append(datagrams, pack(&p, q, size)...)
		}
		have := map[int]bool{}
		now := time.Now()
		take := func(bufs []*frame.Buf) {
			for i, b := range append(bufs, relayed...) {
				h := b.Header()
				if h == (frame.Vnet{}) {
					b.Release()
					continue
				}
				if (i >= len(bufs)) != (to != nil) {
					t.Fatal("a segment went the other way")
				}
				n := 0
				frame.Split(b, func(seg *frame.Buf) {
					s := seg.Bytes()
					at := int(binary.BigEndian.Uint32(s[38:])) - 1000
					if !bytes.Equal(s[hdr:], whole[hdr+at:hdr+at+len(s)-hdr]) {
						t.Fatalf("segment at %d of a frame with %+v differs", at, h)
					}
					if have[at/gso] {
						t.Fatalf("segment at %d came twice", at)
					}
					have[at/gso] = true
					n++
				})
				b.Release()
			}
			relayed = relayed[:0]
		}
		for i, d := range datagrams {
			if !lost[i] {
				take(r.Datagram(d, now, nil))
			}
		}
		take(r.Idle(now.Add(wire.SalvageAfter), nil))
		if r.Waits() {
			t.Fatal("something waits after salvage")
		}

		// The bytes of the object that each datagram carried, by its own fields.
		var missing [][2]int
		headers := false
		for i, d := range datagrams {
			for rec := d[2:]; len(rec) > 3 && rec[0]&0xf != 0; rec = rec[3+int(binary.BigEndian.Uint16(rec[1:])):] {
				n := int(binary.BigEndian.Uint16(rec[1:]))
				switch rec[0] & 0xf {
				case 2:
					from := int(rec[5])<<16 | int(rec[6])<<8 | int(rec[7]) - parts
					to := from + n - 8
					if lost[i] {
						missing = append(missing, [2]int{from, to})
					} else if from <= 0 && to >= hdr {
						headers = true
					}
				case 3:
					headers = headers || !lost[i]
				}
			}
		}
		if len(lost) == 1 && !headers {
			t.Fatalf("the loss of datagram %v alone costs the headers", lost)
		}
		for s := 0; s*gso < payload; s++ {
			from, to := hdr+s*gso, min(hdr+payload, hdr+(s+1)*gso)
			want := headers
			for _, m := range missing {
				if m[0] < to && m[1] > from {
					want = false
				}
			}
			if want != have[s] {
				t.Fatalf("segment %d: arrived %v, want %v (lost %v, headers %v); %s", s, have[s], want, lost, headers, drops(r))
			}
		}
	})
}

// HEAD is used only where the bytes of slices are missing.
func TestHeadFillsGaps(t *testing.T) {
	b := tcp4(5000, 1448)
	object := bytes.Clone(b.Raw())
	b.Release()
	head := bytes.Clone(object[:64])
	head[frame.VnetLen+1] = 0xee // in the destination address
	record := func(kind byte, fixed, p []byte) []byte {
		d := []byte{0, 0, 0x10 | kind}
		d = binary.BigEndian.AppendUint16(d, uint16(len(fixed)+len(p)))
		return append(append(d, fixed...), p...)
	}
	slice := func(from, to int) []byte {
		return record(2, []byte{0, 0, 0, byte(from >> 8), byte(from), 0, byte(len(object) >> 8), byte(len(object))}, object[from:to])
	}
	r := receiver()
	defer r.Close()
	now := time.Now()
	r.Datagram(slice(0, 30), now, nil)
	r.Datagram(record(3, []byte{0, 0, 0, byte(len(object) >> 8), byte(len(object))}, head), now, nil)
	r.Datagram(slice(64+1448, len(object)), now, nil)
	frames := r.Idle(now.Add(wire.SalvageAfter), nil)
	if len(frames) != 1 {
		t.Fatalf("%d frames are salvaged; %s", len(frames), drops(r))
	}
	defer frames[0].Release()
	if got, want := frames[0].Bytes()[:14], object[frame.VnetLen:][:14]; !bytes.Equal(got, want) {
		t.Errorf("Ethernet header %x, want %x", got, want)
	}
}

func TestHeartbeat(t *testing.T) {
	var got []wire.Heartbeat
	r := receiver()
	r.Heartbeat = func(h wire.Heartbeat) { got = append(got, h) }
	d := wire.AppendHeartbeat(nil, 7, wire.Ping, 0x0102030405060708, 0)
	if want := append([]byte{0, 7, 4, 0, 9, 1, 1, 2, 3, 4, 5, 6, 7, 8}, make([]byte, 50)...); !bytes.Equal(d, want) {
		t.Errorf("heartbeat is %x, want %x", d, want)
	}
	r.Datagram(d, time.Time{}, nil)
	if len(got) != 1 || got[0] != (wire.Heartbeat{wire.Ping, 0x0102030405060708, 64}) {
		t.Errorf("heartbeats %v", got)
	}
}

// check wants frames that pass the check as they stand, and releases them.
func check(t *testing.T, r *wire.Receiver, frames []*frame.Buf) {
	t.Helper()
	for _, b := range frames {
		if h, err := frame.CheckVnet(b.Header(), b.Bytes(), r.MTU); err != nil || h != b.Header() {
			t.Errorf("delivered a frame that does not pass: %v, header %+v, want %+v", err, b.Header(), h)
		}
		b.Release()
	}
}

func FuzzReceiver(f *testing.F) {
	f.Add([]byte("\x00\x05\x01\x00\x0e\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"))
	f.Add([]byte("\x00\x06\x02\x00\x0c\x00\x02\x00\x00\x00\x00\x05\xea\xaa\xbb\xcc\xdd\x00\x00"))
	var p wire.Packer
	q := new(fifo)
	q.push(tcp4(5000, 1448))
	q.push(frame.New(make([]byte, 700)))
	q.items = append(q.items, &wire.Item{Buf: tcp4(5000, 1448), Relayed: &wire.Relayed{Destination: wire.ShortID{1}}})
	q.items = append(q.items, &wire.Item{Buf: frame.New(make([]byte, 60)), Relayed: &wire.Relayed{Source: wire.ShortID{1}}})
	var all []byte
	for _, d := range pack(&p, q, wire.MinSize) {
		f.Add(d)
		all = append(binary.BigEndian.AppendUint16(all, uint16(len(d))), d...)
	}
	f.Add(all)
	f.Fuzz(func(t *testing.T, in []byte) {
		r := receiver()
		r.Self = wire.ShortID{1}
		r.Relayed = func(to wire.Relayed, b *frame.Buf) {
			mtu := frame.MaxMTU
			if to.Destination == r.Self {
				mtu = r.MTU
			}
			if h, err := frame.CheckVnet(b.Header(), b.Bytes(), mtu); err != nil || h != b.Header() || to.Source == to.Destination {
				t.Errorf("relayed a frame that does not pass: %v, header %+v, want %+v, %x", err, b.Header(), h, to)
			}
		}
		defer r.Close()
		now := time.Now()
		for len(in) >= 2 { // datagrams, each behind its length
			n := min(int(binary.BigEndian.Uint16(in)), len(in)-2)
			check(t, r, r.Datagram(in[2:2+n], now, nil))
			in = in[2+n:]
		}
		check(t, r, r.Idle(now.Add(time.Second), nil))
	})
}

func FuzzControl(f *testing.F) {
	f.Add(wire.Hello{Lane: 1, ConnIDLen: 17, MTU: 1500, Features: 7}.Append(nil))
	f.Add(wire.ProbeAck{Lane: 2, Nonce: 3}.Append(nil))
	f.Add(wire.Lanes{Want: 4}.Append(nil))
	f.Add(wire.Have{{wire.ShortID{1}, 2}}.Append(announce(f, site)))
	f.Add(wire.Doubts{{1}, {2}}.Append(nil))
	f.Add(wire.Links{{1}, {2}}.Append(wire.Punch{Source: wire.ShortID{3}}.Append(nil)))
	f.Add(wire.Seen{netip.MustParseAddrPort("192.0.2.1:4433")}.Append(nil))
	f.Fuzz(func(t *testing.T, in []byte) {
		r := bytes.NewReader(in)
		for {
			typ, body, err := wire.ReadMessage(r, nil)
			if err != nil {
				return
			}
			var m interface{ Append(p []byte) []byte }
			switch typ {
			case wire.TypeHello:
				m, err = wire.ParseHello(body)
			case wire.TypeLanes:
				m, err = wire.ParseLanes(body)
			case wire.TypeProbeAck:
				m, err = wire.ParseProbeAck(body)
			case wire.TypeHave:
				m, err = wire.ParseHave(body)
			case wire.TypeLinks:
				m, err = wire.ParseLinks(body)
			case wire.TypeDoubts:
				m, err = wire.ParseDoubts(body)
			case wire.TypeSeen:
				m, err = wire.ParseSeen(body)
			case wire.TypePunch:
				m, err = wire.ParsePunch(body)
			default: // a MEMBER has a target of its own
				continue
			}
			if err != nil {
				continue
			}
			again := m.Append(nil)
			if typ == wire.TypeHello && len(body) < len(again)-3 {
				again = again[:3+56] // it says nothing of a list
			}
			if !bytes.HasPrefix(body, again[3:]) {
				t.Errorf("type %d body %x is written again as %x", typ, body, again)
			}
		}
	})
}

func BenchmarkPack(b *testing.B) {
	for _, n := range []int{64, 1514, 62000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			buf := frame.New(make([]byte, min(n, 1514)))
			if n > 9000 {
				buf = tcp4(n-54, 1448)
			}
			var p wire.Packer
			src := &endless{buf: buf}
			d := make([]byte, 1410)
			b.SetBytes(int64(n))
			b.ReportAllocs()
			for b.Loop() {
				for done := src.done; src.done == done; {
					p.Pack(d, src)
				}
			}
		})
	}
}

func BenchmarkReassemble(b *testing.B) {
	var p wire.Packer
	q := new(fifo)
	q.push(tcp4(62000, 1448))
	datagrams := pack(&p, q, 1410)
	r := receiver()
	frames := make([]*frame.Buf, 0, 64)
	now := time.Now()
	b.SetBytes(62000)
	b.ReportAllocs()
	var seq, id uint16
	for b.Loop() {
		for _, d := range datagrams {
			binary.BigEndian.PutUint16(d, seq)
			seq++
			for rec := d[2:]; len(rec) > 8 && rec[0]&0xf != 0; rec = rec[3+int(binary.BigEndian.Uint16(rec[1:])):] {
				binary.BigEndian.PutUint16(rec[3:], id)
			}
			for _, f := range r.Datagram(d, now, frames[:0]) {
				f.Release()
			}
		}
		id++
	}
}

// endless is a Source that hands out the same frame for ever.
type endless struct {
	buf  *frame.Buf
	to   *wire.Relayed
	item wire.Item
	done int
}

func (e *endless) Next(int) *wire.Item {
	if e.item.Buf == nil {
		e.item = wire.Item{Buf: e.buf, Relayed: e.to}
	}
	return &e.item
}

func (e *endless) Sent(_ int, done bool) {
	if done {
		e.item.Buf = nil
		e.done++
	}
}

// Packing and reassembly allocate nothing per frame. (sync.Pool drops at random
// under the race detector.)
func TestNoAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("sync.Pool is not itself under the race detector")
	}
	bufs := []*frame.Buf{frame.New(make([]byte, 60)), frame.New(make([]byte, 1514)), tcp4(60000, 1448)}
	for i := range 2 * len(bufs) {
		b := bufs[i/2]
		var p wire.Packer
		src, r := &endless{buf: b}, receiver()
		d, frames, now := make([]byte, 1410), make([]*frame.Buf, 0, 64), time.Now()
		got := 0
		if i%2 == 1 {
			src.to = &wire.Relayed{Source: wire.ShortID{1}}
			r.Relayed = func(wire.Relayed, *frame.Buf) { got++ }
		}
		n := testing.AllocsPerRun(1000, func() {
			for _, f := range r.Datagram(d[:p.Pack(d, src)], now, frames[:0]) {
				f.Release()
				got++
			}
		})
		if n != 0 || got == 0 {
			t.Errorf("frame of %d bytes, relayed %v: %v allocations a datagram, %d frames came", b.Len(), src.to != nil, n, got)
		}
	}
}
