// SPDX-License-Identifier: Apache-2.0

package wirepeer_test

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/l2bridge/l2bridge/test/wirepeer"
)

func generate(seed uint64, n int) [][]byte {
	return wirepeer.Generate(rand.New(rand.NewPCG(seed, 0)), n)
}

func TestGenerateRepeats(t *testing.T) {
	if !slices.EqualFunc(generate(1, 300), generate(1, 300), bytes.Equal) {
		t.Error("the same seed made other datagrams")
	}
	if len(generate(2, 7)) != 7 {
		t.Error("not as many datagrams as asked for")
	}
}

// TestGenerateReaches checks that what is generated tests something: that each
// reason and each kind of event comes often.
func TestGenerateReaches(t *testing.T) {
	const often = 20
	reached := map[string]uint64{}
	for seed := range uint64(8) {
		r := wirepeer.New(wirepeer.GenerateMTU)
		r.Self, r.Peer = wirepeer.GenerateMembers[0], wirepeer.GenerateMembers[1]
		r.Links = map[wirepeer.Member]bool{wirepeer.GenerateMembers[0]: true, wirepeer.GenerateMembers[3]: true}
		r.Sessions = map[wirepeer.Member]wirepeer.Features{wirepeer.GenerateMembers[1]: 0, wirepeer.GenerateMembers[2]: wirepeer.VIA}
		if seed == 7 {
			r.Features = 0
		}
		for _, b := range generate(seed, 1500) {
			for _, e := range r.Datagram(b) {
				reached[describe(e)]++
			}
		}
		for reason, n := range r.Drops() {
			reached[reason] += n
		}
	}
	for _, want := range append([]string{
		"heartbeat", "plain", "checksum", "tcp4", "tcp6", "tcp4 ecn", "tcp6 ecn", "udp",
		"striped", "relayed", "striped and relayed", "forwarded", "for a test",
	}, reasons...) {
		if reached[want] < often {
			t.Errorf("%s: %d times, want at least %d", want, reached[want], often)
		}
		delete(reached, want)
	}
	if len(reached) > 0 {
		t.Errorf("also reached: %v", reached)
	}
}

func describe(e wirepeer.Event) string {
	if _, ok := e.(wirepeer.Forwarded); ok {
		return "forwarded"
	}
	o, ok := e.(wirepeer.Object)
	switch {
	case !ok:
		return "heartbeat"
	case o.Flags == wirepeer.Test:
		return "for a test"
	case o.Flags&wirepeer.Striped != 0 && o.Flags&wirepeer.Relayed != 0:
		return "striped and relayed"
	case o.Flags&wirepeer.Striped != 0:
		return "striped"
	case o.Flags&wirepeer.Relayed != 0:
		return "relayed"
	case o.Flags&wirepeer.VNET == 0:
		return "plain"
	}
	return map[byte]string{0: "checksum", 1: "tcp4", 4: "tcp6", 0x81: "tcp4 ecn", 0x84: "tcp6 ecn", 5: "udp"}[o.Header[1]]
}

// TestSender checks the sending side by the receiving one: all that was sent
// arrives, in the order of sending, in datagrams that are full but the last,
// and nothing is dropped; and as an honest sender sends it.
func TestSender(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := wirepeer.Sender{Size: rapid.IntRange(512, 9000).Draw(t, "size")}
		var audit wirepeer.Auditor
		var want events
		var objects []wirepeer.Object
		for range rapid.IntRange(0, 6).Draw(t, "objects") {
			o := plain(frame(rapid.IntRange(14, 1514).Draw(t, "bytes")))
			if rapid.Bool().Draw(t, "super") {
				o = tcp6().with(func(s *super) { s.payload = rapid.IntRange(1441, 65535-20).Draw(t, "payload") }).object()
			}
			if rapid.Bool().Draw(t, "striped") {
				o.Flags |= wirepeer.Striped
				o.Position = uint32(len(objects))
			}
			objects, want = append(objects, o), append(want, o)
		}
		var got events
		r := wirepeer.New(1500)
		datagrams := s.Datagrams(objects)
		for i, b := range datagrams {
			if err := audit.Datagram(b); err != nil {
				t.Fatalf("datagram %d: %v", i, err)
			}
			if len(b) > s.Size || i < len(datagrams)-1 && len(b) != s.Size {
				t.Fatalf("datagram %d of %d has %d bytes of %d", i, len(datagrams), len(b), s.Size)
			}
			got = append(got, r.Datagram(b)...)
		}
		if err := audit.End(); err != nil {
			t.Error(err)
		}
		if d := cmp.Diff(want, got, cmp.Comparer(bytes.Equal)); d != "" {
			t.Errorf("events (-sent +got):\n%s", d)
		}
		if d := cmp.Diff(drops{}, r.Drops()); d != "" {
			t.Errorf("drops (-want +got):\n%s", d)
		}
	})
}

// TestSenderHead checks where a HEAD stands and what it holds, or that there is
// none.
func TestSenderHead(t *testing.T) {
	// Six headers of 40 bytes end the TCP header at 14+40+240+20 = 314.
	var long []byte
	for _, next := range []byte{60, 60, 60, 60, 60, 6} {
		long = append(long, next, 4)
		long = append(long, make([]byte, 38)...)
	}
	const where = "It is the first record of the next datagram with objects after the one with the first slice of a superframe, so that the superframe can be salvaged when its first slice is lost; there is none when the headers are longer."
	if !strings.Contains(lawText(t), where) {
		t.Errorf("docs/wire.md no longer says %q", where)
	}
	for _, c := range []struct {
		name string
		o    wirepeer.Object
		want bool
	}{
		{"superframe", tcp6().object(), true},
		{"frame with checksum", tcp4().plain().with(func(s *super) { s.payload = 1400 }).object(), false},
		{"plain", plain(frame(1500)), false},
		{"long headers", tcp6().extended(60, long...).with(func(s *super) { s.gsoSize = 1000 }).object(), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := wirepeer.Sender{Size: 1200}
			out := s.Datagrams([]wirepeer.Object{plain(frame(700)), c.o})
			if len(out) < 2 {
				t.Fatalf("%d datagrams, want more than 1", len(out))
			}
			want := head(c.o.Flags, 0, len(c.o.Append(nil)), c.o.Append(nil)[:256])
			for i, b := range out {
				if got, should := bytes.HasPrefix(b[2:], want), c.want && i == 1; got != should {
					t.Errorf("datagram %d begins with the HEAD: %t, want %t", i, got, should)
				}
				if n := bytes.Count(b, want); n > 1 || n == 1 && i != 1 {
					t.Errorf("datagram %d has the HEAD %d times", i, n)
				}
			}
		})
	}
}

// FuzzDatagram checks what holds for any two datagrams: nothing is delivered
// that is longer than what came in, or than the LAN takes.
func FuzzDatagram(f *testing.F) {
	f.Add(datagram(beat, begin(0)), datagram(end(0)))
	f.Add(datagram(wirepeer.AppendWhole(nil, udp4().object())), datagram(head(0, 0, 30, []byte{1})))
	f.Add(datagram(slice(0x70, 1, 0, 65629, []byte{1})), []byte{0, 0, 0x81})
	f.Fuzz(func(t *testing.T, a, b []byte) {
		r := wirepeer.New(1500)
		left := len(a) + len(b)
		for _, e := range append(r.Datagram(a), r.Datagram(b)...) {
			o, ok := e.(wirepeer.Object)
			if !ok {
				left -= 3 + 9
				continue
			}
			left -= len(o.Append(nil))
			if len(o.Frame) < 14 || len(o.Frame) > 1522 && o.Header[1] == 0 {
				t.Errorf("delivered a frame of %d bytes", len(o.Frame))
			}
		}
		if left < 0 {
			t.Errorf("delivered %d bytes more than came", -left)
		}
		for reason := range r.Drops() {
			if !slices.Contains(reasons, reason) {
				t.Errorf("dropped for %q", reason)
			}
		}
	})
}
