// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"github.com/l2bridge/l2bridge/internal/frame"
	"github.com/l2bridge/l2bridge/transport/wire"
)

// A member that we have no session with, or none that answers, is reached by way
// of a peer that says that it has one. Each side chooses for what it sends. The
// relay passes frames on to one member, by name, and floods nothing; so a frame
// goes over two hops at most, and a mesh has no loops.

// answers reports whether the member is reached directly at present.
func (p *Peer) answers() bool {
	s := p.session.Load()
	return s != nil && !s.suspect.Load()
}

// reachable reports whether frames for the member go anywhere.
func (p *Peer) reachable() bool { return p.session.Load() != nil || p.relay.Load() != nil }

// reroute gives every member that does not answer a relay, if there is one, and
// takes it from those that do. A relay stays until it is none any more.
func (m *Mesh) reroute() {
	var events []Event
	m.mu.Lock()
	for _, p := range m.peers {
		old := p.relay.Load()
		relay := m.relayLocked(p, old)
		if relay == old {
			continue
		}
		p.relay.Store(relay)
		switch {
		case relay != nil && !p.served:
			m.attachLocked(p)
		case relay != nil:
			events = append(events, p.event(EventRelayed))
		case p.answers():
			events = append(events, p.event(EventUp))
			m.cfg.Log.Info("peer reached directly again", "peer", p, "addr", p.addr())
		}
		if !p.reachable() {
			p.leaves()
		}
	}
	m.mu.Unlock()
	for _, e := range events {
		m.event(e)
	}
}

// relayLocked returns by way of whom to reach a member, nil for directly or not
// at all. It is the one that is nearest to us, but no change without need.
func (m *Mesh) relayLocked(p, old *Peer) (best *Peer) {
	const needs = wire.FeatureVia
	if p.answers() || wire.Features(p.takes.Load())&needs == 0 {
		return nil
	}
	id := short(p.id)
	able := func(r *Peer) bool {
		return r != p && r.answers() && r.session.Load().control.hello.Features&wire.FeatureRelay != 0 && r.linksTo(id)
	}
	if old != nil && able(old) {
		return old
	}
	for _, r := range m.peers {
		if able(r) && (best == nil || r.roundTrip() < best.roundTrip()) {
			best = r
		}
	}
	return best
}

// relayed takes an object that a peer relays to us, or that we are to relay for
// it. What nobody has asked for is dropped and counted: a member passes for
// another only while that has no session with us and the sender has one with it.
func (s *session) relayed(r wire.Relayed, b *frame.Buf) {
	m := s.mesh
	one := [1]*frame.Buf{b}
	if wire.ShortID(r.Destination) == short(m.cfg.Member.ID) {
		if from := m.byShort(r.Source); from != nil && from != s.peer && !from.answers() && s.peer.linksTo(r.Source) {
			from.deliver(one[:])
			return
		}
	} else if wire.ShortID(r.Source) == short(s.id) {
		if to := m.byShort(r.Destination); to != nil && to != s.peer {
			if out := to.session.Load(); out != nil && out.control.hello.Features&wire.FeatureVia != 0 {
				to.push(one[:], s.ticket(r), out.control.hello.Features)
				return
			}
		}
	}
	s.peer.drops[wire.Relay].Add(uint64(frame.Segments(b.Header(), b.Bytes())))
}

// ticket returns r in memory that lasts: one for each member that the peer sends
// to by way of us.
func (s *session) ticket(r wire.Relayed) *wire.Relayed {
	if t, ok := s.tickets.Load(r.Destination); ok {
		return t.(*wire.Relayed)
	}
	t, _ := s.tickets.LoadOrStore(r.Destination, &r)
	return t.(*wire.Relayed)
}
