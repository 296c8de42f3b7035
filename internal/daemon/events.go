// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"time"

	"github.com/l2bridge/l2bridge/fdb"
	"github.com/l2bridge/l2bridge/internal/control"
	"github.com/l2bridge/l2bridge/internal/event"
	"github.com/l2bridge/l2bridge/transport"
)

var _ control.Backend = backend{}

// Events implements control.Backend.
func (b backend) Events(kinds ...event.Kind) (*event.Subscription, error) {
	return b.s.events.Subscribe(kinds...)
}

// peerEvent passes on what has happened to a peer. It does not block.
func (s *site) peerEvent(e transport.Event) {
	out := event.Event{
		Kind: event.Link, What: string(e.Kind), Site: e.Site, ID: e.ID.String(), Via: e.Via, Reason: e.Reason,
	}
	switch e.Kind {
	case transport.EventNarrow:
		out.Kind = event.MTU
	case transport.EventAsks, transport.EventApproved, transport.EventDenied:
		out.Kind = event.Join
	}
	if e.Addr.IsValid() {
		out.Addr = e.Addr.String()
	}
	s.logPeer(e, out.Addr)
	s.events.Publish(out)
	s.runHook(e, out)
	s.peersChanged()
}

// logPeer puts an event in the log. That a peer is up or down or out, or somebody asks to
// join, package transport says itself.
func (s *site) logPeer(e transport.Event, addr string) {
	switch e.Kind {
	case transport.EventUp, transport.EventDown, transport.EventAsks, transport.EventApproved, transport.EventDenied, transport.EventRevoked:
		return
	}
	ok, skipped := s.peerLines.take(e.ID, time.Now())
	if !ok {
		return
	}
	log := s.log
	if skipped > 0 {
		log = log.With("skipped", skipped)
	}
	switch e.Kind {
	case transport.EventRelayed:
		log.Info("peer relayed", "peer", e.Site, "via", e.Via, "reason", e.Reason)
	case transport.EventSuspect:
		log.Info("peer suspect", "peer", e.Site, "addr", addr, "reason", e.Reason)
	case transport.EventHeard:
		log.Info("peer heard again", "peer", e.Site, "addr", addr)
	case transport.EventMoved:
		log.Info("peer moved", "peer", e.Site, "addr", addr)
	case transport.EventNarrow:
		log.Info("path narrower", "peer", e.Site, "addr", addr, "reason", e.Reason)
	case transport.EventTwice:
		log.Warn("identity used twice", "peer", e.Site, "id", e.ID, "addr", addr, "reason", e.Reason)
	}
}

// stationChanged passes on what has happened to a station. It is on the way of
// a frame, so while nobody listens it does nothing.
func (s *site) stationChanged(c fdb.Change) {
	if !s.events.Wants(event.MAC) {
		return
	}
	s.events.Publish(event.Event{
		Kind: event.MAC, What: c.Kind.String(), MAC: c.Station.MAC().String(), VLAN: c.Station.VLAN(),
		Port: s.sw.PortName(c.Port), From: s.sw.PortName(c.From),
	})
}
