// SPDX-License-Identifier: Apache-2.0

//go:build linux

package test_test

import (
	"errors"
	"fmt"
	"iter"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/l2bridge/l2bridge/test/lab"
)

const (
	meshWait  = 15 * time.Second // for sites that know one other only to know all
	punchWait = 20 * time.Second // for a direct way where NATs allow it
)

// mesh links sites of which each knows the first only, and waits until all are
// peers of all.
func mesh(t *testing.T, count int, o lab.Options) (s *lab.Sites, up map[*lab.Site]*lab.Process) {
	t.Helper()
	s = lab.Around(t, count, o)
	up = lab.LinkAll(s.All, func(site *lab.Site) []string {
		var flags []string
		if site == s.A {
			flags = []string{"--advertise", site.Addr4 + ":4433"}
		}
		if o.Hosts == 0 {
			flags = bare(flags...)
		}
		return flags
	})
	for _, site := range s.All {
		lab.Wait(t, meshWait, "all are peers of site "+site.Name, func() error { return isWell(site, count-1) })
	}
	return s, up
}

// Sites that were told of one only are peers of all, and a frame to all arrives
// once at each host.
func TestMesh(t *testing.T) {
	for _, tt := range []struct {
		name  string
		count int
		nat   map[string]lab.NAT
	}{
		{name: "three", count: 3},
		{name: "five", count: 5},
		{name: "five, two behind symmetric NATs", count: 5, nat: map[string]lab.NAT{"b": {Symmetric: true}, "d": {Symmetric: true}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s, up := mesh(t, tt.count, lab.Options{Hosts: 1, NAT: tt.nat})
			wires := make(map[*lab.Site]*lab.Wire)
			for _, site := range s.All {
				wires[site] = site.Hosts[0].Wire(hostLink)
			}
			const each = 20
			for i, site := range s.All {
				mac := site.Hosts[0].Link(hostLink).Attrs().HardwareAddr
				for j := range each {
					frame := lab.Numbered{Dst: broadcast, Src: mac, Number: uint32(i*each + j), Length: 60 + 100*(j%14)}
					if err := wires[site].Send(frame.Bytes()); err != nil {
						t.Fatal(err)
					}
					time.Sleep(10 * time.Millisecond)
				}
			}
			late := time.Now().Add(time.Second)
			for i, site := range s.All {
				var got lab.Record
				for frame := range arrivals(t, wires[site], late) {
					got.Add(frame)
				}
				if want := each * (tt.count - 1); got.Received != want || got.Duplicates != 0 || got.Altered != 0 {
					missing := append(got.Missing(0, uint32(i*each)), got.Missing(uint32((i+1)*each), uint32(tt.count*each))...)
					t.Errorf("host of site %s: %v, want %d once each; missing are %d, each site has sent %d", site.Name, &got, want, missing, each)
				}
			}
			for _, site := range s.All {
				if counts, err := site.Drops(); t.Failed() || err != nil {
					t.Logf("site %s drops %v, %v", site.Name, counts, err)
				}
			}
			// Each host reaches each, by frames of all sizes.
			for i, from := range s.All {
				for _, to := range s.All[i+1:] {
					ping(t, from.Hosts[0].Namespace, to.Hosts[0].Addr4, recvWait)
					from.Hosts[0].MustRun("ping", "-n", "-q", "-c3", "-i0.2", "-W2", "-M", "do", "-s", "1472", to.Hosts[0].Addr4)
				}
			}
			for _, p := range up {
				alive(t, p)
			}
		})
	}
}

// A machine that moves from one site to another is found by the first frame that
// it sends there.
func TestStationMoves(t *testing.T) {
	t.Parallel()
	s, _ := mesh(t, 3, lab.Options{Hosts: 1})
	a, b, c := s.All[0].Hosts[0].Wire(hostLink), s.All[1].Hosts[0].Wire(hostLink), s.All[2].Hosts[0].Wire(hostLink)
	moving := net.HardwareAddr{0x02, 0x77, 0, 0, 0, 0x77}
	asking := s.All[2].Hosts[0].Link(hostLink).Attrs().HardwareAddr
	number := uint32(0)
	// Each time it says one word, to all, and c's next frame to it goes there only.
	for turn := range 6 {
		here, there := a, b
		if turn%2 == 1 {
			here, there = b, a
		}
		number++
		if err := here.Send(lab.Numbered{Dst: broadcast, Src: moving, Number: number, Length: 60}.Bytes()); err != nil {
			t.Fatal(err)
		}
		c.Next(recvWait, "word of the one that moved", is(number))
		there.Next(recvWait, "word of the one that moved", is(number))
		number++
		if err := c.Send(lab.Numbered{Dst: moving, Src: asking, Number: number, Length: 60}.Bytes()); err != nil {
			t.Fatal(err)
		}
		here.Next(recvWait, fmt.Sprintf("frame to where it moved, turn %d", turn), is(number))
		for frame := range arrivals(t, there, time.Now().Add(200*time.Millisecond)) {
			if is(number)(frame) {
				t.Errorf("turn %d: the frame goes to the old place too", turn)
			}
		}
	}
}

// arrivals are the frames that have come or come until a time.
func arrivals(t *testing.T, w *lab.Wire, until time.Time) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for {
			frame, err := w.Recv(time.Until(until))
			if errors.Is(err, os.ErrDeadlineExceeded) {
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !yield(frame) {
				return
			}
		}
	}
}

// is matches the whole numbered frame of that number.
func is(number uint32) func(frame []byte) bool {
	return func(frame []byte) bool {
		got, err := lab.ParseNumber(frame)
		return err == nil && got == number
	}
}

// peer returns what a site says of a peer.
func peer(site *lab.Site, name string) (lab.Peer, error) {
	peers, err := site.Peers()
	for _, p := range peers {
		if p.Site == name {
			return p, err
		}
	}
	return lab.Peer{}, errors.Join(err, fmt.Errorf("site %s has no peer %s: %+v", site.Name, name, peers))
}

// waitWay waits until a site has a peer directly, or by a relay.
func waitWay(t *testing.T, site *lab.Site, name, state string, limit time.Duration) lab.Peer {
	t.Helper()
	var p lab.Peer
	lab.Wait(t, limit, fmt.Sprintf("site %s has peer %s %s", site.Name, name, state), func() (err error) {
		p, err = peer(site, name)
		if err == nil && p.State != state {
			err = fmt.Errorf("%+v", p)
		}
		return err
	})
	return p
}

// What NATs let two sites behind them do: through most a hole is punched; where
// each destination has a port of its own a third site relays.
func TestBehindNATs(t *testing.T) {
	cone, symmetric := lab.NAT{}, lab.NAT{Symmetric: true}
	for _, tt := range []struct {
		name string
		b, c *lab.NAT
		want string
	}{
		{"one open", nil, &cone, "up"},
		{"one open, one symmetric", nil, &symmetric, "up"},
		{"both cones", &cone, &cone, "up"},
		{"both symmetric", &symmetric, &symmetric, "relayed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			nat := make(map[string]lab.NAT)
			if tt.b != nil {
				nat["b"] = *tt.b
			}
			if tt.c != nil {
				nat["c"] = *tt.c
			}
			s, _ := mesh(t, 3, lab.Options{Hosts: 1, NAT: nat})
			b, c := s.All[1], s.All[2]
			ping(t, b.Hosts[0].Namespace, c.Hosts[0].Addr4, recvWait)
			for _, p := range []lab.Peer{waitWay(t, b, "c", tt.want, punchWait), waitWay(t, c, "b", tt.want, punchWait)} {
				wantVia := ""
				if tt.want == "relayed" {
					wantVia = "a"
				}
				if p.Via != wantVia {
					t.Errorf("%s is via %q, want %q", p.Site, p.Via, wantVia)
				}
			}
			if tt.want == "relayed" {
				// It stays so, and says so.
				time.Sleep(3 * time.Second)
				waitWay(t, b, "c", "relayed", time.Second)
			}
			b.Hosts[0].MustRun("ping", "-n", "-q", "-c5", "-i0.2", "-W2", "-M", "do", "-s", "1472", c.Hosts[0].Addr4)
		})
	}
}

// Two sites with IPv6 alone, behind firewalls that let in only what answers, as those of
// home routers do, reach each other directly: each one's packets open its own firewall.
func TestBehindIPv6Firewalls(t *testing.T) {
	t.Parallel()
	s := lab.Around(t, 3, lab.Options{})
	a, b, c := s.All[0], s.All[1], s.All[2]
	var firewalls []*lab.Filter
	for _, site := range s.All {
		site.Gateway.DelAddr(lab.WANLink, site.Addr4+"/24")
		if site != a {
			firewalls = append(firewalls, site.Gateway.Filter("input", "drop", fmt.Sprintf("iifname %q meta l4proto udp ct state new", lab.WANLink)))
		}
	}
	lab.LinkAll(s.All, func(site *lab.Site) []string {
		if site == a {
			return bare("--advertise", "["+site.Addr6+"]:4433")
		}
		return bare()
	})
	for _, way := range []struct{ site, other *lab.Site }{{b, c}, {c, b}} {
		p := waitWay(t, way.site, way.other.Name, "up", meshWait+punchWait)
		if want := "[" + way.other.Addr6 + "]:4433"; p.Addr != want || p.Via != "" {
			t.Errorf("site %s has %s at %q via %q, want %q", way.site.Name, p.Site, p.Addr, p.Via, want)
		}
	}
	hits := 0
	for _, firewall := range firewalls {
		hits += firewall.Hits()
	}
	if hits == 0 {
		t.Error("no firewall has kept anything out: they were not tried")
	}
}

// From a relay to a direct way and back, under load in both directions: no frame
// comes twice, and few are lost.
func TestWaysChange(t *testing.T) {
	t.Parallel()
	s, _ := mesh(t, 3, lab.Options{Hosts: 1, NAT: map[string]lab.NAT{"b": {}, "c": {}}})
	b, c := s.All[1], s.All[2]
	waitWay(t, b, "c", "up", punchWait)
	waitWay(t, c, "b", "up", punchWait)
	ping(t, b.Hosts[0].Namespace, c.Hosts[0].Addr4, recvWait)
	ways := []*row{newRow(t, b.Hosts[0], c.Hosts[0]), newRow(t, c.Hosts[0], b.Hosts[0])}
	for turn := range 2 {
		s.WAN[0].Filter("forward", "drop",
			fmt.Sprintf("iifname %q oifname %q", b.Uplink, c.Uplink), fmt.Sprintf("iifname %q oifname %q", c.Uplink, b.Uplink))
		for _, way := range []struct {
			site *lab.Site
			name string
		}{{b, "c"}, {c, "b"}} {
			waitWay(t, way.site, way.name, "relayed", tellWithin+slack)
		}
		time.Sleep(2 * time.Second)
		s.WAN[0].Unfilter()
		waitWay(t, b, "c", "up", punchWait)
		waitWay(t, c, "b", "up", punchWait)
		time.Sleep(time.Second)
		for _, f := range ways {
			t.Logf("turn %d: %s", turn, f)
		}
	}
	for _, f := range ways {
		f.end()
		if f.got.Duplicates != 0 || f.got.Altered != 0 {
			t.Errorf("%s, want no duplicates and none altered", f)
		}
		// What goes into the hole is lost, some 1.5 s each turn; how much that is of
		// all says more of the machine. "make faults" measures it.
		if lost := int(f.sent) - f.got.Received; lost > int(f.sent)*3/4 {
			t.Errorf("%s: %d lost", f, lost)
		}
	}
}

// row is a row of numbered frames from one host to another until it is ended.
type row struct {
	name string
	stop chan struct{}
	done sync.WaitGroup

	mu   sync.Mutex
	sent uint32
	got  lab.Record
}

func newRow(t *testing.T, from, to *lab.Host) *row {
	t.Helper()
	f := &row{name: from.Name + " to " + to.Name, stop: make(chan struct{})}
	out, in := from.Wire(hostLink), to.Wire(hostLink)
	src, dst := from.Link(hostLink).Attrs().HardwareAddr, to.Link(hostLink).Attrs().HardwareAddr
	f.done.Go(func() {
		tick := time.NewTicker(flowPause)
		defer tick.Stop()
		for number := uint32(0); ; number++ {
			select {
			case <-tick.C:
			case <-f.stop:
				return
			}
			if err := out.Send(lab.Numbered{Dst: dst, Src: src, Number: number, Length: 60 + int(number*397%1400)}.Bytes()); err != nil {
				t.Errorf("%s: %v", f.name, err)
				return
			}
			f.mu.Lock()
			f.sent++
			f.mu.Unlock()
		}
	})
	f.done.Go(func() {
		var until time.Time // zero before it is ended
		for until.IsZero() || time.Now().Before(until) {
			frame, err := in.Recv(100 * time.Millisecond)
			if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%s: %v", f.name, err)
				return
			}
			f.mu.Lock()
			f.got.Add(frame)
			f.mu.Unlock()
			select {
			case <-f.stop:
				if until.IsZero() {
					until = time.Now().Add(time.Second)
				}
			default:
			}
		}
	})
	t.Cleanup(f.end)
	return f
}

// end stops the row and waits for what is under way.
func (f *row) end() {
	select {
	case <-f.stop:
	default:
		close(f.stop)
	}
	f.done.Wait()
}

func (f *row) String() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return fmt.Sprintf("%s: %d sent, %v", f.name, f.sent, &f.got)
}

// meshGroups are faults of networks of more than two sites. The first site is
// the only one that the others were told of.
func meshGroups() []faultGroup {
	symmetric := lab.NAT{Symmetric: true}
	return []faultGroup{
		{
			name:    "hub",
			network: networkOptions{sites: 3, from: 1, to: 2},
			faults: []fault{
				{
					name:   "killed",
					end:    func(t *testing.T, n *network) { n.up[n.A].Kill() },
					mend:   func(t *testing.T, n *network) { n.start(n.A) },
					within: 500 * time.Millisecond, // nothing happens to the link between the others
					load:   true,
				},
				{
					name:   "stopped",
					end:    func(t *testing.T, n *network) { n.up[n.A].Stop() },
					mend:   func(t *testing.T, n *network) { n.start(n.A) },
					within: 500 * time.Millisecond,
				},
				{
					name: "away, and a member is killed and started",
					begin: func(t *testing.T, n *network) {
						n.up[n.A].Kill()
						n.up[n.B].Kill()
					},
					lasts:  3 * time.Second,
					end:    func(t *testing.T, n *network) { n.start(n.B) },
					mend:   func(t *testing.T, n *network) { n.start(n.A) },
					within: time.Second,
				},
			},
		},
		{
			name: "relay",
			network: networkOptions{
				sites: 4, from: 1, to: 2,
				Options: lab.Options{NAT: map[string]lab.NAT{"b": symmetric, "c": symmetric}},
			},
			faults: []fault{
				{
					name:   "killed, another takes over",
					end:    func(t *testing.T, n *network) { n.up[n.relay(t)].Kill() },
					mend:   startDead,
					within: 2 * time.Second,
					load:   true,
				},
				{
					name:   "stopped, another takes over",
					end:    func(t *testing.T, n *network) { n.up[n.relay(t)].Stop() },
					mend:   startDead,
					within: 2 * time.Second,
				},
				{
					name: "loses its WAN, another takes over",
					begin: func(t *testing.T, n *network) {
						uplink := n.relay(t).Uplink
						n.WAN[0].Filter("forward", "drop", fmt.Sprintf("iifname %q", uplink), fmt.Sprintf("oifname %q", uplink))
					},
					end:    func(t *testing.T, n *network) {},
					mend:   func(t *testing.T, n *network) { n.WAN[0].Unfilter() },
					within: 2 * time.Second,
				},
				{
					name:   "a NAT rebinds",
					end:    func(t *testing.T, n *network) { n.B.NAT.Rebind() },
					within: roamWithin,
				},
			},
		},
		{
			name: "hole",
			network: networkOptions{
				sites: 3, from: 1, to: 2,
				Options: lab.Options{NAT: map[string]lab.NAT{"b": {}, "c": {}}},
			},
			faults: []fault{
				{
					name:    "closes, a relay takes over",
					prepare: func(t *testing.T, n *network) { waitWay(t, n.B, "c", "up", punchWait) },
					end: func(t *testing.T, n *network) {
						b, c := n.All[1].Uplink, n.All[2].Uplink
						n.WAN[0].Filter("forward", "drop",
							fmt.Sprintf("iifname %q oifname %q", b, c), fmt.Sprintf("iifname %q oifname %q", c, b))
					},
					mend: func(t *testing.T, n *network) {
						n.WAN[0].Unfilter()
						waitWay(t, n.B, "c", "up", punchWait)
					},
					within: 2 * time.Second,
					load:   true,
				},
				{
					name:   "a NAT rebinds",
					end:    func(t *testing.T, n *network) { n.B.NAT.Rebind() },
					mend:   func(t *testing.T, n *network) { waitWay(t, n.B, "c", "up", punchWait) },
					within: roamWithin,
				},
			},
		},
	}
}

// relay returns the site by which sites b and c reach each other.
func (n *network) relay(t *testing.T) *lab.Site {
	t.Helper()
	p := waitWay(t, n.B, "c", "relayed", meshWait)
	for _, site := range n.All {
		if site.Name == p.Via {
			return site
		}
	}
	t.Fatalf("no site %q: %+v", p.Via, p)
	return nil
}

// startDead starts the sites that do not run.
func startDead(t *testing.T, n *network) {
	for _, site := range n.All {
		if !n.up[site].Running() {
			n.start(site)
		}
	}
}
