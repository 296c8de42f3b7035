// SPDX-License-Identifier: Apache-2.0

//go:build linux

package test_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/l2bridge/l2bridge/test/lab"
)

const (
	mapWait = 15 * time.Second // for a router to be found, or asked again
	askWait = 6 * time.Second  // in which a router would have been asked
)

// waitMapped waits until a site says that its port is mapped so.
func waitMapped(t *testing.T, site *lab.Site, want string) {
	t.Helper()
	lab.Wait(t, mapWait, fmt.Sprintf("site %s has mapping %q", site.Name, want), func() error {
		status, err := site.Status()
		if err == nil && status.PortMapping != want {
			err = fmt.Errorf("port_mapping %q, hints %q", status.PortMapping, status.Hints)
		}
		return err
	})
}

// waitSees waits until a site sees another so.
func waitSees(t *testing.T, site, other *lab.Site, want string) {
	t.Helper()
	lab.Wait(t, 30*time.Second, fmt.Sprintf("site %s sees %s %s", site.Name, other.Name, want), func() error {
		peers, err := site.Peers()
		if err != nil {
			return err
		}
		for _, p := range peers {
			if p.Site == other.Name && p.State == want {
				return nil
			}
		}
		return fmt.Errorf("peers %+v", peers)
	})
}

// Two sites behind routers that give each flow another port reach each other by way
// of a third, until the router of one forwards its port.
//
//	a -- router --+
//	              WAN -- vps
//	b -- router --+
func TestRouterForwards(t *testing.T) {
	s := lab.TwoSites(t, lab.Options{})
	vps := s.Third(lab.Options{})
	router := s.PutBehind(s.A)
	s.PutBehind(s.B)
	mapper := router.Mapper(lab.NATPMP)

	vps.Init(bare()...)
	vps.Up()
	upB := s.B.Join(vps.Invite("b"), bare()...)
	upA := s.A.Join(vps.Invite("a"), bare("--port-mapping", "off")...)
	waitSees(t, s.A, s.B, "relayed")
	waitSees(t, s.B, s.A, "relayed")
	if strings.Contains(mapper.Output(), "request received") || strings.Contains(router.Forwards(), "dnat") {
		t.Errorf("asked in spite of port_mapping off:\n%s", mapper.Output())
	}
	if err := upA.Stop(); err != nil {
		t.Fatal(err)
	}

	// That one is to be found by multicast.
	router.Filter("input", "drop", "ip daddr "+router.Inside+" udp dport 1900")
	for _, tt := range []struct {
		by      string
		options []string
	}{
		{"nat-pmp", []string{lab.NATPMP}},
		{"upnp", nil},
		{"upnp", []string{"force_igd_desc_v1=yes"}},
	} {
		mapper.Stop()
		mapper = router.Mapper(tt.options...)
		upA = s.A.Up("--port-mapping", "auto")
		waitMapped(t, s.A, fmt.Sprintf("%s %s:4433 router %s", tt.by, router.Outside, router.Inside))
		upA.WaitOutput(recvWait, `msg="port mapped"`)
		waitSees(t, s.B, s.A, "up")
		waitSees(t, s.A, s.B, "up")
		if text := s.A.MustCLI("status"); !strings.Contains(text, "\nport mapping "+tt.by+" ") {
			t.Errorf("status has no mapping:\n%s", text)
		}
		if rules := router.Forwards(); !strings.Contains(rules, "dnat ip to "+s.A.Addr4+":4433") {
			t.Errorf("the router does not forward:\n%s", rules)
		}
		begin := time.Now()
		if err := upA.Stop(); err != nil || time.Since(begin) > 2*time.Second {
			t.Errorf("the stop took %v: %v", time.Since(begin), err)
		}
		if rules := router.Forwards(); strings.Contains(rules, "dnat") {
			t.Errorf("the router still forwards after the stop:\n%s", rules)
		}
	}
	alive(t, upB)
}

// A site behind a router can found a network, if that forwards its port: the token
// names the address outside. A router that is restarted is asked again when its link
// comes back.
func TestFounderBehindRouter(t *testing.T) {
	s := lab.TwoSites(t, lab.Options{})
	router := s.PutBehind(s.A)
	s.PutBehind(s.B)
	mapper := router.Mapper(lab.NATPMP)
	s.A.Init(bare()...)
	upA := s.A.Up()
	want := fmt.Sprintf("nat-pmp %s:4433 router %s", router.Outside, router.Inside)
	waitMapped(t, s.A, want)
	upB := s.B.Join(s.A.Invite("b"), bare()...)
	s.A.WaitUp(1)
	s.B.WaitUp(1)

	mapper.Stop()
	router.MustRun("nft", "flush", "chain", "inet", "filter", "prerouting_miniupnpd")
	router.SetDown("lan0")
	waitMapped(t, s.A, "")
	router.SetUp("lan0")
	router.Mapper(lab.NATPMP)
	s.A.Gateway.MustRun("ip", "route", "replace", "default", "via", router.Inside)
	waitMapped(t, s.A, want)
	s.A.WaitUp(1)
	alive(t, upA, upB)
}

// Where the default route leads into the bridge the router there is asked, unless it
// is at the other site.
//
//	a --- WAN --- router --- b
//	|                        |
//	br0 -- host a1     br0 --+-- host b1      each of the hosts is a router
func TestRouterBehindBridge(t *testing.T) {
	s := lab.TwoSites(t, lab.Options{Hosts: 1})
	s.PutBehind(s.B)
	far, near := s.A.Hosts[0], s.B.Hosts[0]
	farMapper := far.HostRouter("eth0", lab.NATPMP)
	nearMapper := near.HostRouter("eth0")
	upA, upB := lab.Link(s.A, s.B, []string{"--advertise", s.A.Addr4 + ":4433"}, nil)

	gw := s.B.Gateway
	gw.AddAddr(lab.BridgeName, "10.77.0.100/24")
	gw.AddRoute("198.18.0.0/15", "192.168.2.1")
	gw.MustRun("ip", "route", "replace", "default", "via", far.Addr4)
	time.Sleep(askWait)
	if status, err := s.B.Status(); err != nil || status.PortMapping != "" {
		t.Errorf("mapping %q, %v", status.PortMapping, err)
	}
	quiet := func(p *lab.Process, who string) {
		t.Helper()
		for _, sign := range []string{"request received", "M-SEARCH from", "HTTP REQUEST"} {
			if strings.Contains(p.Output(), sign) {
				t.Errorf("the router at %s was asked:\n%s", who, p.Output())
			}
		}
	}
	quiet(farMapper, "the other site")
	quiet(nearMapper, "this site, which the route does not lead to,")
	ping(t, gw, far.Addr4, recvWait) // it is there

	gw.MustRun("ip", "route", "replace", "default", "via", near.Addr4)
	waitMapped(t, s.B, fmt.Sprintf("upnp 11.0.9.2:4433 router %s", near.Addr4))
	quiet(farMapper, "the other site")
	alive(t, upA, upB)
}
