// SPDX-License-Identifier: Apache-2.0

package udpconn

import (
	"net/netip"
	"sync"
	"sync/atomic"
)

// unproven are addresses from which handshakes have begun, and which may be
// anybody's who never asked. They get three times what came from them at most (RFC
// 9000, section 8.1). quic-go holds back the next packet when that has been
// exceeded, so that it is by up to one; here it is not.
//
// Only packets with a long header are looked at: others are not sent before the
// handshake is done. What goes to an address that we dial is not held back: else who
// forges that address would keep us from it. There is quic-go's own bound then.
type unproven struct {
	n atomic.Int32 // of m; so that nobody takes the lock for nothing

	mu sync.Mutex
	m  map[netip.AddrPort]*credit
}

// credit is what came from an address and went there, in bytes.
type credit struct {
	handshakes, dials int
	received, sent    int
}

// amplification is how many times as much may go as came.
const amplification = 3

// Unproven tells that a handshake has begun from an address that may be forged, by
// a datagram that was long enough for it. proven is called, once, when it is known
// not to be or the handshake has ended.
func (g *Gate) Unproven(addr netip.AddrPort) (proven func()) {
	return g.unproven.note(addr, func(c *credit, n int) {
		if c.handshakes += n; c.handshakes == 1 && n > 0 {
			c.received, c.sent = leastInitial, 0 // what comes from now on is counted as it comes
		}
	})
}

// Dials tells that we dial an address, until done is called, once.
func (g *Gate) Dials(addr netip.AddrPort) (done func()) {
	return g.unproven.note(addr, func(c *credit, n int) { c.dials += n })
}

// note counts something of an address by adding 1, and -1 when it is over.
func (u *unproven) note(addr netip.AddrPort, add func(c *credit, n int)) (over func()) {
	addr = zoneless(addr)
	u.mu.Lock()
	defer u.mu.Unlock()
	c := u.m[addr]
	if c == nil {
		if u.m == nil {
			u.m = make(map[netip.AddrPort]*credit)
		}
		c = new(credit)
		u.m[addr] = c
		u.n.Add(1)
	}
	add(c, 1)
	return func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		add(c, -1)
		if c.handshakes == 0 && c.dials == 0 {
			delete(u.m, addr)
			u.n.Add(-1)
		}
	}
}

// of returns what is known of an unproven address, with the lock held, or nil
// without.
func (u *unproven) of(packet []byte, addr netip.AddrPort) *credit {
	if len(packet) == 0 || isShortHeader(packet[0]) || u.n.Load() == 0 {
		return nil
	}
	u.mu.Lock()
	c := u.m[zoneless(addr)]
	if c == nil {
		u.mu.Unlock()
	}
	return c
}

// zoneless returns an address as such, of IPv4 too, and without a zone, which may
// be a name here and a number there.
func zoneless(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}

// Received counts a packet that came, and was admitted. Any goroutine may call it.
func (g *Gate) Received(packet []byte, from netip.AddrPort) {
	u := &g.unproven
	if c := u.of(packet, from); c != nil {
		c.received += len(packet)
		u.mu.Unlock()
	}
}

// MaySend reports whether a packet may go, and counts it if so. Any goroutine may
// call it.
func (g *Gate) MaySend(packet []byte, to netip.AddrPort) bool {
	u := &g.unproven
	c := u.of(packet, to)
	if c == nil {
		return true
	}
	defer u.mu.Unlock()
	if c.dials > 0 {
		return true
	}
	if c.sent+len(packet) > amplification*c.received {
		return false
	}
	c.sent += len(packet)
	return true
}
