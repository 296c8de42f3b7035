// SPDX-License-Identifier: Apache-2.0

package udpconn

import (
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// refusalLimit is how many batches in a row the way to an address may
	// refuse until none is tried.
	refusalLimit = 3
	// refusalPause is for how long none is then. Routes change, and a try
	// costs one system call and no packet.
	refusalPause = time.Minute
	// maxRefusals bounds the addresses that are remembered.
	maxRefusals = 256
)

// refusals remembers to which addresses batches cannot be sent. That is so of
// a way, not of the socket: a device without checksum offload before Linux
// 6.11, or a policy of IPsec, gives EIO (net/ipv4/udp.c, udp_send_skb). The
// zero value is ready for use. As long as nothing is refused, which is nearly
// always, a look at it is one load.
type refusals struct {
	total atomic.Uint64

	mu sync.Mutex // of writers; the map is replaced, never changed
	m  atomic.Pointer[map[netip.Addr]refusal]
}

type refusal struct {
	inRow int
	until time.Time // no batch is tried before
}

// standing reports whether packets to addr are to go one by one.
func (r *refusals) standing(addr netip.Addr) bool {
	m := r.m.Load()
	if m == nil {
		return false
	}
	known, ok := (*m)[addr]
	return ok && time.Now().Before(known.until)
}

// add notes that a batch to addr was refused.
func (r *refusals) add(addr netip.Addr) {
	r.total.Add(1)
	r.update(func(m map[netip.Addr]refusal) {
		known := m[addr]
		known.inRow++
		if known.inRow >= refusalLimit {
			known.until = time.Now().Add(refusalPause)
		}
		if len(m) >= maxRefusals {
			clear(m) // it costs each a few tries
		}
		m[addr] = known
	})
}

// forget notes that a batch to addr was taken.
func (r *refusals) forget(addr netip.Addr) {
	m := r.m.Load()
	if m == nil {
		return
	}
	if _, ok := (*m)[addr]; ok {
		r.update(func(m map[netip.Addr]refusal) { delete(m, addr) })
	}
}

// update replaces the map by what change makes of a copy.
func (r *refusals) update(change func(map[netip.Addr]refusal)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	next := make(map[netip.Addr]refusal)
	if m := r.m.Load(); m != nil {
		maps.Copy(next, *m)
	}
	change(next)
	if len(next) == 0 {
		r.m.Store(nil)
		return
	}
	r.m.Store(&next)
}

// into fills in what Stats says of it. An address that nothing has been sent
// to since its pause ended is left out after another one.
func (r *refusals) into(s *Stats) {
	s.TxRefused = r.total.Load()
	m := r.m.Load()
	if m == nil {
		return
	}
	for addr, known := range *m {
		if known.inRow >= refusalLimit && time.Now().Before(known.until.Add(refusalPause)) {
			s.GSORefused = append(s.GSORefused, addr)
		}
	}
	slices.SortFunc(s.GSORefused, netip.Addr.Compare)
}
