// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/l2bridge/l2bridge/transport/identity"
	"github.com/l2bridge/l2bridge/transport/udpconn"
	"github.com/l2bridge/l2bridge/transport/wire"
)

const (
	// maxHandshakes is how many handshakes may begin in a second before who
	// begins another must show that it has the address it writes from
	// (RFC 9000, 8.1.2): that costs it a round trip, and a flood from forged
	// addresses everything. Nor may more than maxUnproven be under way until then.
	maxHandshakes, maxUnproven = 32, 64

	// maxHalfOpen bounds the handshakes that are under way. Of those who have
	// shown their address one network has oneHalfOpen at once, and so many a
	// second but for a burst: a hub that comes back is dialled by all others, some
	// of which may be behind one NAT, each for two lanes.
	maxHalfOpen, oneHalfOpen              = 256, 64
	handshakesPerSecond, handshakesAtOnce = 32, 256

	// When there is no place for it, one is kept for who comes from where a member
	// was: it takes no more than four networks to hold all the others.
	maxExpected, oneExpected = 64, 16

	// Then it is known who they are or want to be. maxGreetings bounds the members
	// that have not said what for, maxEnrolments those who want to become one.
	maxGreetings, oneGreeting             = 64, 48
	maxEnrolments, oneEnrolment           = 16, 4
	enrolmentsPerSecond, enrolmentsAtOnce = 2, 16

	// Who has no token asks, which is heard by a room of its own: whoever holds that
	// keeps neither a member nor an enrolment out.
	maxHearings, oneHearing           = 16, 4
	hearingsPerSecond, hearingsAtOnce = 2, 8

	// A handshake to ask costs a signature, on which members wait too. Those from
	// addresses that are not proven go on askRate times a second, and askBurst times
	// at once, whoever begins them. When there are more, all must show their address:
	// then as many more go on, of which one network has few.
	askRate, askBurst               = 4, 16
	networkAskRate, networkAskBurst = 0.5, 4

	// maxRenewals bounds the members that ask for another key.
	maxRenewals, oneRenewal           = 4, 2
	renewalsPerSecond, renewalsAtOnce = 1, 4
)

// door bounds what those cost who have no session, each kind by itself: who floods
// one does not close it for the others.
//
//	Initial --Retry?--> handshake --.--> greeting of a member
//	                    half open   |
//	                                :--> enrolment
//	                                :--> request to join
//	                                '--> another key for a member
type door struct {
	gate     *udpconn.Gate
	halfOpen *limiter
	expected *limiter                // half open, too, when there is no place
	asks     pace                    // handshakes to ask, from addresses that are not proven
	proven   pace                    // and from those that are
	askers   *limiter                // of which each network has few
	rooms    map[string]*limiter     // behind the handshake, by what is spoken there
	flooded  func(begun int)         // is told, once a second at most
	refused  func(net.Addr, error)   // is told why a handshake has failed
	expects  func(netip.Prefix) bool // reports whether a member was in a network

	mu    sync.Mutex
	since time.Time
	begun int // handshakes, within a second from since on
}

func newDoor(gate *udpconn.Gate, flooded func(begun int), refused func(net.Addr, error), expects func(netip.Prefix) bool) *door {
	return &door{
		gate:     gate,
		halfOpen: newLimiter(maxHalfOpen, oneHalfOpen, handshakesPerSecond, handshakesAtOnce),
		expected: newLimiter(maxExpected, oneExpected, handshakesPerSecond, handshakesAtOnce),
		asks:     pace{burst: askBurst, rate: askRate},
		proven:   pace{burst: askBurst, rate: askRate},
		askers:   newLimiter(maxHearings, oneHearing, networkAskRate, networkAskBurst),
		rooms: map[string]*limiter{
			wire.ALPN:          newLimiter(maxGreetings, oneGreeting, handshakesPerSecond, handshakesAtOnce),
			identity.JoinALPN:  newLimiter(maxEnrolments, oneEnrolment, enrolmentsPerSecond, enrolmentsAtOnce),
			identity.AskALPN:   newLimiter(maxHearings, oneHearing, hearingsPerSecond, hearingsAtOnce),
			identity.RenewALPN: newLimiter(maxRenewals, oneRenewal, renewalsPerSecond, renewalsAtOnce),
		},
		flooded: flooded,
		refused: refused,
		expects: expects,
	}
}

// guard has a transport ask the door about those who dial it.
func (d *door) guard(tr *quic.Transport) {
	tr.VerifySourceAddress = func(net.Addr) bool { return d.mustProve() }
	tr.ConnContext = d.enter
}

// mustProve reports whether who begins a handshake without having shown its address
// must show it.
func (d *door) mustProve() bool {
	now := time.Now()
	d.mu.Lock()
	before := 0
	if now.Sub(d.since) >= time.Second {
		if now.Sub(d.since) < 2*time.Second { // else it is no news
			before = d.begun
		}
		d.since, d.begun = now, 0
	}
	d.begun++
	many := d.begun > maxHandshakes
	d.mu.Unlock()
	if before > floodFrom {
		d.flooded(before)
	}
	return many || d.halfOpen.count() >= maxUnproven || d.asks.isSpent(now)
}

// floodFrom is how many handshakes a second are worth a line in the log: a hub of
// a hundred sites that comes back has fewer.
const floodFrom = 1000

var (
	errBusy  = errors.New("busy, try again")
	errFlood = errors.New("they must show their addresses now, which costs honest ones a round trip")
)

// enter counts a handshake that begins, or refuses it. An address that was not
// shown counts for nobody: it may be a member's, forged to have that one refused.
func (d *door) enter(ctx context.Context, who *quic.ClientInfo) (context.Context, error) {
	var from netip.Prefix
	if who.AddrVerified {
		from = network(who.RemoteAddr)
	}
	leave, ok := d.halfOpen.enter(from)
	if !ok && d.expects(from) {
		leave, ok = d.expected.enter(from)
	}
	if !ok {
		return nil, errBusy
	}
	if !who.AddrVerified {
		left, proven := leave, d.gate.Unproven(addrPort(who.RemoteAddr))
		leave = sync.OnceFunc(func() { left(); proven() })
	}
	context.AfterFunc(ctx, func() {
		leave()
		if why := refusal(context.Cause(ctx)); why != nil {
			d.refused(who.RemoteAddr, why)
		}
	})
	return context.WithValue(ctx, comerKey{}, comer{from, leave}), nil
}

// comer is who has begun a handshake.
type comer struct {
	from  netip.Prefix // invalid when its address is not proven
	leave func()       // it is half open no more
}

// comerKey is that of a comer, in the context of its connection.
type comerKey struct{}

// mayAsk reports whether a handshake may go on that is there to ask to be let in.
func (d *door) mayAsk(ctx context.Context) bool {
	who, _ := ctx.Value(comerKey{}).(comer)
	if !who.from.IsValid() {
		return d.asks.try(time.Now(), 1)
	}
	leave, ok := d.askers.enter(who.from)
	if !ok {
		return false
	}
	leave() // how often counts, and not how many
	return d.proven.try(time.Now(), 1)
}

// refusal returns why TLS has ended a connection at our end: quic-go tells only the
// other one. It is nil when it was not TLS, or the other end.
func refusal(err error) error {
	var crypto *quic.TransportError
	if !errors.As(err, &crypto) || crypto.Remote || !crypto.ErrorCode.IsCryptoError() {
		return nil
	}
	for _, inner := range crypto.Unwrap() {
		if inner != nil && inner != net.ErrClosed {
			return inner
		}
	}
	return crypto
}

// pass counts a connection whose handshake is done among those that speak the same,
// until done is called. It returns false when there are too many.
func (d *door) pass(conn *quic.Conn) (done func(), ok bool) {
	if who, ok := conn.Context().Value(comerKey{}).(comer); ok {
		who.leave()
	}
	room := d.rooms[conn.ConnectionState().TLS.NegotiatedProtocol]
	return room.enter(network(conn.RemoteAddr()))
}

// network returns what one sender may have many addresses of: a /64 of IPv6, and
// of IPv4 one address.
func network(addr net.Addr) netip.Prefix { return networkOf(addrPort(addr)) }

func networkOf(addr netip.AddrPort) netip.Prefix {
	const v4Bits, v6Bits = 32, 64
	a := addr.Addr().Unmap()
	bits := v6Bits
	if a.Is4() {
		bits = v4Bits
	}
	p, _ := a.Prefix(bits) // invalid for no address
	return p
}
