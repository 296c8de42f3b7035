// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// outer is the list of addresses that our packets go to, as it was told last.
type outer struct {
	mu   sync.Mutex // held while it is told
	told []netip.AddrPort
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
	if !slices.Equal(all, m.outer.told) || !slices.Equal(ports, m.outer.from) {
		m.outer.told, m.outer.from = all, ports
		m.cfg.Outer(ports, all)
	}
}

// addresses returns where our packets go, or may go, at present, and the ports
// of lanes' own sockets that they come from.
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
	slices.SortFunc(all, netip.AddrPort.Compare)
	return ports, slices.Compact(all)
}
