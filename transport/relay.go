// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"cmp"
	"slices"
	"time"

	"github.com/l2bridge/l2bridge/internal/frame"
	"github.com/l2bridge/l2bridge/transport/egress"
	"github.com/l2bridge/l2bridge/transport/wire"
)

// A member that we have no session with, or none that answers, is reached by way
// of a peer that says that it has one. Each side chooses for what it sends. The
// relay passes frames on to one member, by name, and floods nothing; so a frame
// goes over two hops at most, and a mesh has no loops.

// answering returns the session by which the member is reached directly at present,
// or nil.
func (p *Peer) answering() *session {
	if s := p.session.Load(); s != nil && !s.suspect.Load() {
		return s
	}
	return nil
}

func (p *Peer) answers() bool { return p.answering() != nil }

// underway is how long after a session was made what went by a relay before may
// still come.
const underway = egress.MaxAge

// settled reports whether all that comes from the member comes directly: it has had
// no reason for a while to doubt that it can.
func (p *Peer) settled() bool {
	s := p.answering()
	return s != nil && time.Since(s.since) >= underway && s.control.steady()
}

// reachable reports whether frames for the member go anywhere.
func (p *Peer) reachable() bool { return p.session.Load() != nil || p.relay.Load() != nil }

// reroute gives every member that does not answer a relay, if there is one, and
// takes it from those that do.
func (m *Mesh) reroute() {
	var changed []*Peer
	m.mu.Lock()
	relays := m.relaysLocked()
	for _, p := range m.peers {
		old := p.relay.Load()
		relay := p.relayOfLocked(relays, old)
		if relay == old {
			continue
		}
		p.relay.Store(relay)
		p.rerouted = time.Now()
		if relay != nil && !p.served {
			m.attachLocked(p)
		} else {
			changed = append(changed, p)
		}
		if !p.reachable() {
			p.leaves()
		}
	}
	m.mu.Unlock()
	for _, p := range changed {
		p.tellRerouted()
	}
}

// relaysLocked returns the peers that relay, the nearest to us first.
func (m *Mesh) relaysLocked() (relays []*Peer) {
	for _, r := range m.peers {
		if s := r.answering(); s != nil && s.control.hello.Features&wire.FeatureRelay != 0 {
			relays = append(relays, r)
		}
	}
	slices.SortFunc(relays, func(a, b *Peer) int { return cmp.Compare(a.roundTrip(), b.roundTrip()) })
	return relays
}

// relayOfLocked returns by way of whom to reach the member, nil for directly or not at
// all. It is the one that is nearest to us, but no change without need. When one comes
// to doubt that the member is there, or that we are, or we that it is, and there is no
// other, it stays while it has its sessions: most doubts end as they came.
func (p *Peer) relayOfLocked(relays []*Peer, old *Peer) *Peer {
	const needs = wire.FeatureVia
	if p.answers() || p.hasLeftLocked() || p.isBarred(time.Now()) || wire.Features(p.takes.Load())&needs == 0 {
		return nil
	}
	us, it := short(p.mesh.cfg.Member.ID), short(p.id)
	able := func(r *Peer) bool { return r != p && r.linksTo(it) && r.linksTo(us) }
	if old != nil && slices.Contains(relays, old) && able(old) {
		return old
	}
	if i := slices.IndexFunc(relays, able); i >= 0 {
		return relays[i]
	}
	if old != nil && old.session.Load() != nil && (old.linksTo(it) || old.doubtsOf(it)) {
		return old
	}
	return nil
}

// relaying takes the relayed frames that a lane brings, and gathers those of a
// datagram that go the same way.
type relaying struct {
	s      *session
	l      *lane
	to     wire.Relayed
	frames []*frame.Buf

	tickets map[wire.ShortID]*wire.Relayed // of the members that the peer sends to by way of us
}

// add takes a frame, borrowed.
func (r *relaying) add(to wire.Relayed, b *frame.Buf) {
	if to != r.to {
		r.flush()
		r.to = to
	}
	r.frames = append(r.frames, b.Retain())
}

// flush passes on what has gathered.
func (r *relaying) flush() {
	if len(r.frames) == 0 {
		return
	}
	r.l.carried.Add(1)
	if !r.pass() {
		for _, b := range r.frames {
			r.s.peer.drops[wire.Relay].Add(uint64(frame.Segments(b.Header(), b.Bytes())))
		}
	}
	for i, b := range r.frames {
		b.Release()
		r.frames[i] = nil
	}
	r.frames = r.frames[:0]
}

// pass delivers frames to us, or relays them on, and reports false when neither is
// to be: a member passes for another only while that has no session with us by which
// answers come without a break, and if the sender has one with it, or had lately.
func (r *relaying) pass() bool {
	s, m := r.s, r.s.mesh
	if r.to.Destination == short(m.cfg.Member.ID) {
		from := m.byShort(r.to.Source)
		if from == nil || from == s.peer || from.settled() || from.isBarred(time.Now()) || !s.peer.linkedTo(r.to.Source, silence) {
			return false
		}
		from.deliver(r.frames)
		return true
	}
	to := m.byShort(r.to.Destination)
	if to == nil || to == s.peer || r.to.Source != short(s.id) {
		return false
	}
	out := to.session.Load()
	if out == nil || out.control.hello.Features&wire.FeatureVia == 0 {
		return false
	}
	t := r.tickets[r.to.Destination]
	if t == nil {
		t = &wire.Relayed{Destination: r.to.Destination, Source: r.to.Source}
		if r.tickets == nil {
			r.tickets = make(map[wire.ShortID]*wire.Relayed)
		}
		r.tickets[r.to.Destination] = t
	}
	to.push(r.frames, t, out.control.hello.Features)
	return true
}
