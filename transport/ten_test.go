// SPDX-License-Identifier: Apache-2.0

package transport_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/l2bridge/l2bridge/transport"
	"github.com/l2bridge/l2bridge/transport/identity"
)

var (
	livesFlag = flag.Int("lives", 2, "how many times ten sites live, each time with another seed")
	lifeFlag  = flag.Duration("life", 4*time.Minute, "how long ten sites live, in simulated time")
)

const (
	// reachedWithin is how soon after the last change all are reached that can
	// be, directly or by way of another one.
	reachedWithin = 2 * time.Second

	// directWithin is how soon they are reached directly, if they can be and
	// nobody relayed. Who is reached by way of another is tried less and less
	// often, each quarter of the time for which that has been so.
	directWithin = 5 * time.Second
)

// mesh is ten sites, the network between them, and what becomes of them. Each site
// names the first two, which know nobody but each other.
type mesh struct {
	*world
	*traffic
	t   *testing.T
	rng *rand.Rand

	members []*identity.Member
	sites   []*node // nil while one is not there
	firsts  []string
	nats    []*nat // nil for who is not behind one

	kept  [][][]byte // announcements, by site
	joins int        // sites that were started once
	moves int
	apart [][]time.Time // since when two cannot reach each other directly; zero when they can

	began   time.Time
	history []string

	mu    sync.Mutex // guards what follows
	where map[netip.Addr]int
	cuts  [][]bool // from, to
}

// behindNAT is the first of the sites that are behind NATs, which keep them from
// reaching each other.
const behindNAT = 8

func newMesh(t *testing.T, members []*identity.Member, seed uint64) *mesh {
	n := len(members)
	m := &mesh{
		world: newWorld(), traffic: &traffic{t: t}, t: t, rng: rand.New(rand.NewPCG(seed, 0)),
		members: members, sites: make([]*node, n), nats: make([]*nat, n), kept: make([][][]byte, n),
		where: make(map[netip.Addr]int), began: time.Now(),
	}
	m.world.rng = rand.New(rand.NewPCG(seed, 1))
	for i := range n {
		m.cuts, m.apart = append(m.cuts, make([]bool, n)), append(m.apart, make([]time.Time, n))
		m.firsts = append(m.firsts, fmt.Sprintf("192.0.2.%d", 10+i))
		if i >= behindNAT {
			m.firsts[i] = fmt.Sprintf("10.0.%d.1", i)
			outer := fmt.Sprintf("192.0.2.%d", 10+i)
			m.nats[i] = m.behind(m.firsts[i], outer, i == behindNAT)
			m.isNow(i, outer)
		}
		m.isNow(i, m.firsts[i])
	}
	m.cut = func(from, to netip.Addr) bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.cuts[m.where[from]][m.where[to]] || from.IsPrivate() && to.IsPrivate()
	}
	return m
}

func (m *mesh) isNow(i int, addr string) {
	m.mu.Lock()
	m.where[netip.MustParseAddr(addr)] = i
	m.mu.Unlock()
}

// start starts a site, which knows what it knew when it ended.
func (m *mesh) start(i int) {
	m.joins = max(m.joins, i+1)
	var names []string
	for j := range 2 {
		if i != j {
			names = append(names, fmt.Sprintf("site%d.example:4433", j))
		}
	}
	m.sites[i] = m.run(m.t, m.members[i], m.firsts[i], names, func(c *transport.Config) {
		c.Addresses = func() []string { return []string{m.addressOf(m.firsts[i]) + ":4433"} }
		c.Resolve = func(_ context.Context, host string) ([]netip.Addr, error) {
			var j int
			if _, err := fmt.Sscanf(host, "site%d.example", &j); err != nil {
				return nil, errors.New("no such name")
			}
			return []netip.Addr{netip.MustParseAddr(m.addressOf(m.firsts[j]))}, nil
		}
		c.Known = m.kept[i]
		c.Learned = func(all [][]byte) {
			m.mu.Lock()
			m.kept[i] = all
			m.mu.Unlock()
		}
	})
	m.at(m.sites[i])
}

// end ends a site, and keeps nothing of it.
func (m *mesh) end(i int, how func(*node)) {
	n := m.sites[i]
	how(n)
	m.sites[i], n.Mesh, n.lan, n.log, n.sock = nil, nil, nil, nil, nil
}

// cutOff has nothing pass from a site to another.
func (m *mesh) cutOff(from, to int) {
	m.mu.Lock()
	m.cuts[from][to] = from != to
	m.mu.Unlock()
}

// mend has everything pass.
func (m *mesh) mend() {
	m.mu.Lock()
	for _, row := range m.cuts {
		clear(row)
	}
	m.mu.Unlock()
}

// direct reports whether two sites can reach each other without a third.
func (m *mesh) direct(i, j int) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.sites[i] != nil && m.sites[j] != nil && !m.cuts[i][j] && !m.cuts[j][i] && min(i, j) < behindNAT
}

// relayed reports whether they can by way of a third.
func (m *mesh) relayed(i, j int) bool {
	for k := range m.sites {
		if k != i && k != j && m.direct(i, k) && m.direct(k, j) {
			return true
		}
	}
	return false
}

// between returns a random time.
func (m *mesh) between(from, to time.Duration) time.Duration {
	return from + time.Duration(m.rng.Int64N(int64(to-from)))
}

// happens has something happen.
func (m *mesh) happens() {
	if what := m.change(); what != "" {
		m.history = append(m.history, fmt.Sprintf("%v %s", time.Since(m.began).Round(time.Millisecond), what))
	}
	m.note()
}

// change changes something, and returns what.
func (m *mesh) change() string {
	i, j := m.rng.IntN(len(m.sites)), m.rng.IntN(len(m.sites))
	site, other := m.members[i].Site, m.members[j].Site
	kind := m.rng.IntN(12)
	if m.joins < len(m.sites) && kind < 6 {
		// It knows those that it names, and has to meet one of them.
		m.heal()
		m.start(m.joins)
		m.flow(6 * time.Second) // until what it has learned is kept
		return m.members[m.joins-1].Site + " has joined"
	}
	switch kind {
	case 0, 1, 2:
		m.mend()
		return "the network is whole"
	case 3:
		m.cutOff(i, j)
		m.cutOff(j, i)
		return site + " and " + other + " are apart"
	case 4:
		m.cutOff(i, j)
		return site + " does not reach " + other
	case 5:
		for a := range i {
			for b := i; b < len(m.sites); b++ {
				m.cutOff(a, b)
				m.cutOff(b, a)
			}
		}
		return "those below " + site + " are apart from the others"
	case 6:
		for a := range m.sites {
			m.cutOff(a, i)
			if j%2 == 0 {
				m.cutOff(i, a)
			}
		}
		return site + " hears nobody"
	case 7:
		loss, latency := max(0, m.rng.Float64()*0.06-0.03), m.between(time.Millisecond, 40*time.Millisecond)
		m.set(func() { m.loss, m.latency = loss, latency })
		return fmt.Sprintf("%.1f %% are lost, and it takes %v one way", 100*loss, latency)
	}
	switch {
	case i >= m.joins:
		return ""
	case m.sites[i] == nil:
		m.start(i)
		return site + " starts"
	case kind == 8:
		m.end(i, (*node).stop)
		return site + " stops"
	case kind == 9:
		m.end(i, (*node).kill)
		return site + " is killed"
	case m.nats[i] != nil:
		m.set(m.nats[i].forget)
		return "the NAT of " + site + " forgets"
	}
	m.moves++
	to := fmt.Sprintf("198.51.%d.%d", m.moves/250, 1+m.moves%250)
	m.isNow(i, to)
	m.move(m.firsts[i], to)
	m.sites[i].Moved()
	return site + " moves to " + to
}

// heal has everything be as it should.
func (m *mesh) heal() {
	m.mend()
	for i := range m.joins {
		if m.sites[i] == nil {
			m.start(i)
		}
	}
	m.history = append(m.history, fmt.Sprintf("%v all is well", time.Since(m.began).Round(time.Millisecond)))
}

// flow sends frames between random sites for so long.
func (m *mesh) flow(lasts time.Duration) {
	for end := time.Now().Add(lasts); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if i, j := m.rng.IntN(len(m.sites)), m.rng.IntN(len(m.sites)); i != j && m.sites[i] != nil {
			m.send(m.sites[i], m.members[j].Site, 60+m.rng.IntN(1455))
		}
	}
	synctest.Wait()
}

// note keeps since when sites cannot reach each other directly.
func (m *mesh) note() {
	for i := range m.sites {
		for j := range m.sites {
			switch {
			case m.direct(i, j):
			case m.apart[i][j].IsZero():
				m.apart[i][j] = time.Now()
			}
		}
	}
}

// pairs calls f with each two sites.
func (m *mesh) pairs(f func(i, j int)) {
	for i := range m.sites {
		for j := range i {
			f(i, j)
			f(j, i)
		}
	}
}

// wrong returns the pairs that are not in the state that they should be in by now.
func (m *mesh) wrong(since time.Time) (all []string) {
	took := time.Since(since)
	m.pairs(func(i, j int) {
		direct, relayed := m.direct(i, j), m.relayed(i, j)
		if !direct && (m.sites[i] == nil || m.sites[j] == nil || !relayed) {
			return
		}
		st := m.sites[i].state(m.members[j].Site)
		late := st.State != "up" && st.State != "relayed"
		if at := m.apart[i][j]; direct && st.State != "up" {
			var away time.Duration
			if !at.IsZero() {
				away = min(since.Sub(at), 4*time.Minute)
			}
			late = late || took > directWithin+away*11/40
		}
		if !direct && st.State != "relayed" {
			late = true
		}
		if late {
			all = append(all, fmt.Sprintf("site%d sees site%d %s %s (%s)", i, j, st.State, st.Via, st.Error))
		}
	})
	return all
}

// Ten sites live through joins, losses, restarts, partitions and moves.
func TestTenSites(t *testing.T) {
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64() >> 1
	}
	var names []string
	for i := range 10 {
		names = append(names, fmt.Sprint("site", i))
	}
	ms := members(t, names...)
	lives, length := *livesFlag, *lifeFlag
	if raceEnabled {
		lives, length = 1, 2*time.Minute // it takes six times as long
	}
	for life := range lives {
		seed := seed + uint64(life)
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { newMesh(t, ms, seed).live(length) })
		})
	}
}

// live has things happen for so long. Every now and then nothing does for a while;
// then all must be well soon.
func (m *mesh) live(length time.Duration) {
	var (
		slowest time.Duration
		early   footprint
	)
	const tries = 100 // goroutines that may be at work for the two that never reach each other
	check := func() {
		if early == (footprint{}) {
			early = m.rest()
		} else if now := m.rest(); now.goroutines > early.goroutines+tries || now.heap > early.heap+16<<20 {
			m.t.Errorf("in the end %+v, %+v before", now, early)
		}
	}
	m.start(0)
	for time.Since(m.began) < length {
		for range 1 + m.rng.IntN(5) {
			m.happens()
			m.flow(m.between(0, 5*time.Second))
		}
		whole := m.joins == len(m.sites) && m.rng.IntN(3) == 0
		if whole {
			m.heal()
		}
		took, ok := m.settles()
		if !ok {
			m.t.Logf("what happened before:\n%s", strings.Join(m.history[max(0, len(m.history)-12):], "\n"))
			return
		}
		slowest = max(slowest, took)
		if whole && early == (footprint{}) {
			check()
		}
	}
	m.joins = len(m.sites)
	m.heal()
	if _, ok := m.settles(); ok {
		check()
	}
	packets, losses := m.count()
	m.t.Logf("%d changes; all reached %v after the last one at most; %d packets, %d lost; %+v", len(m.history), slowest, packets, len(losses), early)
}

// rest returns what is held when nothing has happened for a while.
func (m *mesh) rest() footprint {
	time.Sleep(30 * time.Second)
	synctest.Wait()
	return measure()
}

// settles waits until all is as it should be, and frames arrive, and returns how
// long it took until all were reached, and whether it was soon enough.
func (m *mesh) settles() (took time.Duration, ok bool) {
	m.set(func() { m.loss = 0 })
	m.note()
	calm := time.Now()
	for now := time.Duration(0); now < directWithin || m.indirect(); {
		m.flow(50 * time.Millisecond)
		now = time.Since(calm)
		if wrong := m.wrong(calm); len(wrong) > 0 {
			took = now // what is wrong need not be known at once
			if now > reachedWithin {
				m.t.Errorf("%v after the last change:\n%s", now, strings.Join(wrong, "\n"))
				return took, false
			}
		}
	}
	m.flow(time.Second) // sessions that were just made may have crossed others
	ok = m.arrives()
	m.pairs(func(i, j int) {
		if m.direct(i, j) {
			m.apart[i][j] = time.Time{}
		}
	})
	return took, ok
}

// indirect reports whether some are relayed that need not be.
func (m *mesh) indirect() (some bool) {
	m.pairs(func(i, j int) {
		some = some || m.direct(i, j) && m.sites[i].state(m.members[j].Site).State != "up"
	})
	return some
}

// arrives sends frames between all that reach each other, and reports whether all
// arrive.
func (m *mesh) arrives() bool {
	sent := time.Now()
	for range 5 {
		m.pairs(func(i, j int) {
			if m.sites[i] != nil && m.sites[j] != nil && (m.direct(i, j) || m.relayed(i, j)) {
				m.send(m.sites[i], m.members[j].Site, 1000)
			}
		})
		time.Sleep(20 * time.Millisecond)
	}
	time.Sleep(2 * time.Second)
	synctest.Wait()
	lost := m.lost(sent)
	if len(lost) > 0 {
		m.t.Errorf("%d frames did not arrive: %v", len(lost), lost[:min(8, len(lost))])
	}
	return len(lost) == 0
}
