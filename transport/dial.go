// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/l2bridge/l2bridge/transport/wire"
	"github.com/quic-go/quic-go"
)

// errSelf is not worth trying again soon.
var errSelf = errors.New("that is this site itself; take it out of peers")

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
	defer m.door.gate.Dials(addr)()
	conn, err := tr.Dial(ctx, net.UDPAddrFromAddrPort(addr), m.cfg.Member.TLSConfig(wire.ALPN), quicConfig(int(number)))
	if err != nil {
		return nil, explain(addr, err)
	}
	l, err := m.greetPeer(ctx, conn, session, number)
	if err != nil {
		m.blame(conn, err)
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
	tr := newTransport(socket, m.cfg.Member, newGate(m.cfg.Member))
	l, err := m.dialLane(s.ctx, tr, s.control.remote(), s.control.hello.Session, number)
	if err != nil {
		tr.Close()
		socket.Close()
		return nil, err
	}
	l.socket, l.own = socket, tr
	return l, nil
}

// alert returns what TLS at the other end has ended a connection with, nil when it
// was not that.
func alert(err error) *quic.TransportError {
	var crypto *quic.TransportError
	if errors.As(err, &crypto) && crypto.ErrorCode.IsCryptoError() && crypto.Remote {
		return crypto
	}
	return nil
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
	case errors.Is(err, errReplaced):
		return err
	case errors.As(err, &handshake), errors.As(err, &idle), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s does not answer (is l2bridge running there, and UDP port %d open?)", addr, addr.Port())
	case errors.As(err, &reset):
		return fmt.Errorf("%s has been restarted", addr)
	case errors.As(err, &closed) && closed.Remote && closed.ErrorCode == wire.CloseTwice:
		return fmt.Errorf("%s: %w", addr, errTwice)
	case errors.As(err, &closed) && closed.Remote && closed.ErrorCode == wire.CloseCutOff:
		return fmt.Errorf("%s has closed the connection: %w%s", addr, errCutOff, strings.TrimPrefix(closed.ErrorMessage, errCutOff.Error()))
	case errors.As(err, &closed) && closed.Remote && closed.ErrorCode == wire.CloseReplaced:
		return errReplaced
	case isPutOut(err):
		return fmt.Errorf("%s says: %w", addr, errPutOut)
	case errors.As(err, &closed) && closed.Remote:
		return fmt.Errorf("%s has closed the connection: %s", addr, closed.ErrorMessage)
	case errors.As(err, &crypto) && crypto.ErrorCode == quic.ConnectionRefused && crypto.Remote:
		return fmt.Errorf("%s takes no new connection at present: too many begin, or it stops", addr)
	case alert(err) != nil:
		return fmt.Errorf("%s %w: %w", addr, errRefused, err)
	}
	if why := refusal(err); why != nil {
		err = why // without QUIC's name for it
	}
	return fmt.Errorf("%s: %w", addr, err)
}

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

// lookedUp yields what several HOST:PORT stand for, in their order, but has none wait
// for a name that is still looked up: who is to be joined may be what has the servers.
// trouble is set to why a name could not be.
func lookedUp(ctx context.Context, lookup lookupFunc, addresses []string, trouble *error) iter.Seq[netip.AddrPort] {
	return func(yield func(netip.AddrPort) bool) {
		var lookups sync.WaitGroup
		defer lookups.Wait()
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		var (
			found   = make([][]netip.AddrPort, len(addresses))
			errs    = make([]error, len(addresses))
			ready   = make([]bool, len(addresses)) // and not yet yielded
			arrived = make(chan int, len(addresses))
		)
		for i, a := range addresses {
			if _, err := netip.ParseAddrPort(a); err == nil {
				found[i], errs[i] = resolve(ctx, lookup, a)
				ready[i] = true
				continue
			}
			lookups.Go(func() {
				found[i], errs[i] = resolve(ctx, lookup, a)
				arrived <- i
			})
		}
		var yielded []netip.AddrPort
		for range addresses {
			for len(arrived) > 0 {
				ready[<-arrived] = true
			}
			i := slices.Index(ready, true)
			if i < 0 {
				i = <-arrived
			}
			ready[i] = false
			*trouble = cmp.Or(*trouble, errs[i])
			for _, a := range found[i] {
				if slices.Contains(yielded, a) {
					continue
				}
				yielded = append(yielded, a)
				if !yield(a) {
					return
				}
			}
		}
	}
}

type lookupFunc = func(ctx context.Context, host string) ([]netip.Addr, error)

// systemLookup asks the system's resolver.
func systemLookup(ctx context.Context, host string) ([]netip.Addr, error) {
	return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
}

// maxResolved bounds the addresses that are tried of those that a name stands for.
const maxResolved = 8

// resolve returns the addresses that HOST:PORT stands for, families in turn as
// RFC 8305 wants it, at most maxResolved.
func resolve(ctx context.Context, lookup lookupFunc, address string) ([]netip.AddrPort, error) {
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
	for i := 0; i < max(len(v6), len(v4)) && len(out) < maxResolved; i++ {
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

// race tries addresses, each with a lead over the next, and returns the first
// success, or else the errors of all. Later successes are given to lose; race
// returns only when no try is under way. addrs may block until its context ends.
func race[T any](ctx context.Context, addrs func(context.Context) iter.Seq[netip.AddrPort], try func(context.Context, netip.AddrPort) (T, error), lose func(T)) (won T, errs []error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var (
		tries  sync.WaitGroup
		mu     sync.Mutex // guards what follows, and won
		done   bool
		failed = make(chan struct{}, 1) // lets the next one go early
	)
	for addr := range addrs(ctx) {
		if ctx.Err() != nil {
			break
		}
		tries.Go(func() {
			v, err := try(ctx, addr)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err != nil:
				errs = append(errs, err)
				poke(failed)
			case done:
				lose(v)
			default:
				won, done = v, true
				cancel()
			}
		})
		lead := time.NewTimer(stagger)
		select {
		case <-lead.C:
		case <-failed:
		case <-ctx.Done():
		}
		lead.Stop()
	}
	tries.Wait()
	if done {
		return won, nil
	}
	return won, errs
}

// listed are addresses that are known already, for race.
func listed(addrs []netip.AddrPort) func(context.Context) iter.Seq[netip.AddrPort] {
	return func(context.Context) iter.Seq[netip.AddrPort] { return slices.Values(addrs) }
}

// sleep waits, and reports false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// poke leaves a token in a channel that holds one, unless it is there already.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
