// SPDX-License-Identifier: Apache-2.0

// Package bridge is the switch: it takes frames from its ports, validates them,
// learns where their senders are, and passes each one to the port where its
// destination is, or floods it. It has no goroutine and no queue of its own:
// everything happens in the goroutine that brings a frame.
package bridge

import (
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/l2bridge/l2bridge/bridge/guard"
	"github.com/l2bridge/l2bridge/fdb"
	"github.com/l2bridge/l2bridge/internal/frame"
)

// Config says what a Switch does.
type Config struct {
	// Table is where stations are learned. Its Run is the caller's.
	Table *fdb.Table

	// Outer recognises the tunnel's own packets; nil recognises none.
	Outer *guard.Outer

	// Loop hears the probes that come in from the LAN; nil takes them for frames
	// like any other.
	Loop *guard.Loop

	// Servers hears who gives addresses and ways out, and where; nil hears nobody.
	Servers *guard.Servers

	// ForwardReserved lets frames to 01-80-C2-00-00-0X cross when bit X is set,
	// in the numbering of Linux's group_fwd_mask. Bit 0 (spanning tree) lets
	// PVST cross as well. Bit 1 has no effect: PAUSE never crosses.
	ForwardReserved uint16
}

// Switch forwards frames between ports. Its methods may be called from any
// goroutine.
type Switch struct {
	cfg     Config
	own     atomic.Uint64     // the TAP's address, 0 for none
	asked   [64]atomic.Uint32 // see ask
	answers uint64            // address that answers to questions come to; no station's without Config.Loop
	ports   atomic.Pointer[portSet]

	mu      sync.Mutex               // guards the changing of ports, and what follows
	records map[string]*record       // by name of a port
	statics map[frame.Station]string // static entries: the name of their port
}

// port is an attached Port.
type port struct {
	Port
	name  string
	id    fdb.Port
	group Group
	short int // stations that the table had no room left for
	*record
}

func (p *port) reaches(q *port) bool {
	return p != q && (p.group == Local || q.group == Local)
}

// portSet is an immutable snapshot of the attached ports.
type portSet struct {
	byID   []*port // nil where an id is not in use
	all    []*port
	locals int  // ports of group Local
	joined bool // see SetLoop
	cut    bool // nothing is switched, see SetLoop
}

// clone returns a copy to change before it is stored.
func (s *portSet) clone() *portSet {
	return &portSet{byID: slices.Clone(s.byID), all: slices.Clone(s.all), locals: s.locals, joined: s.joined, cut: s.cut}
}

// floods reports whether a frame from in has anywhere to be flooded to.
func (s *portSet) floods(in *port) bool {
	if in.group == Local {
		return len(s.all) > 1
	}
	return s.locals > 0
}

// New returns a Switch without ports.
func New(cfg Config) *Switch {
	if cfg.Outer == nil {
		cfg.Outer = new(guard.Outer)
	}
	s := &Switch{cfg: cfg, records: make(map[string]*record), statics: make(map[frame.Station]string), answers: ^uint64(0)}
	if cfg.Loop != nil {
		s.answers = cfg.Loop.Own().Address()
	}
	s.ports.Store(new(portSet))
	return s
}

// SetOwn names the address of our TAP. No station is ever learned under it.
func (s *Switch) SetOwn(own frame.Station) { s.own.Store(own.Address()) }

// Serve is the whole life of a port: it attaches p with room for quota
// stations, runs it, and when it ends detaches it and forgets its stations. It
// returns what p.Run returns, or why p cannot be attached.
func (s *Switch) Serve(ctx context.Context, p Port, group Group, quota int) error {
	in, err := s.attach(p, group, quota)
	if err != nil {
		return err
	}
	defer s.detach(in)
	return p.Run(ctx, func(frames []*frame.Buf) { s.input(in, frames) })
}

func (s *Switch) attach(p Port, group Group, quota int) (*port, error) {
	name := p.String()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.find(name) != nil {
		return nil, fmt.Errorf("attach port %q: a port of that name is attached", name)
	}
	id, granted, err := s.cfg.Table.Attach(quota)
	if err != nil {
		return nil, fmt.Errorf("attach port %q: %w", name, err)
	}
	in := &port{Port: p, name: name, id: id, group: group, short: quota - granted, record: s.recordLocked(name)}
	set := s.ports.Load().clone()
	set.all = append(set.all, in)
	if group == Local {
		set.locals++
	}
	for len(set.byID) <= int(id) {
		set.byID = append(set.byID, nil)
	}
	set.byID[id] = in
	s.ports.Store(set)
	for _, station := range slices.Sorted(maps.Keys(s.statics)) {
		if s.statics[station] == name {
			// What a full port has no room for stays in the list of static
			// entries, and the station is flooded to.
			_ = s.cfg.Table.AddStatic(station, id)
		}
	}
	return in, nil
}

// detach takes the port out of the snapshot first, so that nothing new finds
// it, and then forgets its stations. Nothing is learned behind it any more:
// its Run has returned.
func (s *Switch) detach(p *port) {
	s.mu.Lock()
	defer s.mu.Unlock()
	set := s.ports.Load().clone()
	set.byID[p.id] = nil
	if p.group == Local {
		set.locals--
	}
	set.all = slices.DeleteFunc(set.all, func(q *port) bool { return q == p })
	s.ports.Store(set)
	s.cfg.Table.Detach(p.id)
}

// recordLocked returns what is kept under a port's name.
func (s *Switch) recordLocked(name string) *record {
	r := s.records[name]
	if r == nil {
		r = new(record)
		s.records[name] = r
	}
	return r
}

// Where a frame goes: to the port of that id, or one of these.
const (
	toNone  = -1 // dropped, and counted
	toFlood = -2 // every port that the incoming one reaches
)

// input switches a batch of frames that came in by a port.
func (s *Switch) input(in *port, frames []*frame.Buf) {
	set, now := s.ports.Load(), s.cfg.Table.Now()
	// Frames that go the same way one after the other go in one Send.
	start, way := 0, toNone
	for i, b := range frames {
		w := s.route(set, now, in, b)
		if w != way {
			s.send(set, in, way, frames[start:i])
			start, way = i, w
		}
	}
	s.send(set, in, way, frames[start:])
}

// route decides about one frame: validate, learn its source, look its
// destination up (the order of net/bridge/br_input.c).
func (s *Switch) route(set *portSet, now fdb.Tick, in *port, b *frame.Buf) int {
	f := b.Bytes()
	if !hasHeader(f) {
		return in.drop(Malformed, b)
	}
	dst, src := frame.Stations(f)
	if src.IsGroup() || src.IsZero() {
		return in.drop(BadSource, b)
	}
	if dst.IsGroup() {
		if guard.IsProbe(f) && s.takes(now, in, f) {
			return toNone
		}
		if r, ok := s.barred(dst); ok {
			return in.drop(r, b)
		}
	}
	if in.group == Local && s.cfg.Outer.Match(f) {
		return in.drop(OwnOuter, b)
	}
	if set.cut {
		s.ask(set, now, in, dst, f)
		return in.drop(Loop, b)
	}
	if s.cfg.Servers != nil && guard.IsService(f) {
		s.cfg.Servers.Heard(in.name, in.group == Local, f)
	}
	if src.Address() == s.own.Load() {
		if in.group != Local {
			return in.drop(OwnSource, b)
		}
	} else {
		switch s.cfg.Table.Learn(now, src, in.id) {
		case fdb.Static:
			return in.drop(Static, b)
		case fdb.Full:
			if !in.storm.Pass(uint32(now), guard.Unlearned, frame.Segments(b.Header(), b.Bytes())) {
				return in.drop(Storm, b)
			}
		}
	}
	if dst.IsGroup() {
		class := guard.Multicast
		if dst.Address() == broadcast {
			class = guard.Broadcast
		}
		return set.flood(now, in, b, class)
	}
	id, ok := s.cfg.Table.Lookup(now, dst)
	if !ok || int(id) >= len(set.byID) || set.byID[id] == nil {
		if dst.Address() == s.answers {
			return toNone
		}
		s.ask(set, now, in, dst, f)
		return set.flood(now, in, b, guard.UnknownUnicast)
	}
	switch out := set.byID[id]; {
	case out == in:
		s.ask(set, now, in, dst, f)
		return in.drop(SamePort, b)
	case !in.reaches(out):
		return in.drop(SplitHorizon, b)
	}
	return int(id)
}

// broadcast is the address of every station.
const broadcast = 0xffffffffffff

// flood decides about a frame that goes to more places than one.
func (s *portSet) flood(now fdb.Tick, in *port, b *frame.Buf, class guard.Class) int {
	if !s.floods(in) {
		return in.drop(NoPort, b)
	}
	if !in.storm.Pass(uint32(now), class, frame.Segments(b.Header(), b.Bytes())) {
		return in.drop(Storm, b)
	}
	return toFlood
}

// hasHeader reports whether f holds a whole Ethernet header and, if it says that
// it is tagged, the tag: without one nobody knows its VLAN, and Linux drops it
// too (net/core/skbuff.c, skb_vlan_untag).
func hasHeader(f []byte) bool {
	if len(f) >= frame.HeaderLen+frame.TagLen {
		return true
	}
	if len(f) < frame.HeaderLen {
		return false
	}
	t := binary.BigEndian.Uint16(f[12:])
	return t != frame.TypeVLAN && t != frame.TypeQinQ
}

// barred reports whether frames to a group address do not cross, and why.
func (s *Switch) barred(dst frame.Station) (Reason, bool) {
	const (
		reserved = 0x0180c2000000 // ..0F, IEEE 802.1Q-2022, table 8-1
		pvst     = 0x01000ccccccd // Cisco shared spanning tree
		stp      = 1 << 0
		pause    = 1 << 1 // ends at the next station, IEEE 802.3-2022, annex 31B
	)
	mask := s.cfg.ForwardReserved &^ pause
	switch a := dst.Address(); {
	case a&^0xf == reserved && mask&(1<<(a&0xf)) == 0:
		return Reserved, true
	case a == pvst && mask&stp == 0:
		return PVST, true
	}
	return 0, false
}

// drop counts a frame that goes nowhere as the LAN would have seen it: a
// superframe for each of its segments.
func (p *port) drop(r Reason, b *frame.Buf) int {
	p.drops[r].Add(uint64(frame.Segments(b.Header(), b.Bytes())))
	return toNone
}

// send passes a run of frames on the way that was decided for them.
func (s *Switch) send(set *portSet, in *port, way int, frames []*frame.Buf) {
	if len(frames) == 0 {
		return
	}
	switch way {
	case toNone:
	case toFlood:
		for _, out := range set.all {
			if in.reaches(out) {
				out.Send(frames)
			}
		}
	default:
		set.byID[way].Send(frames)
	}
}
