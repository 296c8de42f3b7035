// SPDX-License-Identifier: Apache-2.0

package frame_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/mdlayher/ethernet"

	"github.com/l2bridge/l2bridge/internal/frame"
)

// seeds returns a superframe of each kind, header and all.
func seeds(t testing.TB) (raw [][]byte) {
	for _, s := range []super{
		{Size: 100, Payload: 250, Flags: ack | cwr | psh, ECN: true, TCPOptions: 3},
		{UDP: true, Size: 100, Payload: 250, IPOptions: 1},
		{V6: true, Size: 100, Payload: 250, IPOptions: 1, Routed: true, Tags: []uint16{0x8100}},
		{V6: true, UDP: true, Size: 100, Payload: 250, Tags: []uint16{0x88a8, 0x8100}},
		{Size: 100, Payload: 100},
	} {
		b := s.build(t)
		raw = append(raw, bytes.Clone(b.Raw()))
		b.Release()
	}
	return raw
}

// FuzzSuperframe gives CheckVnet and Split any bytes. What they accept is cut
// too: no step may panic, and what comes out must be what went in.
func FuzzSuperframe(f *testing.F) {
	for _, raw := range seeds(f) {
		f.Add(raw, uint8(1), uint8(2))
	}
	f.Add(make([]byte, frame.VnetLen+14), uint8(0), uint8(0))
	f.Fuzz(func(t *testing.T, raw []byte, x, y uint8) {
		const mtu = 1500
		if len(raw) < frame.VnetLen || len(raw) > frame.VnetLen+frame.MaxLen {
			return
		}
		b := frame.New(raw[frame.VnetLen:])
		defer b.Release()
		b.SetHeader(frame.ParseVnet(raw))
		frame.Segments(b.Header(), b.Bytes())
		h, err := frame.CheckVnet(b.Header(), b.Bytes(), mtu)
		if err != nil {
			if err != frame.ErrMTU && frame.Split(b, func(*frame.Buf) {}) == nil {
				t.Fatalf("split in spite of: %v", err)
			}
			return
		}
		b.SetHeader(h)
		if again, err := frame.CheckVnet(h, b.Bytes(), mtu); err != nil || again != h {
			t.Fatalf("checked again: %+v, %v, want %+v", again, err, h)
		}

		frames := split(t, b)
		n := frame.Segments(h, b.Bytes())
		if len(frames) != n {
			t.Fatalf("%d frames of %d segments", len(frames), n)
		}
		var payload []byte
		for i, p := range frames {
			if limit := 14 + frame.TagBytes(p) + mtu; len(p) > limit {
				t.Fatalf("frame %d has %d bytes, limit %d", i, len(p), limit)
			}
			if h.Flags != 0 {
				checkSum(t, h, b.Bytes(), p)
			}
			payload = append(payload, p[h.HdrLen:]...)
		}
		if h.GSOType == frame.GSONone {
			return
		}
		if !bytes.Equal(payload, b.Bytes()[h.HdrLen:]) {
			t.Fatal("the payloads together are not that of the superframe")
		}

		from := int(x) % n
		to := from + 1 + int(y)%(n-from)
		begin, end := from*int(h.GSOSize), min(to*int(h.GSOSize), len(payload))
		piece := frame.Cut(h, b.Bytes()[:h.HdrLen], payload[begin:end], from)
		defer piece.Release()
		if got, err := frame.CheckVnet(piece.Header(), piece.Bytes(), mtu); err != nil || got != piece.Header() {
			t.Fatalf("piece %+v: %+v, %v", piece.Header(), got, err)
		}
		if diff := diffFrames(frames[from:to], split(t, piece)); diff != "" {
			t.Fatalf("segments %d to %d (-Split +Cut):\n%s", from, to, diff)
		}
	})
}

// checkSum checks the completed checksum of a segment against the sum that the
// whole one was to begin with, which is the pseudo-header's unless the peer
// lied, and then the receiving host sees that.
func checkSum(t *testing.T, h frame.Vnet, whole, segment []byte) {
	t.Helper()
	l4, was := segment[h.CsumStart:], whole[h.CsumStart:]
	if h.CsumOffset%2 != 0 {
		// Of no protocol, and so in no superframe. Linux writes it there all the same.
		got, want := binary.BigEndian.Uint16(l4[h.CsumOffset:]), ^naiveSum(was, 0)
		if got != want && (got != 0xffff || want != 0) {
			t.Fatalf("checksum %#x at an odd place, want %#x", got, want)
		}
		return
	}
	sum := int(naiveSum(l4, 0)) + int(binary.BigEndian.Uint16(was[h.CsumOffset:])) + len(l4) - len(was)
	if sum%0xffff != 0 {
		t.Fatalf("checksum of a segment of %d bytes is off by %d", len(segment), sum%0xffff)
	}
}

// FuzzStations compares with github.com/mdlayher/ethernet, which copies.
func FuzzStations(f *testing.F) {
	for _, raw := range seeds(f) {
		f.Add(raw[frame.VnetLen:])
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		var want ethernet.Frame
		if len(p) < frame.HeaderLen {
			return
		}
		dst, src := frame.Stations(p)
		tags := frame.TagBytes(p)
		if err := want.UnmarshalBinary(p); err != nil {
			return // it refuses VLAN 4095, an 802.1ad tag alone, a tag cut short
		}
		var vlan uint16
		switch {
		case want.ServiceVLAN != nil:
			vlan = want.ServiceVLAN.ID
		case want.VLAN != nil:
			vlan = want.VLAN.ID
		}
		if d, s := frame.NewStation(want.Destination, vlan), frame.NewStation(want.Source, vlan); d != dst || s != src {
			t.Errorf("to %s from %s, want to %s from %s", dst, src, d, s)
		}
		if want.EtherType == ethernet.EtherTypeVLAN || want.EtherType == ethernet.EtherTypeServiceVLAN {
			return // a tag that it takes for the payload's type
		}
		if n := len(p) - len(want.Payload) - frame.HeaderLen; tags != n {
			t.Errorf("%d bytes of tags, want %d", tags, n)
		}
		if got := frame.Dissect(p).Type; got != uint16(want.EtherType) {
			t.Errorf("type %#04x, want %#04x", got, uint16(want.EtherType))
		}
	})
}

// FuzzReads looks for a read beyond the frame.
func FuzzReads(f *testing.F) {
	for _, raw := range seeds(f) {
		f.Add(raw[frame.VnetLen:])
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		if len(p) < frame.HeaderLen {
			return
		}
		p = p[:len(p):len(p)]
		if frame.FlowHash(p) != frame.FlowHash(bytes.Clone(p)) {
			t.Error("the hash of a frame differs from that of its copy")
		}
		l := frame.Dissect(p)
		if l.L3 > len(p) || l.L4 > len(p) || l.L4 != 0 && l.L4 < l.L3+20 || l.L3 == 0 && l.L4 != 0 || l.Fragment && l.L4 != 0 {
			t.Errorf("%+v in a frame of %d bytes", l, len(p))
		}
	})
}
