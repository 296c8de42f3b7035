// SPDX-License-Identifier: Apache-2.0

//go:build linux

package test_test

import (
	"context"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/l2bridge/l2bridge/test/lab"
)

const (
	defaultTAP = "l2b0"
	hostLink   = "eth0"

	recvWait = 5 * time.Second  // for a frame that is on its way
	mendWait = 5 * time.Second  // for a TAP that was taken away to be back
	backWait = 15 * time.Second // for traffic after an outage
)

var (
	macA = net.HardwareAddr{0x02, 0x77, 0, 0, 0, 0xa}
	macB = net.HardwareAddr{0x02, 0x77, 0, 0, 0, 0xb}

	broadcast = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
)

func TestMain(m *testing.M) {
	lab.Main(m, results.write)
}

// bare are the flags of a site whose host sits straight on the TAP, for frames
// that a Linux bridge would not let pass.
func bare(flags ...string) []string {
	return append([]string{"--bridge", ""}, flags...)
}

// join builds two sites and links them, see link.
func join(t *testing.T, o lab.Options) (s *lab.Sites, upA, upB *lab.Process) {
	t.Helper()
	s = lab.TwoSites(t, o)
	var flags []string
	if o.MTU != 0 {
		flags = []string{"--mtu", fmt.Sprint(o.MTU)}
	}
	upA, upB = link(t, s, flags...)
	return s, upA, upB
}

// link links two sites that run with the same flags. Site B dials the address
// that site A advertises, over IPv4. Sites without hosts are bare.
func link(t *testing.T, s *lab.Sites, flags ...string) (upA, upB *lab.Process) {
	t.Helper()
	advertise := s.A.Addr4 + ":4433"
	if s.Relay != nil {
		advertise = s.RelayAddr()
	}
	if len(s.A.Hosts) == 0 {
		flags = bare(flags...)
	}
	return lab.Link(s.A, s.B, append([]string{"--advertise", advertise}, flags...), flags)
}

// alive ends the test when one of the processes has ended.
func alive(t testing.TB, processes ...*lab.Process) {
	t.Helper()
	for _, p := range processes {
		if !p.Running() {
			t.Fatalf("process %d ended: %v", p.PID(), p.Err())
		}
	}
}

// ping waits until an address answers one echo.
func ping(t *testing.T, from *lab.Namespace, addr string, limit time.Duration) {
	t.Helper()
	lab.Wait(t, limit, from.Name+" reaches "+addr, func() error {
		_, err := from.Run("ping", "-n", "-c1", "-W1", addr)
		return err
	})
}

// connect makes a TCP connection from one host to another, on which nobody asks
// whether the other is alive. Both ends are closed when the test ends.
func connect(t testing.TB, from, to *lab.Host) (near, far net.Conn) {
	t.Helper()
	var listener net.Listener
	const never = -1
	err := to.Do(func() (err error) {
		config := net.ListenConfig{KeepAlive: never}
		listener, err = config.Listen(context.Background(), "tcp", net.JoinHostPort(to.Addr4, "0"))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	err = from.Do(func() (err error) {
		dialer := net.Dialer{Timeout: recvWait, KeepAlive: never}
		near, err = dialer.Dial("tcp", listener.Addr().String())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close() })
	if far, err = listener.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { far.Close() })
	return near, far
}

// host is a bare site's host: its frames go straight into the gateway's TAP,
// and what comes out of the TAP it receives.
type host struct {
	out, in *lab.Wire
}

// bareHost puts a host on the TAP of a bare site. Its own link is longer than
// the TAP's MTU, so that it may send two tags.
func bareHost(s *lab.Sites, site *lab.Site) host {
	machine := s.Namespace("host-" + site.Name)
	lab.Connect(machine, hostLink, site.Gateway, "to-host", 9100)
	site.Gateway.Splice("to-host", defaultTAP)
	return host{out: machine.Wire(hostLink), in: site.Gateway.Wire(defaultTAP)}
}

// dropped returns by how much each drop count rose, at both sites together,
// since the earlier counts.
func dropped(before, after map[string]uint64) map[string]uint64 {
	rise := make(map[string]uint64)
	for reason, n := range after {
		if n > before[reason] {
			rise[reason] = n - before[reason]
		}
	}
	return rise
}

// drops adds up the drop counts of both sites.
func drops(t *testing.T, s *lab.Sites) map[string]uint64 {
	t.Helper()
	sum := make(map[string]uint64)
	for _, site := range []*lab.Site{s.A, s.B} {
		counts, err := site.Drops()
		if err != nil {
			t.Fatal(err)
		}
		for reason, n := range counts {
			sum[reason] += n
		}
	}
	return sum
}
