// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/l2bridge/l2bridge/bridge"
	"github.com/l2bridge/l2bridge/bridge/guard"
	"github.com/l2bridge/l2bridge/internal/control"
	"github.com/l2bridge/l2bridge/internal/event"
	"github.com/l2bridge/l2bridge/internal/tap"
	"github.com/l2bridge/l2bridge/transport/identity"
)

const (
	// flushRounds is how often, one each guard.ProbeEvery, all that is known of
	// where stations are is thrown away when LANs were joined or parted. Gateways
	// do not find that out in the same moment, and what they tell peers of it may
	// be lost.
	flushRounds = 3

	// loopLines is how many lines about loops the log gets in a minute, and about
	// storms: a bad plug makes one every few seconds.
	loopLines, stormLines = 8, 8
)

// safety is what keeps this site's LAN from harm, and what it has found.
type safety struct {
	loop    *guard.Loop
	servers guard.Servers
	wake    chan struct{} // gets a word when a peer has come or gone

	// The guard's goroutine's alone.
	policed []bridge.Policed
	rivals  map[guard.Service]*rivalry
	rounds  int       // of flushes, still to come
	lines   allowance // about loops
	storms  allowance

	mu      sync.Mutex
	verdict guard.Verdict // written by the guard's goroutine alone
}

func newSafety(m *identity.Member) *safety {
	return &safety{
		loop:   guard.NewLoop(m.Network, guard.ID(m.ID)),
		wake:   make(chan struct{}, 1),
		rivals: map[guard.Service]*rivalry{guard.DHCP: {}, guard.Router: {}},
		lines:  allowance{each: loopLines},
		storms: allowance{each: stormLines},
	}
}

// found returns what is known of loops.
func (s *safety) found() guard.Verdict {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.verdict
}

// peersChanged says that a peer has come or gone.
func (s *safety) peersChanged() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// keepSafe is the guard: it sends probes, and acts on what has been found, until
// ctx ends.
func (s *site) keepSafe(ctx context.Context) {
	tick := time.NewTicker(guard.ProbeEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.probe()
			s.lookForLoop()
			s.flushOnce()
			s.lookForStorms()
			s.lookForRivals()
		case <-s.safety.wake:
			s.probe() // LANs that are joined already are found as soon as can be
			s.lookForLoop()
		case <-s.safety.loop.Changed():
			s.lookForLoop()
		case <-ctx.Done():
			return
		}
	}
}

// probe sends a probe into the LAN, while there is a peer to make a loop with.
func (s *site) probe() {
	peers := make(map[guard.ID]string)
	for _, p := range s.mesh.Peers() {
		switch p.State {
		case "up", "suspect", "relayed":
			peers[guard.ID(p.ID)] = p.Site
		}
	}
	s.safety.loop.SetPeers(peers)
	if len(peers) > 0 {
		s.send(bridge.Local, guard.KindLoop)
	}
}

func (s *site) send(to bridge.Group, kind guard.Kind) {
	b := s.safety.loop.Frame(kind)
	s.sw.Send(to, b)
	b.Release()
}

// lookForLoop cuts this site's LAN off from the tunnel, or joins it again, when
// something is new.
func (s *site) lookForLoop() {
	now, was := s.safety.loop.Judge(), s.safety.found()
	if now.Equal(was) {
		return
	}
	s.sw.SetLoop(len(now.Joined) > 0, now.Cut)
	s.safety.mu.Lock()
	s.safety.verdict = now
	s.safety.mu.Unlock()
	s.loopChanged(was, now)

	// A loop that comes and goes all the time is flushed for at the pace of the
	// tick; else at once.
	idle := s.safety.rounds == 0
	s.safety.rounds = flushRounds
	if idle {
		s.flushOnce()
	}
}

// flushOnce does one round of flushes, if one is due. When LANs are joined or
// parted, stations that were behind the tunnel are behind a cable all at once,
// or the other way round. What still points the old way is forgotten: by the
// switch, by the peers for what is behind this site, and by the bridge.
func (s *site) flushOnce() {
	if s.safety.rounds == 0 {
		return
	}
	s.safety.rounds--
	s.table.Flush(0)
	s.send(bridge.Mesh, guard.KindFlush)
	s.withTAP(func(dev *tap.Device) {
		if err := dev.FlushBridge(); err != nil {
			s.log.Warn("bridge not flushed", "error", err)
		}
	})
}

// loopChanged is called when a loop was found, has changed or is gone.
func (s *site) loopChanged(was, now guard.Verdict) {
	e := event.Event{Kind: event.Loop, Site: strings.Join(now.Joined, " "), Port: control.LocalPort}
	ok, skipped := s.safety.lines.take(time.Now())
	log := s.log
	if skipped > 0 {
		log = log.With("skipped", skipped)
	}
	switch {
	case now.Cut:
		e.What, e.Reason = "cut", s.loopHint(now)
		if ok {
			log.Warn("loop cut", "joined", now.Joined, "own", now.Own)
		}
	case was.Cut:
		e.What, e.Site = "healed", strings.Join(was.Joined, " ")
		if ok {
			log.Info("loop healed", "joined", now.Joined)
		}
	case len(now.Joined) > 0:
		e.What, e.Reason = "seen", s.loopHint(now)
		if ok {
			log.Warn("loop, cut by the other site", "joined", now.Joined)
		}
	default:
		e.What, e.Site = "gone", strings.Join(was.Joined, " ")
		if ok {
			log.Info("loop is gone")
		}
	}
	s.events.Publish(e)
}

// loopHint says what a verdict means and what to do, "" when all is well.
func (s *site) loopHint(v guard.Verdict) string {
	const mend = "take the other connection away (a cable, a Wi-Fi bridge, another tunnel, two gateways on one LAN), and it heals within 5 s"
	sites := strings.Join(v.Joined, ", ")
	switch {
	case v.Lowest != "":
		return fmt.Sprintf("loop: this LAN is joined with that of %s outside of the tunnel, so it is cut off from the tunnel here and reached by way of site %s: %s", sites, v.Lowest, mend)
	case v.Own:
		return "loop: a probe of ours came back from this LAN, so it is cut off from the tunnel: look for a second cable between two switches, or a device that sends back what it gets"
	case len(v.Joined) > 0:
		return fmt.Sprintf("loop: this LAN is joined with that of %s outside of the tunnel, so that is cut off from the tunnel and reached by way of here: %s", sites, mend)
	}
	return ""
}

// lookForStorms tells of each port when a storm begins there.
func (s *site) lookForStorms() {
	now := s.sw.Policed()
	for _, p := range now {
		if !slices.ContainsFunc(s.safety.policed, func(q bridge.Policed) bool { return p.Port == q.Port }) {
			s.stormBegins(p)
		}
	}
	s.safety.policed = now
}

// stormBegins is called when frames of a port are dropped as a storm, and none
// were in the ten seconds before.
func (s *site) stormBegins(p bridge.Policed) {
	if ok, skipped := s.safety.storms.take(time.Now()); ok {
		log := s.log
		if skipped > 0 {
			log = log.With("skipped", skipped)
		}
		log.Warn("storm capped", "port", p.Port, "classes", classNames(p))
	}
	s.events.Publish(event.Event{Kind: event.Guard, What: "storm", Port: p.Port, Reason: s.stormHint(p)})
}

// rivalry is what was told of servers of one service at two sites.
type rivalry struct {
	on   bool
	told time.Time // last, in the log
}

// rivalLine is how often the log tells of the same service at two sites: whether
// both servers have answered in the last ten minutes changes all day.
const rivalLine = time.Hour

// lookForRivals tells when servers answer at two sites.
func (s *site) lookForRivals() {
	for service, r := range s.safety.rivals {
		rivals := s.safety.servers.Rivals(service)
		if rivals != nil && !r.on && (r.told.IsZero() || time.Since(r.told) >= rivalLine) {
			r.told = time.Now()
			s.rivalsFound(service, rivals)
		}
		r.on = rivals != nil
	}
}

// rivalsFound is called when servers of one service have answered at two sites.
func (s *site) rivalsFound(service guard.Service, rivals []guard.Server) {
	e := event.Event{Kind: event.Guard, What: "dhcp", Reason: rivalHint(service, rivals)}
	if service == guard.DHCP {
		s.log.Warn("dhcp servers at two sites", "servers", serverNames(rivals))
	} else {
		e.What = "router"
		s.log.Warn("ipv6 routers at two sites", "routers", serverNames(rivals))
	}
	s.events.Publish(e)
}

func rivalHint(service guard.Service, rivals []guard.Server) string {
	if service == guard.DHCP {
		return fmt.Sprintf("DHCP servers answer at two sites: %s: devices get their address and router from either; turn one server off, or give the two disjoint ranges, or keep DHCP apart", serverNames(rivals))
	}
	return fmt.Sprintf("IPv6 routers advertise at two sites: %s: devices may reach the Internet by way of the other site; turn the advertisements of one off, or keep them apart", serverNames(rivals))
}

// serverNames says which servers are where.
func serverNames(servers []guard.Server) string {
	var names []string
	for _, v := range servers {
		name := v.Addr.String()
		if v.MAC != nil {
			name += " (" + v.MAC.String() + ")"
		}
		if v.VLAN != 0 {
			name += fmt.Sprintf(" in VLAN %d", v.VLAN)
		}
		if v.Port == control.LocalPort {
			name += " on this LAN"
		} else {
			name += " at site " + v.Port
		}
		names = append(names, name)
	}
	return strings.Join(names, ", ")
}

// guardHints says what the guard has found, and what to do.
func (s *site) guardHints() (hints []string) {
	if hint := s.loopHint(s.safety.found()); hint != "" {
		hints = append(hints, hint)
	}
	for _, p := range s.sw.Policed() {
		hints = append(hints, s.stormHint(p))
	}
	for _, service := range []guard.Service{guard.DHCP, guard.Router} {
		if rivals := s.safety.servers.Rivals(service); rivals != nil {
			hints = append(hints, rivalHint(service, rivals))
		}
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
