// SPDX-License-Identifier: Apache-2.0

//go:build linux

package test_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/l2bridge/l2bridge/test/lab"
)

// A site that wants no superframes gets none and misses nothing.
func TestWithoutSuperframes(t *testing.T) {
	off := []string{"--superframes", "off"}
	for _, tt := range []struct {
		name           string
		flagsA, flagsB []string
	}{
		{"at one site", nil, off},
		{"at both", off, off},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := lab.TwoSites(t, lab.Options{Hosts: 1})
			lab.Link(s.A, s.B, append([]string{"--advertise", s.A.Addr4 + ":4433"}, tt.flagsA...), tt.flagsB)
			a, b := s.A.Hosts[0], s.B.Hosts[0]
			transfer(t, a, b)
			transfer(t, b, a)
		})
	}
}

// transfer sends some megabytes over TCP and wants the same to arrive.
func transfer(t *testing.T, from, to *lab.Host) {
	t.Helper()
	const length = 16 << 20
	near, far := connect(t, from, to)
	var seed [32]byte
	binary.BigEndian.PutUint64(seed[:], rand.Uint64())
	sent, received := sha256.New(), sha256.New()
	deadline := time.Now().Add(30 * time.Second)
	near.SetDeadline(deadline)
	far.SetDeadline(deadline)
	var g errgroup.Group
	g.Go(func() error {
		defer near.Close()
		_, err := io.CopyN(io.MultiWriter(near, sent), rand.NewChaCha8(seed), length)
		return err
	})
	g.Go(func() error {
		_, err := io.Copy(received, far)
		return err
	})
	if err := g.Wait(); err != nil {
		t.Fatalf("%s to %s: %v", from.Name, to.Name, err)
	}
	if !bytes.Equal(sent.Sum(nil), received.Sum(nil)) {
		t.Errorf("%s to %s: %d bytes arrived altered", from.Name, to.Name, length)
	}
}

// What may cross of the reserved addresses is what the mask says.
func TestForwardReserved(t *testing.T) {
	s := lab.TwoSites(t, lab.Options{})
	link(t, s, "--forward-reserved", "0x4000")
	a, b := bareHost(s, s.A), bareHost(s, s.B)
	before := drops(t, s)
	bpdu := ether(reserved(0x00), macA, 0x0026, []byte{0x42, 0x42, 0x03}, zeros(43))
	lldp := ether(reserved(0x0e), macA, 0x88cc, ramp(46))
	for _, frame := range [][]byte{bpdu, lldp} {
		if err := a.out.Send(frame); err != nil {
			t.Fatal(err)
		}
	}
	b.in.Next(recvWait, "LLDP", func(got []byte) bool {
		if bytes.Equal(got, bpdu) {
			t.Error("a BPDU crossed")
		}
		return bytes.Equal(got, lldp)
	})
	if rise := dropped(before, drops(t, s)); rise["reserved"] != 1 {
		t.Errorf("drops counted: %v, want the BPDU under reserved", rise)
	}
}

// The TAP has a carrier while there is a peer, and keeps it for a while after:
// a bridge with spanning tree would need as long again to forward.
func TestCarrier(t *testing.T) {
	t.Parallel()
	const holds = 5 * time.Second // of the 30 s
	s := lab.TwoSites(t, lab.Options{Hosts: 1})
	gw := s.A.Gateway
	s.A.Init("--advertise", s.A.Addr4+":4433")
	upA := s.A.Up()
	if gw.HasCarrier(defaultTAP) {
		t.Error("a carrier without a peer")
	}
	upB := s.B.Join(s.A.Invite())
	s.A.WaitUp(1)
	lab.Wait(t, mendWait, "the TAP has a carrier", func() error {
		if !gw.HasCarrier(defaultTAP) {
			return fmt.Errorf("%s", gw.MustRun("ip", "link", "show", defaultTAP))
		}
		return nil
	})

	upB.Kill()
	lab.Wait(t, backWait, "the peer is lost", func() error {
		status, err := s.A.Status()
		if err == nil && status.State == "up" {
			err = fmt.Errorf("peers %+v", status.Peers)
		}
		return err
	})
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for end := time.After(holds); ; {
		if !gw.HasCarrier(defaultTAP) {
			t.Fatal("the carrier fell with the peer")
		}
		select {
		case <-tick.C:
			continue
		case <-end:
		}
		break
	}

	if err := upA.Stop(); err != nil {
		t.Fatal(err)
	}
	s.A.Up("--carrier", "on")
	if !gw.HasCarrier(defaultTAP) {
		t.Error("no carrier though it is to be on")
	}
}

// status says what is amiss and which command mends it, until it is mended.
func TestHints(t *testing.T) {
	s := lab.TwoSites(t, lab.Options{})
	lab.Link(s.A, s.B, []string{"--advertise", s.A.Addr4 + ":4433"}, []string{"--mtu", "1400"})
	const noLAN = "ip link set NIC master " + lab.BridgeName
	wantHint(t, s.A, noLAN)
	wantHint(t, s.A, "site b has MTU 1400, this one 1500")
	wantHint(t, s.B, noLAN)
	wantHint(t, s.B, "site a has MTU 1500, this one 1400")

	gw := s.A.Gateway
	lab.Connect(gw, "nic", s.Namespace("host"), hostLink, 1500)
	gw.SetMaster("nic", lab.BridgeName)
	status, err := s.A.Status()
	if err != nil {
		t.Fatal(err)
	}
	if hasHint(status.Hints, noLAN) {
		t.Errorf("hints %q with a NIC in the bridge", status.Hints)
	}
}

// wantHint wants a hint from status, for people and for programs.
func wantHint(t *testing.T, site *lab.Site, want string) {
	t.Helper()
	status, err := site.Status()
	if err != nil {
		t.Fatal(err)
	}
	if !hasHint(status.Hints, want) {
		t.Errorf("site %s: hints %q, want %q", site.Name, status.Hints, want)
	}
	if out := site.MustCLI("status"); !hasHint(strings.Split(out, "\nhint: ")[1:], want) {
		t.Errorf("site %s: no hint %q in\n%s", site.Name, want, out)
	}
}

func hasHint(hints []string, want string) bool {
	return slices.ContainsFunc(hints, func(hint string) bool { return strings.Contains(hint, want) })
}
