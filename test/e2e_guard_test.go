// SPDX-License-Identifier: Apache-2.0

//go:build linux

package test_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/l2bridge/l2bridge/test/lab"
)

const (
	// What the documents promise of broadcast that comes in by one port.
	stormRate  = 500
	stormBurst = 1000

	cutWait     = time.Second     // for a loop to be cut
	healWait    = 5 * time.Second // for a cable's removal to be noticed
	convergeFor = 3 * time.Second // for hosts to reach each other again after either
)

// hinted waits until the site's status has a hint that begins like that.
func hinted(t *testing.T, site *lab.Site, limit time.Duration, begin string) {
	t.Helper()
	lab.Wait(t, limit, fmt.Sprintf("site %s hints %q", site.Name, begin), func() error {
		st, err := site.Status()
		if err == nil && !slices.ContainsFunc(st.Hints, func(h string) bool { return strings.HasPrefix(h, begin) }) {
			err = fmt.Errorf("hints %q", st.Hints)
		}
		return err
	})
}

// A storm on one LAN is a trickle on the other, is counted and told of, and does
// not stop what two known hosts say to each other.
func TestStormIsCapped(t *testing.T) {
	s, upA, upB := join(t, lab.Options{Hosts: 2})
	a, b := s.A.Hosts[0], s.B.Hosts[0]
	ping(t, a.Namespace, b.Addr4, recvWait)
	from, to := s.A.Hosts[1].Wire(hostLink), s.B.Hosts[1].Wire(hostLink)
	to.Drain()

	const frames = 20000
	start := time.Now()
	for n := range uint32(frames) {
		f := lab.Numbered{Dst: broadcast, Src: macA, Number: n, Length: 100}
		if err := from.Send(f.Bytes()); err != nil {
			t.Fatal(err)
		}
		if n == frames/2 {
			a.MustRun("ping", "-n", "-c3", "-i0.1", "-W1", b.Addr4)
		}
	}
	took := time.Since(start)
	got := 0
	for last := time.Now(); time.Since(last) < time.Second; { // a probe comes each half
		if f, err := to.Recv(time.Second); err == nil && lab.IsNumbered(f) {
			got++
			last = time.Now()
		}
	}
	most := stormBurst + int(stormRate*(took+time.Second)/time.Second) // what waits in the TAP comes a little later
	t.Logf("%d of %d broadcasts crossed, sent in %v", got, frames, took)
	if got < stormBurst/2 || got > most {
		t.Errorf("%d of %d broadcasts crossed in %v, want %d at most", got, frames, took, most)
	}
	hinted(t, s.A, recvWait, "storm on this LAN: more broadcast")
	counts, err := s.A.Drops()
	if err != nil {
		t.Fatal(err)
	}
	if counts["storm"] < frames/2 { // some may overrun the TAP, and some be refused at the other site
		t.Errorf("%d counted as storm, %d crossed, %d sent: %v", counts["storm"], got, frames, counts)
	}
	upA.WaitOutput(recvWait, "storm capped")
	ping(t, a.Namespace, b.Addr4, recvWait)
	alive(t, upA, upB)
}

// ordered returns the two sites with the lower id first: it is the one that goes
// on when their LANs are joined.
func ordered(t *testing.T, a, b *lab.Site) (lower, higher *lab.Site) {
	t.Helper()
	var ids []string
	for _, site := range []*lab.Site{a, b} {
		st, err := site.Status()
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, st.ID)
	}
	if ids[0] < ids[1] {
		return a, b
	}
	return b, a
}

// cable joins the LANs of two sites, and returns what takes it away again.
func cable(a, b *lab.Site) (remove func()) {
	to, from := "to-"+b.Name, "to-"+a.Name
	lab.Connect(a.Gateway, to, b.Gateway, from, 1500)
	a.Gateway.SetMaster(to, lab.BridgeName)
	b.Gateway.SetMaster(from, lab.BridgeName)
	return func() { a.Gateway.Delete(to) }
}

// waitState waits until the site is in a state, and returns how long that took.
func waitState(t *testing.T, site *lab.Site, limit time.Duration, state string) time.Duration {
	t.Helper()
	start := time.Now()
	lab.Wait(t, limit, fmt.Sprintf("site %s is %s", site.Name, state), func() error {
		st, err := site.Status()
		if err == nil && st.State != state {
			err = fmt.Errorf("state %s, hints %q", st.State, st.Hints)
		}
		return err
	})
	return time.Since(start)
}

// sentFrames returns how many frames a site has sent to its peers.
func sentFrames(t *testing.T, sites ...*lab.Site) (n uint64) {
	t.Helper()
	for _, site := range sites {
		peers, err := site.Peers()
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range peers {
			n += p.TxFrames
		}
	}
	return n
}

// quickly is ping that says how long it took.
func quickly(t *testing.T, from *lab.Host, to *lab.Host) time.Duration {
	t.Helper()
	start := time.Now()
	lab.Wait(t, convergeFor, from.Name+" reaches "+to.Name, func() error {
		_, err := from.Run("ping", "-n", "-c1", "-W0.2", to.Addr4)
		return err
	})
	return time.Since(start)
}

// Two LANs that the tunnel joins are joined by a cable too, and no spanning tree
// is there to notice. The loop is cut within a second and heals within five, and
// the hosts of both sites reach each other all the while.
func TestLoopIsCut(t *testing.T) {
	s, upA, upB := join(t, lab.Options{Hosts: 1})
	a, b := s.A.Hosts[0], s.B.Hosts[0]
	lower, higher := ordered(t, s.A, s.B)
	wire := a.Wire(hostLink)
	for range 2 {
		ping(t, a.Namespace, b.Addr4, recvWait)
		unplug := cable(s.A, s.B)
		for n := range uint32(50) { // each of them goes round and round
			if err := wire.Send((lab.Numbered{Dst: broadcast, Src: macA, Number: n, Length: 100}).Bytes()); err != nil {
				t.Fatal(err)
			}
		}
		t.Logf("cut %v after the broadcasts", waitState(t, higher, cutWait, "loop"))
		t.Logf("reached %v after the cut", quickly(t, a, b))
		quickly(t, b, a)
		before, start := sentFrames(t, s.A, s.B), time.Now()
		time.Sleep(time.Second)
		rate := float64(sentFrames(t, s.A, s.B)-before) / time.Since(start).Seconds()
		t.Logf("%.0f frames a second over the WAN", rate)
		if rate > 50 {
			t.Errorf("%.0f frames a second cross the WAN while the loop is cut", rate)
		}
		if st, err := lower.Status(); err != nil || st.State != "up" {
			t.Errorf("site %s, which goes on, is %s, %v", lower.Name, st.State, err)
		}
		hinted(t, lower, recvWait, fmt.Sprintf("loop: this LAN is joined with that of %s outside", higher.Name))
		hinted(t, higher, recvWait, fmt.Sprintf("loop: this LAN is joined with that of %s outside", lower.Name))

		unplug()
		t.Logf("healed %v after the cable was gone", waitState(t, higher, healWait, "up"))
		t.Logf("reached %v after that", quickly(t, a, b))
		quickly(t, b, a)
	}
	counts, err := higher.Drops()
	if err != nil || counts["loop"] == 0 {
		t.Errorf("site %s dropped %v, %v; want some for the loop", higher.Name, counts, err)
	}
	alive(t, upA, upB)
}

// A LAN with a loop of its own is cut off from the tunnel, so that it harms
// nobody else.
func TestLoopWithinALAN(t *testing.T) {
	s, upA, upB := join(t, lab.Options{Hosts: 1})
	gw, sw := s.A.Gateway, s.Namespace("switch")
	for i := range 2 {
		far, near := fmt.Sprint("up", i), fmt.Sprint("down", i)
		lab.Connect(sw, far, gw, near, 1500)
		for n, link := range map[*lab.Namespace]string{sw: far, gw: near} { // or the loop takes the whole machine
			n.MustRun("tc", "qdisc", "add", "dev", link, "root", "tbf", "rate", "10mbit", "burst", "3000", "limit", "30000")
		}
		gw.SetMaster(near, lab.BridgeName)
	}
	sw.Bridge(lab.BridgeName, 1500, "up0", "up1")
	t.Logf("cut after %v", waitState(t, s.A, 2*cutWait, "loop"))
	hinted(t, s.A, recvWait, "loop: a probe of ours came back")
	if st, err := s.B.Status(); err != nil || st.State != "up" {
		t.Errorf("the other site is %s, %v", st.State, err)
	}
	gw.Delete("down1")
	t.Logf("healed after %v", waitState(t, s.A, healWait, "up"))
	ping(t, s.A.Hosts[0].Namespace, s.B.Hosts[0].Addr4, recvWait)
	alive(t, upA, upB)
}

// Two networks between the same two bridges are a loop: one of the two is cut at
// one site, and the other one carries all.
func TestLoopOfTwoNetworks(t *testing.T) {
	s, upA, upB := join(t, lab.Options{Hosts: 1})
	a, b := s.A.Instance("lab2"), s.B.Instance("lab2")
	a.Init("--listen", "[::]:4434", "--advertise", s.A.Addr4+":4434")
	a.Up()
	b.Join(a.Invite("b"), "--listen", "[::]:4434")
	loops := func() error {
		n := 0
		for _, site := range []*lab.Site{s.A, s.B, a, b} {
			st, err := site.Status()
			if err != nil {
				return err
			}
			if st.State == "loop" {
				n++
			}
		}
		if n != 1 {
			return fmt.Errorf("%d of four gateways have cut a loop", n)
		}
		return nil
	}
	start := time.Now()
	lab.Wait(t, healWait, "one gateway has cut the loop", loops)
	t.Logf("cut after %v", time.Since(start))
	quickly(t, s.A.Hosts[0], s.B.Hosts[0])
	for range 8 { // it does not come and go
		time.Sleep(500 * time.Millisecond)
		if err := loops(); err != nil {
			t.Error(err)
		}
	}
	quickly(t, s.B.Hosts[0], s.A.Hosts[0])
	alive(t, upA, upB)
}

// lanSwitch puts a switch between the site's gateway and a new host, and returns
// both. It stands for a switch on a shelf: nobody tells it to forget.
func lanSwitch(s *lab.Sites, site *lab.Site, addr string) (sw *lab.Namespace, h *lab.Host) {
	sw = s.Namespace("switch-" + site.Name)
	h = &lab.Host{Namespace: s.Namespace("host-" + site.Name + "9"), Addr4: addr}
	lab.Connect(sw, "to-gw", site.Gateway, "to-switch", 1500)
	lab.Connect(h.Namespace, hostLink, sw, "to-host", 1500)
	h.AddAddr(hostLink, addr+"/24")
	sw.Bridge(lab.BridgeName, 1500, "to-gw", "to-host")
	site.Gateway.SetMaster("to-switch", lab.BridgeName)
	return sw, h
}

// Three sites in a full mesh, of which two are joined by a cable: the third keeps
// reaching the hosts of both.
func TestLoopOfThreeSites(t *testing.T) {
	s := lab.TwoSites(t, lab.Options{Hosts: 1})
	c := s.Third(lab.Options{Hosts: 1})
	s.A.Init("--advertise", s.A.Addr4+":4433")
	s.A.Up()
	s.B.Join(s.A.Invite("b"))
	c.Join(s.A.Invite("c"), "--peer", s.B.Addr4+":4433")
	for _, site := range []*lab.Site{s.A, s.B, c} {
		site.WaitUp(2)
	}
	hosts := []*lab.Host{s.A.Hosts[0], s.B.Hosts[0], c.Hosts[0]}
	all := func(when string) {
		t.Helper()
		start := time.Now()
		for _, from := range hosts {
			for _, to := range hosts {
				if from != to {
					quickly(t, from, to)
				}
			}
		}
		t.Logf("%s: all reach all after %v", when, time.Since(start))
	}
	all("before")
	_, higher := ordered(t, s.A, s.B)
	for range 2 {
		unplug := cable(s.A, s.B)
		waitState(t, higher, cutWait, "loop")
		all("cut")
		if st, err := c.Status(); err != nil || st.State != "up" {
			t.Errorf("site c is %s, %v", st.State, err)
		}
		unplug()
		waitState(t, higher, healWait, "up")
		all("healed")
	}
}

// The same where the cable is between two switches that no gateway can reach
// into, and the hosts have nothing to broadcast: what tells the switches are the
// gateways' questions.
func TestLoopBehindSwitches(t *testing.T) {
	s, upA, upB := join(t, lab.Options{Hosts: 1})
	_, higher := ordered(t, s.A, s.B)
	swA, a := lanSwitch(s, s.A, "10.77.0.91")
	swB, b := lanSwitch(s, s.B, "10.77.0.92")
	for range 2 {
		ping(t, a.Namespace, b.Addr4, recvWait)
		lab.Connect(swA, "cable", swB, "cable", 1500)
		swA.SetMaster("cable", lab.BridgeName)
		swB.SetMaster("cable", lab.BridgeName)
		t.Logf("cut %v after the cable", waitState(t, higher, cutWait, "loop"))
		t.Logf("reached %v after the cut", quickly(t, a, b))
		quickly(t, b, a)
		swA.Delete("cable")
		t.Logf("healed %v after the cable was gone", waitState(t, higher, healWait, "up"))
		t.Logf("reached %v after that", quickly(t, a, b))
		quickly(t, b, a)
	}
	alive(t, upA, upB)
}

// A DHCP server at each site, and one client: both gateways tell of it.
func TestTwoDHCPServers(t *testing.T) {
	s, upA, upB := join(t, lab.Options{Hosts: 2})
	dir := t.TempDir()
	for i, site := range []*lab.Site{s.A, s.B} {
		server := site.Hosts[0]
		dnsmasq := server.Start("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0",
			"--interface="+hostLink, "--bind-interfaces", "--user=root", "--log-facility=-", "--log-dhcp",
			"--pid-file="+filepath.Join(dir, fmt.Sprint(i, ".pid")), "--dhcp-leasefile="+filepath.Join(dir, fmt.Sprint(i, ".leases")),
			fmt.Sprintf("--dhcp-range=10.77.0.%d,10.77.0.%d,1h", 100+50*i, 140+50*i))
		dnsmasq.WaitOutput(recvWait, "DHCP, IP range")
	}
	script := filepath.Join(dir, "lease")
	if err := os.WriteFile(script, []byte(leaseScript), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, site := range []*lab.Site{s.A, s.B} {
		site.Hosts[1].MustRun("udhcpc", "-f", "-q", "-n", "-t", "10", "-T", "1", "-i", hostLink, "-s", script)
	}
	for i, site := range []*lab.Site{s.A, s.B} {
		hinted(t, site, recvWait, "DHCP servers answer at two sites: ")
		st, err := site.Status()
		if err != nil {
			t.Fatal(err)
		}
		hints := strings.Join(st.Hints, "\n")
		for j, server := range []*lab.Host{s.A.Hosts[0], s.B.Hosts[0]} {
			where := " on this LAN"
			if i != j {
				where = " at site " + []string{s.A.Name, s.B.Name}[j]
			}
			if !strings.Contains(hints, server.Addr4) || !strings.Contains(hints, where) {
				t.Errorf("site %s: hints %s, want server %s%s", site.Name, hints, server.Addr4, where)
			}
		}
	}
	upA.WaitOutput(recvWait, "dhcp servers at two sites")
	upB.WaitOutput(recvWait, "dhcp servers at two sites")
	alive(t, upA, upB)
}
