// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// pings is what a series of pings found.
type pings struct {
	RTT  []float64 // microseconds, sorted; a lost one counts as the time-out
	Lost int
}

// quantile returns the round trip that a part of all pings stays within.
func (p pings) quantile(part float64) float64 {
	if len(p.RTT) == 0 {
		return 0
	}
	return p.RTT[min(len(p.RTT)-1, int(part*float64(len(p.RTT))))]
}

// ping runs a series from host A to host B.
func (r *rig) ping(ctx context.Context, count int) (pings, error) {
	var p pings
	text, err := output(ctx, r.hostA, r.self, "ping", "-to", hostAddrB, "-count", strconv.Itoa(count))
	if err == nil {
		err = json.Unmarshal([]byte(text), &p)
	}
	if err == nil && p.Lost > len(p.RTT)/2 {
		err = fmt.Errorf("%d of %d pings were lost", p.Lost, len(p.RTT))
	}
	return p, err
}

// pingTool sends ICMP echo requests at even intervals, whether they are
// answered or not. An answer's time is the kernel's, at the link, so that this
// process need not be awake for it.
func pingTool(ctx context.Context, args []string, _ io.Reader, stdout io.Writer) error {
	f := flag.NewFlagSet("ping", flag.ContinueOnError)
	to := f.String("to", "", "IPv4 address")
	count := f.Int("count", 500, "requests")
	interval := f.Duration("interval", 5*time.Millisecond, "between requests")
	timeout := f.Duration("timeout", 2*time.Second, "for an answer")
	first := f.Bool("first", false, "go on until the first answer or the time-out, and say when it came")
	if err := f.Parse(args); err != nil {
		return err
	}
	addr, err := netip.ParseAddr(*to)
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP)
	if err != nil {
		return fmt.Errorf("raw socket: %w", err)
	}
	defer unix.Close(fd)
	if err := errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4<<20),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 20_000}),
	); err != nil {
		return err
	}
	dst := &unix.SockaddrInet4{Addr: addr.As4()}
	if *first {
		*count = int(*timeout / *interval)
		fmt.Fprintln(stdout, "ready")
	}
	p := &pinger{fd: fd, id: uint16(os.Getpid()), sent: make([]int64, *count), received: make([]int64, *count)}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var receiving sync.WaitGroup
	receiving.Go(func() {
		defer cancel()
		p.receive(ctx, *first)
	})
	p.send(ctx, dst, *interval)
	// The last ones may take the whole time-out.
	select {
	case <-ctx.Done():
	case <-time.After(*timeout):
	}
	cancel()
	receiving.Wait()
	if *first {
		for i, at := range p.received {
			if at != 0 {
				return json.NewEncoder(stdout).Encode(struct{ Sent, Received int64 }{p.sent[i], at})
			}
		}
		return errors.New("no answer")
	}
	return json.NewEncoder(stdout).Encode(p.result(*timeout))
}

// pinger is a series of echo requests on its way. Times are of the wall clock,
// in nanoseconds, as the kernel's are.
type pinger struct {
	fd int
	id uint16

	mu       sync.Mutex
	sent     []int64
	received []int64
	answered int
}

func (p *pinger) send(ctx context.Context, to unix.Sockaddr, interval time.Duration) {
	began := time.Now()
	for i := range p.sent {
		time.Sleep(time.Until(began.Add(time.Duration(i) * interval)))
		if ctx.Err() != nil {
			return
		}
		b := make([]byte, 64)
		b[0] = 8 // echo request
		binary.BigEndian.PutUint16(b[4:], p.id)
		binary.BigEndian.PutUint16(b[6:], uint16(i))
		binary.BigEndian.PutUint32(b[8:], uint32(i))
		binary.BigEndian.PutUint16(b[2:], ^sum16(b))
		p.mu.Lock()
		p.sent[i] = time.Now().UnixNano()
		p.mu.Unlock()
		unix.Sendto(p.fd, b, 0, to) // one that cannot be sent is one not answered
	}
}

// receive takes answers until ctx ends, all are there, or the first is.
func (p *pinger) receive(ctx context.Context, first bool) {
	b, oob := make([]byte, 2048), make([]byte, 256)
	for ctx.Err() == nil {
		n, oobn, _, _, err := unix.Recvmsg(p.fd, b, oob, 0)
		if err != nil || n < 20 {
			continue // a look at ctx
		}
		head := int(b[0]&15) * 4
		if n < head+12 {
			continue
		}
		icmp := b[head:n]
		i := int(binary.BigEndian.Uint32(icmp[8:]))
		if icmp[0] != 0 || binary.BigEndian.Uint16(icmp[4:]) != p.id || i >= len(p.received) {
			continue
		}
		at := time.Now().UnixNano()
		if messages, err := unix.ParseSocketControlMessage(oob[:oobn]); err == nil {
			for _, m := range messages {
				if m.Header.Type == syscall.SCM_TIMESTAMPNS && len(m.Data) >= 16 {
					at = int64(binary.NativeEndian.Uint64(m.Data))*1e9 + int64(binary.NativeEndian.Uint64(m.Data[8:]))
				}
			}
		}
		p.mu.Lock()
		if p.received[i] == 0 {
			p.received[i] = at
			p.answered++
		}
		done := first || p.answered == len(p.received)
		p.mu.Unlock()
		if done {
			return
		}
	}
}

func (p *pinger) result(timeout time.Duration) pings {
	var out pings
	for i, sent := range p.sent {
		rtt := timeout
		if p.received[i] == 0 {
			out.Lost++
		} else {
			rtt = time.Duration(p.received[i] - sent)
		}
		out.RTT = append(out.RTT, float64(rtt.Nanoseconds()/100)/10)
	}
	slices.Sort(out.RTT)
	return out
}

// sum16 is the Internet checksum without its complement (RFC 1071).
func sum16(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}
