// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/l2bridge/l2bridge/transport/identity"
)

// file has somebody ask from an address of its own.
func file(q *requests, n int) (*request, bool, error) {
	asker := identity.Asker{Site: "site", ID: identity.ID{byte(n)}}
	return q.file(asker, &net.UDPAddr{IP: net.IPv4(192, 0, 2, byte(n)), Port: 4433}, nil)
}

// Of those who were denied the latest are remembered, for their time.
func TestRestingIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const denied = maxResting + 10
		q := newRequests()
		for n := range denied {
			r, _, err := file(q, n)
			if err != nil {
				t.Fatal(err)
			}
			q.rest(r)
			q.settle(r, refusing(identity.ErrAskDenied))
		}
		if len(q.resting) != maxResting {
			t.Errorf("%d are remembered, want %d", len(q.resting), maxResting)
		}
		if _, _, err := file(q, denied-1); !errors.Is(err, identity.ErrAskDenied) {
			t.Errorf("the latest: %v", err)
		}
		if _, news, err := file(q, 0); err != nil || !news {
			t.Errorf("the oldest: %v", err)
		}
		time.Sleep(restLife)
		if _, news, err := file(q, denied-1); err != nil || !news {
			t.Errorf("when its time is over: %v", err)
		}
		if len(q.resting) != 0 {
			t.Errorf("%d are remembered when their time is over", len(q.resting))
		}
	})
}

// Yes and no at once: one counts, and nobody is told twice.
func TestSettledOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newRequests()
		r, _, err := file(q, 1)
		if err != nil {
			t.Fatal(err)
		}
		q.settle(r, identity.Answer{Kind: identity.AnswerMember})
		q.settle(r, refusing(identity.ErrAskDenied))
		time.Sleep(requestLife)
		q.end()
		<-r.decided
		if r.answer.Kind != identity.AnswerMember {
			t.Errorf("answer %+v", r.answer)
		}
	})
}

// Handshakes to ask are few, whoever begins them; but who forges addresses does not
// take what there is for others, nor does one network.
func TestFewHandshakesToAsk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDoor(newGate(nil), nil, nil, func(netip.Prefix) bool { return false })
		through := func(addr net.Addr, proven bool) (n int) {
			for range 50 {
				ctx, cancel := context.WithCancel(context.Background())
				in, err := d.enter(ctx, &quic.ClientInfo{RemoteAddr: addr, AddrVerified: proven})
				if err == nil && d.mayAsk(in) {
					n++
				}
				cancel()
				synctest.Wait()
			}
			return n
		}
		for _, want := range []int{askBurst, askRate, askRate} {
			if d.mustProve() {
				t.Error("who begins must show its address")
			}
			if got := through(sender(1), false); got != want {
				t.Errorf("%d from forged addresses went on, want %d", got, want)
			}
			if !d.mustProve() {
				t.Error("who begins need not show its address")
			}
			time.Sleep(time.Second)
		}
		through(sender(1), false)
		for _, want := range []int{networkAskBurst, 0} {
			if got := through(sender(2), true); got != want {
				t.Errorf("%d of one network went on, want %d", got, want)
			}
		}
		all := networkAskBurst
		for n := range uint32(10) {
			all += through(sender(3+n), true)
		}
		if all != askBurst {
			t.Errorf("%d of all networks went on, want %d", all, askBurst)
		}
	})
}
