// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"bytes"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/l2bridge/l2bridge/bridge"
	"github.com/l2bridge/l2bridge/bridge/guard"
	"github.com/l2bridge/l2bridge/internal/event"
	"github.com/l2bridge/l2bridge/transport/identity"
)

// newGuarded returns a site of which only the guard's voice is there.
func newGuarded(t *testing.T) (s *site, log *bytes.Buffer, listener *event.Subscription) {
	t.Helper()
	log = new(bytes.Buffer)
	s = &site{log: slog.New(slog.NewTextHandler(log, nil)), safety: newSafety(&identity.Member{Network: "net"})}
	s.cfg.Bridge = "br0"
	listener, err := s.events.Subscribe(event.Loop, event.Guard)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(listener.Close)
	return s, log, listener
}

// What becomes of a loop is told to listeners and in the log, with a hint as long
// as it lasts.
func TestLoopIsTold(t *testing.T) {
	t.Parallel()
	s, log, listener := newGuarded(t)
	var was guard.Verdict
	for _, tt := range []struct {
		now  guard.Verdict
		what string
		site string
		log  string
		hint string // its beginning
	}{
		{guard.Verdict{Cut: true, Joined: []string{"attic", "cabin"}, Lowest: "attic"}, "cut", "attic cabin",
			`level=WARN msg="loop cut" joined="[attic cabin]" own=false`,
			"loop: this LAN is joined with that of attic, cabin outside of the tunnel, so it is cut off from the tunnel here and reached by way of site attic: "},
		{guard.Verdict{Joined: []string{"cabin"}}, "healed", "attic cabin",
			`level=INFO msg="loop healed" joined=[cabin]`,
			"loop: this LAN is joined with that of cabin outside of the tunnel, so that is cut off"},
		{guard.Verdict{}, "gone", "cabin", `level=INFO msg="loop is gone"`, ""},
		{guard.Verdict{Joined: []string{"cabin"}}, "seen", "cabin", `level=WARN msg="loop, cut by the other site" joined=[cabin]`, "loop: "},
		{guard.Verdict{Cut: true, Own: true}, "cut", "", `level=WARN msg="loop cut" joined=[] own=true`, "loop: a probe of ours came back"},
		{guard.Verdict{}, "healed", "", `level=INFO msg="loop healed" joined=[]`, ""},
	} {
		log.Reset()
		s.loopChanged(was, tt.now)
		was = tt.now
		if got := log.String(); !strings.Contains(got, tt.log) {
			t.Errorf("log %q, want %q", got, tt.log)
		}
		hint := s.loopHint(tt.now)
		if !strings.HasPrefix(hint, tt.hint) || (tt.hint == "") != (hint == "") {
			t.Errorf("%s: hint %q, want %q", tt.what, hint, tt.hint)
		}
		want := event.Event{Kind: event.Loop, What: tt.what, Site: tt.site, Port: "local"}
		got := take(t, listener, 1)[0]
		if got.Reason != "" && got.Reason != hint {
			t.Errorf("%s: reason %q", tt.what, got.Reason)
		}
		got.Reason = ""
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("event (-want +got):\n%s", diff)
		}
	}
}

func TestStormIsTold(t *testing.T) {
	t.Parallel()
	s, log, listener := newGuarded(t)
	for _, tt := range []struct {
		storm bridge.Policed
		log   string
		hint  string // a part of it
	}{
		{bridge.Policed{Port: "local", Classes: []guard.Class{guard.Broadcast, guard.UnknownUnicast}},
			`level=WARN msg="storm capped" port=local classes="broadcast, unknown unicast"`, "-eni br0"},
		{bridge.Policed{Port: "cabin", Classes: []guard.Class{guard.Multicast}},
			`level=WARN msg="storm capped" port=cabin classes=multicast`, "storm from site cabin"},
	} {
		log.Reset()
		s.stormBegins(tt.storm)
		if got := log.String(); !strings.Contains(got, tt.log) {
			t.Errorf("log %q, want %q", got, tt.log)
		}
		e := take(t, listener, 1)[0]
		if e.Kind != event.Guard || e.What != "storm" || e.Port != tt.storm.Port || !strings.Contains(e.Reason, tt.hint) {
			t.Errorf("event %+v", e)
		}
	}
	for range 100 { // that come and go
		s.stormBegins(bridge.Policed{Port: "cabin", Classes: []guard.Class{guard.Multicast}})
	}
	if n := strings.Count(log.String(), "storm capped"); n > stormLines {
		t.Errorf("%d lines at once, want %d at most", n, stormLines)
	}
}

// Servers at two sites are told of once, and again when an hour has passed.
func TestRivalsAreTold(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, log, listener := newGuarded(t)
		answers := func() {
			for i, port := range []string{"local", "cabin"} {
				s.safety.servers.Heard(port, i == 0, routerAdvertisement(byte(i+1)))
			}
		}
		const names = "fe80::2 (02:00:00:00:00:02) at site cabin, fe80::1 (02:00:00:00:00:01) on this LAN"
		s.lookForRivals()
		for range 2 {
			log.Reset()
			for range 3 {
				answers()
				s.lookForRivals()
				time.Sleep(15 * time.Minute) // and they are forgotten
				s.lookForRivals()
			}
			if want := `level=WARN msg="ipv6 routers at two sites" routers="` + names; strings.Count(log.String(), want) != 1 {
				t.Errorf("log %q, want %q once", log, want)
			}
			e, err := listener.Next(t.Context())
			if err != nil || e.Kind != event.Guard || e.What != "router" || !strings.Contains(e.Reason, names) {
				t.Errorf("event %+v, %v", e, err)
			}
			time.Sleep(15 * time.Minute)
		}
	})
	s, log, listener := newGuarded(t)
	rivals := []guard.Server{{Port: "local", Addr: netip.MustParseAddr("10.77.0.1")}, {Port: "cabin", Addr: netip.MustParseAddr("10.77.0.2")}}
	s.rivalsFound(guard.DHCP, rivals)
	if want := `msg="dhcp servers at two sites" servers="10.77.0.1 on this LAN, 10.77.0.2 at site cabin"`; !strings.Contains(log.String(), want) {
		t.Errorf("log %q, want %q", log, want)
	}
	if e := take(t, listener, 1)[0]; e.What != "dhcp" || !strings.HasPrefix(e.Reason, "DHCP servers answer at two sites: 10.77.0.1 on this LAN") {
		t.Errorf("event %+v", e)
	}
}

// routerAdvertisement returns one of the n-th router.
func routerAdvertisement(n byte) []byte {
	f := []byte{0x33, 0x33, 0, 0, 0, 1, 2, 0, 0, 0, 0, n, 0x86, 0xdd, 0x60, 0, 0, 0, 0, 16, 58, 255, 0xfe, 0x80}
	f = append(f, make([]byte, 13)...)
	f = append(append(f, n), netip.MustParseAddr("ff02::1").AsSlice()...)
	f = append(f, 134, 0, 0, 0, 64, 0, 7, 8)
	return append(f, make([]byte, 8)...)
}
