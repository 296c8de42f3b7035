// SPDX-License-Identifier: Apache-2.0

package fdb_test

import (
	"cmp"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/l2bridge/l2bridge/fdb"
	"github.com/l2bridge/l2bridge/internal/frame"
)

// model is the table as one would write it without concern for speed.
type model struct {
	max      int
	ageing   fdb.Tick
	limits   map[fdb.Port]int
	stations map[frame.Station]place // silent ones too, until they are swept or heard again
	stats    fdb.Stats               // the counters
}

type place struct {
	port   fdb.Port
	seen   fdb.Tick
	static bool
	moves  int
}

func (m *model) expired(pl place, now fdb.Tick) bool {
	return !pl.static && now-pl.seen > m.ageing
}

func (m *model) count(p fdb.Port) int {
	n := 0
	for _, pl := range m.stations {
		if pl.port == p {
			n++
		}
	}
	return n
}

func (m *model) reserved() int {
	sum := 0
	for _, limit := range m.limits {
		sum += limit
	}
	return sum
}

func (m *model) learn(now fdb.Tick, s frame.Station, p fdb.Port) fdb.Verdict {
	limit, attached := m.limits[p]
	if s.IsGroup() || s.IsZero() || !attached {
		return fdb.Refused
	}
	pl, held := m.stations[s]
	if held && m.expired(pl, now) {
		delete(m.stations, s)
		m.stats.Expired++
		held = false
	}
	full := m.count(p) >= limit
	switch {
	case held && pl.port == p:
		pl.seen = now
		m.stations[s] = pl
		return fdb.Known
	case held && pl.static:
		m.stats.Claimed++
		return fdb.Static
	case full:
		m.stats.Full++
		return fdb.Full
	case held:
		m.stations[s] = place{port: p, seen: now, moves: pl.moves + 1}
		m.stats.Moved++
		return fdb.Moved
	}
	m.stations[s] = place{port: p, seen: now}
	m.stats.Learned++
	return fdb.Learned
}

func (m *model) addStatic(now fdb.Tick, s frame.Station, p fdb.Port) bool {
	limit, attached := m.limits[p]
	if s.IsGroup() || s.IsZero() || !attached {
		return false
	}
	if m.stations[s].port != p && m.count(p) >= limit {
		return false
	}
	m.stations[s] = place{port: p, seen: now, static: true}
	return true
}

// forget removes the stations that match and returns how many there were.
func (m *model) forget(match func(place) bool) int {
	before := len(m.stations)
	maps.DeleteFunc(m.stations, func(_ frame.Station, pl place) bool { return match(pl) })
	return before - len(m.stations)
}

func (m *model) entries(now fdb.Tick) []fdb.Entry {
	var es []fdb.Entry
	for s, pl := range m.stations {
		if !m.expired(pl, now) {
			age := time.Duration(now-pl.seen) * 100 * time.Millisecond
			es = append(es, fdb.Entry{Station: s, Port: pl.port, Age: age, Static: pl.static, Moves: pl.moves})
		}
	}
	return sorted(es)
}

func sorted(es []fdb.Entry) []fdb.Entry {
	slices.SortFunc(es, func(a, b fdb.Entry) int { return cmp.Compare(a.Station, b.Station) })
	return es
}

// TestModel does the same to a table and to the model, so small that ports,
// table and chains are full and empty again all the time.
func TestModel(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		// Without the Deadline method, which a bubble refuses to answer.
		rapid.Check(struct{ testing.TB }{t}, checkModel)
	})
}

func checkModel(t *rapid.T) {
	conf := fdb.Config{Max: rapid.IntRange(1, 8).Draw(t, "max"), Ageing: time.Second}
	tab := fdb.New(conf)
	m := &model{max: conf.Max, ageing: 10, limits: map[fdb.Port]int{}, stations: map[frame.Station]place{}}

	stations := rapid.SampledFrom([]frame.Station{
		local(1), local(2), local(3), local(4), local(5), 1<<48 | local(1), 1<<48 | local(2), 4095<<48 | local(1),
		0, 0xff_ff_ff_ff_ff_ff,
	})
	ports := rapid.Custom(func(t *rapid.T) fdb.Port {
		// The attached ones mostly, else one that is not.
		attached := slices.Sorted(maps.Keys(m.limits))
		if len(attached) > 0 && rapid.IntRange(0, 9).Draw(t, "attached") > 0 {
			return rapid.SampledFrom(attached).Draw(t, "port")
		}
		return fdb.Port(rapid.IntRange(0, 8).Draw(t, "any port"))
	})
	same := func(t *rapid.T, what string, got, want any) {
		if d := gocmp.Diff(want, got); d != "" {
			t.Fatalf("%s (-want +got):\n%s", what, d)
		}
	}
	learn := func(t *rapid.T) {
		s, p, now := stations.Draw(t, "station"), ports.Draw(t, "port"), tab.Now()
		same(t, "Learn", tab.Learn(now, s, p), m.learn(now, s, p))
	}
	t.Repeat(map[string]func(*rapid.T){
		"learn":   learn,
		"learn 2": learn,
		"learn 3": learn,
		"time":    func(t *rapid.T) { time.Sleep(time.Duration(rapid.IntRange(1, 1100).Draw(t, "ms")) * time.Millisecond) },
		"sweep": func(t *rapid.T) {
			now := tab.Now()
			n := m.forget(func(pl place) bool { return m.expired(pl, now) })
			m.stats.Expired += uint64(n)
			same(t, "Sweep", tab.Sweep(now), n)
		},
		"attach": func(t *rapid.T) {
			quota := rapid.IntRange(-1, 5).Draw(t, "quota")
			p, granted, err := tab.Attach(quota)
			if err != nil {
				t.Fatal(err)
			}
			same(t, "Attach", granted, max(0, min(quota, m.max-m.reserved())))
			if _, attached := m.limits[p]; attached || p == 0 {
				t.Fatalf("Attach gave %d out again", p)
			}
			m.limits[p] = granted
		},
		"detach": func(t *rapid.T) {
			p := ports.Draw(t, "port")
			tab.Detach(p)
			delete(m.limits, p)
			m.forget(func(pl place) bool { return pl.port == p })
		},
		"add static": func(t *rapid.T) {
			s, p := stations.Draw(t, "station"), ports.Draw(t, "port")
			same(t, "AddStatic", tab.AddStatic(s, p) == nil, m.addStatic(tab.Now(), s, p))
		},
		"delete": func(t *rapid.T) {
			s := stations.Draw(t, "station")
			_, held := m.stations[s]
			delete(m.stations, s)
			same(t, "Delete", tab.Delete(s), held)
		},
		"flush": func(t *rapid.T) {
			p := ports.Draw(t, "port")
			n := m.forget(func(pl place) bool { return !pl.static && (p == 0 || pl.port == p) })
			same(t, "Flush", tab.Flush(p), n)
		},
		"": func(t *rapid.T) {
			now := tab.Now()
			want := m.entries(now)
			same(t, "Entries", sorted(slices.Collect(tab.Entries())), want)
			for _, e := range want {
				p, ok := tab.Lookup(now, e.Station)
				same(t, "Lookup", ok, true)
				same(t, "Lookup", p, e.Port)
				got, ok := tab.Get(e.Station)
				same(t, "Get", ok, true)
				same(t, "Get", got, e)
			}
			for s, pl := range m.stations {
				if m.expired(pl, now) {
					_, ok := tab.Lookup(now, s)
					same(t, "Lookup of an expired station", ok, false)
					_, ok = tab.Get(s)
					same(t, "Get of an expired station", ok, false)
				}
			}
			for p := range fdb.Port(12) {
				same(t, "Count", tab.Count(p), m.count(p))
			}
			stats := m.stats
			stats.Entries, stats.Reserved, stats.Max = len(m.stations), m.reserved(), m.max
			same(t, "Stats", tab.Stats(), stats)
		},
	})
}
