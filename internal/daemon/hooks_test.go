// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"bytes"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/l2bridge/l2bridge/internal/config"
	"github.com/l2bridge/l2bridge/transport"
	"github.com/l2bridge/l2bridge/transport/identity"
)

// A peer that comes, by whatever way, has on_up run, one that goes on_down, and
// what happens between runs nothing.
func TestHooks(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	s := &site{
		safety: newSafety(new(identity.Member)),
		log:    slog.New(slog.NewTextHandler(&log, nil)),
		cfg: config.Config{
			Paths: config.Paths{Name: "lab"}, TAP: "l2b-lab", Bridge: "br1",
			OnUp:   []string{"/bin/sh", "-c", "env | grep ^L2BRIDGE_ | sort | cut -d= -f2 | tr '\\n' /"},
			OnDown: []string{"/bin/echo", "is down"},
		},
	}
	s.now.Store(&identity.Member{Site: "home"})
	s.hooks = s.newHooks()
	peer := func(kind transport.EventKind, site string) transport.Event {
		return transport.Event{Kind: kind, Site: site, ID: identity.ID{site[0]}}
	}
	up, relayed := peer(transport.EventUp, "office"), peer(transport.EventRelayed, "attic")
	up.Addr, relayed.Via = netip.MustParseAddrPort("203.0.113.7:4433"), "office"
	for _, e := range []transport.Event{
		up, peer(transport.EventSuspect, "office"), peer(transport.EventHeard, "office"), peer(transport.EventMoved, "office"),
		peer(transport.EventNarrow, "office"), peer(transport.EventTwice, "office"), relayed, peer(transport.EventUp, "attic"),
		peer(transport.EventDown, "shed"),
	} {
		s.peerEvent(e)
	}
	s.hooks.Close(time.Minute)
	text := log.String()
	if n := strings.Count(text, `msg="hook done"`); n != 2 {
		t.Errorf("%d hooks ran, want 2:\n%s", n, text)
	}
	zeros := strings.Repeat("0", 62)
	for _, want := range []string{ // address, bridge, event, id, name, peer, site, tap, via
		"output=203.0.113.7:4433/br1/up/6f" + zeros + "/lab/office/home/l2b-lab//\n",
		"output=/br1/up/61" + zeros + "/lab/attic/home/l2b-lab/office/\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}

	log.Reset()
	s.hooks = s.newHooks()
	s.now.Store(&identity.Member{Site: "chalet"}) // as rekey does
	s.peerEvent(up)
	s.hooks.Close(time.Minute)
	if want := "/lab/office/chalet/l2b-lab/"; !strings.Contains(log.String(), want) {
		t.Errorf("no %q after a change of the name in\n%s", want, &log)
	}
	s.hooks = s.newHooks()
	s.peerEvent(relayed)
	s.peerEvent(peer(transport.EventDown, "attic"))
	s.hooks.Close(time.Minute)
	if !strings.Contains(log.String(), `hook=/bin/echo event=down peer=attic`) || !strings.Contains(log.String(), `output="is down"`) {
		t.Errorf("no hook for one that goes:\n%s", &log)
	}
}
