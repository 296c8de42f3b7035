// SPDX-License-Identifier: Apache-2.0

//go:build linux

package test_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/l2bridge/l2bridge/test/lab"
)

// The least there is: found, invite, join, and a host reaches one at the other
// site.
func TestTwoSites(t *testing.T) {
	s := lab.TwoSites(t, lab.Options{Hosts: 1})
	lab.Link(s.A, s.B, nil, nil)
	a, b := s.A.Hosts[0], s.B.Hosts[0]
	for _, addr := range []string{b.Addr4, b.Addr6} {
		ping(t, a.Namespace, addr, recvWait)
	}
	for _, size := range []int{0, 1472} {
		a.MustRun("ping", "-n", "-c3", "-i0.2", "-W2", "-M", "do", "-s", fmt.Sprint(size), b.Addr4)
	}
}

// TCP and UDP pass both ways, over IPv4 and IPv6 inside, whichever is outside.
func TestTraffic(t *testing.T) {
	outer := []struct{ name, listen, want string }{
		{"over IPv4", "198.18.1.2:4433", "198.18.1.2:4433"},
		{"over IPv6", "[2001:db8:1::2]:4433", "[2001:db8:1::2]:4433"},
	}
	for _, tt := range outer {
		t.Run(tt.name, func(t *testing.T) {
			s := lab.TwoSites(t, lab.Options{Hosts: 1})
			lab.Link(s.A, s.B, []string{"--advertise", tt.listen}, nil)
			peers, err := s.B.Peers()
			if err != nil {
				t.Fatal(err)
			}
			if peers[0].Addr != tt.want {
				t.Errorf("site b reached its peer at %s, want %s", peers[0].Addr, tt.want)
			}

			a, b := s.A.Hosts[0], s.B.Hosts[0]
			server := b.Start("iperf3", "--server", "--forceflush")
			server.WaitOutput(recvWait, "Server listening")
			for _, inner := range []struct{ name, addr string }{{"IPv4", b.Addr4}, {"IPv6", b.Addr6}} {
				t.Run(inner.name, func(t *testing.T) {
					ping(t, a.Namespace, inner.addr, recvWait)
					for _, mode := range []string{"", "--reverse"} {
						tcp := iperf(t, a, inner.addr, "--time=1", "--congestion=cubic", mode)
						if tcp.Bytes < 1<<20 {
							t.Errorf("TCP %s: %d bytes in a second, want a megabyte at least", mode, tcp.Bytes)
						}
						udp := iperf(t, a, inner.addr, "--udp", "--bitrate=5M", "--time=1", "--length=1200", mode)
						if udp.Packets < 100 || udp.LostPackets != 0 {
							t.Errorf("UDP %s: %d of %d packets lost, want none", mode, udp.LostPackets, udp.Packets)
						}
					}
				})
			}
		})
	}
}

type iperfSum struct {
	Bytes       int
	Packets     int
	LostPackets int `json:"lost_packets"`
}

func iperf(t *testing.T, from *lab.Host, to string, flags ...string) iperfSum {
	t.Helper()
	args := []string{"--json", "--client", to}
	for _, flag := range flags {
		if flag != "" {
			args = append(args, flag)
		}
	}
	var report struct {
		Error string // iperf3 may tell of one and exit with 0
		End   struct {
			Sum         iperfSum
			SumReceived iperfSum `json:"sum_received"`
		}
	}
	// The server takes one at a time, and is busy for a moment after the last.
	lab.Wait(t, recvWait, "iperf3 has run", func() error {
		out, err := from.Run("iperf3", args...)
		if err != nil {
			return err
		}
		report.Error = ""
		if err := json.Unmarshal([]byte(out), &report); err != nil {
			return fmt.Errorf("iperf3 --json: %w\n%s", err, out)
		}
		if report.Error != "" {
			return errors.New(report.Error)
		}
		return nil
	})
	if report.End.Sum.Packets > 0 { // UDP
		return report.End.Sum
	}
	return report.End.SumReceived
}

// A second network on the same two machines, by -n.
func TestSecondInstance(t *testing.T) {
	s, upA, _ := join(t, lab.Options{Hosts: 1})
	a, b := s.A.Instance("lab2"), s.B.Instance("lab2")
	flags := bare("--listen", "[::]:4434")
	lab.Link(a, b, append([]string{"--advertise", s.A.Addr4 + ":4434"}, flags...), flags)

	s.A.Gateway.AddAddr("l2b-lab2", "192.0.2.1/24")
	s.B.Gateway.AddAddr("l2b-lab2", "192.0.2.2/24")
	ping(t, s.A.Gateway, "192.0.2.2", recvWait)
	ping(t, s.A.Hosts[0].Namespace, s.B.Hosts[0].Addr4, recvWait)
	s.A.Hosts[0].AddAddr(hostLink, "192.0.2.3/24")
	if _, err := s.A.Hosts[0].Run("ping", "-n", "-c1", "-W1", "192.0.2.2"); lab.ExitCode(err) != 1 {
		t.Errorf("ping from one network to the other: %v, want exit status 1", err)
	}

	t.Run("taken port", func(t *testing.T) {
		taken := s.A.Instance("lab3")
		taken.Init(bare()...)
		wantTaken(t, taken, "4433", upA.PID())
	})
	for i, bridge := range []string{lab.BridgeName, ""} {
		t.Run(fmt.Sprintf("taken TAP, bridge %q", bridge), func(t *testing.T) {
			taken := s.A.Instance(fmt.Sprint("lab4-", i))
			taken.Init("--tap", defaultTAP, "--listen", "[::]:4435", "--bridge", bridge)
			wantTaken(t, taken, defaultTAP, upA.PID())
		})
	}
}

// wantTaken has a site fail to start over something that another process owns,
// which the message must name.
func wantTaken(t *testing.T, site *lab.Site, what string, owner int) {
	t.Helper()
	_, err := site.CLI("up")
	if lab.ExitCode(err) != 1 {
		t.Fatalf("up: %v, want exit status 1", err)
	}
	for _, want := range []string{what, fmt.Sprint(owner)} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("up: %v; want it to name %s and its owner, process %d", err, what, owner)
		}
	}
}
