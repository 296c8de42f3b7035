// SPDX-License-Identifier: Apache-2.0

// Package portmap has the router of this site forward a UDP port to this machine:
// it asks by NAT-PMP (RFC 6886) or UPnP IGD, and asks again before the router
// forgets.
//
// Neither the router nor who else is on the LAN is trusted. Only what comes from
// the router's own address is heard, only that address is spoken to, and all that
// it says has a bound in length and time. What it does have is a word in which
// address others dial; so has every member.
package portmap

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"sync/atomic"
	"time"
)

const (
	// lifetime is what is asked for: RFC 6886, 3.3, recommends it. It is asked for
	// again when half of it is over.
	lifetime = 2 * time.Hour
	// minRenew is how soon at the earliest, whatever a router grants.
	minRenew = time.Minute
	// lookEvery is how often a router is asked whether all is as it was: it may have
	// been restarted, or have got another address.
	lookEvery = 5 * time.Minute
	// Tries without success are this far apart, doubling, with jitter.
	firstPause, lastPause = 30 * time.Second, time.Hour
	// gather is how long changes of addresses and routes are left to end.
	gather = time.Second
	// asking bounds one try by one protocol.
	asking = 20 * time.Second
	// farewell is how long the stop waits for the router to forget the port: no
	// longer, since the lease ends by itself.
	farewell = 500 * time.Millisecond
	// maxReasons bounds the reasons that are logged until a port is mapped.
	maxReasons = 8
)

// Way is how this machine reaches its router.
type Way struct {
	Router netip.Addr // IPv4, the next hop of the default route
	Local  netip.Addr // our address towards it
	Device int        // index of the interface
	Shared bool       // what is sent to all on it may reach other sites: the router alone is sent to
}

// Mapping is a port that a router forwards to us; the zero value is none.
type Mapping struct {
	By     string         // "nat-pmp" or "upnp"
	Addr   netip.AddrPort // outside
	Router netip.Addr
}

// String returns "" for none.
func (m Mapping) String() string {
	if m == (Mapping{}) {
		return ""
	}
	return fmt.Sprintf("%s %s router %s", m.By, m.Addr, m.Router)
}

// Config says what a Mapper asks for. All fields are set.
type Config struct {
	// Port is the UDP port here, and the one that is asked for.
	Port uint16

	// Way returns the way to the router, and false when nobody is to be asked. It
	// may take a moment; it is called by Run alone.
	Way func(context.Context) (Way, bool)

	// Changed is told that Mapping has changed. It must not block.
	Changed func()

	Log *slog.Logger
}

// Mapper keeps a port mapped. Its methods may be called from any goroutine.
type Mapper struct {
	cfg       Config
	protocols []protocol
	moved     chan struct{}
	mapping   atomic.Pointer[Mapping]

	// Of Run alone.
	way   Way // the last one, and whether there was one
	ok    bool
	lease *lease
	said  map[string]bool // reasons that were logged
}

// lease is what a router has granted.
type lease struct {
	Mapping
	way     Way
	client  client
	life    time.Duration // 0: until it is removed
	granted time.Time
	seen    time.Time // when the router said so last
}

// renew returns when it is to be asked for again.
func (l *lease) renew() time.Time {
	life := l.life
	if life == 0 {
		life = lifetime
	}
	return l.granted.Add(max(minRenew, min(life, lifetime)/2))
}

// ends returns when it is over, unless the router is heard before.
func (l *lease) ends() time.Time {
	if l.life == 0 {
		return l.seen.Add(lifetime)
	}
	return l.granted.Add(l.life)
}

// protocol is one way to ask a router.
type protocol struct {
	name string
	open func(ctx context.Context, way Way, port uint16) (client, error)
}

// client talks to one router about one port of ours. Its methods return within
// half a second when ctx ends, and within seconds by themselves. Their errors are
// a *refusal when the router says no; all others say that it did not answer, or not
// in a way that makes sense.
type client interface {
	// look returns the address of the router outside, and whether it has forgotten
	// the mapping of that port; 0 asks for the address alone.
	look(ctx context.Context, port uint16) (addr netip.Addr, forgot bool, err error)
	// add has a port forwarded, or the one that the router gives instead, for so
	// long; 0 is until it is removed.
	add(ctx context.Context, port uint16) (given uint16, life time.Duration, err error)
	// remove ends that.
	remove(ctx context.Context, port uint16) error
}

// refusal is a router's no. No text of the router's own is in it.
type refusal struct{ why string }

func (r *refusal) Error() string { return r.why }

// translated says that the router's own address is not one of the internet.
type translated struct{ addr netip.Addr }

func (t *translated) Error() string { return t.addr.String() + " is not an address of the internet" }

// Why a router is not asked, or not any more.
var (
	errNoWay  = errors.New("no router to ask")
	errSilent = errors.New("no answer from the router")
	errMoved  = errors.New("the way to the router has changed")
)

// New returns a Mapper that does nothing until Run.
func New(cfg Config) *Mapper {
	return &Mapper{
		cfg:       cfg,
		protocols: []protocol{{"nat-pmp", openPMP}, {"upnp", openUPnP}},
		moved:     make(chan struct{}, 1),
		said:      make(map[string]bool),
	}
}

// Moved tells that addresses or routes of this machine may have changed.
func (m *Mapper) Moved() {
	select {
	case m.moved <- struct{}{}:
	default:
	}
}

// Mapping returns what is mapped at present.
func (m *Mapper) Mapping() Mapping {
	if now := m.mapping.Load(); now != nil {
		return *now
	}
	return Mapping{}
}

// Run keeps the port mapped until ctx ends, then has the router forget it. It
// returns nil.
func (m *Mapper) Run(ctx context.Context) error {
	defer m.leave(ctx)
	pause := firstPause
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-m.moved:
			if !sleep(ctx, gather) {
				return nil
			}
			if way, ok := m.cfg.Way(ctx); way == m.way && ok == m.ok {
				continue // what has changed has nothing to do with us
			}
			pause = firstPause
		case <-ctx.Done():
			return nil
		}
		if err := m.step(ctx); err == nil {
			pause = firstPause
			timer.Reset(min(lookEvery, time.Until(m.lease.renew())))
		} else {
			wait := pause + rand.N(pause/4)
			pause = min(2*pause, lastPause)
			if m.lease != nil { // until it ends
				wait = min(wait, time.Until(m.lease.ends()))
			}
			timer.Reset(wait)
		}
	}
}

// step looks after the mapping once. Without an error there is one.
func (m *Mapper) step(ctx context.Context) error {
	m.way, m.ok = m.cfg.Way(ctx)
	if !m.ok {
		m.lose(errNoWay)
		return errNoWay
	}
	if m.lease != nil && m.lease.way != m.way {
		m.lose(errMoved) // there is nobody left to tell
	}
	if m.lease != nil && m.keep(ctx) == nil {
		return nil
	}
	l, err := m.ask(ctx)
	if err == nil {
		m.hold(ctx, l)
		return nil
	}
	if ctx.Err() != nil {
		return err // and leave has something to remove
	}
	var no *refusal
	var inside *translated
	if m.lease != nil && (errors.As(err, &no) || errors.As(err, &inside) || !time.Now().Before(m.lease.ends())) {
		m.lose(err)
	}
	m.report(err)
	return err
}

// keep sees that the lease is as it was, and renews it when it is time.
func (m *Mapper) keep(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, asking)
	defer cancel()
	l := *m.lease
	addr, forgot, err := l.client.look(ctx, l.Addr.Port())
	switch {
	case err != nil:
		return err
	case !Public(addr):
		return &translated{addr}
	}
	l.seen = time.Now()
	port := l.Addr.Port()
	if forgot || !time.Now().Before(l.renew()) {
		if port, l.life, err = l.client.add(ctx, port); err != nil {
			return err
		}
		l.granted = time.Now()
	}
	l.Addr = netip.AddrPortFrom(addr, port)
	m.hold(ctx, &l)
	return nil
}

// ask asks the router by one protocol after the other. When all fail the first
// refusal is the error.
func (m *Mapper) ask(ctx context.Context) (*lease, error) {
	why := errSilent
	for _, p := range m.protocols {
		l, err := m.askBy(ctx, p)
		var no *refusal
		var inside *translated
		switch {
		case err == nil:
			return l, nil
		case ctx.Err() != nil, errors.Is(err, errMoved), errors.As(err, &inside):
			return nil, err
		case why == errSilent && errors.As(err, &no):
			why = err
		}
	}
	return nil, why
}

func (m *Mapper) askBy(ctx context.Context, p protocol) (*lease, error) {
	ctx, cancel := context.WithTimeout(ctx, asking)
	defer cancel()
	c, err := p.open(ctx, m.way, m.cfg.Port)
	if err != nil {
		return nil, err
	}
	addr, _, err := c.look(ctx, 0)
	switch {
	case err != nil:
		return nil, err
	case !Public(addr):
		return nil, &translated{addr}
	}
	// Where its answer came from is known now, if it was not before: a router that
	// turns out to be at another site is asked for nothing.
	if way, ok := m.cfg.Way(ctx); !ok || way != m.way {
		return nil, errMoved
	}
	port := m.cfg.Port
	if m.lease != nil {
		port = m.lease.Addr.Port()
	}
	port, life, err := c.add(ctx, port)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	return &lease{
		Mapping: Mapping{By: p.name, Addr: netip.AddrPortFrom(addr, port), Router: m.way.Router},
		way:     m.way, client: c, life: life, granted: now, seen: now,
	}, nil
}

// hold takes a lease in the place of the one there was.
func (m *Mapper) hold(ctx context.Context, l *lease) {
	old := m.lease
	m.lease = l
	clear(m.said)
	if old != nil && old.Mapping == l.Mapping {
		return
	}
	if old != nil && old.life == 0 && old.Addr.Port() != l.Addr.Port() {
		_ = old.client.remove(ctx, old.Addr.Port()) // it would not end by itself
	}
	now := l.Mapping
	m.mapping.Store(&now)
	m.cfg.Log.Info("port mapped", "by", now.By, "addr", now.Addr, "router", now.Router)
	m.cfg.Changed()
}

// lose gives the lease up, if there is one.
func (m *Mapper) lose(why error) {
	if m.lease == nil {
		return
	}
	m.cfg.Log.Info("port not mapped any more", "addr", m.lease.Addr, "router", m.lease.Router, "error", why)
	m.lease = nil
	m.mapping.Store(nil)
	m.cfg.Changed()
}

// leave has the router forget the mapping.
func (m *Mapper) leave(ctx context.Context) {
	if m.lease == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), farewell)
	defer cancel()
	if way, ok := m.cfg.Way(ctx); ok && way == m.lease.way { // else another router may be there
		_ = m.lease.client.remove(ctx, m.lease.Addr.Port()) // or the lease ends by itself
	}
	m.lease = nil
	m.mapping.Store(nil)
}

// report logs why there is no mapping, once for each reason. A router that does not
// answer is none: most do not know these protocols, or have them turned off.
func (m *Mapper) report(err error) {
	var no *refusal
	var inside *translated
	switch {
	case len(m.said) >= maxReasons || m.said[err.Error()]:
	case errors.As(err, &inside):
		m.said[err.Error()] = true
		m.cfg.Log.Warn("port not mapped, the provider translates addresses too", "addr", inside.addr, "router", m.way.Router)
	case errors.As(err, &no):
		m.said[err.Error()] = true
		m.cfg.Log.Warn("port not mapped", "router", m.way.Router, "error", err)
	}
}

// reserved are addresses of IPv4 that nobody on the internet answers at and that
// net/netip does not know as such (RFC 6890): of hosts that have none yet, of
// carriers' NATs, of DS-Lite, and what is reserved.
var reserved = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("100.64.0.0/10"),
	netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("240.0.0.0/4"),
}

// Public reports whether an address is one of IPv4 that the internet reaches.
func Public(a netip.Addr) bool {
	if !a.Is4() || !a.IsGlobalUnicast() || a.IsPrivate() {
		return false
	}
	for _, p := range reserved {
		if p.Contains(a) {
			return false
		}
	}
	return true
}

// sleep reports whether ctx lasts that long.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}
