// SPDX-License-Identifier: Apache-2.0

//go:build linux

package test_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/l2bridge/l2bridge/test/lab"
)

// anEvent is a line of "l2bridge monitor -j".
type anEvent struct {
	TimeMS int64 `json:"time_ms"`
	Kind   string
	Event  string
	Site   string
	ID     string
	Addr   string
	Via    string
	MAC    string
	VLAN   int
	Port   string
	From   string
	Reason string
	Count  uint64
}

// monitor starts "l2bridge monitor" and waits until it is told what happens.
func monitor(t *testing.T, site *lab.Site, args ...string) *lab.Process {
	t.Helper()
	p := site.Start(append([]string{"monitor"}, args...)...)
	const knock = "02:77:00:00:00:99"
	lab.Wait(t, recvWait, "monitor listens", func() error {
		site.MustCLI("fdb", "add", knock, "local")
		site.MustCLI("fdb", "del", knock)
		if !strings.Contains(p.Output(), knock) {
			return errors.New(p.Output())
		}
		return nil
	})
	return p
}

// events reads the whole lines that a monitor has written.
func events(t *testing.T, p *lab.Process) (all []anEvent) {
	t.Helper()
	for line := range strings.Lines(p.Output()) {
		if !strings.HasPrefix(line, "{") || !strings.HasSuffix(line, "\n") {
			continue
		}
		var e anEvent
		decode := json.NewDecoder(strings.NewReader(line))
		decode.DisallowUnknownFields()
		if err := decode.Decode(&e); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		all = append(all, e)
	}
	return all
}

// waitEvent waits until a monitor has told of an event that matches.
func waitEvent(t *testing.T, p *lab.Process, limit time.Duration, what string, match func(anEvent) bool) (e anEvent) {
	t.Helper()
	lab.Wait(t, limit, "monitor tells: "+what, func() error {
		all := events(t, p)
		i := slices.IndexFunc(all, match)
		if i < 0 {
			return fmt.Errorf("%d events:\n%s", len(all), p.Output())
		}
		e = all[i]
		return nil
	})
	return e
}

// A peer that goes and comes back, stations that talk and move, and the end of
// the daemon itself: monitor tells it as it happens.
func TestMonitor(t *testing.T) {
	t.Parallel()
	began := time.Now()
	s, upA, upB := join(t, lab.Options{Hosts: 1})
	peers, err := s.A.Peers()
	if err != nil {
		t.Fatal(err)
	}
	quiet := s.A.Start("monitor", "loop", "guard")
	people := monitor(t, s.A)
	all := monitor(t, s.A, "--json")

	if err := upB.Stop(); err != nil {
		t.Fatal(err)
	}
	down := waitEvent(t, all, recvWait, "the peer goes", func(e anEvent) bool { return e.Event == "down" })
	if down.Kind != "link" || down.Site != "b" || down.ID != peers[0].ID || !strings.Contains(down.Reason, "goodbye") {
		t.Errorf("it went: %+v, want that of %+v", down, peers[0])
	}
	s.B.Up()
	up := waitEvent(t, all, outageWait, "the peer comes", func(e anEvent) bool { return e.Event == "up" })
	if up.Kind != "link" || up.Site != "b" || up.ID != peers[0].ID || !strings.HasSuffix(up.Addr, ":4433") || up.Via != "" {
		t.Errorf("it came: %+v, want that of %+v", up, peers[0])
	}
	if up.TimeMS < down.TimeMS || down.TimeMS < began.UnixMilli() || up.TimeMS > time.Now().UnixMilli() {
		t.Errorf("times %d and %d, the test began at %d", down.TimeMS, up.TimeMS, began.UnixMilli())
	}

	a, b := s.A.Hosts[0], s.B.Hosts[0]
	a.SetMAC(hostLink, macA)
	b.SetMAC(hostLink, macB)
	ping(t, a.Namespace, b.Addr4, outageWait)
	for _, host := range []struct{ mac, port string }{{macA.String(), "local"}, {macB.String(), "b"}} {
		waitEvent(t, all, recvWait, host.mac+" is learned at "+host.port, func(e anEvent) bool {
			return e.Kind == "mac" && e.Event == "learned" && e.MAC == host.mac && e.Port == host.port && e.TimeMS >= up.TimeMS
		})
	}

	for _, want := range []string{" link  down b: ", " link  up b " + up.Addr + "\n", " mac   deleted 02:77:00:00:00:99 port local\n"} {
		if !strings.Contains(people.Output(), want) {
			t.Errorf("for people there is no %q in\n%s", want, people.Output())
		}
	}
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		p := monitor(t, s.A, "mac")
		if err := p.End(sig); err != nil {
			t.Errorf("%v: %v", sig, err)
		}
	}
	if err := upA.Stop(); err != nil {
		t.Errorf("the daemon, with those who listen: %v", err)
	}
	for _, p := range []*lab.Process{quiet, people, all} {
		select {
		case <-p.Done():
		case <-time.After(recvWait):
			t.Fatal("it does not end with the daemon")
		}
		if code := lab.ExitCode(p.Err()); code != 3 || !strings.Contains(p.Output(), "has ended") {
			t.Errorf("it ended with %d: %s", code, p.Output())
		}
	}
	if out := quiet.Output(); strings.Count(out, "\n") != 1 {
		t.Errorf("of what did not happen: %s", out)
	}
	if _, err := s.A.CLI("monitor"); lab.ExitCode(err) != 3 {
		t.Errorf("no daemon: %v", err)
	}
}
