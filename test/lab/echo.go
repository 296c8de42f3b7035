// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// Echoes asks an address for an echo at an even rate, from a machine, and
// keeps when each was sent and when any came back. When that was is the kernel's
// word, so that a busy machine does not look like a bad link.
type Echoes struct {
	every time.Duration
	size  int
	conn  *net.IPConn
	to    net.Addr
	id    uint16

	mu    sync.Mutex
	sent  []time.Time // by number
	back  []time.Time // in the order in which they came
	seen  map[uint64]bool
	twice int
}

var echoIDs atomic.Uint32

const (
	icmpHeader = 8
	numberLen  = 8

	// EchoMin is the least size of an echo's IPv4 packet.
	EchoMin = ipv4.HeaderLen + icmpHeader + numberLen
)

// Echo starts to ask from an IPv4 address of the namespace for echoes, ICMP's,
// of another, in packets of so many bytes. It ends with the test.
func (n *Namespace) Echo(from, to string, every time.Duration, size int) *Echoes {
	n.t.Helper()
	e := &Echoes{
		every: every,
		size:  max(size, EchoMin),
		to:    &net.IPAddr{IP: net.ParseIP(to)},
		id:    uint16(echoIDs.Add(1)),
		seen:  make(map[uint64]bool),
	}
	err := n.Do(func() (err error) {
		e.conn, err = net.ListenIP("ip4:icmp", &net.IPAddr{IP: net.ParseIP(from)})
		return err
	})
	if err != nil {
		n.t.Fatalf("%s: echo: %v", n.Name, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	n.t.Cleanup(func() {
		cancel()
		e.conn.Close()
		running.Wait()
	})
	raw, err := e.conn.SyscallConn()
	if err == nil {
		control := raw.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1)
		})
		err = errors.Join(err, control)
	}
	if err != nil {
		n.t.Fatalf("%s: echo: %v", n.Name, err)
	}
	running.Go(func() { e.ask(ctx) })
	running.Go(e.hear)
	return e
}

func (e *Echoes) ask(ctx context.Context) {
	tick := time.NewTicker(e.every)
	defer tick.Stop()
	for number := uint64(0); ; number++ {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		b, err := (&icmp.Message{Type: ipv4.ICMPTypeEcho, Body: &icmp.Echo{
			ID: int(e.id), Seq: int(number & 0xffff),
			Data: append(binary.BigEndian.AppendUint64(nil, number), make([]byte, e.size-EchoMin)...),
		}}).Marshal(nil)
		if err != nil {
			panic(err) // a constant form
		}
		e.mu.Lock()
		e.sent = append(e.sent, time.Now())
		e.mu.Unlock()
		e.conn.WriteTo(b, e.to) // one that is refused is one that does not come back
	}
}

func (e *Echoes) hear() {
	buf, oob := make([]byte, 1<<16), make([]byte, 128)
	for {
		n, oobn, _, _, err := e.conn.ReadMsgIP(buf, oob)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		at := arrived(oob[:oobn])
		header, err := ipv4.ParseHeader(buf[:n])
		if err != nil {
			continue
		}
		const protocol = 1
		body := buf[header.Len:n]
		m, err := icmp.ParseMessage(protocol, body)
		if err != nil || m.Type != ipv4.ICMPTypeEchoReply || len(body) < icmpHeader+numberLen {
			continue
		}
		if echo, ok := m.Body.(*icmp.Echo); ok && echo.ID == int(e.id) {
			e.add(binary.BigEndian.Uint64(body[icmpHeader:]), at)
		}
	}
}

// arrived returns when the kernel received what came with these control
// messages.
func arrived(oob []byte) time.Time {
	now := time.Now()
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return now
	}
	for _, m := range messages {
		if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SO_TIMESTAMPNS && len(m.Data) >= 16 {
			at := time.Unix(int64(binary.NativeEndian.Uint64(m.Data)), int64(binary.NativeEndian.Uint64(m.Data[8:])))
			return now.Add(-max(0, now.Round(0).Sub(at))) // on the monotonic clock
		}
	}
	return now
}

func (e *Echoes) add(number uint64, at time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.seen[number] {
		e.twice++
		return
	}
	e.seen[number] = true
	e.back = append(e.back, at)
}

// Twice returns how many came back that had come back before.
func (e *Echoes) Twice() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.twice
}

// Lost returns how many of those sent after from, until to, have not come back
// by now.
func (e *Echoes) Lost(from, to time.Time) (lost, sent int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for number := after(e.sent, from); number < after(e.sent, to); number++ {
		sent++
		if !e.seen[uint64(number)] {
			lost++
		}
	}
	return lost, sent
}

// Stall returns the longest time between from and to in which nothing was asked
// although it was due: how long this machine had no time for the lab.
func (e *Echoes) Stall(from, to time.Time) (stall time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for number := after(e.sent, from); number < after(e.sent, to); number++ {
		if number > 0 {
			stall = max(stall, e.sent[number].Sub(e.sent[number-1])-e.every)
		}
	}
	return stall
}

// after returns the index of the first of times that is after at.
func after(times []time.Time, at time.Time) int {
	first, _ := slices.BinarySearchFunc(times, at, func(one, at time.Time) int {
		if one.After(at) {
			return 1
		}
		return -1
	})
	return first
}

// Outage is how long something stood still.
type Outage struct {
	Back time.Duration // from its end until echoes came again, for good
	Gap  time.Duration // the longest time without any, from its beginning on
}

// Outage tells how long echoes stayed away over what began and what ended at
// the given times, as seen until now. It is an error when they have not come
// back and then kept coming for calm, with no more than so many in a row missing.
func (e *Echoes) Outage(began, ended time.Time, calm time.Duration, missable int) (Outage, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	// The one before counts: the outage may have begun right behind it.
	from := max(0, after(e.back, began)-1)
	return outage(e.sent, e.back[from:], began, ended, time.Now(), calm, missable)
}

// outage is Outage for echoes sent and come back at times.
func outage(sent, came []time.Time, began, ended, now time.Time, calm time.Duration, missable int) (Outage, error) {
	var o Outage
	var back time.Time // when the echoes began that have not ceased since
	last := began
	for i, at := range came {
		if i == 0 && !at.After(began) {
			last = at
			continue
		}
		asked := after(sent, at) - after(sent, last)
		if asked > 1 {
			o.Gap = max(o.Gap, at.Sub(last))
		}
		if at.After(ended) && (back.IsZero() || asked > missable+1) {
			back = at
		}
		last = at
	}
	const pending = 200 * time.Millisecond // on the way, for all that one knows
	missing := after(sent, now.Add(-pending)) - after(sent, last)
	if missing > 1 {
		o.Gap = max(o.Gap, now.Sub(last))
	}
	switch {
	case back.IsZero():
		return o, fmt.Errorf("nothing came back within %v", now.Sub(ended).Round(time.Millisecond))
	case missing > missable:
		return o, fmt.Errorf("nothing has come back for %v", now.Sub(last).Round(time.Millisecond))
	case now.Sub(back) < calm:
		return o, fmt.Errorf("back for %v only", now.Sub(back).Round(time.Millisecond))
	}
	o.Back = back.Sub(ended)
	return o, nil
}
