// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"net/netip"
	"time"

	"github.com/l2bridge/l2bridge/transport/identity"
)

// EventKind says what has happened between this site and another one.
type EventKind string

// What happens to a peer.
const (
	EventUp      EventKind = "up"      // frames pass, directly
	EventRelayed EventKind = "relayed" // frames pass, by way of a third site
	EventSuspect EventKind = "suspect" // nothing is heard of it; it is dialled anew
	EventHeard   EventKind = "heard"   // it is heard again after all
	EventDown    EventKind = "down"    // no frames pass any more
	EventMoved   EventKind = "moved"   // it has another address
	EventNarrow  EventKind = "narrow"  // the path to it takes smaller packets than before
	EventTwice   EventKind = "twice"   // two machines use its key
	EventRevoked EventKind = "revoked" // it is a member no more: put out, or gone for good
)

// What happens to a request to join.
const (
	EventAsks     EventKind = "asks"     // it waits for a person
	EventApproved EventKind = "approved" // the asker is a member
	EventDenied   EventKind = "denied"   // it is not
)

// Event is one thing that has happened.
type Event struct {
	Kind   EventKind
	Site   string // of the peer
	ID     identity.ID
	Addr   netip.AddrPort // of the peer; not valid when there is none
	Via    string         // site that relays, "" when direct
	Reason string         // why it is so, for people; "" when nothing is to be said
}

// tellAttached tells that frames pass to a peer from now on.
func (p *Peer) tellAttached() {
	p.telling.Lock()
	defer p.telling.Unlock()
	p.attached = true
	p.tellWayLocked("peer up")
}

// tellRerouted tells that there is another way to a peer, if frames pass to it still.
func (p *Peer) tellRerouted() {
	p.telling.Lock()
	defer p.telling.Unlock()
	if p.attached && (p.relay.Load() != nil || p.answers()) {
		p.tellWayLocked("peer reached directly again")
	}
}

// tellDetached tells that frames pass to a peer no more.
func (p *Peer) tellDetached() {
	p.telling.Lock()
	defer p.telling.Unlock()
	p.attached = false
	p.mesh.event(p.event(EventDown))
}

// tellWayLocked tells which way frames pass to a peer; that it is the direct one, to the
// log as well.
func (p *Peer) tellWayLocked(direct string) {
	e := p.event(EventUp)
	if e.Via != "" {
		e.Kind = EventRelayed
	} else if p.lines.try(time.Now(), 1) {
		p.mesh.cfg.Log.Info(direct, "peer", p, "addr", e.Addr)
	}
	p.mesh.event(e)
}

// event tells whoever wants to know.
func (m *Mesh) event(e Event) {
	if m.cfg.Event != nil {
		m.cfg.Event(e)
	}
}
