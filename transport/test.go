// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/l2bridge/l2bridge/transport/probe"
	"github.com/l2bridge/l2bridge/transport/wire"
)

// What a test of a peer may fail with, beside what package probe names.
var (
	ErrNoPeer = errors.New("no such site")
	ErrNotUp  = errors.New("not up")
)

// TestResult is what a test of the way to a peer found.
type TestResult struct {
	probe.Result
	Addr        string // the peer's
	PathMTU     int    // UDP payload, bytes
	Lanes       int    // that carried frames in the end
	Superframes bool   // the peer takes TCP superframes
}

// Test measures the way to a site while all else goes on; see probe.End.Run.
func (m *Mesh) Test(ctx context.Context, site string, each time.Duration, progress func(probe.Progress)) (r TestResult, err error) {
	p, err := m.find(site)
	if err != nil {
		return r, err
	}
	s := p.session.Load()
	if s == nil || !s.isOpen() {
		return r, fmt.Errorf("site %s: %w (see l2bridge status)", site, ErrNotUp)
	}
	hello := s.control.hello
	if hello.Features&wire.FeatureTest == 0 {
		return r, fmt.Errorf("site %s answers no tests (it runs an older version: update it)", site)
	}
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	defer context.AfterFunc(s.ctx, func() {
		end(fmt.Errorf("the session has ended: %w", context.Cause(s.ctx)))
	})()
	r.Result, err = p.probe.Run(ctx, each, s.mtu, int(hello.MTU), progress)
	if err != nil {
		return r, fmt.Errorf("test of site %s: %w", site, err)
	}
	m.mu.Lock()
	st := p.statusLocked()
	m.mu.Unlock()
	r.Addr, r.PathMTU, r.Lanes = st.Addr, st.PathMTU, st.Lanes
	r.Superframes = hello.Features&wire.FeatureTSO != 0
	return r, nil
}

// isOpen reports whether the session carries frames; what it is made of is known
// from then on.
func (s *session) isOpen() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open && s.ctx.Err() == nil
}

// find returns the peer that is a site. The error names the sites that there are.
func (m *Mesh) find(site string) (*Peer, error) {
	var known []string
	for _, st := range m.Peers() {
		switch {
		case st.Unknown:
		case st.Site == site:
			if p := m.peer(st.ID); p != nil {
				return p, nil
			}
		default:
			known = append(known, st.Site)
		}
	}
	if len(known) == 0 {
		return nil, fmt.Errorf("site %.64q: %w (no peer has answered yet)", site, ErrNoPeer)
	}
	return nil, fmt.Errorf("site %.64q: %w (there are: %s)", site, ErrNoPeer, strings.Join(known, ", "))
}
