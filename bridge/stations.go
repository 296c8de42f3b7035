// SPDX-License-Identifier: Apache-2.0

package bridge

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/l2bridge/l2bridge/bridge/guard"
	"github.com/l2bridge/l2bridge/fdb"
	"github.com/l2bridge/l2bridge/internal/frame"
)

// MaxStatics bounds the static entries of a switch.
const MaxStatics = 1024

// Station is one line of the MAC table.
type Station struct {
	Station frame.Station
	Port    string
	Age     time.Duration // since its last frame; 0 for a static entry
	Static  bool
	Moves   int
}

// Stations returns the MAC table, ordered by VLAN and address. A static entry
// that waits for its port to be attached, or to have room, is listed too,
// unless its station is known elsewhere meanwhile.
func (s *Switch) Stations() []Station {
	s.mu.Lock()
	pending := maps.Clone(s.statics)
	s.mu.Unlock()
	set := s.ports.Load()
	var all []Station
	for e := range s.cfg.Table.Entries() {
		if int(e.Port) >= len(set.byID) || set.byID[e.Port] == nil {
			continue
		}
		delete(pending, e.Station)
		if e.Static {
			e.Age = 0 // the table has the time of AddStatic
		}
		all = append(all, Station{e.Station, set.byID[e.Port].name, e.Age, e.Static, e.Moves})
	}
	for station, name := range pending {
		all = append(all, Station{Station: station, Port: name, Static: true})
	}
	slices.SortFunc(all, func(a, b Station) int { return cmp.Compare(a.Station, b.Station) })
	return all
}

// AddStatic binds a station to the port of that name, now and whenever a port
// of that name is attached. The port need not be attached: until it is, the
// station may be learned elsewhere. What was known of the station before gives
// way; on an error nothing changes.
func (s *Switch) AddStatic(station frame.Station, port string) error {
	if station.IsGroup() || station.IsZero() {
		return fmt.Errorf("static entry %s: a group or zero address is not a station", station)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.statics[station]; !ok && len(s.statics) >= MaxStatics {
		return fmt.Errorf("static entry %s: the limit of %d static entries is reached; delete one first", station, MaxStatics)
	}
	if p := s.find(port); p == nil {
		s.cfg.Table.Delete(station)
	} else if err := s.cfg.Table.AddStatic(station, p.id); err != nil {
		return fmt.Errorf("static entry at %s: %w", port, err)
	}
	s.statics[station] = port
	return nil
}

// Delete removes a station, static or learned, and reports whether there was one.
func (s *Switch) Delete(station frame.Station) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, static := s.statics[station]
	delete(s.statics, station)
	return s.cfg.Table.Delete(station) || static
}

// Statics returns the static entries: the name of each one's port.
func (s *Switch) Statics() map[frame.Station]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.statics)
}

// Flush forgets what was learned behind the port of that name, or behind all
// ports for "", and returns how many stations that were. Static entries stay.
func (s *Switch) Flush(port string) (int, error) {
	if port == "" {
		return s.cfg.Table.Flush(0), nil
	}
	p := s.find(port)
	if p == nil {
		return 0, fmt.Errorf("flush: no port %q (want one of: %s)", port, strings.Join(s.portNames(), ", "))
	}
	return s.cfg.Table.Flush(p.id), nil
}

// Count returns how many stations are behind the port of that name, 0 when
// there is no such port.
func (s *Switch) Count(port string) int {
	if p := s.find(port); p != nil {
		return s.cfg.Table.Count(p.id)
	}
	return 0
}

// Cramped returns the names of the ports that the table has less room for than
// they were attached with: what they do not learn is flooded.
func (s *Switch) Cramped() (names []string) {
	for _, p := range s.ports.Load().all {
		if p.short > 0 {
			names = append(names, p.name)
		}
	}
	return names
}

// PortName returns the name of an attached port, "" of any other.
func (s *Switch) PortName(id fdb.Port) string {
	if set := s.ports.Load(); int(id) < len(set.byID) && set.byID[id] != nil {
		return set.byID[id].name
	}
	return ""
}

// Behind returns the name and group of the port where a station is.
func (s *Switch) Behind(station frame.Station) (name string, group Group, ok bool) {
	id, ok := s.cfg.Table.Lookup(s.cfg.Table.Now(), station)
	set := s.ports.Load()
	if !ok || int(id) >= len(set.byID) || set.byID[id] == nil {
		return "", 0, false
	}
	return set.byID[id].name, set.byID[id].group, true
}

// Drops returns every counter that is not zero.
func (s *Switch) Drops() []Drop {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []Drop
	for _, name := range slices.Sorted(maps.Keys(s.records)) {
		for r := range reasons {
			if n := s.records[name].drops[r].Load(); n > 0 {
				all = append(all, Drop{r.String(), name, n})
			}
		}
	}
	return all
}

// Policed is a port by which more comes in to be flooded than a LAN has, and of
// what kinds.
type Policed struct {
	Port    string
	Classes []guard.Class
}

// Policed returns the ports of which frames were dropped as a storm in the last
// ten seconds, ordered by name.
func (s *Switch) Policed() (all []Policed) {
	now := uint32(s.cfg.Table.Now())
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(s.records)) {
		if classes := s.records[name].storm.Policed(now); len(classes) > 0 {
			all = append(all, Policed{name, classes})
		}
	}
	return all
}

// find returns the attached port of that name, or nil.
func (s *Switch) find(name string) *port {
	for _, p := range s.ports.Load().all {
		if p.name == name {
			return p
		}
	}
	return nil
}

func (s *Switch) portNames() []string {
	var names []string
	for _, p := range s.ports.Load().all {
		names = append(names, p.name)
	}
	return names
}
