// SPDX-License-Identifier: Apache-2.0

package fdb_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/l2bridge/l2bridge/fdb"
	"github.com/l2bridge/l2bridge/internal/frame"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// attach returns a new port that must be granted its quota.
func attach(t testing.TB, tab *fdb.Table, quota int) fdb.Port {
	t.Helper()
	p, granted, err := tab.Attach(quota)
	if err != nil {
		t.Fatal(err)
	}
	if granted != quota {
		t.Fatalf("Attach(%d) granted %d", quota, granted)
	}
	return p
}

// local is the n'th locally administered, individual address.
func local(n int) frame.Station { return 0x02<<40 | frame.Station(n) }

func TestVerdicts(t *testing.T) {
	t.Parallel()
	const (
		a, b      = fdb.Port(1), fdb.Port(2) // room for two stations each
		host      = frame.Station(0x52_54_00_12_34_56)
		tagged    = 100<<48 | host
		broadcast = frame.Station(0xff_ff_ff_ff_ff_ff)
		multicast = frame.Station(0x01_00_5e_00_00_fb)
		ageing    = fdb.Tick(3000) // 300 s
	)
	type step struct {
		now  fdb.Tick
		s    frame.Station
		p    fdb.Port
		want fdb.Verdict
	}
	for _, tt := range []struct {
		name  string
		setup func(*fdb.Table) error
		steps []step
		want  map[frame.Station]fdb.Port // at the time of the last step
		stats fdb.Stats
	}{{
		name:  "new, then known",
		steps: []step{{0, host, a, fdb.Learned}, {0, host, a, fdb.Known}, {1, host, a, fdb.Known}},
		want:  map[frame.Station]fdb.Port{host: a},
		stats: fdb.Stats{Entries: 1, Learned: 1},
	}, {
		name:  "a VLAN is another station",
		steps: []step{{0, host, a, fdb.Learned}, {0, tagged, b, fdb.Learned}, {0, host, a, fdb.Known}},
		want:  map[frame.Station]fdb.Port{host: a, tagged: b},
		stats: fdb.Stats{Entries: 2, Learned: 2},
	}, {
		name: "no station's address, no port",
		steps: []step{
			{0, 0, a, fdb.Refused}, {0, 7 << 48, a, fdb.Refused},
			{0, broadcast, a, fdb.Refused}, {0, multicast, a, fdb.Refused}, {0, 7<<48 | multicast, a, fdb.Refused},
			{0, host, 0, fdb.Refused}, {0, host, 3, fdb.Refused},
			{0, host, fdb.MaxPorts, fdb.Refused}, {0, host, fdb.MaxPorts + 1, fdb.Refused}, {0, host, 0xffff, fdb.Refused},
		},
		want: map[frame.Station]fdb.Port{0: 0, 7 << 48: 0, broadcast: 0, multicast: 0, host: 0},
	}, {
		name:  "moves at once, and back",
		steps: []step{{0, host, a, fdb.Learned}, {0, host, b, fdb.Moved}, {0, host, a, fdb.Moved}, {0, host, a, fdb.Known}},
		want:  map[frame.Station]fdb.Port{host: a},
		stats: fdb.Stats{Entries: 1, Learned: 1, Moved: 2},
	}, {
		name: "a full port learns no more and keeps what it has",
		steps: []step{
			{0, local(1), a, fdb.Learned}, {0, local(2), a, fdb.Learned}, {0, local(3), a, fdb.Full},
			{9, local(1), a, fdb.Known}, {9, local(3), b, fdb.Learned},
		},
		want:  map[frame.Station]fdb.Port{local(1): a, local(2): a, local(3): b},
		stats: fdb.Stats{Entries: 3, Learned: 3, Full: 1},
	}, {
		name: "a move takes room there and gives it back here",
		steps: []step{
			{0, local(1), a, fdb.Learned}, {0, local(2), a, fdb.Learned}, {0, local(1), b, fdb.Moved},
			{0, local(3), a, fdb.Learned}, {0, local(4), b, fdb.Learned}, {0, local(5), b, fdb.Full},
		},
		want:  map[frame.Station]fdb.Port{local(1): b, local(2): a, local(3): a, local(4): b, local(5): 0},
		stats: fdb.Stats{Entries: 4, Learned: 4, Moved: 1, Full: 1},
	}, {
		name: "a full port takes no other's station",
		steps: []step{
			{0, local(1), a, fdb.Learned}, {0, local(2), b, fdb.Learned}, {0, local(3), b, fdb.Learned},
			{0, local(1), b, fdb.Full}, {0, local(4), a, fdb.Learned}, {0, local(5), a, fdb.Full},
		},
		want:  map[frame.Station]fdb.Port{local(1): a, local(4): a, local(5): 0},
		stats: fdb.Stats{Entries: 4, Learned: 4, Full: 2},
	}, {
		name:  "is found to the end of the ageing time",
		steps: []step{{7, host, a, fdb.Learned}, {7 + ageing, local(1), a, fdb.Learned}},
		want:  map[frame.Station]fdb.Port{host: a, local(1): a},
		stats: fdb.Stats{Entries: 2, Learned: 2},
	}, {
		name:  "is not found after the ageing time, though it holds its room",
		steps: []step{{7, host, a, fdb.Learned}, {8 + ageing, local(1), a, fdb.Learned}, {8 + ageing, local(2), a, fdb.Full}},
		want:  map[frame.Station]fdb.Port{host: 0, local(1): a},
		stats: fdb.Stats{Entries: 2, Learned: 2, Full: 1},
	}, {
		name: "comes back after the ageing time, at a full port too",
		steps: []step{
			{0, local(1), a, fdb.Learned}, {0, local(2), a, fdb.Learned},
			{1 + ageing, local(1), a, fdb.Learned}, {1 + ageing, local(2), b, fdb.Learned},
		},
		want:  map[frame.Station]fdb.Port{local(1): a, local(2): b},
		stats: fdb.Stats{Entries: 2, Learned: 4, Expired: 2},
	}, {
		name:  "lives on with each frame",
		steps: []step{{0, host, a, fdb.Learned}, {ageing, host, a, fdb.Known}, {2 * ageing, host, a, fdb.Known}, {3 * ageing, host, a, fdb.Known}},
		want:  map[frame.Station]fdb.Port{host: a},
		stats: fdb.Stats{Entries: 1, Learned: 1},
	}, {
		name:  "a clock read earlier makes nobody older",
		steps: []step{{ageing, host, a, fdb.Learned}, {ageing - 1, host, a, fdb.Known}, {2 * ageing, host, a, fdb.Known}},
		want:  map[frame.Station]fdb.Port{host: a},
		stats: fdb.Stats{Entries: 1, Learned: 1},
	}, {
		name:  "the clock wraps",
		steps: []step{{1<<32 - 5, host, a, fdb.Learned}, {ageing - 5, host, a, fdb.Known}, {ageing, local(1), a, fdb.Learned}},
		want:  map[frame.Station]fdb.Port{host: a},
		stats: fdb.Stats{Entries: 2, Learned: 2},
	}, {
		name:  "static stays, neither moved nor aged",
		setup: func(tab *fdb.Table) error { return tab.AddStatic(host, a) },
		steps: []step{{1, host, b, fdb.Static}, {1, host, a, fdb.Known}, {3 * ageing, host, b, fdb.Static}},
		want:  map[frame.Station]fdb.Port{host: a},
		stats: fdb.Stats{Entries: 1, Claimed: 2},
	}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tab := fdb.New(fdb.Config{Max: 4})
			if p, q := attach(t, tab, 2), attach(t, tab, 2); p != a || q != b {
				t.Fatalf("ports %d and %d", p, q)
			}
			if tt.setup != nil {
				if err := tt.setup(tab); err != nil {
					t.Fatal(err)
				}
			}
			var now fdb.Tick
			for i, st := range tt.steps {
				now = st.now
				if got := tab.Learn(now, st.s, st.p); got != st.want {
					t.Fatalf("step %d: Learn(%d, %v, %d) = %v, want %v", i, now, st.s, st.p, got, st.want)
				}
			}
			got := map[frame.Station]fdb.Port{}
			for s := range tt.want {
				p, ok := tab.Lookup(now, s)
				if ok != (p != 0) {
					t.Errorf("Lookup(%v) = %d, %v", s, p, ok)
				}
				got[s] = p
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("places (-want +got):\n%s", d)
			}
			tt.stats.Reserved, tt.stats.Max = 4, 4
			if d := cmp.Diff(tt.stats, tab.Stats()); d != "" {
				t.Errorf("stats (-want +got):\n%s", d)
			}
		})
	}
}

func TestVerdictString(t *testing.T) {
	t.Parallel()
	var got []string
	for v := fdb.Known; v <= fdb.Refused+1; v++ {
		got = append(got, v.String())
	}
	want := []string{"known", "learned", "moved", "full", "static", "refused", "verdict(6)"}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestNew(t *testing.T) {
	t.Parallel()
	if got := fdb.New(fdb.Config{}).Stats().Max; got != fdb.DefaultMax {
		t.Errorf("default Max = %d, want %d", got, fdb.DefaultMax)
	}
	for name, c := range map[string]fdb.Config{
		"negative max":    {Max: -1},
		"too large":       {Max: fdb.MaxStations + 1},
		"negative ageing": {Ageing: -time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Errorf("New(%+v) did not panic", c)
				}
			}()
			fdb.New(c)
		})
	}
}

func TestMovesSaturate(t *testing.T) {
	t.Parallel()
	tab := fdb.New(fdb.Config{Max: 2})
	ports := [2]fdb.Port{attach(t, tab, 1), attach(t, tab, 1)}
	for i := range 1<<15 + 10 {
		tab.Learn(0, local(1), ports[i%2])
	}
	e, ok := tab.Get(local(1))
	want := fdb.Entry{Station: local(1), Port: ports[1], Age: e.Age, Moves: 1<<15 - 1}
	if d := cmp.Diff(want, e); !ok || d != "" {
		t.Errorf("Get = %v (-want +got):\n%s", ok, d)
	}
}

// TestFlood has one port make up a million addresses beside a port with a few
// stations of its own.
func TestFlood(t *testing.T) {
	t.Parallel()
	tab := fdb.New(fdb.Config{Max: 1 << 13})
	victim, flooder := attach(t, tab, 1<<10), attach(t, tab, 1<<12)
	for i := range 1 << 10 {
		if v := tab.Learn(0, local(i), victim); v != fdb.Learned {
			t.Fatalf("station %d: %v", i, v)
		}
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 1_000_000 {
		// 0x06 against the victim's 0x02: no address is claimed, all are new.
		tab.Learn(0, 0x06<<40|frame.Station(rng.Uint64()&(1<<40-1)), flooder)
	}
	for i := range 1 << 10 {
		if p, _ := tab.Lookup(0, local(i)); p != victim {
			t.Fatalf("station %d is behind port %d after the flood, want %d", i, p, victim)
		}
	}
	if got, want := tab.Count(flooder), 1<<12; got != want {
		t.Errorf("the flooder holds %d stations, want %d", got, want)
	}
	if v := tab.Learn(0, local(1<<10), victim); v != fdb.Full {
		t.Errorf("the victim's limit: %v, want full", v)
	}
}

// TestSpread files the addresses that real LANs have: counted up by a vendor,
// and one host in each of the VLANs. With a chain a station, the lengths of random
// ones are Poisson distributed with mean 1: e^-1 of them are empty, and one of
// 17 stations turns up in one table of 10^10.
func TestSpread(t *testing.T) {
	t.Parallel()
	const n = 1 << 16
	for name, station := range map[string]func(i int) frame.Station{
		"vendor":     func(i int) frame.Station { return 0x00_1b_21<<24 | frame.Station(i) },
		"every 16th": func(i int) frame.Station { return 0x00_1b_21<<24 | frame.Station(i*16) },
		"high bytes": func(i int) frame.Station { return frame.Station(i&0xfefe)<<32 | frame.Station(i&0x0101) | 1<<16 },
		"VLANs": func(i int) frame.Station {
			return frame.Station(i%4095)<<48 | 0x00_1b_21_00_00_01 + frame.Station(i/4095)
		},
		"Docker's 02": func(i int) frame.Station { return 0x02_42_ac_11<<16 | frame.Station(i) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tab := fdb.New(fdb.Config{Max: n})
			p := attach(t, tab, n)
			for i := range n {
				if v := tab.Learn(0, station(i), p); v != fdb.Learned {
					t.Fatalf("%v: %v", station(i), v)
				}
			}
			empty, longest := 0, 0
			for _, l := range tab.Chains() {
				longest = max(longest, l)
				if l == 0 {
					empty++
				}
			}
			if longest > 16 {
				t.Errorf("longest chain: %d", longest)
			}
			if share := float64(empty) / n; share < 0.35 || share > 0.39 { // 1/e
				t.Errorf("%.3f of the chains are empty, want about 0.368", share)
			}
		})
	}
}
