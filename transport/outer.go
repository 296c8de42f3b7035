// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// outer is the list of addresses that our packets go to, as it was told last, and of
// the ports that they come from, both in order.
type outer struct {
	mu   sync.Mutex       // held while it is told
	told []netip.AddrPort // replaced, never changed
	from []uint16
}

// watchOuter keeps the list: peers roam.
func (m *Mesh) watchOuter(ctx context.Context) {
	if m.cfg.Outer == nil {
		return
	}
	tick := time.NewTicker(heartbeat)
	defer tick.Stop()
	for {
		m.refreshOuter()
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// refreshOuter tells the list, if it has changed.
func (m *Mesh) refreshOuter() {
	if m.cfg.Outer == nil {
		return
	}
	m.outer.mu.Lock()
	defer m.outer.mu.Unlock()
	ports, all := m.addresses()
	slices.Sort(ports)
	slices.SortFunc(all, netip.AddrPort.Compare)
	all = slices.Compact(all)
	if !slices.Equal(all, m.outer.told) || !slices.Equal(ports, m.outer.from) {
		m.outer.told, m.outer.from = all, ports
		m.cfg.Outer(ports, all)
	}
}

// addOuter adds an address to the list that is a candidate as of now. To make the
// list anew for each takes too long where many members are dialled.
func (m *Mesh) addOuter(a netip.AddrPort) {
	if m.cfg.Outer == nil {
		return
	}
	o := &m.outer
	o.mu.Lock()
	defer o.mu.Unlock()
	if i, found := slices.BinarySearchFunc(o.told, a, netip.AddrPort.Compare); !found {
		o.told = slices.Insert(slices.Clip(o.told), i, a)
		m.cfg.Outer(o.from, o.told)
	}
}

// addresses returns where our packets go, or may go, at present, and the ports of
// lanes' own sockets that they come from.
func (m *Mesh) addresses() (ports []uint16, all []netip.AddrPort) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range m.peers {
		all = append(all, p.candidates...)
		if s := p.session.Load(); s != nil {
			all = append(all, s.control.remote()) // each moves by itself
			for _, l := range s.dataLanes() {
				all = append(all, l.remote())
				if l.own != nil {
					ports = append(ports, addrPort(l.socket.LocalAddr()).Port())
				}
			}
		}
	}
	for _, s := range m.seeds {
		all = append(all, s.candidates...)
	}
	return ports, all
}
