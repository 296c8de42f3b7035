// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/l2bridge/l2bridge/transport/identity"
	"github.com/l2bridge/l2bridge/transport/wire"
)

// A member that breaks the protocol harms itself alone: what is wrong is dropped,
// and a session ends whose control stream is. One that goes on is cut off:
//
//	more than faultsAllowed wrong records in a second  --.
//	a wrong message on a control stream                --+--> a warning
//
//	the third warning in a minute --> cut off for 10 s, then for twice as long
//	                                  each time, up to a quarter of an hour
//
// So one that has a fault, and not a purpose, is heard again each time, and is
// mended by a new version alone.
const (
	inspectEvery  = time.Second
	faultsAllowed = 100

	maxWarnings, warningSpan = 3, time.Minute

	firstBar, longestBar = 10 * time.Second, 15 * time.Minute
	// forgiven is how long a member must not have been cut off until the next
	// time counts as the first.
	forgiven = time.Hour
)

// faults are the reasons for drops that no gateway gives which keeps to the
// protocol, whatever the path does to its packets, and whatever its LAN sends.
var faults = [...]wire.Reason{wire.Malformed, wire.UnknownRecord, wire.BadOffload}

// errCutOff is why a session ends, or is refused, of a member that is cut off.
var errCutOff = errors.New("cut off")

// conduct is how a member has kept to the protocol.
type conduct struct {
	barred atomic.Pointer[time.Time] // until when the member is cut off; nil when it never was

	// Guarded by Mesh.mu.
	faults   [len(faults)]uint64 // that were counted when last looked
	warnings []time.Time         // of the last minute
	bars     int                 // how often in a row it was cut off
	fault    string              // what the last one was for
}

// inspect looks once a second, until ctx ends, at what was dropped of peers.
func (m *Mesh) inspect(ctx context.Context) {
	tick := time.NewTicker(inspectEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		for p, fault := range m.faulty() {
			m.warn(p, fault)
		}
	}
}

// faulty returns the peers of which too much that is wrong has come since it was
// called last, and what.
func (m *Mesh) faulty() (found map[*Peer]string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range m.peers {
		var all uint64
		var came [len(faults)]uint64
		for i, reason := range faults {
			n := p.drops[reason].Load()
			came[i] = n - p.faults[i]
			all += came[i]
			p.faults[i] = n
		}
		if all <= faultsAllowed {
			continue
		}
		var each []string
		for i, reason := range faults {
			if came[i] > 0 {
				each = append(each, fmt.Sprintf("%s %d", reason, came[i]))
			}
		}
		if found == nil {
			found = make(map[*Peer]string)
		}
		found[p] = fmt.Sprintf("%d records that break the protocol in a second (%s)", all, strings.Join(each, ", "))
	}
	return found
}

// warn counts a warning, and cuts the member off when there are too many.
func (m *Mesh) warn(p *Peer, fault string) {
	now := time.Now()
	m.mu.Lock()
	if p.isBarred(now) {
		m.mu.Unlock()
		return // a lane that has not ended yet
	}
	for len(p.warnings) > 0 && now.Sub(p.warnings[0]) >= warningSpan {
		p.warnings = p.warnings[1:]
	}
	p.warnings = append(p.warnings, now)
	count := len(p.warnings)
	if count < maxWarnings {
		m.mu.Unlock()
		m.cfg.Log.Warn("peer breaks the protocol", "peer", p, "error", fault, "warning", count, "of", maxWarnings)
		return
	}
	if before := p.barred.Load(); before != nil && now.Sub(*before) >= forgiven {
		p.bars = 0
	}
	bar := min(firstBar<<min(p.bars, 10), longestBar)
	p.bars++
	p.warnings, p.fault = nil, fault
	until := now.Add(bar)
	p.barred.Store(&until)
	why := p.barError(now)
	p.trouble = identity.Clean(fmt.Sprintf("site %s is %v", p, why))
	s := p.session.Load()
	m.mu.Unlock()
	m.cfg.Log.Warn("peer cut off", "peer", p, "error", fault, "for", bar)
	if s != nil {
		s.end(why)
	}
	m.stir() // nor has it a relay any more
	time.AfterFunc(bar, m.stir)
}

// isBarred reports whether the member is cut off.
func (c *conduct) isBarred(now time.Time) bool { return c.barLeft(now) > 0 }

// barLeft returns for how much longer it is, 0 when it is not. Whoever sets the clock
// meanwhile changes nothing.
func (c *conduct) barLeft(now time.Time) time.Duration {
	until := c.barred.Load()
	if until == nil {
		return 0
	}
	return max(until.Sub(now), 0)
}

// barError returns why the member is refused now, nil when it is not. Mesh.mu is
// held.
func (c *conduct) barError(now time.Time) error {
	left := c.barLeft(now)
	if left == 0 {
		return nil
	}
	return fmt.Errorf("%w for %v: %s", errCutOff, max(left, time.Second).Round(time.Second), c.fault)
}

// blame counts a warning for the member at the other end of a connection if what
// it says there is wrong. It does not know of members that never had a session.
func (m *Mesh) blame(conn *quic.Conn, err error) {
	if !errors.Is(err, wire.ErrProtocol) {
		return
	}
	if _, id, idErr := identity.Peer(conn.ConnectionState().TLS); idErr == nil {
		if p := m.peer(id); p != nil {
			m.warn(p, err.Error())
		}
	}
}

// isCutOff reports whether the other side has cut us off, and why.
func isCutOff(err error) (why string, ok bool) {
	var closed *quic.ApplicationError
	if errors.As(err, &closed) && closed.Remote && closed.ErrorCode == wire.CloseCutOff {
		return identity.Clean(closed.ErrorMessage), true
	}
	return "", false
}
