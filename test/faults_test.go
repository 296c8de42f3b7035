// SPDX-License-Identifier: Apache-2.0

//go:build linux

package test_test

import (
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/l2bridge/l2bridge/test/lab"
)

// A fault is measured from outside: one host asks another for an echo ten times
// a second all the while, and what counts is how long none comes back. As a test
// each fault comes once, or a few times, and shorter than life. "make faults"
// has it come often, as long as it is, and makes tables of it.
var (
	faultRuns     = flag.Int("faults.runs", 1, "how often each fault comes")
	faultFull     = flag.Bool("faults.full", false, "measure: with the long faults, under load, at random moments")
	faultLoads    = flag.String("faults.loads", "idle,udp", "with -faults.full: what else is on the link, of idle, udp, tcp")
	faultJSON     = flag.String("faults.json", "", "file for what was measured")
	faultMarkdown = flag.String("faults.markdown", "", "file for its tables")
)

const (
	echoEvery = 100 * time.Millisecond
	loadFull  = 50_000_000 // bit/s
	loadTest  = 5_000_000

	// stallMost is for how long the machine may have had no time for the lab in a
	// run that counts although it was late.
	stallMost = 300 * time.Millisecond

	// cpuMost is how many percent of a processor a site may use while nothing
	// passes, with the race detector.
	cpuMost = 30

	// slack is what a test allows beyond what is promised: CI has few cores, runs
	// other tests at the same time, and all of it with the race detector.
	slack = 2 * time.Second
)

// missable returns how many echoes in a row may be missing from a link that is
// well. A test's machine may be so busy that a second's are.
func missable() int {
	if *faultFull {
		return 2
	}
	return int(time.Second / echoEvery)
}

// giveUp returns how long traffic is waited for. In a measurement it is far
// beyond any promise, to tell how late it was.
func giveUp() time.Duration {
	if *faultFull {
		return 90 * time.Second
	}
	return 30 * time.Second
}

// fault is something that happens to a link, and how soon it must be well again.
type fault struct {
	name    string
	prepare func(t *testing.T, n *network) // before all, not measured; may be nil
	begin   func(t *testing.T, n *network) // nil: end is all that happens
	lasts   time.Duration                  // from begin to end
	end     func(t *testing.T, n *network)
	mend    func(t *testing.T, n *network) // behind it all, not measured; may be nil
	within  time.Duration                  // of its end traffic is back, see whole
	whole   bool                           // within is of its beginning
	full    bool                           // too long for a test
	load    bool                           // as a test, under load too
	// tells are the sites whose status must say within 5 s that the peer is not
	// well.
	tells []string
}

// tellWithin is how soon status must tell.
const tellWithin = 5 * time.Second

// network is sites that are up, and what watches the link between two of them.
type network struct {
	*lab.Sites
	from, to *lab.Site // where the watching hosts are
	up       map[*lab.Site]*lab.Process
	zone     *zone // of names, where they are used
	echo     *lab.Echoes
	talk     *conversation
}

// networkOptions says what the sites and what watches them are like. The zero
// value is two sites, of which b dials a.
type networkOptions struct {
	lab.Options
	sites    int
	from, to int // indexes of the sites to watch; 0, 0: the first two
	// prepare is called before the sites are linked and returns their flags. nil
	// has site a advertise its address.
	prepare  func(n *network) func(site *lab.Site) []string
	echoSize int // bytes of an echo's packet; 0: the least
}

// newNetwork links sites and begins to watch.
func newNetwork(t testing.TB, o networkOptions) *network {
	t.Helper()
	o.Hosts = 1
	n := &network{Sites: lab.Around(t, max(o.sites, 2), o.Options)}
	if o.from == o.to {
		o.to = o.from + 1
	}
	n.from, n.to = n.All[o.from], n.All[o.to]
	flags := n.advertise
	if o.prepare != nil {
		flags = o.prepare(n)
	}
	n.up = lab.LinkAll(n.All, flags)
	a, b := n.from.Hosts[0], n.to.Hosts[0]
	// Nobody asks for addresses: else it is the hosts' patience that is measured.
	a.Neighbour(hostLink, b.Addr4, b.Link(hostLink).Attrs().HardwareAddr)
	b.Neighbour(hostLink, a.Addr4, a.Link(hostLink).Attrs().HardwareAddr)
	n.echo = a.Echo(a.Addr4, b.Addr4, echoEvery, o.echoSize)
	n.steady(t, time.Second)
	n.talk = startConversation(t, a, b)
	return n
}

// advertise has site a tell its address of IPv4, and the others what they find.
func (n *network) advertise(site *lab.Site) []string {
	if site == n.A {
		return []string{"--advertise", n.A.Addr4 + ":4433"}
	}
	return nil
}

// start starts a site again, and does not wait.
func (n *network) start(site *lab.Site) { n.up[site] = site.Start("up") }

// steady waits until traffic flows and both sites are up, and have been for calm.
func (n *network) steady(t testing.TB, calm time.Duration) {
	t.Helper()
	if err := n.settle(calm); err != nil {
		t.Fatal(err)
	}
}

func (n *network) settle(calm time.Duration) error {
	began := time.Now()
	for {
		_, err := n.echo.Outage(began, began, calm, missable())
		for _, site := range n.All {
			if err == nil {
				err = isWell(site, len(n.All)-1)
			}
		}
		if err == nil {
			return nil
		}
		if time.Since(began) > giveUp() {
			return fmt.Errorf("the link is not well after %v: %w", giveUp(), err)
		}
		time.Sleep(echoEvery)
	}
}

// isWell returns an error when not all peers of a site are up, directly or by a
// relay.
func isWell(site *lab.Site, count int) error {
	peers, err := site.Peers()
	if err != nil {
		return err
	}
	well := 0
	for _, p := range peers {
		if p.State == "up" || p.State == "relayed" {
			well++
		}
	}
	if well != count || len(peers) != count {
		return fmt.Errorf("site %s has peers %+v, want %d that are well", site.Name, peers, count)
	}
	return nil
}

// end kills all sites, for others to take their place.
func (n *network) end() {
	for _, p := range n.up {
		p.Kill()
	}
}

// faultRun is what one run has come to.
type faultRun struct {
	BackMS int64            `json:"back_ms"`
	GapMS  int64            `json:"gap_ms"`
	Lost   int              `json:"lost"` // echoes asked for after the end that never came
	Tells  map[string]int64 `json:"tells_ms,omitempty"`
	CPU    int              `json:"cpu_percent"` // of one, that the busiest site used while it lasted
	Error  string           `json:"error,omitempty"`

	stall time.Duration // for which this machine had no time for the lab, from its end on
}

// late returns what the promise is about.
func (r *faultRun) late(whole bool) int64 {
	if whole {
		return max(r.BackMS, r.GapMS)
	}
	return r.BackMS
}

// run has the fault come once. How long traffic stood still is in the result;
// an error is anything that is worse than late.
func (f *fault) run(t *testing.T, n *network, calm time.Duration) (run faultRun) {
	t.Helper()
	if *faultFull {
		// Not in step with any timer of the program.
		time.Sleep(rand.N(2 * time.Second))
	}
	if f.prepare != nil {
		f.prepare(t, n)
	}
	began := time.Now()
	lasts := f.lasts
	var tellers sync.WaitGroup
	if f.begin != nil {
		f.begin(t, n)
		if *faultFull && lasts > 0 {
			lasts += rand.N(time.Second)
		}
	}
	if f.tells != nil {
		run.Tells = make(map[string]int64)
	}
	told := make([]time.Duration, len(n.All))
	for i, site := range n.All {
		if slices.Contains(f.tells, site.Name) {
			tellers.Go(func() { told[i] = untilTold(site, began, lasts) })
		}
	}
	tellers.Wait()
	for i, site := range n.All {
		if slices.Contains(f.tells, site.Name) {
			run.Tells[site.Name] = told[i].Milliseconds()
		}
	}
	idleFrom, used := time.Now(), n.cpu()
	time.Sleep(time.Until(began.Add(lasts)))
	if idle := time.Since(idleFrom); idle > time.Second {
		for site, now := range n.cpu() {
			run.CPU = max(run.CPU, int(100*(now-used[site])/idle))
		}
	}

	ended := time.Now()
	f.end(t, n)
	var o lab.Outage
	var err error
	for {
		if o, err = n.echo.Outage(began, ended, calm, missable()); err == nil || time.Since(ended) > giveUp() {
			break
		}
		time.Sleep(echoEvery / 2)
	}
	run.stall = n.echo.Stall(ended.Add(-time.Second), time.Now())
	run.BackMS, run.GapMS = o.Back.Milliseconds(), o.Gap.Milliseconds()
	run.Lost, _ = n.echo.Lost(ended, time.Now().Add(-echoEvery))
	if err != nil {
		run.Error = err.Error()
	}
	return run
}

// cpu returns what each site has used.
func (n *network) cpu() map[*lab.Site]time.Duration {
	used := make(map[*lab.Site]time.Duration)
	for site, p := range n.up {
		used[site] = p.CPU()
	}
	return used
}

// untilTold waits until a site's status says that its peer is not well, and
// returns how long after began. It looks four times a second, and no longer than
// the fault lasts.
func untilTold(site *lab.Site, began time.Time, lasts time.Duration) time.Duration {
	for time.Since(began) < lasts {
		looked := time.Since(began)
		if peers, err := site.Peers(); err == nil && !slices.ContainsFunc(peers, func(p lab.Peer) bool { return p.State == "up" }) {
			return looked
		}
		time.Sleep(250 * time.Millisecond)
	}
	return never
}

// never stands for a time that was not reached.
const never = time.Hour

// faultGroup is faults that come one after the other on one pair of sites.
type faultGroup struct {
	name    string
	network networkOptions
	faults  []fault
	// spread has the runs of a measurement go on side by side on so many pairs, for
	// what lasts long. 0 is one.
	spread int
}

// faultTest is one pair of sites and the faults that come to it.
type faultTest struct {
	*faultGroup
	t    *stage
	n    *network // nil until the first fault that is not left out by -run
	runs int
}

// stage is a test whose parts run as tests of their own, on which what goes wrong
// in the lab is blamed. The lab lives as long as the whole.
type stage struct {
	testing.TB            // the whole
	now        testing.TB // the part that runs
}

func (s *stage) Error(args ...any)                 { s.now.Helper(); s.now.Error(args...) }
func (s *stage) Errorf(format string, args ...any) { s.now.Helper(); s.now.Errorf(format, args...) }
func (s *stage) Fail()                             { s.now.Fail() }
func (s *stage) FailNow()                          { s.now.FailNow() }
func (s *stage) Fatal(args ...any)                 { s.now.Helper(); s.now.Fatal(args...) }
func (s *stage) Fatalf(format string, args ...any) { s.now.Helper(); s.now.Fatalf(format, args...) }
func (s *stage) Helper()                           { s.now.Helper() }
func (s *stage) Log(args ...any)                   { s.now.Helper(); s.now.Log(args...) }
func (s *stage) Logf(format string, args ...any)   { s.now.Helper(); s.now.Logf(format, args...) }

// run runs the group's faults so many times each, idle and under load.
func (g *faultGroup) run(t *testing.T, runs int) {
	tooLong := func(f fault) bool { return f.full && !*faultFull }
	if !slices.ContainsFunc(g.faults, func(f fault) bool { return !tooLong(f) }) {
		t.Skip("too long for a test; make faults runs it")
	}
	test := &faultTest{faultGroup: g, t: &stage{t, t}, runs: runs}
	for _, f := range g.faults {
		t.Run(f.name, func(sub *testing.T) {
			if tooLong(f) {
				sub.Skip("too long for a test; make faults runs it")
			}
			for _, load := range f.loads() {
				sub.Run(load, func(t *testing.T) { test.play(t, f, load) })
			}
		})
	}
	if n := test.n; n != nil {
		n.talk.goesOn(t, 3*time.Minute)
		for _, p := range n.up {
			alive(t, p)
		}
	}
}

func (f *fault) loads() []string {
	switch {
	case *faultFull:
		return strings.Split(*faultLoads, ",")
	case f.load:
		return []string{"idle", "udp"}
	default:
		return []string{"idle"}
	}
}

// renew makes another pair of sites, the first or in place of one that is not
// well.
func (f *faultTest) renew() {
	f.t.Helper()
	if f.n != nil {
		f.n.end()
	}
	f.n = newNetwork(f.t, f.faultGroup.network)
}

// play has a fault come on the stage. What broke off leaves sites in no known
// state; others take their place.
func (f *faultTest) play(t *testing.T, one fault, kind string) {
	whole := false
	f.t.now = t
	defer func() {
		f.t.now = f.t.TB
		if !whole && f.n != nil {
			f.n.end()
			f.n = nil
		}
	}()
	f.measure(t, one, kind)
	whole = true
}

// measure runs a fault as often as it is asked for, under one load, and judges
// it.
func (f *faultTest) measure(t *testing.T, one fault, kind string) {
	calm, rate := 2*time.Second, loadTest
	if *faultFull {
		calm, rate = 3*time.Second, loadFull
	}
	if f.n == nil {
		f.renew()
	}
	var load *lab.Load
	startLoad := func() {
		switch from, to := f.n.from.Hosts[0], f.n.to.Hosts[0]; kind {
		case "udp":
			load = lab.UDPLoad(from, to, rate)
		case "tcp":
			load = lab.TCPLoad(from, to, rate)
		}
	}
	stopLoad := func() {
		if load == nil {
			return
		}
		load.Stop()
		if count := load.Count(); count.Twice != 0 {
			t.Errorf("%d of %d datagrams came twice", count.Twice, count.Sent)
		}
	}
	startLoad()
	defer func() { stopLoad() }()

	result := faultResult{Fault: f.name + ": " + one.name, Load: kind, PromisedMS: one.within.Milliseconds(), Whole: one.whole}
	for len(result.Runs) < f.runs {
		i := len(result.Runs)
		f.n.steady(t, time.Second)
		if one.lasts >= time.Minute {
			// TCP pauses for as long as it heard nothing. What has not been heard since
			// the last run would have to live through this one too.
			f.n.talk = startConversation(f.t, f.n.from.Hosts[0], f.n.to.Hosts[0])
		}
		run := one.run(t, f.n, calm)
		trouble := run.Error
		if one.mend != nil {
			one.mend(t, f.n)
		}
		if trouble == "" {
			if err := f.n.settle(0); err != nil {
				trouble = err.Error()
			}
		}
		if err := f.n.talk.err.Load(); err != nil {
			trouble = fmt.Sprintf("%s; a TCP connection between hosts ended: %v", trouble, *err)
		}
		if late := run.late(one.whole) > one.within.Milliseconds() || trouble != ""; late && run.stall > stallMost && len(result.AgainMS) < f.runs+2 {
			t.Logf("%d: back after %d ms, but this machine stood still for %v: again", i+1, run.BackMS, run.stall)
			result.AgainMS = append(result.AgainMS, run.BackMS)
			if trouble != "" {
				stopLoad()
				f.renew()
				startLoad()
			}
			continue
		}
		run.Error = trouble
		result.Runs = append(result.Runs, run)
		t.Logf("%d: back %d ms after its end, %d ms without, %d lost, told %v, CPU %d %% %s", i+1, run.BackMS, run.GapMS, run.Lost, run.Tells, run.CPU, run.Error)
		if trouble != "" {
			t.Errorf("run %d: %s", i+1, trouble)
			stopLoad()
			f.renew()
			startLoad()
		}
	}
	for i, run := range result.Runs {
		// It sends what the hosts send into the void, and tries again; no more.
		if kind == "idle" && run.CPU > cpuMost {
			t.Errorf("run %d: a site used %d %% of a processor while nothing passed, want %d %% at most", i+1, run.CPU, cpuMost)
		}
	}
	result.sum()
	results.add(result)
	if *faultFull {
		return // what is late is told when all runs are done
	}
	if worst := time.Duration(max(result.MaxMS, result.wholeMS(result.GapMaxMS))) * time.Millisecond; worst > one.within+slack {
		t.Errorf("traffic is back after %v, promised are %v", worst, one.within)
	}
	if _, worst, ok := result.told(); ok && time.Duration(worst)*time.Millisecond > tellWithin+slack {
		t.Errorf("status tells after %d ms that the peer is not well, promised are %v", worst, tellWithin)
	}
}

// faultResult is all runs of one fault under one load, and what they come to.
type faultResult struct {
	Fault      string     `json:"fault"`
	Load       string     `json:"load"`
	PromisedMS int64      `json:"promised_ms"`
	Whole      bool       `json:"whole"` // promised is the gap from the beginning on
	P50MS      int64      `json:"p50_ms"`
	P95MS      int64      `json:"p95_ms"`
	MaxMS      int64      `json:"max_ms"`
	GapP50MS   int64      `json:"gap_p50_ms"`
	GapP95MS   int64      `json:"gap_p95_ms"`
	GapMaxMS   int64      `json:"gap_max_ms"`
	Failed     int        `json:"failed"`
	AgainMS    []int64    `json:"again_ms,omitempty"` // late ones that do not count, since the machine stood still
	Runs       []faultRun `json:"runs"`
}

// sum works out what the runs come to. One that failed counts as the longest.
func (r *faultResult) sum() {
	var back, gap []int64
	r.Failed = 0
	for _, run := range r.Runs {
		if run.Error != "" {
			r.Failed++
			run.BackMS = max(run.GapMS, giveUp().Milliseconds())
		}
		back, gap = append(back, run.BackMS), append(gap, run.GapMS)
	}
	r.P50MS, r.P95MS, r.MaxMS = quantile(back, 0.5), quantile(back, 0.95), quantile(back, 1)
	r.GapP50MS, r.GapP95MS, r.GapMaxMS = quantile(gap, 0.5), quantile(gap, 0.95), quantile(gap, 1)
}

// quantile returns the value that a share of all does not exceed.
func quantile(values []int64, share float64) int64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	at := int(share*float64(len(sorted))+0.999999) - 1
	return sorted[max(0, min(at, len(sorted)-1))]
}

// late reports whether it took longer than promised.
func (r *faultResult) late() bool {
	_, told, _ := r.told()
	return r.Failed > 0 || max(r.P95MS, r.wholeMS(r.GapP95MS)) > r.PromisedMS || told > tellWithin.Milliseconds()
}

// wholeMS returns a gap where that is what was promised, else 0.
func (r *faultResult) wholeMS(gap int64) int64 {
	if r.Whole {
		return gap
	}
	return 0
}

// told returns after how long the slowest site told, in the middle and at most.
func (r *faultResult) told() (p50, most int64, ok bool) {
	var slowest []int64
	for _, run := range r.Runs {
		if len(run.Tells) > 0 {
			slowest = append(slowest, slices.Max(slices.Collect(maps.Values(run.Tells))))
		}
	}
	return quantile(slowest, 0.5), quantile(slowest, 1), len(slowest) > 0
}

// results is what all faults have come to.
var results faultResults

type faultResults struct {
	mu  sync.Mutex
	all map[string]*faultResult
}

// add takes a result; runs of the same fault by several tests are joined.
func (r *faultResults) add(one faultResult) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.all == nil {
		r.all = make(map[string]*faultResult)
	}
	key := one.Fault + " " + one.Load
	if had := r.all[key]; had != nil {
		had.Runs = append(had.Runs, one.Runs...)
		had.AgainMS = append(had.AgainMS, one.AgainMS...)
		had.sum()
		return
	}
	r.all[key] = &one
}

// write writes what was measured to the files that were asked for.
func (r *faultResults) write() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.all) == 0 {
		return nil
	}
	all := slices.SortedFunc(maps.Values(r.all), func(a, b *faultResult) int {
		return cmp.Or(strings.Compare(a.Fault, b.Fault), strings.Compare(a.Load, b.Load))
	})
	var errs []error
	if *faultJSON != "" {
		text, err := json.MarshalIndent(all, "", "\t")
		errs = append(errs, err, os.WriteFile(*faultJSON, append(text, '\n'), 0o644))
	}
	text := faultTable(all)
	if *faultMarkdown != "" {
		errs = append(errs, os.WriteFile(*faultMarkdown, []byte(text), 0o644))
	}
	if *faultFull {
		fmt.Print(text)
		if late := slices.DeleteFunc(all, func(r *faultResult) bool { return !r.late() }); len(late) > 0 {
			errs = append(errs, fmt.Errorf("%d promises were not kept", len(late)))
		}
	}
	return errors.Join(errs...)
}

// faultTable returns results as a table of milliseconds.
func faultTable(all []*faultResult) string {
	var b strings.Builder
	b.WriteString("| fault | load | runs | promised | back p50 | p95 | max | without p50 | p95 | max | told p50 | max | failed | again |\n" +
		"|---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n")
	for _, r := range all {
		told := " | "
		if p50, most, ok := r.told(); ok {
			told = fmt.Sprintf("%d | %d", p50, most)
		}
		late := ""
		if r.late() {
			late = " **late**"
		}
		fmt.Fprintf(&b, "| %s | %s | %d | %d | %d | %d%s | %d | %d | %d | %d | %s | %d | %d |\n", r.Fault, r.Load, len(r.Runs), r.PromisedMS,
			r.P50MS, r.P95MS, late, r.MaxMS, r.GapP50MS, r.GapP95MS, r.GapMaxMS, told, r.Failed, len(r.AgainMS))
	}
	return b.String()
}

func TestQuantile(t *testing.T) {
	var values []int64
	for i := range int64(20) {
		values = append(values, 20-i)
	}
	for share, want := range map[float64]int64{0.5: 10, 0.95: 19, 1: 20} {
		if got := quantile(values, share); got != want {
			t.Errorf("%v of 1 to 20 is %d, want %d", share, got, want)
		}
	}
	if got := quantile([]int64{7}, 0.95); got != 7 {
		t.Errorf("of one value %d, want 7", got)
	}
}
