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
	"sync"
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
		if s := d.reached(); s != nil {
			// Somebody else's dial reached the peer.
			select {
			case <-s.done:
			case <-ctx.Done():
				return
			}
			wait = firstRetry
			continue
		}
		began := time.Now()
		err := d.dial(ctx, g)
		if ctx.Err() != nil {
			return
		}
		if d.reached() == nil {
			d.report(err)
		}
		switch {
		case errors.Is(err, errSelf):
			wait = time.Minute
		case time.Since(began) > lastRetry:
			wait = firstRetry // there was a session, or trying took its time
		default:
			wait = min(max(2*wait, firstRetry), lastRetry)
		}
	}
}

// reached returns the session with the peer that answered at the address, or
// nil.
func (d *dialer) reached() *session {
	d.mesh.mu.Lock()
	defer d.mesh.mu.Unlock()
	if p := d.mesh.peers[d.id]; p != nil {
		return p.session.Load()
	}
	return nil
}

// claim notes who answered, and reports whether it is ours to make a session
// with: nobody has one, and no other dialer is about to. It is ended by release.
func (d *dialer) claim(id identity.ID) bool {
	d.mesh.mu.Lock()
	defer d.mesh.mu.Unlock()
	d.id = id
	if p := d.mesh.peers[id]; d.mesh.dialled[id] || p != nil && p.session.Load() != nil {
		return false
	}
	d.mesh.dialled[id] = true
	d.trouble = ""
	return true
}

func (d *dialer) release() {
	d.mesh.mu.Lock()
	delete(d.mesh.dialled, d.id)
	d.mesh.mu.Unlock()
}

// report keeps what stands in the way, and logs it when it is news.
func (d *dialer) report(err error) {
	if err == nil {
		return // another dialer has the peer
	}
	text := identity.Clean(err.Error())
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
	m.mu.Unlock()
	m.refreshOuter()

	var session [8]byte
	rand.Read(session[:])
	control, errs := race(ctx, addrs, func(ctx context.Context, addr netip.AddrPort) (*lane, error) {
		l, err := m.dialLane(ctx, m.quic, addr, session, 0)
		if err == nil && l.id == m.cfg.Member.ID {
			closeFor(l.conn, errSelf)
			return nil, errSelf
		}
		return l, err
	}, func(l *lane) { closeFor(l.conn, errReplaced) })
	if errs != nil {
		return worst(errs, errSelf)
	}
	if !d.claim(control.id) {
		closeFor(control.conn, errReplaced)
		return nil
	}
	defer d.release()
	data, err := m.dialLane(ctx, m.quic, control.remote(), session, 1)
	if err != nil {
		closeFor(control.conn, err)
		return err
	}
	s := newSession(ctx, m, control, true)
	if data.id != control.id {
		s.data = data
		s.end(fmt.Errorf("%w: lanes of two members", wire.ErrProtocol))
		s.close()
		return context.Cause(s.ctx)
	}
	if err = s.carry(ctx, g, data); errors.Is(err, errReplaced) {
		return nil
	}
	return explain(control.remote(), err)
}

// worst returns the first of the errors of a race that is not harmless, or else
// one that is.
func worst(errs []error, harmless error) error {
	for _, err := range errs {
		if !errors.Is(err, harmless) {
			return err
		}
	}
	return errs[0]
}

// dialLane connects to an address and exchanges hellos.
func (m *Mesh) dialLane(ctx context.Context, tr *quic.Transport, addr netip.AddrPort, session [8]byte, number uint8) (*lane, error) {
	ctx, cancel := context.WithTimeout(ctx, dialling)
	defer cancel()
	conn, err := tr.Dial(ctx, net.UDPAddrFromAddrPort(addr), m.cfg.Member.TLSConfig(wire.ALPN), quicConfig(int(number)))
	if err != nil {
		return nil, explain(addr, err)
	}
	l, err := m.greetPeer(ctx, conn, session, number)
	if err != nil {
		closeFor(conn, err)
		return nil, explain(addr, err)
	}
	l.socket = m.cfg.Conn
	return l, nil
}

// dialMore dials one more data lane of a session that we dialled, from a socket
// of its own: receive credit is kept for each pair of addresses.
func (m *Mesh) dialMore(s *session, number uint8) (*lane, error) {
	if m.cfg.Listen == nil {
		return m.dialLane(s.ctx, m.quic, s.control.remote(), s.control.hello.Session, number)
	}
	socket, err := m.cfg.Listen()
	if err != nil {
		return nil, err
	}
	tr := newTransport(socket, m.cfg.Member)
	l, err := m.dialLane(s.ctx, tr, s.control.remote(), s.control.hello.Session, number)
	if err != nil {
		tr.Close()
		socket.Close()
		return nil, err
	}
	l.socket, l.own = socket, tr
	return l, nil
}

// explain says in a user's words why a connection did not come about.
func explain(addr netip.AddrPort, err error) error {
	var (
		crypto    *quic.TransportError
		idle      *quic.IdleTimeoutError
		handshake *quic.HandshakeTimeoutError
		reset     *quic.StatelessResetError
		closed    *quic.ApplicationError
	)
	switch {
	case errors.As(err, &handshake), errors.As(err, &idle), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s does not answer (is l2bridge running there, and UDP port %d open?)", addr, addr.Port())
	case errors.As(err, &reset):
		return fmt.Errorf("%s has been restarted", addr)
	case errors.As(err, &closed) && closed.Remote:
		return fmt.Errorf("%s has closed the connection: %s", addr, closed.ErrorMessage)
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
	return nil, cmp.Or(err, errors.New("no address to dial"))
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
			return nil, fmt.Errorf("peer %q: %w", address, plain(err))
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

// plain leaves out what the system's resolver tells of its own sockets: that is
// different at each try, and would be news each time.
func plain(err error) error {
	var dns *net.DNSError
	switch {
	case !errors.As(err, &dns):
		return err
	case dns.IsNotFound:
		return errors.New("there is no such name")
	case dns.IsTimeout:
		return errors.New("no name server answers")
	}
	return errors.New("the name cannot be looked up")
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
// first success, or else the errors of all. Later successes are given to lose;
// race returns only when no try is under way.
func race[T any](ctx context.Context, addrs []netip.AddrPort, try func(context.Context, netip.AddrPort) (T, error), lose func(T)) (won T, errs []error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var (
		tries  sync.WaitGroup
		mu     sync.Mutex // guards what follows, and won
		done   bool
		failed = make(chan struct{}, len(addrs)) // lets the next one go early
	)
	errs = make([]error, len(addrs))
	for i, addr := range addrs {
		tries.Go(func() {
			lead := time.NewTimer(time.Duration(i) * stagger)
			defer lead.Stop()
			if i > 0 {
				select {
				case <-lead.C:
				case <-failed:
				case <-ctx.Done():
				}
			}
			var v T
			err := ctx.Err()
			if err == nil {
				v, err = try(ctx, addr)
			}
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err != nil:
				errs[i] = err
				failed <- struct{}{}
			case done:
				lose(v)
			default:
				won, done = v, true
				cancel()
			}
		})
	}
	tries.Wait()
	if done {
		return won, nil
	}
	return won, errs
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
