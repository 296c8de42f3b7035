// SPDX-License-Identifier: Apache-2.0

//go:build linux

package test_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/l2bridge/l2bridge/test/lab"
)

// siege is two sites and their hosts, a third that sees what is flooded, and a
// member that has turned on them: its gateway has stopped, and another program has
// its key.
type siege struct {
	*lab.Sites
	t          *testing.T
	c, evil    *lab.Site
	up         map[*lab.Site]*lab.Process
	program    string
	hostA      *lab.Host
	hostB      *lab.Host
	macA, macB net.HardwareAddr
	began      time.Time
	rss        map[*lab.Site]int // before
	most       map[*lab.Site]int
}

func besiege(t *testing.T) *siege {
	t.Helper()
	sites, up := mesh(t, 4, lab.Options{Hosts: 1})
	s := &siege{
		Sites: sites, t: t, c: sites.All[2], evil: sites.All[3], up: up, program: filepath.Join(t.TempDir(), "rogue"),
		hostA: sites.A.Hosts[0], hostB: sites.B.Hosts[0],
		rss: make(map[*lab.Site]int), most: make(map[*lab.Site]int),
	}
	if out, err := exec.Command("go", "build", "-o", s.program, "./rogue").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := up[s.evil].Stop(); err != nil {
		t.Fatal(err)
	}
	delete(up, s.evil)
	ping(t, s.hostA.Namespace, s.hostB.Addr4, recvWait)
	s.macA, s.macB = s.hostA.Link(hostLink).Attrs().HardwareAddr, s.hostB.Link(hostLink).Attrs().HardwareAddr
	s.began = time.Now()
	for site, p := range up {
		s.rss[site] = p.RSS()
	}
	return s
}

// attack starts the program against a site.
func (s *siege) attack(victim *lab.Site, third string, lasts time.Duration, what string, more ...string) *lab.Process {
	s.t.Helper()
	station := s.macA
	if victim == s.B {
		station = s.macB
	}
	args := append([]string{
		"-state", s.evil.StateDir(), "-victim", victim.Addr4 + ":4433", "-station", station.String(),
		"-third", third, "-time", lasts.String(), "-what", what,
	}, more...)
	return s.evil.Gateway.Start(s.program, args...)
}

// watch has hosts A and B exchange pings while f runs, notes how much memory the
// gateways take, and returns the share of pings that was lost.
func (s *siege) watch(f func()) (lost float64) {
	s.t.Helper()
	done := make(chan struct{})
	var beside sync.WaitGroup
	beside.Go(func() {
		for {
			for site, p := range s.up {
				s.most[site] = max(s.most[site], p.RSS())
			}
			select {
			case <-done:
				return
			case <-time.After(100 * time.Millisecond):
			}
		}
	})
	pings := s.hostB.Start("ping", "-n", "-q", "-i0.02", s.hostA.Addr4)
	f()
	close(done)
	beside.Wait()
	pings.End(os.Interrupt)
	out := pings.Output()
	i := strings.Index(out, "---\n")
	var sent, received float64
	if i < 0 {
		s.t.Fatalf("ping says %q", out)
	}
	if _, err := fmt.Sscanf(out[i+4:], "%f packets transmitted, %f received", &sent, &received); err != nil {
		s.t.Fatalf("%v: %s", err, out)
	}
	s.t.Log(strings.TrimSpace(out[i+4:]))
	// The last one may still be under way.
	return max(0, 1-received/max(1, sent-1))
}

// judge checks that those who were attacked are as they were, and that less than a
// share of the pings was lost.
func (s *siege) judge(what string, lost, most float64) {
	s.t.Helper()
	for _, p := range s.up {
		alive(s.t, p)
	}
	for _, at := range []*lab.Site{s.A, s.B} {
		s.t.Logf("%s: %.2f %% of pings lost; site %s took %d MiB, %d more than before", what, 100*lost, at.Name,
			s.most[at]>>20, (s.most[at]-s.rss[at])>>20)
		stations, err := at.Stations()
		if err != nil {
			s.t.Fatal(err)
		}
		behind := make(map[string]string)
		for _, st := range stations {
			behind[st.MAC] = st.Port
		}
		for host, mac := range map[*lab.Site]net.HardwareAddr{s.A: s.macA, s.B: s.macB} {
			want := host.Name
			if host == at {
				want = "local"
			}
			if got := behind[mac.String()]; got != want {
				s.t.Errorf("%s: to site %s the host of site %s is behind %q", what, at.Name, host.Name, got)
			}
		}
		peers, err := at.Peers()
		if err != nil {
			s.t.Fatal(err)
		}
		for _, p := range peers {
			since := time.Duration(p.SinceMS) * time.Millisecond
			if *attackFull && p.Site != s.evil.Name && since < time.Since(s.began) {
				s.t.Errorf("%s: site %s has a session with %s since %v, want the one of before", what, at.Name, p.Site, since)
			}
		}
	}
	if *attackFull { // else the machine does much else
		const room = 32 << 20
		if lost >= most {
			s.t.Errorf("%s: %.2f %% of pings lost", what, 100*lost)
		}
		for _, at := range []*lab.Site{s.A, s.B, s.c} {
			if grown := s.most[at] - s.rss[at]; grown >= room {
				s.t.Errorf("%s: site %s has grown by %d MiB", what, at.Name, grown>>20)
			}
		}
	}
}

// A member that breaks the protocol is cut off, and does not come straight back. One
// that keeps to its letter, and floods all it can, harms nobody.
func TestRogue(t *testing.T) {
	lasts, rate := 3*time.Second, "1000"
	if *attackFull {
		lasts, rate = 50*time.Second, "20000"
	} else {
		t.Parallel()
	}
	s := besiege(t)
	status := func(site *lab.Site) lab.Status {
		st, err := site.Status()
		if err != nil {
			t.Fatal(err)
		}
		return st
	}
	t.Run("wrong", func(t *testing.T) {
		s.t = t
		lost := s.watch(func() {
			p := s.attack(s.A, status(s.B).ID, max(lasts, 10*time.Second), "noise,random,totals,overlap,headers", "-rate", rate)
			p.WaitOutput(30*time.Second, "cut off for 10s")
			s.up[s.A].WaitOutput(recvWait, "peer cut off")
			p.WaitOutput(recvWait, "refused:")
			if *attackFull {
				<-p.Done()
			} else {
				p.Stop()
			}
			t.Log(p.Output())
		})
		s.judge("wrong", lost, 0.01)
		var lines []string
		for line := range strings.Lines(s.up[s.A].Output()) {
			if strings.Contains(line, "level=WARN") && strings.Contains(line, "peer="+s.evil.Name) {
				lines = append(lines, line)
			}
		}
		t.Logf("%s", strings.Join(lines, ""))
		if !*attackFull && len(lines) != 3 {
			t.Errorf("site a has %d lines about it, want two warnings and the end", len(lines))
		}
	})
	for _, what := range []string{"bombs,parity,pings", "frames,tests,messages", "relayed,halfopen"} {
		if !*attackFull && what[0] == 'r' {
			continue // the same in little in package transport
		}
		t.Run(what, func(t *testing.T) {
			s.t = t
			lost := s.watch(func() {
				// B has nothing against it yet.
				p := s.attack(s.B, status(s.A).ID, lasts, what, "-rate", rate, "-lanes", "16")
				<-p.Done()
				t.Log(p.Output())
				if strings.Contains(p.Output(), "cut off") {
					t.Error("is cut off")
				}
				if d, err := s.B.Drops(); err == nil {
					t.Logf("drops of site b: %v", d)
				}
			})
			s.judge(what, lost, 0.01)
		})
	}
}

// Stations without end are made up, by a member or in the LAN: the tables keep to
// their bounds, and frames between hosts that were there before go to nobody else.
func TestMACFlood(t *testing.T) {
	lasts, each := 3*time.Second, 5000 // stations a second
	if *attackFull {
		lasts, each = 30*time.Second, 34_000
	} else {
		t.Parallel()
	}
	s := besiege(t)
	wire := s.c.Hosts[0].Wire(hostLink)
	bounded := func(from string) {
		for _, at := range []struct {
			*lab.Site
			port string
			most int
		}{{s.A, s.evil.Name, 4096}, {s.A, "local", 65536}, {s.B, s.A.Name, 4096}} {
			stations, err := at.Stations()
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			for _, st := range stations {
				if st.Port == at.port {
					n++
				}
			}
			t.Logf("from %s: site %s has %d stations behind %s", from, at.Name, n, at.port)
			if n > at.most {
				t.Errorf("from %s: site %s has %d stations behind %s, want at most %d", from, at.Name, n, at.port, at.most)
			}
		}
	}
	for _, from := range []string{"member", "LAN"} {
		wire.Drain()
		made := 0
		lost := s.watch(func() {
			if from == "member" {
				const records = 64 // a datagram has so many at most
				p := s.attack(s.A, "", lasts, "macs", "-rate", fmt.Sprint(each/records))
				time.Sleep(lasts * 3 / 4)
				bounded(from) // it is forgotten at the end
				<-p.Done()
				var sent int
				fmt.Sscanf(p.Output()[strings.Index(p.Output(), "ends:")+5:], "%d", &sent)
				made = sent * records
				return
			}
			out := s.hostA.Wire(hostLink)
			frame := append(append(bytes.Clone(s.macB), 0x06, 0, 0, 0, 0, 0), 0x88, 0xb5)
			frame = append(frame, make([]byte, 46)...)
			began := time.Now()
			for time.Since(began) < lasts {
				for due := int(time.Since(began).Seconds() * float64(each)); made < due; made++ {
					binary.BigEndian.PutUint32(frame[8:], uint32(made))
					out.Send(frame)
				}
				time.Sleep(time.Millisecond)
			}
		})
		if from == "LAN" {
			bounded(from) // to list so many takes memory of its own
		}
		if d, err := s.A.Drops(); err == nil {
			t.Logf("from %s: drops of site a: %v", from, d)
		}
		strays, seen := 0, 0
		for f := range arrivals(t, wire, time.Now().Add(300*time.Millisecond)) {
			seen++
			src, dst := net.HardwareAddr(f[6:12]), net.HardwareAddr(f[:6])
			if isOneOf(src, s.macA, s.macB) && isOneOf(dst, s.macA, s.macB) {
				strays++
			}
		}
		t.Logf("from %s: %d stations; the host of site c saw %d frames, %d between those of a and b", from, made, seen, strays)
		if strays > 0 {
			t.Errorf("from %s: %d frames between a and b were flooded to c", from, strays)
		}
		// From the LAN each is a flow of its own until there is no room for more.
		s.judge("stations from "+from, lost, map[string]float64{"member": 0.01, "LAN": 0.05}[from])
	}
}

func isOneOf(mac net.HardwareAddr, all ...net.HardwareAddr) bool {
	for _, m := range all {
		if bytes.Equal(m, mac) {
			return true
		}
	}
	return false
}
