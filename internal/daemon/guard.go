// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/l2bridge/l2bridge/bridge"
	"github.com/l2bridge/l2bridge/internal/control"
)

// guardEvery is how often the guard looks.
const guardEvery = 500 * time.Millisecond

// safety is what the guard has found. It is the guard's own goroutine's.
type safety struct {
	storms []bridge.Policed
}

// keepSafe is the guard: it tells of storms, until ctx ends.
func (s *site) keepSafe(ctx context.Context) {
	tick := time.NewTicker(guardEvery)
	defer tick.Stop()
	for {
		s.lookForStorms()
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// lookForStorms tells of each port when a storm begins there.
func (s *site) lookForStorms() {
	now := s.sw.Policed()
	for _, p := range now {
		if !slices.ContainsFunc(s.safety.storms, func(q bridge.Policed) bool { return p.Port == q.Port }) {
			s.stormBegins(p)
		}
	}
	s.safety.storms = now
}

// stormBegins is called when frames of a port are dropped as a storm, and none
// were in the ten seconds before.
func (s *site) stormBegins(p bridge.Policed) {
	s.log.Warn("storm capped", "port", p.Port, "classes", classNames(p))
}

// guardHints says what the guard has found, and what to do.
func (s *site) guardHints() (hints []string) {
	for _, p := range s.sw.Policed() {
		hints = append(hints, s.stormHint(p))
	}
	return hints
}

func (s *site) stormHint(p bridge.Policed) string {
	if p.Port != control.LocalPort {
		return fmt.Sprintf("storm from site %s: it floods more %s than a LAN has, and the excess is dropped; look there for a loop or a broken device", p.Port, classNames(p))
	}
	return fmt.Sprintf("storm on this LAN: more %s than a LAN has, and the excess does not cross; look for a loop (a second cable) or a broken device: tcpdump -c 100 -eni %s, whose address comes again and again",
		classNames(p), cmp.Or(s.cfg.Bridge, s.cfg.TAP))
}

func classNames(p bridge.Policed) string {
	var names []string
	for _, c := range p.Classes {
		names = append(names, c.String())
	}
	return strings.Join(names, ", ")
}
