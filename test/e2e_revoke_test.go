// SPDX-License-Identifier: Apache-2.0

//go:build linux

package test_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/l2bridge/l2bridge/test/lab"
)

const revokeWait = 2 * time.Second // until a site that was revoked is cut off

// calls has a host say a word to all, every 10 ms until the test ends, and returns
// its address.
func calls(t *testing.T, host *lab.Host) net.HardwareAddr {
	wire := host.Wire(hostLink)
	src := host.Link(hostLink).Attrs().HardwareAddr
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for number := uint32(0); ; number++ {
			select {
			case <-stop:
				return
			case <-time.After(10 * time.Millisecond):
			}
			if err := wire.Send(lab.Numbered{Dst: broadcast, Src: src, Number: number, Length: 60}.Bytes()); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	t.Cleanup(func() { close(stop); <-done })
	return src
}

// saidBy matches numbered frames of a source.
func saidBy(src net.HardwareAddr) func([]byte) bool {
	return func(frame []byte) bool { return lab.IsNumbered(frame) && bytes.Equal(frame[6:12], src) }
}

// silence expects nothing of a source, since w was drained and for a while more.
func silence(t *testing.T, w *lab.Wire, site string, src net.HardwareAddr, lasts time.Duration) {
	t.Helper()
	n := 0
	for frame := range arrivals(t, w, time.Now().Add(lasts)) {
		if saidBy(src)(frame) {
			n++
		}
	}
	if n > 0 {
		t.Errorf("%d frames of the one that was revoked came to site %s", n, site)
	}
}

// without returns nil when a site has no such peer.
func without(site *lab.Site, name string) error {
	peers, err := site.Peers()
	for _, p := range peers {
		if p.Site == name {
			err = errors.Join(err, fmt.Errorf("site %s has peer %+v", site.Name, p))
		}
	}
	return err
}

// A site that is revoked is cut off where it is connected, directly or by a relay,
// and is not let in by one that was away, nor after any restart.
func TestRevoke(t *testing.T) {
	t.Parallel()
	s, up := mesh(t, 4, lab.Options{Hosts: 1})
	a, b, c, d := s.All[0], s.All[1], s.All[2], s.All[3]
	// Site c reaches d by way of another only.
	s.WAN[0].Filter("forward", "drop",
		fmt.Sprintf("iifname %q oifname %q", c.Uplink, d.Uplink), fmt.Sprintf("iifname %q oifname %q", d.Uplink, c.Uplink))
	waitWay(t, d, "c", "relayed", meshWait)
	src := calls(t, c.Hosts[0])
	wires := make(map[*lab.Site]*lab.Wire)
	for _, site := range []*lab.Site{a, b, d} {
		wires[site] = site.Hosts[0].Wire(hostLink)
		wires[site].Next(recvWait, "frame of c at "+site.Name, saidBy(src))
	}
	up[b].Kill()

	for _, tt := range []struct {
		site *lab.Site
		name string
		exit int
		says string
	}{
		{d, "c", 4, `"a"`},
		{a, "a", 1, "ca export"},
		{a, "nobody", 1, "nobody"},
		{a, "c", 0, ""},
	} {
		began := time.Now()
		out, err := tt.site.CLI("revoke", tt.name)
		if lab.ExitCode(err) != tt.exit || !strings.Contains(fmt.Sprint(out, err), tt.says) {
			t.Fatalf("revoke %s at %s: %v\n%s", tt.name, tt.site.Name, err, out)
		}
		if tt.exit == 0 {
			for _, site := range []*lab.Site{a, d} {
				lab.Wait(t, revokeWait+slack, "c is cut off at "+site.Name, func() error { return without(site, "c") })
			}
			t.Logf("cut off after %v", time.Since(began))
		}
	}
	for _, site := range []*lab.Site{a, d} {
		wires[site].Drain()
		silence(t, wires[site], site.Name, src, time.Second/2)
		stations, err := site.Stations()
		for _, st := range stations {
			if err == nil && st.Port == "c" {
				err = fmt.Errorf("%+v", st)
			}
		}
		if err != nil {
			t.Errorf("stations of site %s: %v", site.Name, err)
		}
		up[site].WaitOutput(recvWait, "site is no member any more")
	}
	up[c].WaitOutput(recvWait, "this site is no member of the network any more")

	// The one that was away hears of it before it lets anybody in.
	wires[b].Drain()
	up[b] = b.Up()
	lab.Wait(t, meshWait, "b is back", func() error { return isWell(b, 2) })
	silence(t, wires[b], b.Name, src, time.Second)

	// Restarts change nothing.
	up[a].Kill()
	up[c].Kill()
	up[c] = c.Up()
	up[a] = a.Up()
	lab.Wait(t, meshWait, "a is back", func() error { return isWell(a, 2) })
	lab.Wait(t, meshWait, "c says why it is alone", func() error {
		status, err := c.Status()
		if err == nil && !strings.Contains(strings.Join(status.Hints, "\n"), "revoked") {
			err = fmt.Errorf("%q", status.Hints)
		}
		return err
	})
	for _, site := range []*lab.Site{a, b, d} {
		silence(t, wires[site], site.Name, src, time.Second/2)
		if err := without(site, "c"); err != nil {
			t.Error(err)
		}
	}
	if out, err := a.CLI("revoke", "c"); err != nil || !strings.Contains(out, "before") {
		t.Errorf("again: %v, %s", err, out)
	}
}

// A site that leaves is forgotten by the others, and can join again as a new one.
func TestLeave(t *testing.T) {
	t.Parallel()
	s, up := mesh(t, 3, lab.Options{})
	a, b, c := s.All[0], s.All[1], s.All[2]
	if out, err := a.CLI("leave"); lab.ExitCode(err) != 1 || !strings.Contains(fmt.Sprint(out, err), "ca export --move") {
		t.Errorf("the founder: %v, %s", err, out)
	}
	out := c.MustCLI("leave")
	if !strings.Contains(out, "2 of 2 sites have heard it") {
		t.Errorf("leave: %s", out)
	}
	select {
	case <-up[c].Done():
		if lab.ExitCode(up[c].Err()) != 4 { // so that systemd leaves it at that
			t.Errorf("the daemon ended with %v", up[c].Err())
		}
	case <-time.After(recvWait):
		t.Error("the daemon goes on")
	}
	left, err := os.ReadDir(filepath.Join(filepath.Dir(c.Socket()), "state"))
	if err == nil && len(left) > 0 || err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Errorf("left behind: %v, %v", left, err)
	}
	for _, site := range []*lab.Site{a, b} {
		lab.Wait(t, recvWait, "c is forgotten at "+site.Name, func() error { return without(site, "c") })
		lab.Wait(t, recvWait, "all is well at "+site.Name, func() error { return isWell(site, 1) })
		up[site].WaitOutput(recvWait, "site is no member any more")
	}
	if out := c.MustCLI("leave"); !strings.Contains(out, "no network") {
		t.Errorf("again: %s", out)
	}
	up[c] = c.Join(a.Invite("c"), bare()...)
	c.WaitUp(2)

	// Nobody is told by one that does not run.
	up[b].Stop()
	if out := b.MustCLI("leave"); !strings.Contains(out, `run "l2bridge revoke b" at site a`) {
		t.Errorf("leave without a daemon: %s", out)
	}
	a.MustCLI("revoke", "b")
	for _, site := range []*lab.Site{a, c} {
		lab.Wait(t, recvWait, "b is forgotten at "+site.Name, func() error { return without(site, "b") })
	}
}
