// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"time"

	"github.com/l2bridge/l2bridge/internal/event"
	"github.com/l2bridge/l2bridge/internal/hook"
	"github.com/l2bridge/l2bridge/transport"
)

// hookStop is what all hooks together get when the site stops, out of the 2 s in
// which it is to be gone.
const hookStop = time.Second

func (s *site) newHooks() *hook.Runner {
	return hook.New(hook.Config{
		Up: s.cfg.OnUp, Down: s.cfg.OnDown,
		Name: s.cfg.Name, TAP: s.cfg.TAP, Bridge: s.cfg.Bridge,
		Log: s.log,
	})
}

// runHook has the hook run if a peer has come up, directly or by way of another
// site, or has gone down. It does not block.
func (s *site) runHook(e transport.Event, out event.Event) {
	switch e.Kind {
	case transport.EventUp, transport.EventRelayed, transport.EventDown:
		s.hooks.Note(hook.Change{
			Up: e.Kind != transport.EventDown, ID: out.ID, Peer: out.Site, Addr: out.Addr, Via: out.Via, Site: s.member().Site,
		})
	}
}
