// SPDX-License-Identifier: Apache-2.0

package bridge

import (
	"github.com/l2bridge/l2bridge/bridge/guard"
	"github.com/l2bridge/l2bridge/fdb"
	"github.com/l2bridge/l2bridge/internal/frame"
)

// SetLoop says how this site's LAN stands with others. While it is joined with
// another site's, stations are asked after that frames of the LAN should not come
// here for. While it is cut off from the tunnel nothing passes either way, and
// nothing is learned, but probes are heard.
func (s *Switch) SetLoop(joined, cut bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	set := s.ports.Load().clone()
	set.joined, set.cut = joined, cut
	s.ports.Store(set)
}

// Send passes a frame that this gateway has made out by every port of a group,
// whether the LAN is cut off or not. The frame is borrowed.
func (s *Switch) Send(to Group, b *frame.Buf) {
	frames := []*frame.Buf{b}
	for _, out := range s.ports.Load().all {
		if out.group == to {
			out.Send(frames)
		}
	}
}

// takes hears a probe and reports whether it ends here. No probe of our network
// goes any further than to the next gateway.
func (s *Switch) takes(now fdb.Tick, in *port, f []byte) bool {
	loop := s.cfg.Loop
	if loop == nil {
		return false
	}
	p, err := guard.ParseProbe(f)
	switch {
	case err != nil: // of a version that is yet to come
	case loop.IsOthers(p):
		return false
	case in.group == Local:
		loop.Heard(p)
	case p.Kind == guard.KindFlush && loop.IsOurs(p):
		s.forget(now, in)
	}
	return true
}

// ask has the destination of a frame send something, when that came in from a
// LAN that is joined with another site's and should not have: a switch there
// believes the station to be behind the tunnel still. One that is asked has its
// answer seen by the switches between it and us. A station is asked once a
// second, and so are all those that share its place in the table.
func (s *Switch) ask(set *portSet, now fdb.Tick, in *port, dst frame.Station, f []byte) {
	if !set.joined || in.group != Local || dst.IsGroup() {
		return
	}
	const golden = 0x9e3779b97f4a7c15 // Fibonacci hashing
	place := &s.asked[uint64(dst)*golden>>58]
	last, this := place.Load(), uint32(now)+guard.TicksPerSecond
	if this-last < guard.TicksPerSecond || !place.CompareAndSwap(last, this) {
		return
	}
	if b := s.cfg.Loop.Question(f); b != nil {
		s.Send(Local, b)
		b.Release()
	}
}

// forget flushes what was learned behind a peer because it says so. A pass over
// the table is not cheap, so a peer gets ten a second.
func (s *Switch) forget(now fdb.Tick, in *port) {
	if s.cfg.Table.Count(in.id) > 0 && in.flushed.Swap(uint32(now)+1) != uint32(now)+1 {
		s.cfg.Table.Flush(in.id)
	}
}
