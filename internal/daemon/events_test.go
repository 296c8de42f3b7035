// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"bytes"
	"context"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/l2bridge/l2bridge/bridge"
	"github.com/l2bridge/l2bridge/fdb"
	"github.com/l2bridge/l2bridge/internal/event"
	"github.com/l2bridge/l2bridge/internal/frame"
	"github.com/l2bridge/l2bridge/transport"
	"github.com/l2bridge/l2bridge/transport/identity"
)

// take returns the events that wait.
func take(t *testing.T, from *event.Subscription, n int) (all []event.Event) {
	t.Helper()
	for range n {
		e, err := from.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if off := time.Since(time.UnixMilli(e.TimeMS)); off < -time.Millisecond || off > time.Minute {
			t.Errorf("%+v happened %v ago", e, off)
		}
		e.TimeMS = 0
		all = append(all, e)
	}
	return all
}

// Whatever happens to a peer is told to listeners, and in the log by us or by
// package transport.
func TestPeerEvents(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	s := &site{log: slog.New(slog.NewTextHandler(&log, nil)), safety: newSafety(new(identity.Member))}
	s.now.Store(&identity.Member{})
	s.hooks = s.newHooks()
	defer s.hooks.Close(0)
	listener, err := s.events.Subscribe()
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	addr := netip.MustParseAddrPort("203.0.113.7:4433")
	id := identity.ID{0xab}
	hex := "ab" + strings.Repeat("0", 62)
	var want []event.Event
	for _, tt := range []struct {
		told transport.Event
		want event.Event
		log  string // a part of its line
	}{
		{transport.Event{Kind: transport.EventUp, Addr: addr}, event.Event{What: "up", Addr: addr.String()}, ""},
		{transport.Event{Kind: transport.EventRelayed, Via: "attic"}, event.Event{What: "relayed", Via: "attic"}, `level=INFO msg="peer relayed" peer=office via=attic`},
		{transport.Event{Kind: transport.EventSuspect, Addr: addr}, event.Event{What: "suspect", Addr: addr.String()}, `level=INFO msg="peer suspect" peer=office addr=203.0.113.7:4433`},
		{transport.Event{Kind: transport.EventHeard, Addr: addr}, event.Event{What: "heard", Addr: addr.String()}, `level=INFO msg="peer heard again" peer=office`},
		{transport.Event{Kind: transport.EventMoved, Addr: addr}, event.Event{What: "moved", Addr: addr.String()}, `level=INFO msg="peer moved" peer=office addr=203.0.113.7:4433`},
		{transport.Event{Kind: transport.EventNarrow, Addr: addr}, event.Event{Kind: event.MTU, What: "narrow", Addr: addr.String()}, `level=INFO msg="path narrower" peer=office`},
		{transport.Event{Kind: transport.EventTwice}, event.Event{What: "twice"}, `level=WARN msg="identity used twice" peer=office id=` + hex},
		{transport.Event{Kind: transport.EventDown, Reason: "goodbye"}, event.Event{What: "down", Reason: "goodbye"}, ""},
	} {
		log.Reset()
		tt.told.Site, tt.told.ID = "office", id
		s.peerEvent(tt.told)
		select {
		case <-s.safety.wake: // whoever keeps the LAN safe looks at it
		default:
			t.Errorf("%s: nobody looks at it", tt.told.Kind)
		}
		tt.want.Site, tt.want.ID = "office", hex
		if tt.want.Kind == 0 {
			tt.want.Kind = event.Link
		}
		want = append(want, tt.want)
		if got := log.String(); !strings.Contains(got, tt.log) || (tt.log == "") != (got == "") {
			t.Errorf("%s: log %q, want %q", tt.told.Kind, got, tt.log)
		}
	}
	if diff := cmp.Diff(want, take(t, listener, len(want))); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

// port is a port of the switch that says when it is attached.
type port struct {
	name     string
	attached chan bool
}

func (p port) Send([]*frame.Buf) {}
func (p port) String() string    { return p.name }

func (p port) Run(ctx context.Context, _ func([]*frame.Buf)) error {
	close(p.attached)
	<-ctx.Done()
	return nil
}

func TestStationEvents(t *testing.T) {
	t.Parallel()
	s := &site{}
	s.table = fdb.New(fdb.Config{Max: 16, Changed: s.stationChanged})
	s.sw = bridge.New(bridge.Config{Table: s.table})
	ctx, cancel := context.WithCancel(t.Context())
	var serving sync.WaitGroup
	for _, name := range []string{"local", "office"} {
		p := port{name, make(chan bool)}
		serving.Go(func() { s.sw.Serve(ctx, p, bridge.Local, 4) })
		<-p.attached
	}
	const local, office = fdb.Port(1), fdb.Port(2)
	station := frame.NewStation([]byte{0x52, 0x54, 0, 0, 0, 1}, 20)
	s.table.Learn(s.table.Now(), station, local) // nobody listens

	listener, err := s.events.Subscribe(event.MAC)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	s.table.Learn(s.table.Now(), station, office)
	s.table.Learn(s.table.Now(), station, office)
	s.sw.Delete(station)
	if err := s.sw.AddStatic(station, "local"); err != nil {
		t.Fatal(err)
	}
	cancel() // a port that goes takes its stations along without a word for each
	serving.Wait()
	s.events.Publish(event.Event{Kind: event.MAC, What: "last"})
	const mac = "52:54:00:00:00:01"
	want := []event.Event{
		{Kind: event.MAC, What: "moved", MAC: mac, VLAN: 20, Port: "office", From: "local"},
		{Kind: event.MAC, What: "deleted", MAC: mac, VLAN: 20, Port: "office"},
		{Kind: event.MAC, What: "added", MAC: mac, VLAN: 20, Port: "local"},
		{Kind: event.MAC, What: "last"},
	}
	if diff := cmp.Diff(want, take(t, listener, len(want))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
