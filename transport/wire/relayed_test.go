// SPDX-License-Identifier: Apache-2.0

package wire_test

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/l2bridge/l2bridge/internal/frame"
	"github.com/l2bridge/l2bridge/transport/wire"
)

var (
	self  = wire.ShortID{1, 2, 3, 4, 5, 6, 7, 8}
	other = wire.ShortID{9, 10, 11, 12, 13, 14, 15, 16}
)

// object is a frame as it came, and its way; that is zero for the LAN.
type object struct {
	to  wire.Relayed
	raw []byte
}

// relay returns a receiver that appends to the first list what is relayed, and
// a function that gives it a datagram and appends what is not to the second.
func relay(relayed, ours *[]object) (*wire.Receiver, func([]byte)) {
	r := receiver()
	r.Self = self
	r.Relayed = func(to wire.Relayed, b *frame.Buf) {
		*relayed = append(*relayed, object{to, bytes.Clone(b.Raw())})
	}
	return r, func(d []byte) {
		for _, b := range r.Datagram(d, time.Time{}, nil) {
			*ours = append(*ours, object{raw: bytes.Clone(b.Raw())})
			b.Release()
		}
	}
}

// Both ends of a relayed object stand before its virtio-net header.
func TestRelayedLayout(t *testing.T) {
	q := new(fifo)
	b := frame.New(make([]byte, 60))
	b.SetHeader(frame.Vnet{Flags: 1, CsumStart: 34, CsumOffset: 16})
	q.items = append(q.items, &wire.Item{Buf: b, Relayed: &wire.Relayed{Destination: self, Source: other}})
	want := []byte{0, 0, 0x31, 0, 16 + 10 + 60, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 1, 0, 0, 0, 0, 0, 34, 0, 16, 0}
	want = append(want, make([]byte, 60)...)
	if got := pack(new(wire.Packer), q, wire.MinSize); len(got) != 1 || !bytes.Equal(got[0], want) {
		t.Errorf("datagrams %x, want %x", got, want)
	}
}

// Relayed frames share the datagrams with others, and each comes out its way,
// byte for byte and in order.
func TestRelayedRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		q := new(fifo)
		var want [2][]object
		for range rapid.IntRange(1, 30).Draw(t, "frames") {
			b := frame.New(plain(rng, 14+rng.IntN(9000)))
			if rng.IntN(4) == 0 {
				b = tcp4(1449+rng.IntN(50000), 1448)
			}
			it := &wire.Item{Buf: b}
			o, way := object{raw: bytes.Clone(b.Raw())}, 0
			if rng.IntN(2) == 0 {
				o.to, way = wire.Relayed{Destination: wire.ShortID{byte(rng.IntN(3))}, Source: other}, 1
				it.Relayed = &o.to
			}
			size := frame.VnetLen + b.Len() + 16*way
			if got := it.Size(); got != size {
				t.Fatalf("size of an item is %d, want %d", got, size)
			}
			want[way] = append(want[way], o)
			q.items = append(q.items, it)
		}
		var got [2][]object
		r, take := relay(&got[1], &got[0])
		defer r.Close()
		for _, d := range pack(new(wire.Packer), q, rapid.IntRange(wire.MinSize, 1450).Draw(t, "size")) {
			take(d)
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("%d frames and %d relayed ones came whole of %d and %d; %s", len(got[0]), len(got[1]), len(want[0]), len(want[1]), drops(r))
		}
	})
}

// However an object is cut, and in whatever order its slices come, it is the
// same: the parts before the frame may be in any of them.
func TestRelayedSlices(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := plain(rand.New(rand.NewPCG(1, 1)), rapid.IntRange(14, 60).Draw(t, "frame"))
		flags, vnet := byte(0x20), make([]byte, frame.VnetLen)
		whole := append(self[:], other[:]...)
		if rapid.Bool().Draw(t, "vnet") {
			flags |= 0x10
			whole = append(whole, vnet...)
		}
		whole = append(whole, f...)
		cuts := rapid.SliceOfN(rapid.IntRange(1, len(whole)-1), 0, 20).Draw(t, "cuts")
		cuts = append(cuts, 0, len(whole))
		slices.Sort(cuts)
		cuts = slices.Compact(cuts)
		var datagrams [][]byte
		for i := range len(cuts) - 1 {
			d := []byte{0, 0, flags | 2}
			d = binary.BigEndian.AppendUint16(d, uint16(8+cuts[i+1]-cuts[i]))
			d = append(d, 0, 0, 0, 0, byte(cuts[i]), 0, 0, byte(len(whole)))
			datagrams = append(datagrams, append(d, whole[cuts[i]:cuts[i+1]]...))
		}
		var relayed, ours []object
		r, take := relay(&relayed, &ours)
		defer r.Close()
		for _, i := range rapid.Permutation(indices(len(datagrams))).Draw(t, "order") {
			take(datagrams[i])
		}
		want := []object{{wire.Relayed{Destination: self, Source: other}, append(vnet, f...)}}
		if !reflect.DeepEqual(relayed, want) || len(ours) != 0 {
			t.Fatalf("relayed %x, %d others; want %x; %s", relayed, len(ours), want, drops(r))
		}
	})
}

func indices(n int) (all []int) {
	for i := range n {
		all = append(all, i)
	}
	return all
}

// Who is asked, against what MTU, and for what else a relayed object is dropped.
func TestRelayedRules(t *testing.T) {
	ordinary := func(n int) *frame.Buf { return frame.New(plain(rand.New(rand.NewPCG(1, 1)), n)) }
	big := func(size int) *frame.Buf { // a superframe; its headers are 54 bytes long
		b := tcp4(20000, 1400)
		h := b.Header()
		h.GSOSize = uint16(size)
		b.SetHeader(h)
		return b
	}
	bad := func(n int) *frame.Buf {
		b := ordinary(n)
		b.SetHeader(frame.Vnet{Flags: 1, CsumStart: 1})
		return b
	}
	test := func(n int) *frame.Buf {
		b := ordinary(n)
		b.SetTest()
		return b
	}
	toUs, toOther := wire.Relayed{Destination: self, Source: other}, wire.Relayed{Destination: other, Source: self}
	for _, c := range []struct {
		name string
		b    *frame.Buf
		to   wire.Relayed
		none bool // there is no hook
		want wire.Reason
	}{
		{"for us", ordinary(1514), toUs, false, wire.Reasons},
		{"for us, too long", ordinary(1515), toUs, false, wire.MTUPeer},
		{"for another", ordinary(1515), toOther, false, wire.Reasons},
		{"for another, as long as can be", ordinary(9014), toOther, false, wire.Reasons},
		{"for another, too long", ordinary(9015), toOther, false, wire.MTUPeer},
		{"superframe for us", big(1460), toUs, false, wire.Reasons},
		{"superframe for us, too long", big(1461), toUs, false, wire.MTUPeer},
		{"superframe for another", big(8960), toOther, false, wire.Reasons},
		{"superframe for another, too long", big(8961), toOther, false, wire.MTUPeer},
		{"bad offload for us", bad(60), toUs, false, wire.BadOffload},
		{"bad offload for another", bad(60), toOther, false, wire.BadOffload},
		{"to its source", ordinary(60), wire.Relayed{Destination: other, Source: other}, false, wire.Relay},
		{"bad, to its source", bad(60), wire.Relayed{}, false, wire.BadOffload},
		{"taken by none", ordinary(9015), toUs, true, wire.Relay},
		{"of a test", test(60), toUs, false, wire.Test},
		{"of a test, taken by none", test(60), toUs, true, wire.Relay},
	} {
		t.Run(c.name, func(t *testing.T) {
			var relayed, ours []object
			r, take := relay(&relayed, &ours)
			defer r.Close()
			r.MTU = 1500
			r.Test = func([]byte) bool { return true }
			if c.none {
				r.Relayed = nil
			}
			q := &fifo{items: []*wire.Item{{Buf: c.b, Relayed: &c.to}}}
			for _, d := range pack(new(wire.Packer), q, 1400) {
				take(d)
			}
			if got := len(relayed) == 1 && relayed[0].to == c.to; got != (c.want == wire.Reasons) || len(ours) != 0 {
				t.Errorf("relayed %d, %d others; %s", len(relayed), len(ours), drops(r))
			}
			for why := range wire.Reasons {
				if got := r.Drops[why].Load(); got > 1 || (got == 1) != (why == c.want) {
					t.Errorf("%v = %d", why, got)
				}
			}
		})
	}
}

// There is no HEAD when that would be longer than 256 bytes, which relayed ones
// reach with shorter headers.
func TestRelayedHead(t *testing.T) {
	const vnet, prefix = 10, 16
	for _, c := range []struct {
		headers int
		to      *wire.Relayed
		want    int // length of the HEAD; 0 for none
	}{
		{256 - vnet, nil, 256},
		{256 - vnet + 8, nil, 0},
		{256 - vnet - prefix, new(wire.Relayed), 256},
		{256 - vnet - prefix + 8, new(wire.Relayed), 0},
	} {
		q := &fifo{items: []*wire.Item{{Buf: tcp6(c.headers, 5000, 1000), Relayed: c.to}}}
		datagrams := pack(new(wire.Packer), q, 1400)
		got := 0
		if d := datagrams[1]; d[2]&0xf == 3 {
			got = int(binary.BigEndian.Uint16(d[3:])) - 5
			if !bytes.Equal(d[10:10+got], datagrams[0][13:13+got]) {
				t.Errorf("headers of %d bytes: HEAD is not the first bytes of the object", c.headers)
			}
		}
		if got != c.want {
			t.Errorf("headers of %d bytes, relayed %v: HEAD of %d bytes, want %d", c.headers, c.to != nil, got, c.want)
		}
	}
}

// tcp6 returns a TSO superframe with headers of that length, of which IPv6 and
// TCP options make up what is above 74.
func tcp6(headers, payload, size int) *frame.Buf {
	b := frame.Get(headers + payload)
	f := b.Bytes()
	clear(f)
	copy(f, []byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x86, 0xdd, 0x60})
	binary.BigEndian.PutUint16(f[18:], uint16(len(f)-54))
	options := (headers - 74) / 8 * 8
	f[20], f[54], f[55] = 60, frame.ProtoTCP, byte(options/8-1)
	tcp := f[54+options : headers]
	tcp[12], tcp[13] = byte(len(tcp)/4<<4), 0x18
	b.SetHeader(frame.Vnet{Flags: 1, GSOType: 4, GSOSize: uint16(size), CsumStart: uint16(54 + options), CsumOffset: 16})
	h, err := frame.CheckVnet(b.Header(), f, 1500)
	if err != nil || int(h.HdrLen) != headers {
		panic(err)
	}
	b.SetHeader(h)
	return b
}
