// SPDX-License-Identifier: Apache-2.0

package guard_test

import (
	"bytes"
	"encoding/hex"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/l2bridge/l2bridge/bridge/guard"
)

var (
	low, mid, high = guard.ID{1}, guard.ID{2}, guard.ID{3}
	stranger       = guard.ID{0}
)

// TestProbeBytes holds the frame to its picture.
func TestProbeBytes(t *testing.T) {
	t.Parallel()
	p := guard.Probe{Kind: guard.KindLoop, Counter: 0x01020304, Network: "ab"}
	for i := range p.ID {
		p.ID[i] = byte(0x80 + i)
	}
	const want = "ffffffffffff" + "fa8081828384" + "88b6" + "6c326272" + "01" + "01" + "01020304" +
		"808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f" + "02" + "6162" + "00"
	b := p.Frame()
	defer b.Release()
	if got := hex.EncodeToString(b.Bytes()); got != want {
		t.Errorf("frame is\n%s, want\n%s", got, want)
	}
	if b.Len() != 60 {
		t.Errorf("frame of %d bytes, want 60", b.Len())
	}
}

func TestProbeParses(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		p := guard.Probe{
			Kind:    guard.Kind(rapid.Byte().Draw(t, "kind")),
			Counter: rapid.Uint32().Draw(t, "counter"),
			ID:      guard.ID(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "id")),
			Network: rapid.StringN(0, 60, 255).Draw(t, "network"),
		}
		b := p.Frame()
		defer b.Release()
		f := append(bytes.Clone(b.Bytes()), rapid.SliceOfN(rapid.Byte(), 0, 9).Draw(t, "trailer")...)
		if got, err := guard.ParseProbe(f); err != nil || got != p || !guard.IsProbe(f) || len(f) < 60 {
			t.Fatalf("parsed %+v, %v, want %+v", got, err, p)
		}
	})
}

func FuzzProbe(f *testing.F) {
	for _, p := range []guard.Probe{{}, {Kind: guard.KindLoop, ID: high, Network: "home"}, {Kind: guard.KindFlush, Counter: 9}} {
		b := p.Frame()
		f.Add(bytes.Clone(b.Bytes()))
		f.Add(bytes.Clone(b.Bytes()[:57]))
		b.Release()
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) < 14 {
			return
		}
		is := guard.IsProbe(in)
		p, err := guard.ParseProbe(in)
		if err != nil {
			return
		}
		if !is {
			t.Fatal("parsed what is no probe")
		}
		b := p.Frame()
		defer b.Release()
		out, n := b.Bytes(), 57+len(p.Network)
		if !bytes.Equal(out[:6], in[:6]) || !bytes.Equal(out[12:n], in[12:n]) {
			t.Fatalf("%x became %x", in, out)
		}
	})
}

func loopOf(peers map[guard.ID]string) *guard.Loop {
	l := guard.NewLoop("net", mid)
	l.SetPeers(peers)
	return l
}

func probeOf(id guard.ID) guard.Probe {
	return guard.Probe{Kind: guard.KindLoop, ID: id, Network: "net"}
}

func TestLoopJudges(t *testing.T) {
	t.Parallel()
	peers := map[guard.ID]string{low: "attic", high: "cabin"}
	for _, tt := range []struct {
		name   string
		probes []guard.Probe
		want   guard.Verdict
	}{
		{"nothing", nil, guard.Verdict{}},
		{"a lower site", []guard.Probe{probeOf(low)}, guard.Verdict{Cut: true, Joined: []string{"attic"}, Lowest: "attic"}},
		{"a higher site", []guard.Probe{probeOf(high)}, guard.Verdict{Joined: []string{"cabin"}}},
		{"both", []guard.Probe{probeOf(high), probeOf(low)}, guard.Verdict{Cut: true, Joined: []string{"attic", "cabin"}, Lowest: "attic"}},
		{"our own", []guard.Probe{probeOf(mid)}, guard.Verdict{Cut: true, Own: true}},
		{"our own and a higher one", []guard.Probe{probeOf(mid), probeOf(high)}, guard.Verdict{Cut: true, Own: true, Joined: []string{"cabin"}}},
		{"no peer", []guard.Probe{probeOf(stranger)}, guard.Verdict{}},
		{"another network", []guard.Probe{{Kind: guard.KindLoop, ID: low, Network: "other"}}, guard.Verdict{}},
		{"another kind", []guard.Probe{{Kind: guard.KindFlush, ID: low, Network: "net"}, {Kind: 99, ID: low, Network: "net"}}, guard.Verdict{}},
	} {
		l := loopOf(peers)
		for _, p := range tt.probes {
			l.Heard(p)
		}
		got := l.Judge()
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
		select {
		case <-l.Changed():
			if got.Equal(guard.Verdict{}) {
				t.Errorf("%s: a change is told, and there is none", tt.name)
			}
		default:
			if !got.Equal(guard.Verdict{}) {
				t.Errorf("%s: no change is told", tt.name)
			}
		}
	}
}

// TestLoopHeals has probes come every half second, some of them lost, and then
// no more.
func TestLoopHeals(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := loopOf(map[guard.ID]string{low: "attic"})
		for n := range 100 {
			if n%5 == 0 {
				l.Heard(probeOf(low))
			}
			time.Sleep(guard.ProbeEvery)
			if !l.Judge().Cut {
				t.Fatalf("healed %d probes after one", n%5+1)
			}
		}
		time.Sleep(time.Millisecond)
		if v := l.Judge(); !v.Equal(guard.Verdict{}) {
			t.Errorf("%+v %v after the latest probe", v, guard.HealAfter+time.Millisecond)
		}

		// Who is no peer any more makes no loop, and does again when it is back.
		l.Heard(probeOf(low))
		l.SetPeers(map[guard.ID]string{high: "cabin"})
		if l.Judge().Cut {
			t.Error("cut for a site that is no peer")
		}
		l.Heard(probeOf(low))
		l.SetPeers(map[guard.ID]string{low: "attic"})
		if l.Judge().Cut {
			t.Error("a probe counts that came when its site was no peer")
		}
		l.Heard(probeOf(low))
		if !l.Judge().Cut {
			t.Error("not cut for a site that is a peer again")
		}
		l.SetPeers(nil)
		l.Heard(probeOf(mid))
		if v := l.Judge(); v.Cut || !v.Own {
			t.Errorf("%+v: without peers there is nothing to be cut off from", v)
		}
	})
}

// TestLoopHasOneForwarder: of sites on one LAN which all hear each other exactly
// one is not cut off.
func TestLoopHasOneForwarder(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		ids := rapid.SliceOfNDistinct(rapid.SliceOfN(rapid.Byte(), 32, 32), 1, 8, func(b []byte) string { return string(b) }).Draw(t, "ids")
		forwarders := 0
		for _, self := range ids {
			l := guard.NewLoop("net", guard.ID(self))
			peers := make(map[guard.ID]string)
			for _, id := range ids {
				if !bytes.Equal(id, self) {
					peers[guard.ID(id)] = hex.EncodeToString(id)
				}
			}
			l.SetPeers(peers)
			for id := range peers {
				l.Heard(probeOf(id))
			}
			if !l.Judge().Cut {
				forwarders++
			}
		}
		if forwarders != 1 {
			t.Fatalf("%d sites forward for %x", forwarders, ids)
		}
	})
}

// TestOthersProbes: of two networks exactly one carries the other's probes.
func TestOthersProbes(t *testing.T) {
	t.Parallel()
	a, b := guard.NewLoop("a", low), guard.NewLoop("b", high)
	pa, pb := guard.Probe{Network: "a"}, guard.Probe{Network: "b"}
	if !a.IsOthers(pb) || b.IsOthers(pa) || a.IsOthers(pa) || b.IsOthers(pb) {
		t.Error("want a to carry b's probes and nothing else")
	}
	if !a.IsOurs(pa) || a.IsOurs(pb) {
		t.Error("whose probe is whose?")
	}
}

func TestLoopFrames(t *testing.T) {
	t.Parallel()
	l := guard.NewLoop("net", mid)
	for n := range uint32(3) {
		b := l.Frame(guard.KindFlush)
		got, err := guard.ParseProbe(b.Bytes())
		b.Release()
		if want := (guard.Probe{Kind: guard.KindFlush, Counter: n + 1, ID: mid, Network: "net"}); err != nil || got != want {
			t.Errorf("frame %d is %+v, %v, want %+v", n, got, err, want)
		}
	}
}
