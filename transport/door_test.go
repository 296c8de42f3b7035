// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"
)

// sender returns an address of many, each of a network of its own.
func sender(n uint32) *net.UDPAddr {
	return &net.UDPAddr{IP: binary.BigEndian.AppendUint32(nil, 0xc6120000+n), Port: 4433}
}

func TestNetwork(t *testing.T) {
	for _, tt := range []struct{ addr, want string }{
		{"192.0.2.1:1", "192.0.2.1/32"},
		{"[::ffff:192.0.2.1]:1", "192.0.2.1/32"},
		{"[2001:db8:1:2:3:4:5:6]:1", "2001:db8:1:2::/64"},
		{"[fe80::1%7]:1", "fe80::/64"},
	} {
		if got := network(net.UDPAddrFromAddrPort(netip.MustParseAddrPort(tt.addr))); got.String() != tt.want {
			t.Errorf("%s: %v, want %s", tt.addr, got, tt.want)
		}
	}
}

func TestLimiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const most, each, rate, burst = 10, 4, 2, 6
		l := newLimiter(most, each, rate, burst)
		var held []func()
		enter := func(from uint32, times int) (entered int) {
			for range times {
				if leave, ok := l.enter(network(sender(from))); ok {
					held, entered = append(held, leave), entered+1
				}
			}
			return entered
		}
		leaveAll := func() {
			for _, leave := range held {
				leave()
				leave() // counts once
			}
			held = nil
		}
		if n := enter(1, 20); n != each {
			t.Errorf("%d at once from one network, want %d", n, each)
		}
		leaveAll()
		if n := enter(1, 20); n != burst-each {
			t.Errorf("%d more at once, want what is left of the burst, %d", n, burst-each)
		}
		leaveAll()
		time.Sleep(time.Second)
		if n := enter(1, 20); n != rate {
			t.Errorf("%d a second later, want %d", n, rate)
		}
		for from := range uint32(20) {
			enter(100+from, 1)
		}
		if len(held) != most || l.count() != most {
			t.Errorf("%d at once, %d counted, want %d", len(held), l.count(), most)
		}
		leaveAll()
		if l.count() != 0 {
			t.Errorf("%d counted when all have left", l.count())
		}
	})
}

// What a limiter remembers has a bound, goes when it does not matter any more, and
// when it is full of what matters those who are not remembered have the bound of
// all.
func TestLimiterForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(10, 1, 1, 8)
		for from := range uint32(4 * maxNetworks) {
			leave, ok := l.enter(network(sender(from)))
			if !ok {
				t.Fatalf("network %d is refused", from)
			}
			leave()
			if len(l.from) > maxNetworks {
				t.Fatalf("%d networks remembered", len(l.from))
			}
		}
		if len(l.from) != maxNetworks {
			t.Errorf("%d networks remembered, want %d", len(l.from), maxNetworks)
		}
		const late = 1 << 16
		var open int
		for range 20 {
			if _, ok := l.enter(network(sender(late))); ok {
				open++
			}
		}
		if open != 10 {
			t.Errorf("%d at once from a network without a place, want the bound of all", open)
		}
		time.Sleep(time.Second)
		l.most = 100
		if _, ok := l.enter(network(sender(late))); !ok || len(l.from) != 1 {
			t.Errorf("%v, %d remembered, want that one alone", ok, len(l.from))
		}
	})
}

// Who has the networks to take all places there are for handshakes keeps out
// strangers, and no member that comes from where it was before.
func TestDoorFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		home := sender(0)
		d := newDoor(newGate(nil), nil, nil, func(from netip.Prefix) bool { return from == network(home) })
		var closes []context.CancelFunc
		enter := func(addr net.Addr, proven bool) error {
			ctx, cancel := context.WithCancel(context.Background())
			closes = append(closes, cancel)
			_, err := d.enter(ctx, &quic.ClientInfo{RemoteAddr: addr, AddrVerified: proven})
			return err
		}
		for i := range maxHalfOpen {
			if err := enter(sender(1+uint32(i/oneHalfOpen)), true); err != nil {
				t.Fatalf("handshake %d: %v", i, err)
			}
		}
		if err := enter(sender(100), true); !errors.Is(err, errBusy) {
			t.Errorf("a stranger: %v", err)
		}
		if err := enter(home, false); !errors.Is(err, errBusy) {
			t.Errorf("in the name of the member: %v", err)
		}
		for i := range oneExpected {
			if err := enter(home, true); err != nil {
				t.Errorf("handshake %d of the member: %v", i, err)
			}
		}
		if err := enter(home, true); !errors.Is(err, errBusy) {
			t.Errorf("one more: %v", err)
		}
		for _, c := range closes {
			c()
		}
		synctest.Wait()
		if n := d.halfOpen.count() + d.expected.count(); n != 0 {
			t.Errorf("%d half open when all have ended", n)
		}
	})
}

// Handshakes from forged addresses, which come no further, have a share of what
// may be half open, and leave that of others alone, also of those whose addresses
// they use.
func TestDoorForged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []int
		d := newDoor(newGate(nil), func(begun int) { told = append(told, begun) }, nil, func(netip.Prefix) bool { return false })
		honest := sender(0)
		var closes []context.CancelFunc
		enter := func(addr net.Addr, proven bool) bool {
			ctx, cancel := context.WithCancel(context.Background())
			closes = append(closes, cancel)
			_, err := d.enter(ctx, &quic.ClientInfo{RemoteAddr: addr, AddrVerified: proven})
			return err == nil
		}
		var open int
		for range 5 {
			for range 20000 {
				if d.mustProve() {
					continue
				}
				if open++; !enter(honest, false) {
					t.Fatalf("handshake %d is refused, and was not asked for proof", open)
				}
			}
			time.Sleep(time.Second)
		}
		if open != maxUnproven {
			t.Errorf("%d are half open, want %d", open, maxUnproven)
		}
		for i := range oneHalfOpen {
			if !enter(honest, true) {
				t.Fatalf("an honest one's handshake %d is refused", i)
			}
		}
		if enter(honest, true) {
			t.Errorf("more than %d from one network", oneHalfOpen)
		}
		for i := range uint32(2 * maxHalfOpen) {
			enter(sender(1+i), true)
		}
		if n := d.halfOpen.count(); n != maxHalfOpen {
			t.Errorf("%d half open, want %d", n, maxHalfOpen)
		}
		for _, c := range closes {
			c() // as quic-go does, whatever becomes of a handshake
		}
		synctest.Wait()
		if n := d.halfOpen.count(); n != 0 {
			t.Errorf("%d half open when all have ended", n)
		}
		if !slices.ContainsFunc(told, func(n int) bool { return n >= 20000 }) || len(told) > 5 {
			t.Errorf("told of %v a second", told)
		}
	})
}
