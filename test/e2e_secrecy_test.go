// SPDX-License-Identifier: Apache-2.0

//go:build linux

package test_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/l2bridge/l2bridge/test/lab"
)

// The WAN sees the tunnel's own packets, none longer than it carries, and
// nothing of what is in them.
func TestNothingInTheClear(t *testing.T) {
	s := lab.TwoSites(t, lab.Options{Hosts: 1})
	for _, site := range []*lab.Site{s.A, s.B} {
		// One packet at a time, as a NIC puts it on the wire.
		site.Gateway.MustRun("ip", "link", "set", lab.WANLink, "gso_max_segs", "1")
	}
	wan := capture(t, s.WAN[0], s.A.Uplink)
	inner := capture(t, s.B.Hosts[0].Namespace, hostLink)
	link(t, s)
	a, b := s.A.Hosts[0], s.B.Hosts[0]
	for _, site := range []*lab.Site{s.A, s.B} {
		lab.Wait(t, mendWait, "packets are as long as the path carries", func() error {
			peers, err := site.Peers()
			if err == nil && peers[0].PathMTU < 1400 {
				err = fmt.Errorf("path_mtu %d", peers[0].PathMTU)
			}
			return err
		})
	}

	const name, count = "OurSecretNameForIt", 1 << 19
	marker := []byte(name)
	near, far := connect(t, a, b)
	var g errgroup.Group
	for _, end := range []struct {
		out io.WriteCloser
		in  io.Reader
	}{{near, near}, {far, far}} {
		g.Go(func() error { _, err := end.out.Write(bytes.Repeat(marker, count)); return err })
		g.Go(func() error { _, err := io.CopyN(io.Discard, end.in, int64(len(marker)*count)); return err })
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	a.MustRun("ping", "-n", "-c3", "-i0.2", "-W2", "-s1400", "-p", fmt.Sprintf("%x", marker[:16]), b.Addr4)

	if !bytes.Contains(inner.stop(), marker) {
		t.Error("the capture at the host does not show what it received")
	}
	if bytes.Contains(wan.stop(), marker[:8]) {
		t.Error("the WAN sees what the hosts sent")
	}
	if n := wan.count("udp port 4433"); n < 2*count*len(marker)/1500 {
		t.Errorf("%d packets of the tunnel on the WAN, fewer than what was sent needs", n)
	}
	// The gateway and its router look each other up by ARP, ND and, behind a
	// hop-by-hop header, MLD; that is theirs.
	for _, alien := range []string{"not (udp port 4433 or arp or icmp6 or ip6 proto 0)", "greater 1515"} {
		if n := wan.count(alien); n != 0 {
			t.Errorf("%d packets on the WAN are %q:\n%s", n, alien, wan.read(alien))
		}
	}
}

// Nor does it at any other time: before there is a session, while one site is being
// started again, and while a third one relays.
func TestNeverInTheClear(t *testing.T) {
	t.Parallel()
	s := lab.Around(t, 3, lab.Options{Hosts: 1})
	var wans []*pcap
	for _, site := range s.All {
		wans = append(wans, capture(t, s.WAN[0], site.Uplink))
	}
	a, b := s.A.Hosts[0], s.B.Hosts[0]
	marker := []byte("NobodyShallReadIt")
	mac := func(h *lab.Host) []byte { return h.Link(hostLink).Attrs().HardwareAddr }
	out, in := a.Wire(hostLink), b.Wire(hostLink)
	frame := slices.Concat(mac(b), mac(a), []byte{0x88, 0xb5}, bytes.Repeat(marker, 40))
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			case <-time.After(2 * time.Millisecond):
			}
			if err := out.Send(frame); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	arrives := func(when string) {
		t.Helper()
		in.Drain()
		in.Next(backWait, "marker "+when, func(frame []byte) bool { return bytes.Contains(frame, marker) })
	}
	up := lab.LinkAll(s.All, func(site *lab.Site) []string {
		if site == s.A {
			return []string{"--advertise", site.Addr4 + ":4433"}
		}
		return nil
	})
	for _, site := range s.All {
		lab.Wait(t, meshWait, "all are peers of site "+site.Name, func() error { return isWell(site, 2) })
	}
	arrives("as soon as they are linked")
	s.WAN[0].Filter("forward", "drop",
		fmt.Sprintf("iifname %q oifname %q", s.A.Uplink, s.B.Uplink), fmt.Sprintf("iifname %q oifname %q", s.B.Uplink, s.A.Uplink))
	waitWay(t, s.A, "b", "relayed", tellWithin+slack)
	arrives("by way of the third site")
	up[s.A].Kill()
	s.A.Start("up")
	waitWay(t, s.A, "b", "relayed", backWait)
	arrives("after a start, by way of the third site")
	s.WAN[0].Unfilter()
	waitWay(t, s.A, "b", "up", punchWait)
	arrives("directly again")
	close(stop)
	<-done
	for i, wan := range wans {
		if bytes.Contains(wan.stop(), marker[:8]) {
			t.Errorf("the WAN sees at site %s what the hosts sent", s.All[i].Name)
		}
		if n := wan.count("udp port 4433"); n < 100 {
			t.Errorf("%d packets of the tunnel at site %s", n, s.All[i].Name)
		}
	}
}

// pcap is a capture under way, or what it left.
type pcap struct {
	t       *testing.T
	at      *lab.Namespace
	path    string
	tcpdump *lab.Process
}

// capture begins to capture what a link carries, both ways.
func capture(t *testing.T, at *lab.Namespace, ifname string) *pcap {
	t.Helper()
	c := &pcap{t: t, at: at, path: filepath.Join(t.TempDir(), "pcap")}
	c.tcpdump = at.Start("tcpdump", "-n", "-Z", "root", "-U", "-B", "65536", "-i", ifname, "-w", c.path)
	c.tcpdump.WaitOutput(recvWait, "listening on")
	return c
}

// stop ends the capture and returns it.
func (c *pcap) stop() []byte {
	c.t.Helper()
	if err := c.tcpdump.End(syscall.SIGINT); err != nil {
		c.t.Fatalf("tcpdump: %v", err)
	}
	if out := c.tcpdump.Output(); !strings.Contains(out, "\n0 packets dropped by kernel") {
		c.t.Fatalf("tcpdump has not seen all:\n%s", out)
	}
	b, err := os.ReadFile(c.path)
	if err != nil {
		c.t.Fatal(err)
	}
	return b
}

// read returns the packets that a filter accepts, a line each.
func (c *pcap) read(filter string) string {
	c.t.Helper()
	return c.at.MustRun("tcpdump", "-Z", "root", "-n", "-t", "-q", "-r", c.path, filter)
}

func (c *pcap) count(filter string) int {
	c.t.Helper()
	return strings.Count(c.read(filter), "\n")
}
