// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/quic-go/quic-go"
	"golang.org/x/sync/errgroup"

	"github.com/l2bridge/l2bridge/transport/identity"
	"github.com/l2bridge/l2bridge/transport/wire"
)

// dialer keeps a session with one peer.
type dialer struct {
	mesh      *Mesh
	addresses []string // HOST:PORT, as given

	// Guarded by Mesh.mu.
	id         identity.ID // who answered there last
	candidates []netip.AddrPort
	trouble    string // why there is no session, "" when there is
	since      time.Time
}

// errSelf is not worth trying again soon.
var errSelf = errors.New("that is this site itself; take it out of peers")

// run dials for ever, with a pause that doubles while it does not work.
func (d *dialer) run(ctx context.Context, g *errgroup.Group) {
	d.mesh.mu.Lock()
	d.since = time.Now()
	d.mesh.mu.Unlock()
	wait := time.Duration(0)
	for {
		// Half of the pause is random, so that sites that lost the same hub
		// do not come back in step.
		if !sleep(ctx, wait/2+mrand.N(wait/2+1)) {
			return
		}
		if p := d.peerUp(); p != nil {
			// Somebody else's dial reached it. It is asked again when it may
			// be gone: nothing is lost by looking often.
			wait = firstRetry
			continue
		}
		began := time.Now()
		err := d.dial(ctx, g)
		if ctx.Err() != nil {
			return
		}
		d.report(err)
		switch {
		case errors.Is(err, errSelf):
			wait = time.Minute
		case time.Since(began) > greeting:
			wait = firstRetry // there was a session, or trying took its time
		default:
			wait = min(max(2*wait, firstRetry), lastRetry)
		}
	}
}

// peerUp returns the peer that answered at the address, if it has a session.
func (d *dialer) peerUp() *Peer {
	d.mesh.mu.Lock()
	defer d.mesh.mu.Unlock()
	if p := d.mesh.peers[d.id]; p != nil && p.session.Load() != nil {
		return p
	}
	return nil
}

// report keeps what stands in the way, and logs it when it is news.
func (d *dialer) report(err error) {
	text := "closed"
	if err != nil {
		text = identity.Clean(err.Error())
	}
	d.mesh.mu.Lock()
	news := text != d.trouble
	d.trouble = text
	d.mesh.mu.Unlock()
	if news {
		d.mesh.cfg.Log.Warn("peer not connected, trying again", "addr", d, "error", text)
	}
}

// dial makes one session and carries it to its end. The error says why it could
// not be made, or ended.
func (d *dialer) dial(ctx context.Context, g *errgroup.Group) error {
	m := d.mesh
	addrs, err := resolveAll(ctx, m.cfg.Resolve, d.addresses)
	if err != nil {
		return err
	}
	if m.cfg.Through != nil {
		addrs, err = without(addrs, m.cfg.Through)
		if err != nil {
			return err
		}
	}
	m.mu.Lock()
	d.candidates = addrs
	m.refreshOuterLocked()
	m.mu.Unlock()

	var session [8]byte
	rand.Read(session[:])
	control, err := race(ctx, addrs, func(ctx context.Context, addr netip.AddrPort) (*lane, error) {
		return m.dialLane(ctx, addr, session, 0)
	}, func(l *lane) { closeFor(l.conn, errReplaced) })
	if err != nil {
		return err
	}
	if control.id == m.cfg.Member.ID {
		closeFor(control.conn, errSelf)
		return errSelf
	}
	m.mu.Lock()
	d.id = control.id
	m.mu.Unlock()
	if d.peerUp() != nil {
		closeFor(control.conn, errReplaced)
		return nil
	}
	dialCtx, cancel := context.WithTimeout(ctx, greeting)
	defer cancel()
	data, err := m.dialLane(dialCtx, control.remote(), session, 1)
	if err != nil {
		closeFor(control.conn, err)
		return err
	}
	if data.id != control.id {
		err := fmt.Errorf("%w: lanes of two members", wire.ErrProtocol)
		closeFor(control.conn, err)
		closeFor(data.conn, err)
		return err
	}
	m.mu.Lock()
	d.trouble = ""
	m.mu.Unlock()
	err = newSession(m, control, true).carry(ctx, g, data)
	if errors.Is(err, errReplaced) {
		return nil
	}
	return err
}

// dialLane connects to an address and exchanges hellos.
func (m *Mesh) dialLane(ctx context.Context, addr netip.AddrPort, session [8]byte, number uint8) (*lane, error) {
	ctx, cancel := context.WithTimeout(ctx, greeting)
	defer cancel()
	conn, err := m.quic.Dial(ctx, net.UDPAddrFromAddrPort(addr), m.cfg.Member.TLSConfig(wire.ALPN), quicConfig(int(number)))
	if err != nil {
		return nil, explain(addr, err)
	}
	l, err := m.greetPeer(ctx, conn, session, number)
	if err != nil {
		closeFor(conn, err)
		return nil, explain(addr, err)
	}
	return l, nil
}

// explain says in a user's words why a connection did not come about.
func explain(addr netip.AddrPort, err error) error {
	var crypto *quic.TransportError
	var idle *quic.IdleTimeoutError
	var handshake *quic.HandshakeTimeoutError
	switch {
	case errors.As(err, &handshake), errors.As(err, &idle), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s does not answer (is l2bridge running there, and UDP port %d open?)", addr, addr.Port())
	case errors.As(err, &crypto) && crypto.ErrorCode.IsCryptoError() && crypto.Remote:
		return fmt.Errorf("%s refused us (is this site a member of its network, and not revoked?): %w", addr, err)
	}
	return fmt.Errorf("%s: %w", addr, err)
}

// String returns the addresses of the peer, for people.
func (d *dialer) String() string { return strings.Join(d.addresses, " ") }

// resolveAll returns what several HOST:PORT stand for; those that cannot be
// resolved are an error only when there is nothing else.
func resolveAll(ctx context.Context, lookup lookupFunc, addresses []string) (all []netip.AddrPort, err error) {
	for _, a := range addresses {
		found, ferr := resolve(ctx, lookup, a)
		err = cmp.Or(err, ferr)
		for _, f := range found {
			if !slices.Contains(all, f) {
				all = append(all, f)
			}
		}
	}
	if len(all) > 0 {
		return all, nil
	}
	return nil, err
}

type lookupFunc = func(ctx context.Context, host string) ([]netip.Addr, error)

// systemLookup asks the system's resolver.
func systemLookup(ctx context.Context, host string) ([]netip.Addr, error) {
	return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
}

// resolve returns the addresses that HOST:PORT stands for, families in turn as
// RFC 8305 wants it, at most maxCandidates.
func resolve(ctx context.Context, lookup lookupFunc, address string) ([]netip.AddrPort, error) {
	const maxCandidates = 8
	host, portText, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("peer %q: %w (want HOST:PORT)", address, err)
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil || port == 0 {
		return nil, fmt.Errorf("peer %q: port %q (want 1 to 65535)", address, portText)
	}
	var all []netip.Addr
	if ip, err := netip.ParseAddr(host); err == nil {
		all = []netip.Addr{ip}
	} else {
		ctx, cancel := context.WithTimeout(ctx, greeting)
		defer cancel()
		if all, err = lookup(ctx, host); err != nil {
			return nil, fmt.Errorf("peer %q: %w", address, err)
		}
	}
	var v6, v4 []netip.Addr
	for _, a := range all {
		if a = a.Unmap(); a.Is4() {
			v4 = append(v4, a)
		} else {
			v6 = append(v6, a)
		}
	}
	var out []netip.AddrPort
	for i := 0; i < max(len(v6), len(v4)) && len(out) < maxCandidates; i++ {
		if i < len(v6) {
			out = append(out, netip.AddrPortFrom(v6[i], uint16(port)))
		}
		if i < len(v4) {
			out = append(out, netip.AddrPortFrom(v4[i], uint16(port)))
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("peer %q: no address", address)
	}
	return out, nil
}

// without leaves out the addresses that are reached through the tunnel: a
// session over itself would cut the branch that it sits on.
func without(addrs []netip.AddrPort, through func(netip.Addr) bool) ([]netip.AddrPort, error) {
	var out []netip.AddrPort
	for _, a := range addrs {
		if !through(a.Addr()) {
			out = append(out, a)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s is reached through the tunnel itself (name the peer by an address outside of the shared LAN)", addrs[0])
	}
	return out, nil
}

// race tries the addresses, each with a lead over the next, and returns the
// first success. Later successes are given to lose; race returns only when no
// try is under way.
func race[T any](ctx context.Context, addrs []netip.AddrPort, try func(context.Context, netip.AddrPort) (T, error), lose func(T)) (T, error) {
	type result struct {
		v   T
		err error
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan result)
	failed := make(chan struct{}, len(addrs)) // lets the next one go early
	for i, addr := range addrs {
		go func() {
			lead := time.NewTimer(time.Duration(i) * stagger)
			defer lead.Stop()
			for waiting := i; waiting > 0; {
				select {
				case <-lead.C:
					waiting = 0
				case <-failed:
					waiting = 0
				case <-ctx.Done():
					results <- result{err: ctx.Err()}
					return
				}
			}
			v, err := try(ctx, addr)
			if err != nil {
				failed <- struct{}{}
			}
			results <- result{v, err}
		}()
	}
	var won T
	var first error
	done := false
	for range addrs {
		switch r := <-results; {
		case r.err != nil:
			if first == nil || errors.Is(first, context.Canceled) {
				first = r.err
			}
		case done:
			lose(r.v)
		default:
			won, done = r.v, true
			cancel()
		}
	}
	if done {
		return won, nil
	}
	return won, first
}

// sleep waits, and reports false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
