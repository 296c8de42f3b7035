// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lab_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/l2bridge/l2bridge/test/lab"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

func TestSitesReachEachOther(t *testing.T) {
	s := lab.TwoSites(t, lab.Options{Hosts: 2})
	for _, addr := range []string{s.B.Addr4, s.B.Addr6} {
		s.A.Gateway.MustRun("ping", "-n", "-c1", "-W2", addr)
	}
	// Each LAN is whole, and ends at its gateway.
	s.A.Hosts[0].MustRun("ping", "-n", "-c1", "-W2", s.A.Hosts[1].Addr4)
	s.A.Hosts[0].MustRun("ping", "-n", "-c1", "-W2", s.A.Hosts[1].Addr6)
	if _, err := s.A.Hosts[0].Run("ping", "-n", "-c1", "-W1", s.B.Hosts[0].Addr4); lab.ExitCode(err) != 1 {
		t.Errorf("ping to the other LAN without a tunnel: %v, want exit status 1", err)
	}
}

func TestNarrowInTheMiddle(t *testing.T) {
	for _, mtu := range []int{1400, 1280} {
		t.Run(fmt.Sprint(mtu), func(t *testing.T) {
			s := lab.TwoSites(t, lab.Options{Narrow: mtu})
			const headers = 28 // IPv4 and ICMP
			ping := func(size int) error {
				_, err := s.A.Gateway.Run("ping", "-n", "-c1", "-W1", "-M", "do", "-s", fmt.Sprint(size-headers), s.B.Addr4)
				return err
			}
			if err := ping(mtu); err != nil {
				t.Errorf("packet of %d bytes: %v", mtu, err)
			}
			if err := ping(mtu + 1); lab.ExitCode(err) != 1 {
				t.Errorf("packet of %d bytes: %v, want exit status 1", mtu+1, err)
			}
			s.A.Gateway.MustRun("ping", "-n", "-c1", "-W2", s.B.Addr6)
		})
	}
}

func TestFilter(t *testing.T) {
	s := lab.TwoSites(t, lab.Options{})
	reach := func() error {
		_, err := s.A.Gateway.Run("ping", "-n", "-c1", "-W1", s.B.Addr4)
		return err
	}
	filter := s.WAN[0].Filter("forward", "drop", "icmp type echo-request", "icmpv6 type echo-request")
	if err := reach(); lab.ExitCode(err) != 1 {
		t.Errorf("ping through the filter: %v, want exit status 1", err)
	}
	if hits := filter.Hits(); hits != 1 {
		t.Errorf("%d hits, want 1", hits)
	}
	filter.Remove()
	if err := reach(); err != nil {
		t.Errorf("without the filter: %v", err)
	}
}

func TestMove(t *testing.T) {
	s := lab.TwoSites(t, lab.Options{})
	old4, old6 := s.B.Addr4, s.B.Addr6
	s.B.Move()
	for _, addr := range []string{s.B.Addr4, s.B.Addr6} {
		s.A.Gateway.MustRun("ping", "-n", "-c1", "-W2", addr)
	}
	for _, addr := range []string{old4, old6} {
		if _, err := s.A.Gateway.Run("ping", "-n", "-c1", "-W1", addr); lab.ExitCode(err) != 1 {
			t.Errorf("ping to the old address %s: %v, want exit status 1", addr, err)
		}
	}
	s.B.Unnumber()
	if _, err := s.B.Gateway.Run("ping", "-n", "-c1", "-W1", s.A.Addr4); lab.ExitCode(err) != 2 {
		t.Errorf("ping without an address: %v, want exit status 2", err)
	}
	s.B.Renumber()
	for _, addr := range []string{s.B.Addr4, s.B.Addr6} {
		s.A.Gateway.MustRun("ping", "-n", "-c1", "-W2", addr)
	}
	s.B.Unroute()
	if _, err := s.B.Gateway.Run("ping", "-n", "-c1", "-W1", s.A.Addr4); lab.ExitCode(err) != 2 {
		t.Errorf("ping without a route: %v, want exit status 2", err)
	}
	s.B.Route()
	s.B.Gateway.MustRun("ping", "-n", "-c1", "-W2", s.A.Addr4)
}

func TestEtc(t *testing.T) {
	n := lab.New(t).Namespace("etc")
	const want = "nameserver 192.0.2.53\n"
	n.Etc("resolv.conf", want)
	if got := n.MustRun("cat", "/etc/resolv.conf"); got != want {
		t.Errorf("/etc/resolv.conf is %q, want %q", got, want)
	}
}

func TestImpairedWANRoutesNothing(t *testing.T) {
	s := lab.TwoSites(t, lab.Options{Impair: &lab.Impairment{Seed: 1}})
	if _, err := s.B.Gateway.Run("ping", "-n", "-c1", "-W1", s.A.Addr4); lab.ExitCode(err) != 1 {
		t.Errorf("ping around the relay: %v, want exit status 1", err)
	}
}

func TestRelayDoesWhatItSays(t *testing.T) {
	const count = 20000
	s := lab.TwoSites(t, lab.Options{Impair: &lab.Impairment{
		Delay: 5 * time.Millisecond, Jitter: time.Millisecond,
		Loss: 0.05, Duplicate: 0.10, Reorder: 0.05, Corrupt: 0.02,
		Seed: 7,
	}})
	server := s.A.Gateway.ListenUDP(s.A.Addr4 + ":4433")
	client := s.B.Gateway.ListenUDP(s.B.Addr4 + ":0")
	to, err := net.ResolveUDPAddr("udp", s.RelayAddr())
	if err != nil {
		t.Fatal(err)
	}

	// Slow enough that none is lost but by the relay's decision.
	ctx, cancel := context.WithCancel(t.Context())
	sent := make(chan error, 1)
	go func() {
		defer cancel()
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for i := range count {
			if i%10 == 0 {
				<-tick.C
			}
			b := lab.Numbered{Dst: macA, Src: macB, Number: uint32(i), Length: 100}.Bytes()
			if _, err := client.WriteTo(b, to); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	context.AfterFunc(ctx, func() { server.SetReadDeadline(time.Now().Add(500 * time.Millisecond)) })

	var got lab.Record
	total := 0
	buf := make([]byte, 2000)
	for {
		n, _, err := server.ReadFrom(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		total++
		// A flipped EtherType makes a frame that is not numbered: count it by
		// the total.
		got.Add(buf[:n])
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}

	stats := &s.Relay.Stats
	if in, out := stats.In.Load(), stats.Out.Load(); in != count || out != int64(total) {
		t.Errorf("relay: %d in, %d out, want %d in, %d out", in, out, count, total)
	}
	near := func(what string, got int64, share, of float64) {
		t.Helper()
		want := share * of
		if float64(got) < 0.8*want || float64(got) > 1.2*want {
			t.Errorf("%s: %d of %.0f, want about %.0f", what, got, of, want)
		}
	}
	near("lost", stats.Lost.Load(), 0.05, count)
	near("duplicated", stats.Duplicated.Load(), 0.10, count)
	near("reordered", stats.Reordered.Load(), 0.05, count*1.05)
	near("corrupted", stats.Corrupted.Load(), 0.02, count*1.05)
	near("seen altered", int64(total-got.Received-got.Duplicates), 0.02, count*1.05)
	near("seen twice", int64(got.Duplicates), 0.10*0.95*0.96, count)
	if got.Late < count/100 {
		t.Errorf("%d seen out of order, want a hundredth at least", got.Late)
	}
	if n := stats.Overflow.Load(); n != 0 {
		t.Errorf("%d lost to a full backlog", n)
	}
}

func TestRelayAnswers(t *testing.T) {
	s := lab.TwoSites(t, lab.Options{Impair: &lab.Impairment{}})
	server := s.A.Gateway.ListenUDP(s.A.Addr4 + ":4433")
	to, err := net.ResolveUDPAddr("udp", s.RelayAddr())
	if err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		client := s.B.Gateway.ListenUDP(s.B.Addr4 + ":0")
		hello := []byte{byte(i)}
		if _, err := client.WriteTo(hello, to); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 10)
		server.SetReadDeadline(time.Now().Add(5 * time.Second))
		n, from, err := server.ReadFrom(buf)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := server.WriteTo(buf[:n], from); err != nil {
			t.Fatal(err)
		}
		client.SetReadDeadline(time.Now().Add(5 * time.Second))
		n, _, err = client.ReadFrom(buf)
		if err != nil || !bytes.Equal(buf[:n], hello) {
			t.Fatalf("client %d got %x, %v, want %x", i, buf[:n], err, hello)
		}
	}
}

// Frames arrive as they were sent, tags included, on a bare link.
func TestWireIsTransparent(t *testing.T) {
	l := lab.New(t)
	a, b := l.Namespace("a"), l.Namespace("b")
	lab.Connect(a, "eth0", b, "eth0", 1500)
	from, to := a.Wire("eth0"), b.Wire("eth0")
	tests := []struct {
		name   string
		tags   []lab.Tag
		length int
	}{
		{"shortest", nil, 14},
		{"numbered", nil, lab.NumberedMin},
		{"longest", nil, 1514},
		{"vlan", []lab.Tag{{0x8100, 100}}, 64},
		{"priority tag", []lab.Tag{{0x8100, 0xe000}}, 64},
		{"vlan 0", []lab.Tag{{0x8100, 0}}, 64},
		{"vlan longest", []lab.Tag{{0x8100, 4095}}, 1518},
		{"q-in-q", []lab.Tag{{0x88a8, 7}, {0x8100, 8}}, 1514},
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			want := lab.Numbered{Dst: macB, Src: macA, Tags: tt.tags, Number: uint32(i), Length: tt.length}.Bytes()
			if err := from.Send(want); err != nil {
				t.Fatal(err)
			}
			got := to.Next(2*time.Second, "test frame", lab.IsNumbered)
			if !bytes.Equal(got, want) {
				t.Errorf("got\n%x\nwant\n%x", got, want)
			}
		})
	}
}

// What leaves by a link arrives at no wire of it, however early: a wire that is
// opened while another one sends would take what it sees for frames from afar.
func TestWireSeesNothingLeave(t *testing.T) {
	l := lab.New(t)
	a, b := l.Namespace("a"), l.Namespace("b")
	lab.Connect(a, "eth0", b, "eth0", 1500)
	from := a.Wire("eth0")
	stop := make(chan struct{})
	var sending sync.WaitGroup
	sending.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if err := from.Send(lab.Numbered{Dst: macB, Src: macA, Length: 60}.Bytes()); err != nil {
				t.Error(err)
				return
			}
		}
	})
	defer sending.Wait()
	defer close(stop)
	for range 20 {
		wire := a.Wire("eth0")
		for {
			frame, err := wire.Recv(time.Millisecond)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if lab.IsNumbered(frame) {
				t.Fatal("a wire has seen a frame that left")
			}
		}
	}
}

// A splice carries what AF_PACKET and a Linux bridge refuse to send.
func TestSpliceIgnoresMTU(t *testing.T) {
	l := lab.New(t)
	host, gateway, far := l.Namespace("host"), l.Namespace("gateway"), l.Namespace("far")
	lab.Connect(host, "eth0", gateway, "in", 9100)
	lab.Connect(gateway, "out", far, "eth0", 9100)
	gateway.MustRun("ip", "link", "set", "out", "mtu", "1500")
	gateway.Splice("in", "out")
	from, to := host.Wire("eth0"), far.Wire("eth0")
	for _, tags := range [][]lab.Tag{nil, {{0x8100, 1}}, {{0x88a8, 1}, {0x8100, 2}}} {
		for _, payload := range []int{0, 2, 1500} {
			if payload == 0 && len(tags) == 1 {
				continue // the kernel drops it: skb_vlan_untag wants two bytes more
			}
			want := lab.Numbered{Dst: macB, Src: macA, Tags: tags, Length: 14 + 4*len(tags) + payload}.Bytes()
			if err := from.Send(want); err != nil {
				t.Fatal(err)
			}
			if got := to.Next(2*time.Second, "test frame", lab.IsNumbered); !bytes.Equal(got, want) {
				t.Errorf("%d tags: got %d bytes, want %d", len(tags), len(got), len(want))
			}
		}
	}
}

func TestMulticastLeaves(t *testing.T) {
	l := lab.New(t)
	a, b := l.Namespace("a"), l.Namespace("b")
	lab.Connect(a, "eth0", b, "eth0", 1500)
	a.AddAddr("eth0", "10.77.0.1/24")
	wire := b.Wire("eth0")
	conn := a.ListenMulticast("eth0", "239.1.2.3:9999")
	wire.Next(5*time.Second, "IGMP report", isIGMP)
	wire.Drain()
	conn.Close()
	wire.Next(5*time.Second, "IGMP report", isIGMP)
}

func isIGMP(frame []byte) bool {
	return len(frame) > 24 && binary.BigEndian.Uint16(frame[12:]) == 0x0800 && frame[23] == 2
}

func TestProcess(t *testing.T) {
	l := lab.New(t)
	n := l.Namespace("a")

	p := n.Start("sh", "-c", "trap 'echo bye; exit 3' TERM; echo hello; while :; do sleep 0.1; done")
	p.WaitOutput(5*time.Second, "hello")
	if err := p.Stop(); lab.ExitCode(err) != 3 {
		t.Errorf("stop: %v, want exit status 3", err)
	}
	if want := "hello\nbye\n"; p.Output() != want {
		t.Errorf("output %q, want %q", p.Output(), want)
	}
	if pids := strings.TrimSpace(n.MustRun("ip", "netns", "pids", n.Name)); strings.Count(pids, "\n") > 1 {
		t.Errorf("processes left: %q", pids)
	}
}

func TestRunIsBounded(t *testing.T) {
	n := lab.New(t).Namespace("a")
	if _, err := n.RunFor(100*time.Millisecond, "sleep", "60"); err == nil || !strings.Contains(err.Error(), "still running after 100ms") {
		t.Errorf("a command that hangs: %v", err)
	}
}

// A run that was killed leaves its namespaces; the next one takes them away.
func TestSweep(t *testing.T) {
	lab.New(t) // skips without root
	dead := exec.Command("true")
	if err := dead.Run(); err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("l2b-%d-1-gone", dead.Process.Pid)
	if out, err := exec.Command("ip", "netns", "add", name).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Cleanup(func() { exec.Command("ip", "netns", "delete", name).Run() })
	if out, err := exec.Command(os.Args[0], "-test.run=^TestNothingIsLeft$").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if _, err := os.Stat(filepath.Join("/run/netns", name)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("namespace %s is still there: %v", name, err)
	}
}

func TestNothingIsLeft(t *testing.T) {
	var name string
	t.Run("lab", func(t *testing.T) {
		name = lab.New(t).Namespace("a").Name
		if _, err := os.Stat(filepath.Join("/run/netns", name)); err != nil {
			t.Fatal(err)
		}
	})
	if _, err := os.Stat(filepath.Join("/run/netns", name)); name != "" && !errors.Is(err, os.ErrNotExist) {
		t.Errorf("namespace %s is still there: %v", name, err)
	}
}

// What waits in a Wire is there however late it is looked for.
func TestWireLate(t *testing.T) {
	s := lab.TwoSites(t, lab.Options{Hosts: 2})
	out, in := s.A.Hosts[0].Wire("eth0"), s.A.Hosts[1].Wire("eth0")
	frame := lab.Numbered{Dst: []byte{255, 255, 255, 255, 255, 255}, Src: []byte{2, 0, 0, 0, 0, 7}, Number: 1, Length: 60}.Bytes()
	const count = 3
	for range count {
		if err := out.Send(frame); err != nil {
			t.Fatal(err)
		}
	}
	came := 0
	lab.Wait(t, 10*time.Second, "all frames, without time to wait for them", func() error {
		got, err := in.Recv(-time.Second)
		if bytes.Equal(got, frame) {
			came++
		}
		if came < count {
			return fmt.Errorf("%d frames, %v", came, err)
		}
		return nil
	})
}
