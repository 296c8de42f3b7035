// SPDX-License-Identifier: Apache-2.0

//go:build linux

package test_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/l2bridge/l2bridge/internal/control"
	"github.com/l2bridge/l2bridge/test/lab"
)

// measure runs l2bridge test at a site, and wants the exit code.
func measure(t *testing.T, site *lab.Site, code int, args ...string) (r control.TestReport) {
	t.Helper()
	out, err := site.CLI(append([]string{"test", "-j"}, args...)...)
	if got := lab.ExitCode(err); got != code {
		t.Fatalf("exit code %d, want %d: %v", got, code, err)
	}
	if out == "" {
		return r
	}
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	t.Logf("%s", out)
	return r
}

// What l2bridge test says of a line is what the line is, and the LANs do not
// notice it.
func TestMeasureLine(t *testing.T) {
	s := lab.TwoSites(t, lab.Options{Hosts: 1})
	link(t, s)
	before := drops(t, s)

	fast := measure(t, s.A, 0, "b", "--time", "1s")
	// How fast it is says nothing of a machine that does other things besides.
	if fast.Up.Mbits < 5 || fast.Down.Mbits < 5 || fast.Idle.Lost > 0 || fast.Idle.AvgUS > 500_000 {
		t.Errorf("on this machine: %+v", fast)
	}
	if fast.Sizes.Sent != 1501 || fast.Sizes.Received != 1501 || fast.Sizes.Least != 14 || fast.Sizes.Most != 1514 {
		t.Errorf("sizes: %+v", fast.Sizes)
	}
	for reason, n := range drops(t, s) {
		// Its own queue is how it finds the speed.
		if grown := n - before[reason]; grown > 0 && reason != "queue_delay" && reason != "queue_full" && reason != "socket_full" && reason != "unproven" {
			t.Errorf("%d dropped for %s", grown, reason)
		}
	}

	text := s.B.MustCLI("test", "a", "--time", "1s")
	if !strings.HasPrefix(text, "a at ") || !strings.Contains(text, "1501 sizes tried, 1501 pass") || !strings.Contains(text, "Mbit/s") {
		t.Errorf("for people:\n%s", text)
	}
	t.Logf("\n%s", text)
	transfer(t, s.A.Hosts[0], s.B.Hosts[0])

	if out, err := s.A.CLI("test", "nowhere"); lab.ExitCode(err) != 1 || !strings.Contains(err.Error()+out, "there are: b") {
		t.Errorf("a site that is not: %v %s", err, out)
	}
}

// Ctrl-C ends the command and the test at once.
func TestMeasureInterrupted(t *testing.T) {
	s := lab.TwoSites(t, lab.Options{})
	link(t, s)
	p := s.A.Start("test", "b", "--time", "30s")
	lab.Wait(t, 10*time.Second, "the test has put a load on the WAN", func() error {
		if sent := s.A.Gateway.Link(lab.WANLink).Attrs().Statistics.TxBytes; sent < 4<<20 {
			return fmt.Errorf("%d bytes sent", sent)
		}
		return nil
	})
	begin := time.Now()
	if err := p.End(syscall.SIGINT); lab.ExitCode(err) != 1 {
		t.Errorf("%v, want exit code 1", err)
	}
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("took %v to end", took)
	}
	lab.Wait(t, 2*time.Second, "the next test may begin", func() error {
		_, err := s.A.CLI("test", "b", "--time", "1s")
		return err
	})
}
