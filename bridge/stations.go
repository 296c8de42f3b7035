// SPDX-License-Identifier: Apache-2.0

package bridge

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

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
// whose port is not attached is listed too.
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
		if e.Static {
			delete(pending, e.Station)
		}
		all = append(all, Station{e.Station, set.byID[e.Port].name, e.Age, e.Static, e.Moves})
	}
	for station, name := range pending {
		all = append(all, Station{Station: station, Port: name, Static: true})
	}
	slices.SortFunc(all, func(a, b Station) int {
		switch {
		case a.Station < b.Station:
			return -1
		case a.Station > b.Station:
			return 1
		}
		return 0
	})
	return all
}

// AddStatic binds a station to the port of that name, now and whenever a port
// of that name is attached. The port need not be attached.
func (s *Switch) AddStatic(station frame.Station, port string) error {
	if station.IsGroup() || station.IsZero() {
		return fmt.Errorf("static entry %s: a group or zero address is not a station", station)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.statics[station]; !ok && len(s.statics) >= MaxStatics {
		return fmt.Errorf("static entry %s: the limit of %d static entries is reached; delete one first", station, MaxStatics)
	}
	s.cfg.Table.Delete(station)
	for _, p := range s.ports.Load().all {
		if p.name == port {
			if err := s.cfg.Table.AddStatic(station, p.id); err != nil {
				return fmt.Errorf("static entry %s: %w", station, err)
			}
		}
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
	for _, p := range s.ports.Load().all {
		if p.name == port {
			return s.cfg.Table.Flush(p.id), nil
		}
	}
	return 0, fmt.Errorf("flush: no port %q (want one of: %s)", port, strings.Join(s.portNames(), ", "))
}

// Count returns how many stations are behind the port of that name.
func (s *Switch) Count(port string) int {
	for _, p := range s.ports.Load().all {
		if p.name == port {
			return s.cfg.Table.Count(p.id)
		}
	}
	return 0
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
	for _, name := range slices.Sorted(maps.Keys(s.drops)) {
		for r := range reasons {
			if n := s.drops[name][r].Load(); n > 0 {
				all = append(all, Drop{r.String(), name, n})
			}
		}
	}
	return all
}

func (s *Switch) portNames() []string {
	var names []string
	for _, p := range s.ports.Load().all {
		names = append(names, p.name)
	}
	return names
}

