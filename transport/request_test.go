// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

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

// Handshakes to ask are few, whoever begins them.
func TestFewHandshakesToAsk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &Mesh{requests: newRequests(), cfg: Config{Member: founded(t)}}
		through := func() (n int) {
			for range 100 {
				if _, err := m.askedTLS(); err == nil {
					n++
				}
			}
			return n
		}
		for _, want := range []int{askBurst, askRate, askRate} {
			if got := through(); got != want {
				t.Errorf("%d went on, want %d", got, want)
			}
			time.Sleep(time.Second)
		}
		time.Sleep(time.Hour)
		if got := through(); got != askBurst {
			t.Errorf("%d went on after an hour, want %d", got, askBurst)
		}
	})
}

// founded returns the founder of a network of its own.
func founded(t *testing.T) *identity.Member {
	dir, err := identity.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	m, err := dir.Found("home")
	if err != nil {
		t.Fatal(err)
	}
	return m
}
