// SPDX-License-Identifier: Apache-2.0

//go:build linux

package test_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/l2bridge/l2bridge/test/lab"
)

// A TAP that somebody deletes or takes out of its bridge is put back.
func TestTAPComesBack(t *testing.T) {
	s, up, _ := join(t, lab.Options{Hosts: 1})
	gw, a, b := s.A.Gateway, s.A.Hosts[0].Namespace, s.B.Hosts[0]
	ping(t, a, b.Addr4, recvWait)
	back := func() error {
		if !gw.HasLink(defaultTAP) {
			return errors.New("no TAP")
		}
		if master := gw.Master(defaultTAP); master != lab.BridgeName {
			return fmt.Errorf("its bridge is %q", master)
		}
		return nil
	}
	for _, harm := range []struct {
		name string
		do   func()
	}{
		{"deleted", func() { gw.Delete(defaultTAP) }},
		{"out of the bridge", func() { gw.SetMaster(defaultTAP, "") }},
	} {
		t.Run(harm.name, func(t *testing.T) {
			harm.do()
			lab.Wait(t, mendWait, "the TAP is a port of the bridge again", back)
			ping(t, a, b.Addr4, mendWait)
		})
	}
	// Another program that does it again and again does not fill the log.
	began := time.Now()
	const times = 30
	for range times {
		gw.SetMaster(defaultTAP, "")
		lab.Wait(t, mendWait, "the TAP is a port of the bridge again", back)
	}
	most := 8 * (2 + int(time.Since(began).Minutes())) // of the minute that had begun, too
	if n := strings.Count(up.Output(), "put back"); n == 0 || n > most {
		t.Errorf("%d lines for %d times, want at most %d", n, times, most)
	}
}

// A stop ends the program with status 0 and leaves no link, no route, no
// address and no socket of its own, and the bridge that was there before.
func TestStopLeavesNothing(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(sig.String(), func(t *testing.T) {
			s := lab.TwoSites(t, lab.Options{Hosts: 1})
			state := func() string {
				gw := s.A.Gateway
				return fmt.Sprintln(gw.Links(), gw.MustRun("ip", "-o", "address"), gw.MustRun("ip", "route", "show", "table", "all"),
					gw.Link(lab.BridgeName).Attrs().HardwareAddr, gw.Link(lab.BridgeName).Attrs().MTU)
			}
			before := state()
			upA, _ := lab.Link(s.A, s.B, nil, nil)
			ping(t, s.A.Hosts[0].Namespace, s.B.Hosts[0].Addr4, recvWait)
			if err := upA.End(sig); err != nil {
				t.Errorf("stop: %v", err)
			}
			if diff := cmp.Diff(before, state()); diff != "" {
				t.Errorf("gateway (-before +after):\n%s", diff)
			}
			wantNoSocket(t, s.A)
			if _, err := s.A.Status(); lab.ExitCode(err) != 3 {
				t.Errorf("status: %v, want exit status 3", err)
			}
			// The other side goes on without.
			lab.Wait(t, backWait, "site b knows", func() error {
				status, err := s.B.Status()
				if err == nil && status.State == "up" {
					err = fmt.Errorf("state %s", status.State)
				}
				return err
			})
		})
	}
}

// wantNoSocket wants neither the control socket nor the tunnel's.
func wantNoSocket(t *testing.T, site *lab.Site) {
	t.Helper()
	if _, err := os.Lstat(site.Socket()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("control socket: %v, want none", err)
	}
	site.Gateway.ListenUDP("[::]:4433").Close()
}

// What a kill leaves behind is taken over by the next start and goes with its
// stop.
func TestKilledLeavesNothing(t *testing.T) {
	s := lab.TwoSites(t, lab.Options{})
	gw := s.A.Gateway
	s.A.Init()
	before := gw.Links()

	s.A.Up().Kill()
	lab.Wait(t, mendWait, "the TAP is gone", func() error {
		if gw.HasLink(defaultTAP) {
			return errors.New("still there")
		}
		return nil
	})
	if _, err := os.Lstat(s.A.Socket()); err != nil || !gw.HasLink(lab.BridgeName) {
		t.Fatalf("nothing is left of a killed run: socket %v, links %v", err, gw.Links())
	}

	up := s.A.Up()
	if master := gw.Master(defaultTAP); master != lab.BridgeName {
		t.Errorf("the TAP's bridge is %q, want %s", master, lab.BridgeName)
	}
	if err := up.Stop(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, gw.Links()); diff != "" {
		t.Errorf("links (-before +after):\n%s", diff)
	}
	wantNoSocket(t, s.A)
}

// A bridge that was not there is made, and removed unless somebody has put
// something into it.
func TestOwnBridge(t *testing.T) {
	s := lab.TwoSites(t, lab.Options{})
	gw := s.A.Gateway
	s.A.Init()
	before := gw.Links()

	up := s.A.Up()
	if master := gw.Master(defaultTAP); master != lab.BridgeName {
		t.Errorf("the TAP's bridge is %q, want %s", master, lab.BridgeName)
	}
	if err := up.Stop(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, gw.Links()); diff != "" {
		t.Errorf("links (-before +after):\n%s", diff)
	}

	up = s.A.Up()
	lab.Connect(gw, "port", s.Namespace("host"), hostLink, 1500)
	gw.SetMaster("port", lab.BridgeName)
	if err := up.Stop(); err != nil {
		t.Fatal(err)
	}
	if !gw.HasLink(lab.BridgeName) {
		t.Error("the bridge is gone with somebody's port in it")
	}
	if gw.HasLink(defaultTAP) {
		t.Error("the TAP is still there")
	}
}
