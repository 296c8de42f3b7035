// SPDX-License-Identifier: Apache-2.0

//go:build linux

package test_test

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/l2bridge/l2bridge/test/lab"
)

// attackFull makes of attacks what is promised to hold, with limits that a busy
// machine does not keep: "make attacks".
var attackFull = flag.Bool("attacks.full", false, "attacks last a minute, as hard as promised, and are measured")

// flood sends a gateway datagrams from 65,536 forged addresses until ctx ends, in
// equal parts: noise, beginnings of connections, and packets as of connections. It
// returns how many.
func flood(ctx context.Context, t *testing.T, forge *lab.Forger, rate int) (sent int) {
	rng := rand.New(rand.NewPCG(11, 13))
	var hellos [][]byte
	for range 16 {
		hellos = append(hellos, firstFlight(t, "l2bridge/1")[0])
	}
	datagram := func() []byte {
		switch rng.IntN(3) {
		case 0:
			return noise(rng, 1+rng.IntN(1400))
		case 1:
			return noise(rng, 20+rng.IntN(1200), 0x40|byte(rng.IntN(64)))
		}
		if rng.IntN(2) == 0 {
			return hellos[rng.IntN(len(hellos))]
		}
		return noise(rng, 1200, 0xc0|byte(rng.IntN(16)), 0, 0, 0, 1, 8)
	}
	// Made before, since it is the gateway that is to be busy.
	frames := make([][]byte, 8192)
	for i := range frames {
		frames[i] = forge.Frame(forged(uint16(i), uint16(1024+rng.IntN(60000))), datagram())
	}
	const turn = 2 * time.Millisecond
	tick := time.NewTicker(turn)
	defer tick.Stop()
	began := time.Now()
	for {
		select {
		case <-ctx.Done():
			return sent
		case <-tick.C:
		}
		due := int(float64(rate) * time.Since(began).Seconds())
		if most := rate / 10; due-sent > most { // what could not be sent is not made up for
			began = began.Add(time.Duration(due-sent-most) * time.Second / time.Duration(rate))
			due = sent + most
		}
		for ; sent < due; sent++ {
			if err := forge.SendFrom(frames[sent%len(frames)], forged(uint16(rng.Uint32()), uint16(sent))); err != nil {
				t.Errorf("flood: %v", err)
				return sent
			}
		}
	}
}

// A flood from forged addresses neither ends a session nor keeps a new member out.
func TestFlood(t *testing.T) {
	rate, lasts, joinWithin := 3000, 5*time.Second, time.Minute
	if *attackFull {
		rate, lasts, joinWithin = 20000, time.Minute, 10*time.Second
	} else {
		t.Parallel()
	}
	s := lab.TwoSites(t, lab.Options{Hosts: 1})
	c := s.Third(lab.Options{Hosts: 1})
	upA, upB := link(t, s)
	a, b := s.A.Hosts[0], s.B.Hosts[0]
	ping(t, a.Namespace, b.Addr4, recvWait)
	token := s.A.Invite("c")
	server := b.Start("iperf3", "--server", "--forceflush")
	server.WaitOutput(recvWait, "Server listening")
	tcp := func(seconds int) float64 {
		return float64(iperf(t, a, b.Addr4, fmt.Sprintf("--time=%d", seconds), "--congestion=cubic").Bytes) * 8e-6 / float64(seconds)
	}
	var before, during, after float64
	if *attackFull {
		before = tcp(10)
	}
	rss := upA.RSS()

	forge := s.Forge(s.A)
	ctx, cancel := context.WithTimeout(t.Context(), lasts)
	defer cancel()
	var flooding, pinging sync.WaitGroup
	cpu, began := upA.CPU(), time.Now()
	flooding.Go(func() {
		n := flood(ctx, t, forge, rate)
		t.Logf("%d datagrams in %v; site a used %v of a processor", n, time.Since(began).Round(time.Second), upA.CPU()-cpu)
	})
	var echoes string
	pinging.Go(func() {
		echoes, _ = a.RunFor(lasts+recvWait, "ping", "-n", "-q", "-i0.01", fmt.Sprintf("-w%d", int(lasts.Seconds())), b.Addr4)
	})
	if *attackFull {
		time.Sleep(10 * time.Second)
		quiet := upA.CPU()
		time.Sleep(10 * time.Second)
		t.Logf("site a used %v of a processor in 10 s of flood alone", upA.CPU()-quiet)
		during = tcp(10)
	}

	joins := time.Now()
	upC := c.Join(token)
	lab.Wait(t, joinWithin, "a new member is up", func() error { return isWell(c, 2) })
	joined := time.Since(joins)
	if *attackFull && time.Since(began) > lasts {
		t.Error("the flood was over before")
	}
	flooding.Wait()
	pinging.Wait()
	most, ended := upA.RSS(), time.Now()
	if *attackFull {
		after = tcp(10)
	}
	for _, line := range strings.Split(echoes, "\n") {
		if strings.Contains(line, "loss") || strings.Contains(line, "rtt") {
			t.Log(line)
		}
	}
	t.Logf("TCP %.0f Mbit/s before, %.0f during, %.0f after; a new member was up after %v", before, during, after, joined.Round(time.Millisecond))
	for _, site := range []*lab.Site{s.A, s.B} {
		peers, err := site.Peers()
		if err != nil {
			t.Fatal(err)
		}
		if since := time.Duration(peers[0].SinceMS) * time.Millisecond; since < time.Since(began) {
			t.Errorf("site %s has a session since %v, want the one of before", site.Name, since)
		}
	}
	if n := strings.Count(upA.Output(), "level=WARN"); n > 8*(1+int(time.Since(began)/time.Minute))+2 {
		t.Errorf("%d warnings in the log of site a", n)
	}
	alive(t, upA, upB, upC)
	if d, err := s.A.Drops(); err != nil || d["stranger"] == 0 {
		t.Errorf("drops of site a: %v, %v, want some of strangers", d, err)
	} else {
		t.Logf("drops of site a: %v", d)
	}
	if !*attackFull {
		return
	}
	var sent, received float64
	_, counts, _ := strings.Cut(echoes, "---\n")
	if _, err := fmt.Sscanf(counts, "%f packets transmitted, %f received", &sent, &received); err != nil {
		t.Fatalf("%v: %s", err, echoes)
	}
	if lost := 1 - received/sent; lost >= 0.01 {
		t.Errorf("%.2f %% of pings lost, want less than 1", 100*lost)
	}
	// Speeds drift from one moment to the next, on a machine that is shared above all.
	if during < (before+after)/4 {
		t.Errorf("TCP has %.0f of %.0f Mbit/s, want half at least", during, (before+after)/2)
	}
	const room = 8 << 20
	lab.Wait(t, time.Minute, "memory is back", func() error {
		if now := upA.RSS(); now > rss+room {
			return fmt.Errorf("%d MiB, %d before", now>>20, rss>>20)
		}
		return nil
	})
	t.Logf("memory %d MiB before, %d at its end, %d after %v", rss>>20, most>>20, upA.RSS()>>20, time.Since(ended).Round(time.Second))
}
