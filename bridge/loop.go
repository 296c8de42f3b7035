// SPDX-License-Identifier: Apache-2.0

package bridge

import (
	"github.com/l2bridge/l2bridge/bridge/guard"
	"github.com/l2bridge/l2bridge/fdb"
	"github.com/l2bridge/l2bridge/internal/frame"
)

// SetCut says whether this site's LAN is cut off from the tunnel: then nothing
// passes either way, and nothing is learned, but probes are heard.
func (s *Switch) SetCut(cut bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ports.Load().cut != cut {
		set := s.ports.Load().clone()
		set.cut = cut
		s.ports.Store(set)
	}
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

// forget flushes what was learned behind a peer because it says so. A pass over
// the table is not cheap, so a peer gets ten a second.
func (s *Switch) forget(now fdb.Tick, in *port) {
	if s.cfg.Table.Count(in.id) > 0 && in.flushed.Swap(uint32(now)+1) != uint32(now)+1 {
		s.cfg.Table.Flush(in.id)
	}
}
