// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/l2bridge/l2bridge/internal/control"
	"github.com/l2bridge/l2bridge/internal/frame"
	"github.com/l2bridge/l2bridge/internal/tap"
	"github.com/l2bridge/l2bridge/transport"
)

// backend answers commands for a running site.
type backend struct{ s *site }

// Status implements control.Backend.
func (b backend) Status() control.Status {
	s := b.s
	st := control.Status{
		Site: s.member().Site, ID: s.member().ID.String(), Network: s.member().Network, Founder: s.member().Founder(),
		TAP: s.cfg.TAP, Bridge: s.cfg.Bridge, BridgePorts: []string{},
		Listen: s.conn.LocalAddr().String(), PortMapping: s.ports.Mapping().String(), Peers: b.Peers(), Drops: b.Drops(), Hints: []string{},
	}
	st.State, st.SinceMS = s.noteState()
	var granted tap.Features
	if !s.withTAP(func(dev *tap.Device) {
		s.describeTAP(&st, dev)
		granted = dev.Features()
	}) {
		st.Hints = append(st.Hints, fmt.Sprintf("TAP %s is lost; it is being opened again (see the log for what is in the way)", s.cfg.TAP))
	}
	st.Limits = control.Limits{Capabilities: s.limits.Caps, NoNewPrivs: s.limits.NoNewPrivs, Landlock: s.limits.Landlock}
	udp := s.conn.Stats()
	st.Offloads = offloads(granted, udp)
	st.Hints = append(st.Hints, socketHints(udp)...)
	for _, port := range s.sw.Cramped() {
		st.Hints = append(st.Hints, fmt.Sprintf("the MAC table has no room for all stations of %s, what it does not know is flooded: raise --fdb-max", port))
	}
	st.Hints = append(st.Hints, s.guardHints()...)
	st.Hints = append(st.Hints, s.pendingHints()...)
	st.Hints = append(st.Hints, certificateHints(s.member(), time.Now())...)
	peers := s.mesh.Peers()
	if len(peers) == 0 && s.member().Founder() {
		st.Hints = append(st.Hints, `no other site yet: "l2bridge invite SITE" prints a token for one`)
	}
	for _, p := range peers {
		if (p.State == "up" || p.State == "relayed") && s.cfg.Superframes {
			st.Hints = append(st.Hints, peerHints(p.Site, p.Takes, granted)...)
		}
		switch {
		case p.State == "relayed":
			st.Hints = append(st.Hints, fmt.Sprintf("site %s is reached by way of %s, which can read what it passes on; directly it would be faster: can one of the two reach UDP %d of the other?", p.Site, p.Via, s.port()))
		case p.State == "suspect":
			st.Hints = append(st.Hints, fmt.Sprintf("site %s does not answer at present", p.Site))
		case p.State == "down" && !p.Unknown && !p.Refused:
			st.Hints = append(st.Hints, fmt.Sprintf("site %s is gone: is l2bridge running there, and can it reach UDP %d here?", p.Site, s.port()))
			if p.Error != "" {
				st.Hints = append(st.Hints, p.Error)
			}
		case p.State == "up" && st.MTU != 0 && p.MTU != st.MTU:
			st.Hints = append(st.Hints, fmt.Sprintf("site %s has MTU %d, this one %d: frames above the smaller one are dropped; give both the same", p.Site, p.MTU, st.MTU))
		case p.State != "up" && p.Error != "":
			st.Hints = append(st.Hints, p.Error)
		}
	}
	return st
}

// describeTAP says how the TAP and its bridge are.
func (s *site) describeTAP(st *control.Status, dev *tap.Device) {
	st.MTU = dev.MTU()
	if s.cfg.Bridge != "" {
		st.BridgePorts = append(st.BridgePorts, dev.Name())
	}
	ports, findings, err := dev.Check()
	if err != nil {
		st.Hints = append(st.Hints, err.Error())
	}
	st.BridgePorts = append(st.BridgePorts, ports...)
	for _, port := range ports {
		if port == "l2b0" || strings.HasPrefix(port, "l2b-") {
			st.Hints = append(st.Hints, fmt.Sprintf("bridge %s also has %s, the TAP of another network: where both lead to the same LAN they are a loop; give one its own: --bridge", dev.Bridge(), port))
		}
	}
	if s.cfg.Superframes {
		st.Hints = append(st.Hints, tapHints(dev.Name(), dev.Features())...)
	}
	for _, f := range findings {
		hint := f.Problem
		if f.Remedy != "" {
			hint += ": " + f.Remedy
		}
		st.Hints = append(st.Hints, hint)
	}
}

// Peers implements control.Backend.
func (b backend) Peers() []control.Peer {
	all := []control.Peer{}
	for _, p := range b.s.mesh.Peers() {
		out := control.Peer{
			Site: p.Site, State: control.PeerState(p.State), Addr: p.Addr, Via: p.Via, SinceMS: since(p.Since),
			RTTUS: p.RTT.Microseconds(), PathMTU: p.PathMTU, Lanes: p.Lanes, Kex: p.Kex,
			RxFrames: p.RxFrames, TxFrames: p.TxFrames, RxBytes: p.RxBytes, TxBytes: p.TxBytes,
			MACs: b.s.sw.Count(p.Site),
		}
		if !p.Unknown {
			out.ID = p.ID.String()
			out.Features = featureNames(p.Takes)
		}
		all = append(all, out)
	}
	return all
}

// Stations implements control.Backend.
func (b backend) Stations() []control.Station {
	all := []control.Station{}
	for _, e := range b.s.sw.Stations() {
		all = append(all, control.Station{
			MAC: e.Station.MAC().String(), VLAN: e.Station.VLAN(), Port: e.Port,
			AgeMS: e.Age.Milliseconds(), Static: e.Static, Moves: uint64(e.Moves),
		})
	}
	return all
}

// AddStation implements control.Backend.
func (b backend) AddStation(mac net.HardwareAddr, vlan uint16, port string) error {
	station := frame.NewStation(mac, vlan)
	return b.s.changeStatic(station, func() error {
		if err := b.s.sw.AddStatic(station, port); err != nil {
			return fmt.Errorf("%w: %w", control.ErrInvalid, err)
		}
		return nil
	})
}

// DelStation implements control.Backend.
func (b backend) DelStation(mac net.HardwareAddr, vlan uint16) error {
	station := frame.NewStation(mac, vlan)
	return b.s.changeStatic(station, func() error {
		if !b.s.sw.Delete(station) {
			return fmt.Errorf("%w: no entry for %s (see l2bridge fdb show)", control.ErrNotFound, station)
		}
		return nil
	})
}

// changeStatic makes a change to a station's entry and, if it has or had a
// static one, stores it. What cannot be stored is taken back: it would not
// survive a restart, and the one who asked is told that it failed.
func (s *site) changeStatic(station frame.Station, change func() error) error {
	s.statics.Lock()
	defer s.statics.Unlock()
	before, had := s.sw.Statics()[station]
	if err := change(); err != nil {
		return err
	}
	if after, has := s.sw.Statics()[station]; had == has && before == after {
		return nil
	}
	err := saveStatics(s.dir, s.sw)
	switch {
	case err == nil:
	case had:
		err = errors.Join(err, s.sw.AddStatic(station, before))
	default:
		s.sw.Delete(station)
	}
	return err
}

// FlushStations implements control.Backend.
func (b backend) FlushStations(port string) (int, error) {
	n, err := b.s.sw.Flush(port)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", control.ErrNotFound, err)
	}
	return n, nil
}

// Drops implements control.Backend.
func (b backend) Drops() []control.Drop {
	type counter struct{ reason, port string }
	sums := make(map[counter]uint64) // the switch and the port may share a reason
	add := func(reason, port string, count uint64) { sums[counter{reason, port}] += count }
	for _, d := range b.s.sw.Drops() {
		add(d.Reason, d.Port, d.Count)
	}
	for _, d := range b.s.mesh.Drops() {
		add(d.Reason, d.Port, d.Count)
	}
	for _, d := range b.s.tapDrops() {
		add(d.Reason, control.LocalPort, d.Count)
	}
	for reason, count := range b.s.socketDrops() {
		add(reason, "", count)
	}
	all := []control.Drop{}
	for c, n := range sums {
		if n > 0 {
			all = append(all, control.Drop{Reason: c.reason, Port: c.port, Count: n})
		}
	}
	slices.SortFunc(all, func(a, b control.Drop) int {
		return cmp.Or(cmp.Compare(a.Port, b.Port), cmp.Compare(a.Reason, b.Reason))
	})
	return all
}

// Invite implements control.Backend.
func (b backend) Invite(_ context.Context, site string, ttl time.Duration) (string, error) {
	s := b.s
	if err := s.refuseOwnCA(); err != nil {
		return "", err
	}
	if err := s.member().MayEnrol(); err != nil {
		return "", fmt.Errorf("%w: %w", control.ErrNotAuthorised, err)
	}
	addrs := s.advertised()
	if len(addrs) == 0 {
		return "", fmt.Errorf("%w: this machine has no address to tell the new site: those of the bridge lead into the tunnel, and link-local ones mean nothing elsewhere (start it with --advertise HOST:PORT)", control.ErrInvalid)
	}
	token, err := s.member().Invite(site, ttl, addrs)
	if err != nil {
		return "", err // of what was asked or of the disk; its text says which
	}
	return token.String(), nil
}

// noteState returns the state of the site and for how long it has been so.
func (s *site) noteState() (control.State, int64) {
	state := s.judge(time.Now())
	s.mu.Lock()
	defer s.mu.Unlock()
	if state != s.state {
		s.state, s.since = state, time.Now()
	}
	return s.state, since(s.since)
}

// judge says how the site is as a whole.
func (s *site) judge(now time.Time) control.State {
	if !s.withTAP(func(*tap.Device) {}) {
		return control.StateDown
	}
	if s.safety.found().Cut {
		return control.StateLoop
	}
	return judgePeers(s.mesh.Peers(), now)
}

// judgePeers says how the other sites are as a whole. One that has been away for
// long is no trouble any more: it was switched off for good. An address that nobody
// answers at is none either once sites are known: it may be an old one of theirs.
func judgePeers(peers []transport.Status, now time.Time) control.State {
	const forgotten = 24 * time.Hour
	met := slices.ContainsFunc(peers, func(p transport.Status) bool { return !p.Unknown })
	peers = slices.DeleteFunc(peers, func(p transport.Status) bool {
		return p.Unknown && met ||
			(p.State == "down" || p.State == "connecting") && !p.Since.IsZero() && now.Sub(p.Since) > forgotten
	})
	up, suspect, known := 0, 0, 0
	for _, p := range peers {
		switch p.State {
		case "up", "relayed":
			up++
		case "suspect":
			suspect++
		case "down":
			known++
		}
	}
	switch {
	case up > 0 && up == len(peers):
		return control.StateUp
	case up > 0, suspect > 0:
		return control.StateDegraded
	case known > 0:
		return control.StateDown
	}
	return control.StateConnecting
}

// since returns how long ago t was, in milliseconds.
func since(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return time.Since(t).Milliseconds()
}
