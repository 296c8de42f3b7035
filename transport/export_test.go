// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"log/slog"
	"net/netip"
	"time"

	"github.com/l2bridge/l2bridge/transport/identity"
	"github.com/l2bridge/l2bridge/transport/wire"
)

// CountDropped counts records as if they had come from the peer and been dropped.
func (p *Peer) CountDropped(why wire.Reason, n uint64) { p.drops[why].Add(n) }

// LookedUp yields what several HOST:PORT stand for.
var LookedUp = lookedUp

// CutOff cuts a member off, of a mesh that does not run, and returns until when.
func CutOff() time.Time {
	m := New(Config{Member: new(identity.Member), Log: slog.New(slog.DiscardHandler)})
	p := newPeer(m, identity.ID{}, 0)
	for range maxWarnings {
		m.warn(p, "a fault")
	}
	return *p.barred.Load()
}

// Waiting returns how many are at the door: with a handshake that is under way, and
// behind it without having said what for.
func (m *Mesh) Waiting() (halfOpen, inRooms int) {
	for _, room := range m.door.rooms {
		inRooms += room.count()
	}
	return m.door.halfOpen.count() + m.door.expected.count(), inRooms
}

// Expects reports whether the door keeps a place for who comes from an address.
func (m *Mesh) Expects(addr string) bool { return m.expects(networkOf(netip.MustParseAddrPort(addr))) }

// MaxUnproven bounds the handshakes from addresses that are not proven.
const MaxUnproven = maxUnproven
