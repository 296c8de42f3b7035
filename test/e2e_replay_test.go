// SPDX-License-Identifier: Apache-2.0

//go:build linux

package test_test

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/l2bridge/l2bridge/test/lab"
)

// replayer overhears what one site says to another, and says it again.
type replayer struct {
	wire  *lab.Wire
	forge *lab.Forger
	to    netip.AddrPort
	liar  netip.AddrPort // in whose name it says it, beside the right one

	heard []heard
	sent  int // bytes, in the liar's name
}

// heard is a datagram and where it came from.
type heard struct {
	from    netip.AddrPort
	payload []byte
}

func newReplayer(s *lab.Sites, from, to *lab.Site, liar netip.AddrPort) *replayer {
	router := s.WAN[0]
	return &replayer{
		wire: router.Wire(from.Uplink), forge: s.Forge(to), liar: liar,
		to: netip.AddrPortFrom(netip.MustParseAddr(to.Addr4), 4433),
	}
}

// run says all again at once, until ctx ends.
func (r *replayer) run(ctx context.Context) error {
	for ctx.Err() == nil {
		frame, err := r.wire.Recv(50 * time.Millisecond)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			continue
		}
		if err != nil {
			return err
		}
		from, to, payload, ok := lab.UDPPayload(frame)
		if !ok || to != r.to {
			continue
		}
		r.heard = append(r.heard, heard{from, slices.Clone(payload)})
		if err := r.again(r.heard[len(r.heard)-1]); err != nil {
			return err
		}
	}
	return nil
}

func (r *replayer) again(h heard) error {
	r.sent += len(h.payload)
	return errors.Join(r.forge.Send(h.from, h.payload), r.forge.Send(r.liar, h.payload))
}

// Whoever can repeat what the sites say gains nothing by it: no frame comes twice,
// and nobody is taken to be where it came from.
func TestReplay(t *testing.T) {
	lasts := 4 * time.Second
	if *attackFull {
		lasts = time.Minute
	} else {
		t.Parallel()
	}
	s := lab.TwoSites(t, lab.Options{Hosts: 1})
	for _, site := range []*lab.Site{s.A, s.B} {
		// One packet at a time, to be repeated as it was.
		site.Gateway.MustRun("ip", "link", "set", lab.WANLink, "gso_max_segs", "1")
	}
	counters := []*lab.Counter{s.WAN[0].Count(s.A.Uplink, netip.MustParsePrefix("198.19.0.0/16")), s.WAN[0].Count(s.B.Uplink, netip.MustParsePrefix("198.18.99.0/24"))}
	replayers := []*replayer{
		newReplayer(s, s.B, s.A, forged(7, 4433)),
		newReplayer(s, s.A, s.B, netip.MustParseAddrPort("198.18.99.9:4433")),
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var running sync.WaitGroup
	for _, r := range replayers {
		running.Go(func() {
			if err := r.run(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	upA, upB := link(t, s) // with its handshakes
	a, b := s.A.Hosts[0], s.B.Hosts[0]
	ping(t, a.Namespace, b.Addr4, recvWait)
	began := time.Now()
	const rate = 3_000_000
	loads := []*lab.Load{lab.UDPLoad(a, b, rate), lab.UDPLoad(b, a, rate)}
	time.Sleep(lasts)
	cancel()
	running.Wait()
	for range 2 {
		for _, r := range replayers {
			for i, h := range r.heard {
				if err := r.again(h); err != nil {
					t.Fatal(err)
				}
				if i%4 == 3 {
					time.Sleep(time.Millisecond) // no more than it came by itself, or so
				}
			}
		}
	}
	time.Sleep(time.Second)
	for i, load := range loads {
		load.Stop()
		count, r := load.Count(), replayers[1-i]
		packets, bytes := counters[1-i].Count()
		t.Logf("%d datagrams overheard, each said again three times in the right name and in a wrong one, which got %d answers of %d bytes to %d; load: %+v",
			len(r.heard), packets, bytes, r.sent, count)
		if count.Twice != 0 || count.Received == 0 || len(r.heard) == 0 {
			t.Errorf("of %d frames %d arrived, %d of them twice; %d datagrams were overheard", count.Sent, count.Received, count.Twice, len(r.heard))
		}
		if bytes > 3*r.sent {
			t.Errorf("%d bytes went to the wrong address for %d", bytes, r.sent)
		}
	}
	for _, end := range []struct {
		at, of *lab.Site
	}{{s.A, s.B}, {s.B, s.A}} {
		peers, err := end.at.Peers()
		if err != nil {
			t.Fatal(err)
		}
		if p, want := peers[0], end.of.Addr4+":4433"; p.Addr != want || p.State != "up" || time.Duration(p.SinceMS)*time.Millisecond < time.Since(began) {
			t.Errorf("site %s takes its peer to be %s at %s since %d ms, want up at %s as before", end.at.Name, p.State, p.Addr, p.SinceMS, want)
		}
	}
	alive(t, upA, upB)
}
