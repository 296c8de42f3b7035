// SPDX-License-Identifier: Apache-2.0

package test_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/l2bridge/l2bridge/internal/frame"
	"github.com/l2bridge/l2bridge/test/wirepeer"
	"github.com/l2bridge/l2bridge/transport/wire"
)

// wireMTU is the LAN behind both readings.
const wireMTU = wirepeer.GenerateMTU

// readings is two receivers of one lane that were written from docs/wire.md by
// different hands: whatever comes, they must do the same.
type readings struct {
	fast    wire.Receiver
	slow    *wirepeer.Receiver
	beat    []wirepeer.Heartbeat // what the fast one heard from the datagram at hand
	test    [][]byte             // the frames for its test in that
	relayed []delivery           // and those that it relayed, or were relayed to it
	left    []*frame.Buf
}

func newReadings() *readings {
	r := &readings{slow: wirepeer.New(wireMTU)}
	r.slow.Features &^= wirepeer.STRIPE | wirepeer.RELAY | wirepeer.VIA
	r.fast = wire.Receiver{MTU: wireMTU, Drops: new(wire.Drops), Heartbeat: func(h wire.Heartbeat) {
		r.beat = append(r.beat, wirepeer.Heartbeat{Mode: byte(h.Mode), Nonce: h.Nonce})
	}, Test: func(f []byte) bool {
		r.test = append(r.test, bytes.Clone(f))
		return true
	}}
	return r
}

// The members of relayed readings, by what they are to the receiver.
var (
	relaySelf  = wirepeer.GenerateMembers[0]
	relayPeer  = wirepeer.GenerateMembers[1]
	relayNext  = wirepeer.GenerateMembers[2] // it has a session with them
	relayAfter = wirepeer.GenerateMembers[3] // its peer has a session with them
)

// newRelays returns readings of a side that takes what is relayed, and relays. What
// the way of that must be is said here in the place of transport.
func newRelays() *readings {
	r := newReadings()
	r.slow.Features |= wirepeer.RELAY | wirepeer.VIA
	r.slow.Self, r.slow.Peer = relaySelf, relayPeer
	r.slow.Links = map[wirepeer.Member]bool{relaySelf: true, relayAfter: true}
	r.slow.Sessions = map[wirepeer.Member]wirepeer.Features{relayPeer: 0, relayNext: wirepeer.VIA}
	r.fast.Self = wire.ShortID(relaySelf)
	r.fast.Relayed = func(to wire.Relayed, b *frame.Buf) {
		switch [2]wirepeer.Member{wirepeer.Member(to.Destination), wirepeer.Member(to.Source)} {
		case [2]wirepeer.Member{relaySelf, relayAfter}, [2]wirepeer.Member{relayNext, relayPeer}:
			d := meaning(b)
			d.Relayed = &to
			r.relayed = append(r.relayed, d)
		default:
			r.fast.Drops[wire.Relay].Add(1)
		}
	}
	return r
}

// outcome is all that the datagrams up to one have done, and what that one
// brought.
type outcome struct {
	Frames  []delivery
	Relayed []delivery
	Beats   []wirepeer.Heartbeat
	Tests   [][]byte          // frames of TEST objects
	Drops   map[string]uint64 // of this datagram and those before
}

// delivery is a frame and what its virtio-net header means (section 5), not
// how it is written down.
type delivery struct {
	Header  [10]byte
	Frame   []byte
	Relayed *wire.Relayed // nil for the receiver's LAN
}

// datagram gives both the same bytes and returns what they made of it.
func (r *readings) datagram(d []byte) (fast, slow outcome) {
	r.beat, r.test, r.relayed = nil, nil, nil
	r.left = r.fast.Datagram(d, time.Time{}, r.left[:0])
	for _, b := range r.left {
		fast.Frames = append(fast.Frames, meaning(b))
		b.Release()
	}
	fast.Beats, fast.Tests, fast.Relayed, fast.Drops = r.beat, r.test, r.relayed, map[string]uint64{}
	for why := range wire.Reasons {
		if n := r.fast.Drops[why].Load(); n > 0 {
			fast.Drops[why.String()] = n
		}
	}

	for _, e := range r.slow.Datagram(d) {
		switch e := e.(type) {
		case wirepeer.Object:
			switch {
			case e.Flags == wirepeer.Test:
				slow.Tests = append(slow.Tests, e.Frame)
			case e.Flags&wirepeer.Relayed != 0:
				slow.Relayed = append(slow.Relayed, relayed(e))
			default:
				slow.Frames = append(slow.Frames, delivery{Header: e.Header, Frame: e.Frame})
			}
		case wirepeer.Forwarded:
			slow.Relayed = append(slow.Relayed, relayed(wirepeer.Object(e)))
		case wirepeer.Heartbeat:
			slow.Beats = append(slow.Beats, e)
		}
	}
	slow.Drops = r.slow.Drops()
	return fast, slow
}

func relayed(o wirepeer.Object) delivery {
	return delivery{o.Header, o.Frame, &wire.Relayed{Destination: wire.ShortID(o.Destination), Source: wire.ShortID(o.Source)}}
}

// agree fails the test unless both do the same with each datagram, and returns
// all frames that came, those for the LAN first.
func (r *readings) agree(t rapid.TB, datagrams [][]byte) (frames []delivery) {
	t.Helper()
	defer r.fast.Close()
	var relayed []delivery
	for i, d := range datagrams {
		fast, slow := r.datagram(d)
		if !reflect.DeepEqual(slow, fast) { // cmp is slow where nothing differs
			t.Fatalf("datagram %d of %d (-wirepeer +transport/wire):\n%s\n%s",
				i, len(datagrams), cmp.Diff(slow, fast), before(datagrams[:i+1]))
		}
		frames, relayed = append(frames, fast.Frames...), append(relayed, fast.Relayed...)
	}
	return append(frames, relayed...)
}

// lanFirst returns the frames in the order of agree.
func lanFirst(all []delivery) []delivery {
	all = slices.Clone(all)
	rank := func(d delivery) int {
		if d.Relayed == nil {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(all, func(a, b delivery) int { return rank(a) - rank(b) })
	return all
}

// before shows the datagrams that led to a difference, the last few of them.
func before(datagrams [][]byte) string {
	const few = 4
	var s string
	for i := max(0, len(datagrams)-few); i < len(datagrams); i++ {
		s += fmt.Sprintf("%d: %.400x\n", i, datagrams[i])
	}
	return s
}

// meaning copies a frame. The header length that transport/wire writes for
// whoever cuts the frame is not of the wire; it must be true all the same.
func meaning(b *frame.Buf) delivery {
	d := delivery{Frame: bytes.Clone(b.Bytes())}
	h := b.Header()
	if int(h.HdrLen) == headerLength(h, d.Frame) {
		h.HdrLen = 0
	}
	h.Put(d.Header[:])
	return d
}

// headerLength is that of all headers of a superframe, 0 of another frame.
func headerLength(h frame.Vnet, f []byte) int {
	switch h.GSOType &^ frame.GSOECN {
	case frame.GSOTCPv4, frame.GSOTCPv6:
		return int(h.CsumStart) + int(f[h.CsumStart+12]>>4)*4
	case frame.GSOUDP:
		return int(h.CsumStart) + 8
	}
	return 0
}

// TestTwoReadings gives both receivers what an honest sender sends over a bad
// path, and what no honest sender would.
func TestTwoReadings(t *testing.T) {
	n := 3000
	if testing.Short() {
		n = 300
	}
	for seed := range uint64(12) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			datagrams := wirepeer.Generate(rand.New(rand.NewPCG(seed, 0)), n)
			newReadings().agree(t, datagrams)
			newRelays().agree(t, datagrams)
		})
	}
}

// TestRecordedDatagrams holds the format: the datagrams in testdata/wire mean
// what stands behind them, to both receivers, in each version.
func TestRecordedDatagrams(t *testing.T) {
	met := map[string]bool{}
	for _, file := range recordings(t) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			r := newReadings()
			if filepath.Base(file) == "relayed.txt" {
				r = newRelays()
			}
			defer r.fast.Close()
			total := map[string]uint64{}
			for _, d := range readRecording(t, file) {
				for why, n := range d.want.Drops {
					total[why] += n
					met[why] = true
				}
				d.want.Drops = maps.Clone(total)
				fast, slow := r.datagram(d.bytes)
				if diff := cmp.Diff(d.want, fast); diff != "" {
					t.Fatalf("%s:%d (-recorded +transport/wire):\n%s", file, d.line, diff)
				}
				if diff := cmp.Diff(d.want, slow); diff != "" {
					t.Fatalf("%s:%d (-recorded +wirepeer):\n%s", file, d.line, diff)
				}
			}
		})
	}
	for why := range wire.Reasons {
		if !met[why.String()] {
			t.Errorf("no recorded datagram is dropped for %v", why)
		}
	}
}

// recorded is a datagram and what it brings; its drops are its own.
type recorded struct {
	line  int
	bytes []byte
	want  outcome
}

func recordings(t testing.TB) []string {
	files, err := filepath.Glob("testdata/wire/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("recordings: %v, %v", files, err)
	}
	return files
}

// readRecording reads a file of testdata/wire, whose format stands at the top
// of each.
func readRecording(t testing.TB, file string) (all []recorded) {
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for i, line := range strings.Split(string(text), "\n") {
		words := strings.Fields(line)
		bad := func() { t.Fatalf("%s:%d: %q is no datagram and no outcome", file, i+1, line) }
		bytesOf := func(word string) []byte {
			b, err := hex.DecodeString(word)
			if err != nil {
				bad()
			}
			return b
		}
		if len(words) == 0 || words[0] == "#" {
			continue
		}
		if line[0] != ' ' {
			if len(words) == 1 && words[0] == "empty" {
				words = nil
			}
			d := recorded{line: i + 1, bytes: bytesOf(strings.Join(words, ""))}
			d.want.Drops = map[string]uint64{}
			all = append(all, d)
			continue
		}
		if len(all) == 0 {
			bad()
		}
		want := &all[len(all)-1].want
		switch {
		case words[0] == "frame" && len(words) == 3:
			d := delivery{Frame: bytesOf(words[2])}
			if words[1] != "-" && copy(d.Header[:], bytesOf(words[1])) != len(d.Header) {
				bad()
			}
			want.Frames = append(want.Frames, d)
		case words[0] == "relayed" && len(words) == 5 && len(words[1]) == 16 && len(words[2]) == 16:
			d := delivery{Frame: bytesOf(words[4]), Relayed: &wire.Relayed{
				Destination: wire.ShortID(bytesOf(words[1])), Source: wire.ShortID(bytesOf(words[2])),
			}}
			if words[3] != "-" && copy(d.Header[:], bytesOf(words[3])) != len(d.Header) {
				bad()
			}
			want.Relayed = append(want.Relayed, d)
		case words[0] == "heartbeat" && len(words) == 3 && len(words[1]) == 2 && len(words[2]) == 16:
			want.Beats = append(want.Beats, wirepeer.Heartbeat{
				Mode: bytesOf(words[1])[0], Nonce: binary.BigEndian.Uint64(bytesOf(words[2])),
			})
		case words[0] == "test" && len(words) == 2:
			want.Tests = append(want.Tests, bytesOf(words[1]))
		case words[0] == "drop" && len(words) == 2:
			want.Drops[words[1]]++
		default:
			bad()
		}
	}
	return all
}

// TestReadSender has both receivers read what wirepeer sends.
func TestReadSender(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := wirepeer.Sender{
			Size:     rapid.IntRange(wire.MinSize, 9000).Draw(t, "size"),
			Sequence: rapid.Uint16().Draw(t, "sequence"),
			ID:       rapid.Uint16().Draw(t, "id"),
		}
		sent := drawFrames(t)
		var objects []wirepeer.Object
		for _, d := range sent {
			o := wirepeer.Object{Header: d.Header, Frame: d.Frame}
			if d.Header != [10]byte{} {
				o.Flags = wirepeer.VNET
			}
			if d.Relayed != nil {
				o.Flags |= wirepeer.Relayed
				o.Destination, o.Source = wirepeer.Member(d.Relayed.Destination), wirepeer.Member(d.Relayed.Source)
			}
			objects = append(objects, o)
		}
		r := newRelays()
		if d := cmp.Diff(lanFirst(sent), r.agree(t, s.Datagrams(objects))); d != "" {
			t.Errorf("frames (-sent +got):\n%s", d)
		}
		r.wantNoDrops(t)
	})
}

// TestReadPacker has both receivers read what transport/wire sends, and
// wirepeer judge how it is sent. The source changes between frames of which a
// part has been sent, as a fair queue does.
func TestReadPacker(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.IntRange(wire.MinSize, 9000).Draw(t, "size")
		sent := drawFrames(t)
		q := newTurns(t, sent)
		var p wire.Packer
		var audit wirepeer.Auditor
		var datagrams [][]byte
		for {
			d := make([]byte, size)
			n := p.Pack(d, q)
			if n == 0 {
				break
			}
			datagrams = append(datagrams, d[:n])
			if rapid.IntRange(0, 9).Draw(t, "heartbeat") == 0 {
				datagrams = append(datagrams, wire.AppendHeartbeat(nil, p.Seq(), wire.Ping, 7, 0))
			}
		}
		for i, d := range datagrams {
			if err := audit.Datagram(d); err != nil {
				t.Fatalf("datagram %d: %v\n%.400x", i, err, d)
			}
		}
		if err := audit.End(); err != nil {
			t.Error(err)
		}
		// They come in the order in which they became whole.
		r := newRelays()
		if d := cmp.Diff(lanFirst(q.done), r.agree(t, datagrams)); d != "" {
			t.Errorf("frames (-sent +got):\n%s", d)
		}
		if len(q.done) != len(sent) {
			t.Errorf("%d of %d frames were sent", len(q.done), len(sent))
		}
		r.wantNoDrops(t)
	})
}

func (r *readings) wantNoDrops(t rapid.TB) {
	t.Helper()
	if d := cmp.Diff(map[string]uint64{}, r.slow.Drops()); d != "" {
		t.Errorf("drops (-want +got):\n%s", d)
	}
}

// turns is a Source whose frames take turns of a datagram or so.
type turns struct {
	t       *rapid.T
	waiting []*wire.Item
	frames  map[*wire.Item]delivery
	done    []delivery
}

func newTurns(t *rapid.T, frames []delivery) *turns {
	q := &turns{t: t, frames: map[*wire.Item]delivery{}}
	for _, d := range frames {
		b := frame.New(d.Frame)
		h := frame.ParseVnet(d.Header[:])
		h.HdrLen = uint16(headerLength(h, d.Frame)) // as it comes from a TAP
		b.SetHeader(h)
		it := &wire.Item{Buf: b, Relayed: d.Relayed}
		q.waiting = append(q.waiting, it)
		q.frames[it] = d
	}
	return q
}

// Next implements [wire.Source].
func (q *turns) Next(int) *wire.Item {
	if len(q.waiting) == 0 {
		return nil
	}
	return q.waiting[0]
}

// Sent implements [wire.Source].
func (q *turns) Sent(_ int, done bool) {
	it := q.waiting[0]
	if done {
		q.waiting = q.waiting[1:]
		q.done = append(q.done, q.frames[it])
		it.Buf.Release()
		return
	}
	i := rapid.IntRange(0, len(q.waiting)-1).Draw(q.t, "turn")
	q.waiting[0], q.waiting[i] = q.waiting[i], q.waiting[0]
}

// drawFrames draws up to 8 frames, which is also how many a sender may have
// begun, that a LAN of wireMTU takes.
func drawFrames(t *rapid.T) (frames []delivery) {
	for range rapid.IntRange(1, 8).Draw(t, "frames") {
		d := drawFrame(t)
		switch rapid.IntRange(0, 3).Draw(t, "way") {
		case 0:
			d.Relayed = &wire.Relayed{Destination: wire.ShortID(relaySelf), Source: wire.ShortID(relayAfter)}
		case 1:
			d.Relayed = &wire.Relayed{Destination: wire.ShortID(relayNext), Source: wire.ShortID(relayPeer)}
		}
		frames = append(frames, d)
	}
	return frames
}

// drawFrame draws a plain frame, or one of TCP or UDP that leaves its checksum
// or its segments to whoever gets it.
func drawFrame(t *rapid.T) delivery {
	f := make([]byte, 12, 70000)
	for i := range f {
		f[i] = byte(i)
	}
	tags := rapid.IntRange(0, 2).Draw(t, "tags")
	for i := range tags {
		f = append(f, 0x81, 0, 0, byte(i))
	}
	kind := rapid.SampledFrom([]uint8{frame.GSONone, frame.GSOTCPv4, frame.GSOTCPv6, frame.GSOUDP}).Draw(t, "kind")
	if kind == frame.GSONone {
		f = append(f, 0x88, 0xb5)
		n := rapid.IntRange(0, wireMTU).Draw(t, "bytes")
		return delivery{Frame: fill(f, n)}
	}

	six := kind == frame.GSOTCPv6 || kind == frame.GSOUDP && rapid.Bool().Draw(t, "six")
	ip := len(f) + 2
	protocol, header, segments := byte(frame.ProtoTCP), 20, 1024
	if kind == frame.GSOUDP {
		protocol, header, segments = frame.ProtoUDP, 8, 128
	}
	if six {
		f = append(f, 0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, protocol, 64)
		f = fill(f, 32)
		if n := rapid.IntRange(0, 3).Draw(t, "options"); n > 0 { // 0x3c: destination options
			f[ip+6] = 0x3c
			f = append(f, protocol, byte(16*n-1))
			f = fill(f, 128*n-2)
		}
	} else {
		f = append(f, 0x08, 0, 0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, protocol)
		f = fill(f, 10)
	}
	h := frame.Vnet{Flags: frame.VnetNeedsCsum, CsumStart: uint16(len(f)), CsumOffset: 6}
	f = fill(f, header)
	if kind != frame.GSOUDP {
		h.CsumOffset = 16
		f[len(f)-header+12] = 5 << 4
	}

	most := ip + wireMTU - len(f)
	if rapid.Bool().Draw(t, "superframe") {
		h.GSOType = kind
		h.GSOSize = uint16(rapid.IntRange(1, most).Draw(t, "size"))
		least := int(h.GSOSize) + 1
		f = fill(f, rapid.IntRange(least, max(least, min(segments*int(h.GSOSize), 65000-len(f)))).Draw(t, "payload"))
	} else {
		f = fill(f, rapid.IntRange(0, most).Draw(t, "payload"))
	}
	if six {
		binary.BigEndian.PutUint16(f[ip+4:], uint16(len(f)-ip-40))
	} else {
		binary.BigEndian.PutUint16(f[ip+2:], uint16(len(f)-ip))
	}
	if kind == frame.GSOUDP {
		binary.BigEndian.PutUint16(f[h.CsumStart+4:], uint16(len(f)-int(h.CsumStart)))
	}
	d := delivery{Frame: f}
	h.Put(d.Header[:])
	return d
}

// fill appends n bytes, of which no two parts of the same length look alike
// soon.
func fill(f []byte, n int) []byte {
	for range n {
		f = append(f, byte(len(f)*len(f)>>3))
	}
	return f
}

// FuzzTwoReadings gives both receivers the same datagrams, each of which stands
// behind its length u16 in the input.
func FuzzTwoReadings(f *testing.F) {
	for seed := range uint64(4) {
		var in []byte
		for _, d := range wirepeer.Generate(rand.New(rand.NewPCG(seed, 1)), 200) {
			if len(d) < 300 {
				in = append(binary.BigEndian.AppendUint16(in, uint16(len(d))), d...)
			}
		}
		f.Add(in)
	}
	for _, file := range recordings(f) {
		var in []byte
		for _, d := range readRecording(f, file) {
			in = append(binary.BigEndian.AppendUint16(in, uint16(len(d.bytes))), d.bytes...)
		}
		f.Add(in)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		var datagrams [][]byte
		for len(in) >= 2 {
			n := min(int(binary.BigEndian.Uint16(in)), len(in)-2)
			datagrams = append(datagrams, in[2:2+n])
			in = in[2+n:]
		}
		newReadings().agree(t, datagrams)
		newRelays().agree(t, datagrams)
	})
}
