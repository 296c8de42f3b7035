// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	loadSize   = 1200 // bytes of a datagram's payload
	loadTurn   = 5 * time.Millisecond
	loadBuffer = 8 << 20
)

// Load is traffic from one host to another, at an even rate, until it is
// stopped or the test ends.
type Load struct {
	stop func()

	mu       sync.Mutex
	sent     uint64
	received uint64
	twice    uint64
	seen     []uint64 // a bit for each number
}

// LoadCount is what a load has come to: numbered datagrams, or none of a
// stream.
type LoadCount struct{ Sent, Received, Twice uint64 }

// Count returns what the load has come to so far.
func (l *Load) Count() LoadCount {
	l.mu.Lock()
	defer l.mu.Unlock()
	return LoadCount{l.sent, l.received, l.twice}
}

// Stop ends the load.
func (l *Load) Stop() { l.stop() }

// run starts the parts of a load, which end with ctx.
func (l *Load) run(n *Namespace, conns []interface{ Close() error }, parts ...func(ctx context.Context)) {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for _, part := range parts {
		running.Go(func() { part(ctx) })
	}
	l.stop = sync.OnceFunc(func() {
		cancel()
		for _, conn := range conns {
			conn.Close()
		}
		running.Wait()
	})
	n.t.Cleanup(l.stop)
}

// UDPLoad sends numbered datagrams at so many bits of payload a second.
func UDPLoad(from, to *Host, rate int) *Load {
	from.t.Helper()
	sink := to.ListenUDP(to.Addr4 + ":0")
	source := from.ListenUDP(from.Addr4 + ":0")
	sink.SetReadBuffer(loadBuffer)
	l := new(Load)
	l.run(from.Namespace, []interface{ Close() error }{sink, source},
		func(ctx context.Context) { l.sendUDP(ctx, source, sink.LocalAddr(), rate) },
		func(context.Context) { l.receiveUDP(sink) })
	return l
}

func (l *Load) sendUDP(ctx context.Context, conn *net.UDPConn, to net.Addr, rate int) {
	tick := time.NewTicker(loadTurn)
	defer tick.Stop()
	b := make([]byte, loadSize)
	perSecond := float64(rate) / (8 * loadSize)
	const late = 20 // turns that are made up for, no more
	most := int(perSecond*loadTurn.Seconds()*late) + 1
	last, due, number := time.Now(), 0.0, uint64(0)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := time.Now()
		due = min(due+perSecond*now.Sub(last).Seconds(), float64(most))
		last = now
		for ; due >= 1; due-- {
			binary.BigEndian.PutUint64(b, number)
			number++
			conn.WriteTo(b, to)
		}
		l.mu.Lock()
		l.sent = number
		l.mu.Unlock()
	}
}

func (l *Load) receiveUDP(conn *net.UDPConn) {
	b := make([]byte, loadSize)
	for {
		n, err := conn.Read(b)
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err == nil && n == loadSize:
			l.add(binary.BigEndian.Uint64(b))
		}
	}
}

func (l *Load) add(number uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if number > l.sent+1<<20 {
		return // none of ours
	}
	for uint64(len(l.seen)) <= number/64 {
		l.seen = append(l.seen, 0)
	}
	if bit := uint64(1) << (number % 64); l.seen[number/64]&bit != 0 {
		l.twice++
	} else {
		l.seen[number/64] |= bit
		l.received++
	}
}

// TCPLoad streams at so many bits a second at most, and connects again when the
// connection breaks.
func TCPLoad(from, to *Host, rate int) *Load {
	from.t.Helper()
	var listener net.Listener
	err := to.Do(func() (err error) {
		listener, err = net.Listen("tcp", to.Addr4+":0")
		return err
	})
	if err != nil {
		from.t.Fatalf("%s: load: %v", to.Name, err)
	}
	l := new(Load)
	l.run(from.Namespace, []interface{ Close() error }{listener},
		func(ctx context.Context) {
			for ctx.Err() == nil {
				if err := stream(ctx, from.Namespace, listener.Addr().String(), rate); err != nil {
					select {
					case <-ctx.Done():
					case <-time.After(time.Second):
					}
				}
			}
		},
		func(ctx context.Context) {
			var sinks sync.WaitGroup
			defer sinks.Wait()
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				sinks.Go(func() { sink(ctx, conn) })
			}
		})
	return l
}

// stream sends until the connection breaks.
func stream(ctx context.Context, n *Namespace, to string, rate int) error {
	var conn net.Conn
	dialer := net.Dialer{Timeout: 5 * time.Second, Control: func(_, _ string, raw syscall.RawConn) (err error) {
		control := raw.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MAX_PACING_RATE, rate/8)
		})
		return errors.Join(control, os.NewSyscallError("setsockopt", err))
	}}
	err := n.Do(func() (err error) {
		conn, err = dialer.DialContext(ctx, "tcp", to)
		return err
	})
	if err != nil {
		return err
	}
	defer closeWith(ctx, conn)()
	b := make([]byte, 64<<10)
	for {
		if _, err := conn.Write(b); err != nil {
			return fmt.Errorf("stream: %w", err)
		}
	}
}

func sink(ctx context.Context, conn net.Conn) {
	defer closeWith(ctx, conn)()
	b := make([]byte, 64<<10)
	for {
		if _, err := conn.Read(b); err != nil {
			return
		}
	}
}

// closeWith closes a connection when ctx ends, or at once when its result is
// called.
func closeWith(ctx context.Context, conn net.Conn) func() {
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	return func() {
		stop()
		conn.Close()
	}
}
