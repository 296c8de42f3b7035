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
	if all := m.addresses(); !slices.Equal(all, m.outer.told) {
		m.outer.told = all
		m.cfg.Outer(all)
	}
}

// addresses returns where our packets go, or may go, at present.
func (m *Mesh) addresses() (all []netip.AddrPort) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range m.peers {
		if s := p.session.Load(); s != nil {
			all = append(all, s.control.remote(), s.data.remote()) // each moves by itself
		}
	}
	for _, d := range m.dials {
		all = append(all, d.candidates...)
	}
	slices.SortFunc(all, netip.AddrPort.Compare)
	return slices.Compact(all)
}
