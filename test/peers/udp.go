// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"runtime"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	udpPort   = 5202
	udpMagic  = 0x6c326270
	udpBatch  = 64
	udpHeader = 16 // magic, trial, number
	udpMax    = 2048
	udpBuffer = 32 << 20 // of the receiver's socket: what it drops must not count as the tunnel's loss

	// udpQuantum is how long the sender sleeps at least: waking more often costs
	// the programs under measure their processor.
	udpQuantum = 200 * time.Microsecond
	// udpBacklog is how late the sender may be and still catch up. What it could
	// not send within is not sent, and not counted.
	udpBacklog = 5 * time.Millisecond

	maxLoss = 0.01

	// udpNice puts sender and receiver before the programs under measure: they
	// stand for other machines, which do not lend their processors.
	udpNice = -20
)

// trial is one rate tried.
type trial struct {
	Offered  float64 // datagrams a second, as sent
	Received float64
	Loss     float64 // fraction
	Asked    float64 // what the sender was told
}

// sent is what the sender counts, got what the receiver does.
type (
	sent struct {
		Count   int
		Seconds float64
	}
	got struct {
		Trial, Count, Duplicates int
		Dropped                  int // by the receiver's socket
	}
)

// receiver is a receiver of datagrams at host B.
type receiver struct {
	p     *process
	in    io.Writer
	lines *bufio.Scanner
}

// receiver starts the receiver at host B. It lives as long as the rig.
func (r *rig) receiver() (*receiver, error) {
	cmd := command(context.WithoutCancel(r.ctx), r.hostB, r.self, "udp-receive", "-port", strconv.Itoa(udpPort))
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{name: "udp-receive", cmd: cmd, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		p.err = cmd.Wait()
	}()
	r.helpers = append(r.helpers, p)
	v := &receiver{p: p, in: in, lines: bufio.NewScanner(out)}
	if !v.lines.Scan() || v.lines.Text() != "ready" {
		return nil, errors.New("the UDP receiver did not start")
	}
	return v, nil
}

// try sends at a rate for some time and tells what arrived. It waits until the
// program has recovered from the trial before.
func (r *rig) try(v *receiver, size int, rate float64, length time.Duration) (trial, error) {
	if err := r.ready(); err != nil {
		return trial{}, err
	}
	// Numbers go on from one measure to the next, so that nothing that is late
	// counts as of another.
	r.trials++
	number := r.trials
	before, _, err := r.wanBytes()
	if err != nil {
		return trial{}, err
	}
	text, err := output(r.ctx, r.hostA, r.self, "udp-send", "-to", fmt.Sprintf("%s:%d", hostAddrB, udpPort), "-trial", strconv.Itoa(number),
		"-size", strconv.Itoa(size), "-rate", strconv.FormatFloat(rate, 'f', 0, 64), "-time", length.String())
	if err != nil {
		return trial{}, err
	}
	var s sent
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		return trial{}, err
	}
	var g got
	fmt.Fprintln(v.in, number)
	if !v.lines.Scan() {
		return trial{}, errors.New("the UDP receiver ended")
	}
	if err := json.Unmarshal(v.lines.Bytes(), &g); err != nil {
		return trial{}, err
	}
	if s.Count == 0 || s.Seconds == 0 {
		return trial{}, errors.New("nothing was sent")
	}
	t := trial{
		Asked:    rate,
		Offered:  float64(s.Count) / s.Seconds,
		Received: float64(g.Count) / s.Seconds,
		Loss:     1 - float64(g.Count)/float64(s.Count),
	}
	if float64(g.Dropped) > maxLoss*float64(s.Count) {
		return t, fmt.Errorf("the receiver itself dropped %d of %d", g.Dropped, s.Count)
	}
	after, _, err := r.wanBytes()
	if err != nil {
		return t, err
	}
	if crossed := after - before; !r.peer.straight && crossed < float64(g.Count*size) {
		return t, fmt.Errorf("only %.0f bytes crossed the WAN of %d that arrived: the program was passed by, or compresses", crossed, g.Count*size)
	}
	return t, r.alive()
}

// udpRate finds the highest rate of datagrams of a size that arrive with less
// than 1 % of loss for length, and returns what arrived a second. Short trials
// double the rate until too much is lost and halve the gap that remains. Long
// ones go on from there, down until one holds or up until one does not.
func (r *rig) udpRate(size int, length time.Duration) (trial, error) {
	v, err := r.receiver()
	if err != nil {
		return trial{}, err
	}
	defer v.p.stop()
	const (
		probe = time.Second
		start = 8000.0
		close = 1.04 // of high to low: near enough
		down  = 0.95
		ask   = 14 // long trials at most
	)
	// Untouched paths learn addresses and sizes first.
	if _, err := r.try(v, size, 1000, probe/2); err != nil {
		return trial{}, err
	}
	low, high := 0.0, 0.0
	for rate := start; high == 0; rate *= 2 {
		t, err := r.try(v, size, rate, probe)
		switch {
		case err != nil:
			return t, err
		case t.Loss >= maxLoss:
			high = rate
		case t.Offered < 0.95*rate: // the sender is at its end
			low, high = t.Offered, t.Offered
		default:
			low = rate
		}
	}
	for low == 0 && high > 100 { // less than the first rate
		t, err := r.try(v, size, high/2, probe)
		if err != nil {
			return t, err
		}
		if t.Loss < maxLoss {
			low = high / 2
		} else {
			high /= 2
		}
	}
	for high > low*close {
		rate := (low + high) / 2
		t, err := r.try(v, size, rate, probe)
		if err != nil {
			return t, err
		}
		if t.Loss < maxLoss && t.Offered > 0.95*rate {
			low = rate
		} else {
			high = rate
		}
	}
	// Short trials flatter: what stands in queues at their end is not yet lost.
	var best trial
	rate := low
	for range ask {
		t, err := r.try(v, size, rate, length)
		switch {
		case err != nil:
			return t, err
		case t.Loss >= maxLoss && best.Received > 0:
			return best, nil
		case t.Loss >= maxLoss:
			rate *= down
		case t.Offered < 0.95*rate: // the sender is at its end
			return t, nil
		default:
			best = t
			rate *= close
		}
	}
	if best.Received == 0 {
		return best, fmt.Errorf("no rate near %.0f/s holds for %v", low, length)
	}
	return best, nil
}

// udpSendTool sends numbered datagrams at an even rate and prints what it sent.
func udpSendTool(ctx context.Context, args []string, _ io.Reader, stdout io.Writer) error {
	f := flag.NewFlagSet("udp-send", flag.ContinueOnError)
	to := f.String("to", "", "address and port")
	number := f.Int("trial", 1, "number of the trial")
	size := f.Int("size", 64, "bytes of payload")
	rate := f.Float64("rate", 1000, "datagrams a second")
	length := f.Duration("time", time.Second, "how long")
	if err := f.Parse(args); err != nil {
		return err
	}
	addr, err := netip.ParseAddrPort(*to)
	if err != nil {
		return err
	}
	if *size < udpHeader || *size > udpMax {
		return fmt.Errorf("size %d is not within %d and %d", *size, udpHeader, udpMax)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 4<<20),
		unix.Connect(fd, &unix.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()}),
	); err != nil {
		return err
	}
	runtime.LockOSThread()
	unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
	unix.Setpriority(unix.PRIO_PROCESS, 0, udpNice) // of this thread
	batch := newMessages(*size)
	for i := range udpBatch {
		b := batch.payload(i)
		binary.BigEndian.PutUint32(b, udpMagic)
		binary.BigEndian.PutUint32(b[4:], uint32(*number))
	}
	count, skipped := 0, 0
	began := time.Now()
	for {
		now := time.Since(began)
		if now >= *length || ctx.Err() != nil {
			break
		}
		due := int(*rate * now.Seconds())
		if late := due - count - skipped; late > int(*rate*udpBacklog.Seconds())+udpBatch {
			skipped += late - int(*rate*udpBacklog.Seconds())
		}
		n := min(udpBatch, due-count-skipped)
		if n <= 0 {
			wake := max(udpQuantum, time.Duration(float64(time.Second)/(*rate)))
			unix.Nanosleep(&unix.Timespec{Nsec: wake.Nanoseconds()}, nil)
			continue
		}
		for i := range n {
			binary.BigEndian.PutUint64(batch.payload(i)[8:], uint64(count+i))
		}
		done, errno := batch.call(unix.SYS_SENDMMSG, fd, n, 0)
		switch errno {
		case 0:
			count += done
		case unix.EINTR, unix.EAGAIN, unix.ENOBUFS, unix.ECONNREFUSED:
		default:
			return fmt.Errorf("sendmmsg: %w", errno)
		}
	}
	return json.NewEncoder(stdout).Encode(sent{Count: count, Seconds: time.Since(began).Seconds()})
}

// udpReceiveTool counts numbered datagrams. A trial's number on its standard
// input asks for what arrived of it.
func udpReceiveTool(ctx context.Context, args []string, stdin io.Reader, stdout io.Writer) error {
	f := flag.NewFlagSet("udp-receive", flag.ContinueOnError)
	port := f.Int("port", udpPort, "port")
	if err := f.Parse(args); err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, udpBuffer),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RXQ_OVFL, 1),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 50_000}),
		unix.Bind(fd, &unix.SockaddrInet4{Port: *port}),
	); err != nil {
		return err
	}
	asked := make(chan int)
	go func() {
		defer close(asked)
		lines := bufio.NewScanner(stdin)
		for lines.Scan() {
			number, _ := strconv.Atoi(strings.TrimSpace(lines.Text()))
			asked <- number
		}
	}()
	fmt.Fprintln(stdout, "ready")
	runtime.LockOSThread()
	unix.Setpriority(unix.PRIO_PROCESS, 0, udpNice)
	batch := newMessages(udpMax)
	batch.wantControl()
	var g got
	var seen []uint64 // a bit for each number
	var dropsBefore, drops uint32
	pending := -1
	for ctx.Err() == nil {
		select {
		case number, ok := <-asked:
			if !ok {
				return nil
			}
			pending = number
		default:
		}
		batch.reset()
		n, errno := batch.call(unix.SYS_RECVMMSG, fd, udpBatch, unix.MSG_WAITFORONE)
		if errno == unix.EAGAIN && pending >= 0 { // silent for a time-out
			out := g
			if g.Trial != pending {
				out = got{Trial: pending}
			}
			out.Dropped = int(drops - dropsBefore)
			if err := json.NewEncoder(stdout).Encode(out); err != nil {
				return err
			}
			pending = -1
		}
		if errno != 0 {
			continue
		}
		for i := range n {
			b := batch.received(i)
			if len(b) < udpHeader || binary.BigEndian.Uint32(b) != udpMagic {
				continue
			}
			if number := int(binary.BigEndian.Uint32(b[4:])); number < g.Trial {
				continue // late
			} else if number > g.Trial {
				g, seen, dropsBefore = got{Trial: number}, seen[:0], drops
			}
			at := binary.BigEndian.Uint64(b[8:])
			if at > 1<<32 {
				continue
			}
			for uint64(len(seen)) <= at/64 {
				seen = append(seen, 0)
			}
			if bit := uint64(1) << (at % 64); seen[at/64]&bit != 0 {
				g.Duplicates++
			} else {
				seen[at/64] |= bit
				g.Count++
			}
		}
		drops = max(drops, batch.overflow(n))
	}
	return nil
}

// messages is what sendmmsg(2) and recvmmsg(2) take.
type messages struct {
	size    int
	headers [udpBatch]struct {
		unix.Msghdr
		n uint32
		_ [4]byte
	}
	vectors [udpBatch]unix.Iovec
	bytes   []byte
	control [udpBatch][64]byte
}

func newMessages(size int) *messages {
	m := &messages{size: size, bytes: make([]byte, udpBatch*size)}
	for i := range udpBatch {
		m.vectors[i].Base = &m.bytes[i*size]
		m.vectors[i].SetLen(size)
		m.headers[i].Iov = &m.vectors[i]
		m.headers[i].SetIovlen(1)
	}
	return m
}

func (m *messages) wantControl() {
	for i := range udpBatch {
		m.headers[i].Control = &m.control[i][0]
	}
}

// reset makes the messages ready to receive again.
func (m *messages) reset() {
	for i := range udpBatch {
		m.headers[i].SetControllen(len(m.control[i]))
	}
}

func (m *messages) payload(i int) []byte  { return m.bytes[i*m.size : (i+1)*m.size] }
func (m *messages) received(i int) []byte { return m.payload(i)[:m.headers[i].n] }

// overflow returns how many datagrams the socket had dropped before the last
// of n messages.
func (m *messages) overflow(n int) uint32 {
	if n == 0 {
		return 0
	}
	control := m.control[n-1][:m.headers[n-1].Controllen]
	found, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return 0
	}
	for _, c := range found {
		if c.Header.Level == unix.SOL_SOCKET && c.Header.Type == unix.SO_RXQ_OVFL && len(c.Data) >= 4 {
			return binary.NativeEndian.Uint32(c.Data)
		}
	}
	return 0
}

// timestamp returns when the kernel took message i off its link, wall clock in
// nanoseconds; 0 when it does not say.
func (m *messages) timestamp(i int) int64 {
	found, err := unix.ParseSocketControlMessage(m.control[i][:m.headers[i].Controllen])
	if err != nil {
		return 0
	}
	for _, c := range found {
		if c.Header.Level == unix.SOL_SOCKET && c.Header.Type == unix.SO_TIMESTAMPNS && len(c.Data) >= 16 {
			return int64(binary.NativeEndian.Uint64(c.Data))*1e9 + int64(binary.NativeEndian.Uint64(c.Data[8:]))
		}
	}
	return 0
}

// call makes the system call for the first n messages. The pointers in m are
// to parts of m itself, which lives on the heap and does not move.
func (m *messages) call(trap uintptr, fd, n, flags int) (int, unix.Errno) {
	done, _, errno := unix.Syscall6(trap, uintptr(fd), uintptr(unsafe.Pointer(&m.headers[0])), uintptr(n), uintptr(flags), 0, 0)
	return int(done), errno
}
