// SPDX-License-Identifier: Apache-2.0

package udpconn

import (
	"context"
	"net/netip"
	"time"
)

const (
	CreditLimit = creditLimit
	MaxHold     = maxHold
	SharedHold  = sharedHold
)

// Flows is a socket's table of flows without the socket.
type Flows = flows

func (t *flows) Open(ctx context.Context, conn Datagrams, beside ...Datagrams) *Flow {
	return t.open(ctx, conn, beside)
}
func (t *flows) Of(addr netip.AddrPort) *Flow { return t.of(addr) }
func (t *flows) HoldTimeouts() uint64         { return t.timeouts.Load() }

// WaitedTooLong tells whether a packet is to be marked.
func (f *Flow) WaitedTooLong(now time.Time, waited time.Duration) bool {
	return f.waitedTooLong(now, waited)
}

// Overruns tells whether a packet without credit is to be dropped.
func (f *Flow) Overruns(now time.Time) bool { return f.overruns(now) }

// HandUp does what ReadBatch does before it hands up one packet.
func (f *Flow) HandUp() {
	for f.room(time.Now()) == 0 {
		f.hold()
	}
	f.take(1, time.Now())
}
