// SPDX-License-Identifier: Apache-2.0

//go:build linux

package test_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/l2bridge/l2bridge/test/lab"
)

// What goes wrong on the WAN for a while ends neither the program nor a
// connection between hosts.
func TestOutages(t *testing.T) {
	t.Parallel()
	s, upA, upB := join(t, lab.Options{Hosts: 1})
	gw, router := s.B.Gateway, s.WAN[1]
	a, b := s.A.Hosts[0], s.B.Hosts[0]
	talk := startConversation(t, a, b)
	var filter *lab.Filter
	for _, outage := range []struct {
		name       string
		begin, end func()
		lasts      time.Duration
	}{
		// Sending is refused: EPERM, ENETUNREACH, ENETDOWN with what follows it.
		{
			name:  "packets rejected",
			begin: func() { filter = gw.Filter("output", "reject", "udp dport 4433") },
			lasts: 3 * time.Second,
			end: func() {
				if filter.Hits() == 0 {
					t.Error("no packet was rejected")
				}
				filter.Remove()
			},
		},
		{name: "no route", begin: s.B.Unroute, lasts: 3 * time.Second, end: s.B.Route},
		{
			name:  "interface down",
			begin: func() { gw.SetDown(lab.WANLink) },
			lasts: 3 * time.Second,
			end:   func() { gw.SetUp(lab.WANLink); gw.AddAddr(lab.WANLink, s.B.Addr6+"/64"); s.B.Route() },
		},
		// Nobody is told. The session does not live that long.
		{
			name:  "cable unplugged",
			begin: func() { router.SetDown(s.B.Uplink) },
			lasts: 8 * time.Second,
			end:   func() { router.SetUp(s.B.Uplink) },
		},
		{name: "another address", begin: s.B.Move, end: func() {}},
	} {
		// Each direction waits by itself, the one that has not begun again yet too.
		talk.goesOn(t, resendWait)
		outage.begin()
		if outage.lasts > 0 {
			time.Sleep(outage.lasts)
			if _, err := a.Run("ping", "-n", "-c1", "-W1", b.Addr4); err == nil {
				t.Errorf("%s: no outage", outage.name)
			}
		}
		outage.end()
		ping(t, a.Namespace, b.Addr4, outageWait)
		s.A.WaitUp(1)
		s.B.WaitUp(1)
		alive(t, upA, upB)
		talk.goesOn(t, resendWait)
		t.Logf("%s: %d blocks so far", outage.name, talk.echoed.Load())
	}
}

const (
	outageWait = 10 * time.Second // for traffic after an outage that ended
	resendWait = 30 * time.Second // for TCP: its pauses double while nothing passes
)

// conversation is a TCP connection on which one host sends numbered blocks and
// the other sends them back.
type conversation struct {
	echoed atomic.Int64
	err    atomic.Pointer[error] // why it ended
}

// startConversation begins a conversation that ends with the test.
func startConversation(t testing.TB, from, to *lab.Host) *conversation {
	t.Helper()
	near, far := connect(t, from, to)
	c := new(conversation)
	stop := make(chan struct{})
	var running sync.WaitGroup
	run := func(f func() error) {
		running.Go(func() {
			err := f()
			c.err.CompareAndSwap(nil, &err)
		})
	}
	run(func() error { _, err := io.Copy(far, far); return err })
	run(func() error { return sendBlocks(near, stop) })
	run(func() error { return c.receive(near) })
	t.Cleanup(func() {
		close(stop)
		near.Close()
		far.Close()
		running.Wait()
	})
	return c
}

const blockLen = 1000

func block(number int64) []byte {
	return bytes.Repeat(binary.BigEndian.AppendUint64(nil, uint64(number)), blockLen/8)
}

func sendBlocks(conn net.Conn, stop <-chan struct{}) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for i := int64(0); ; i++ {
		select {
		case <-tick.C:
		case <-stop:
			return nil
		}
		if _, err := conn.Write(block(i)); err != nil {
			return err
		}
	}
}

func (c *conversation) receive(conn net.Conn) error {
	got := make([]byte, blockLen)
	for {
		if _, err := io.ReadFull(conn, got); err != nil {
			return err
		}
		if want := c.echoed.Load(); !bytes.Equal(got, block(want)) {
			return fmt.Errorf("block %d came back as %x", want, got)
		}
		c.echoed.Add(1)
	}
}

// goesOn waits until another block has come back.
func (c *conversation) goesOn(t *testing.T, limit time.Duration) {
	t.Helper()
	before := c.echoed.Load()
	lab.Wait(t, limit, "a block comes back", func() error {
		if err := c.err.Load(); err != nil {
			t.Fatalf("the connection ended after %d blocks: %v", c.echoed.Load(), *err)
		}
		if c.echoed.Load() == before {
			return errors.New("nothing comes back")
		}
		return nil
	})
}

// A peer that is given by name, on a WAN without IPv4, is found again when it
// has moved and its name with it.
func TestNameMoves(t *testing.T) {
	t.Parallel()
	const name = "site-a.example"
	s := lab.TwoSites(t, lab.Options{Hosts: 1})
	for _, site := range []*lab.Site{s.A, s.B} {
		site.Gateway.DelAddr(lab.WANLink, site.Addr4+"/24")
	}
	zone := startResolver(t, s, "2001:db8:2::1")
	zone.set(name, s.A.Addr6)
	zone.serve(s.B)

	const peer = name + ":4433"
	upA, upB := lab.Link(s.A, s.B, []string{"--advertise", peer}, []string{"--peer", peer})
	wantAddr := func() {
		t.Helper()
		peers, err := s.B.Peers()
		if err != nil {
			t.Fatal(err)
		}
		if want := "[" + s.A.Addr6 + "]:4433"; peers[0].Addr != want {
			t.Errorf("site b has its peer at %s, want %s", peers[0].Addr, want)
		}
	}
	wantAddr()
	a, b := s.A.Hosts[0], s.B.Hosts[0]
	talk := startConversation(t, b, a)
	talk.goesOn(t, recvWait)

	s.A.Gateway.DelAddr(lab.WANLink, s.A.Addr6+"/64")
	s.A.Addr6 = "2001:db8:1::3"
	s.A.Gateway.AddAddr(lab.WANLink, s.A.Addr6+"/64")
	zone.set(name, s.A.Addr6)
	ping(t, a.Namespace, b.Addr4, outageWait)
	wantAddr()
	talk.goesOn(t, resendWait)
	alive(t, upA, upB)
}

// zone is what a resolver knows.
type zone struct {
	t       testing.TB
	addr    string
	hosts   string // path of its file
	dnsmasq *lab.Process
}

// startResolver starts a resolver at an address of the router of the WAN.
func startResolver(t testing.TB, s *lab.Sites, addr string) *zone {
	t.Helper()
	dir := t.TempDir()
	z := &zone{t: t, addr: addr, hosts: filepath.Join(dir, "hosts")}
	z.write("")
	z.dnsmasq = s.WAN[0].Start("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts",
		"--listen-address="+addr, "--bind-interfaces", "--user=root", "--log-facility=-",
		"--pid-file="+filepath.Join(dir, "pid"), "--addn-hosts="+z.hosts)
	z.dnsmasq.WaitOutput(recvWait, "read "+z.hosts)
	return z
}

// serve has a site's gateway ask this resolver.
func (z *zone) serve(site *lab.Site) {
	z.t.Helper()
	site.Gateway.Etc("resolv.conf", "nameserver "+z.addr+"\noptions timeout:1\n")
}

// set gives a name its one address.
func (z *zone) set(name, addr string) {
	z.t.Helper()
	z.write(addr + " " + name + "\n")
	z.dnsmasq.Signal(syscall.SIGHUP)
}

func (z *zone) write(hosts string) {
	z.t.Helper()
	if err := os.WriteFile(z.hosts, []byte(hosts), 0o644); err != nil {
		z.t.Fatal(err)
	}
}
