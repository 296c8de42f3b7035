// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lab

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const (
	relayClients = 64      // senders a relay keeps apart
	relayBacklog = 1 << 14 // datagrams on their way, each direction of each sender
	datagramMax  = 1 << 16
)

// Impairment is what a path does to datagrams, in each direction by itself.
// Fractions are between 0 and 1. The zero value does nothing.
type Impairment struct {
	Delay     time.Duration
	Jitter    time.Duration // delay varies by as much up and down; order is kept
	Loss      float64
	Duplicate float64 // sent twice, the second time as a path of its own
	Reorder   float64 // held back by one more jitter, so that later ones overtake
	Corrupt   float64 // one bit flipped
	Seed      uint64  // 0: picked, and printed
}

// RelayStats counts datagrams, both directions together.
type RelayStats struct {
	In, Out, Lost, Duplicated, Reordered, Corrupted atomic.Int64
	Overflow                                        atomic.Int64 // lost to a full backlog: the test asks too much
}

func (s *RelayStats) String() string {
	return fmt.Sprintf("%d in, %d out, %d lost, %d duplicated, %d reordered, %d corrupted, %d overflow",
		s.In.Load(), s.Out.Load(), s.Lost.Load(), s.Duplicated.Load(), s.Reordered.Load(), s.Corrupted.Load(), s.Overflow.Load())
}

// Relay passes UDP datagrams on, badly. It stands between clients and one
// server: clients talk to its address, and the server sees one port of the
// relay for each.
//
//	client -- listen [line] socket -- server
type Relay struct {
	Stats RelayStats

	im      Impairment
	front   *net.UDPConn
	ns      *Namespace
	server  *net.UDPAddr
	ctx     context.Context
	running sync.WaitGroup
	seeds   *rand.Rand
	clients map[netip.AddrPort]*relayClient // of the goroutine that reads front
}

type relayClient struct {
	back *net.UDPConn // towards the server
	up   *line
}

// Relay starts a relay in the namespace that ends with the test.
func (n *Namespace) Relay(listen, server string, im Impairment) *Relay {
	n.t.Helper()
	if im.Seed == 0 {
		im.Seed = rand.Uint64()
	}
	n.t.Logf("%s: relay %s to %s: %+v", n.Name, listen, server, im)
	addr, err := net.ResolveUDPAddr("udp", server)
	if err != nil {
		n.t.Fatalf("relay: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &Relay{
		im:      im,
		front:   n.ListenUDP(listen),
		ns:      n,
		server:  addr,
		ctx:     ctx,
		seeds:   rand.New(rand.NewPCG(im.Seed, 0)),
		clients: make(map[netip.AddrPort]*relayClient),
	}
	r.running.Go(func() { r.readFront(n.t) })
	n.t.Cleanup(func() {
		cancel()
		r.front.Close()
		r.running.Wait()
		n.t.Logf("%s: relay: %v", n.Name, &r.Stats)
	})
	return r
}

func (r *Relay) readFront(t testing.TB) {
	buf := make([]byte, datagramMax)
	for {
		n, from, err := r.front.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			break
		}
		if err != nil {
			continue // an ICMP error for an earlier datagram
		}
		c := r.clients[from]
		if c == nil {
			if len(r.clients) == relayClients {
				r.Stats.Overflow.Add(1)
				continue
			}
			if c, err = r.newClient(from); err != nil {
				t.Errorf("relay: %v", err)
				break
			}
			r.clients[from] = c
		}
		c.up.put(buf[:n])
	}
	for _, c := range r.clients {
		c.back.Close()
	}
}

// newClient opens the way to the server for a client, and back.
func (r *Relay) newClient(client netip.AddrPort) (*relayClient, error) {
	var back *net.UDPConn
	err := r.ns.Do(func() (err error) {
		back, err = net.DialUDP("udp", nil, r.server)
		return err
	})
	if err != nil {
		return nil, err
	}
	up := r.newLine(func(b []byte) error { _, err := back.Write(b); return err })
	down := r.newLine(func(b []byte) error { _, err := r.front.WriteToUDPAddrPort(b, client); return err })
	r.running.Go(func() {
		buf := make([]byte, datagramMax)
		for {
			n, err := back.Read(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				down.put(buf[:n])
			}
		}
	})
	return &relayClient{back: back, up: up}, nil
}

// line is one direction of the path of one client.
type line struct {
	relay *Relay
	send  func([]byte) error
	wake  chan struct{} // something new is first

	mu     sync.Mutex
	rng    *rand.Rand
	queue  flights
	number uint64
	last   time.Time // when the latest datagram that keeps order leaves
}

func (r *Relay) newLine(send func([]byte) error) *line {
	l := &line{
		relay: r,
		send:  send,
		wake:  make(chan struct{}, 1),
		rng:   rand.New(rand.NewPCG(r.seeds.Uint64(), r.seeds.Uint64())),
	}
	r.running.Go(l.run)
	return l
}

// put decides what becomes of a datagram, which it copies.
func (l *line) put(b []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	im, stats := &l.relay.im, &l.relay.Stats
	stats.In.Add(1)
	copies := 1
	if l.rng.Float64() < im.Duplicate {
		stats.Duplicated.Add(1)
		copies = 2
	}
	if l.rng.Float64() < im.Loss {
		stats.Lost.Add(1)
		copies--
	}
	for range copies {
		l.flyLocked(slices.Clone(b))
	}
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

func (l *line) flyLocked(b []byte) {
	im, stats := &l.relay.im, &l.relay.Stats
	if l.queue.Len() == relayBacklog {
		stats.Overflow.Add(1)
		return
	}
	if l.rng.Float64() < im.Corrupt && len(b) > 0 {
		stats.Corrupted.Add(1)
		b[l.rng.IntN(len(b))] ^= 1 << l.rng.IntN(8)
	}
	due := time.Now().Add(im.Delay)
	if im.Jitter > 0 {
		due = due.Add(time.Duration(l.rng.Int64N(int64(2*im.Jitter))) - im.Jitter)
	}
	if due.Before(l.last) {
		due = l.last
	}
	if l.rng.Float64() < im.Reorder {
		stats.Reordered.Add(1)
		due = due.Add(max(im.Jitter, time.Millisecond))
	} else {
		l.last = due
	}
	l.number++
	heap.Push(&l.queue, flight{due: due, number: l.number, data: b})
}

// run sends each datagram when it is due.
func (l *line) run() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-l.relay.ctx.Done():
			return
		case <-l.wake:
		case <-timer.C:
		}
		for {
			data, wait := l.next()
			if data == nil {
				if wait > 0 {
					timer.Reset(wait)
				}
				break
			}
			if l.send(data) == nil {
				l.relay.Stats.Out.Add(1)
			}
		}
	}
}

// next takes the datagram that is due, or tells how long until the first one
// is: zero when there is none.
func (l *line) next() (data []byte, wait time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.queue.Len() == 0 {
		return nil, 0
	}
	if wait := time.Until(l.queue[0].due); wait > 0 {
		return nil, wait
	}
	return heap.Pop(&l.queue).(flight).data, 0
}

// flight is a datagram on its way.
type flight struct {
	due    time.Time
	number uint64 // keeps order among those due at once
	data   []byte
}

// flights is a heap of datagrams by when they are due.
type flights []flight

func (f flights) Len() int { return len(f) }
func (f flights) Less(i, j int) bool {
	if f[i].due.Equal(f[j].due) {
		return f[i].number < f[j].number
	}
	return f[i].due.Before(f[j].due)
}
func (f flights) Swap(i, j int) { f[i], f[j] = f[j], f[i] }
func (f *flights) Push(x any)   { *f = append(*f, x.(flight)) }
func (f *flights) Pop() any {
	last := (*f)[len(*f)-1]
	*f = (*f)[:len(*f)-1]
	return last
}
