// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

const (
	lineSlot    = 2048    // a packet with its virtio-net header
	lineSlots   = 1 << 15 // packets on their way, each direction
	lineBatch   = 64
	lineBuffer  = 16 << 20
	vnetHeader  = 10
	lineNap     = 150 * time.Microsecond // between looks while packets fly: bounds both jitter and cost
	lineControl = 64
)

// lineTool passes frames between two links as they are, each after the same
// time and in order. This kernel has no netem.
//
// A frame's time runs from when the kernel took it off its link, so that this
// process may be late to read it. The virtio-net header takes along what says
// that a checksum is still to be done.
func lineTool(ctx context.Context, args []string, _ io.Reader, _ io.Writer) error {
	f := flag.NewFlagSet("line", flag.ContinueOnError)
	delay := f.Duration("delay", 10*time.Millisecond, "each way")
	if err := f.Parse(args); err != nil {
		return err
	}
	if f.NArg() != 2 {
		return errors.New("line takes two links")
	}
	runtime.GOMAXPROCS(2)
	near, err := packetSocket(f.Arg(0))
	if err != nil {
		return err
	}
	far, err := packetSocket(f.Arg(1))
	if err != nil {
		return err
	}
	failed := make(chan error, 2)
	go func() { failed <- carry(near, far, *delay) }()
	go func() { failed <- carry(far, near, *delay) }()
	select {
	case <-ctx.Done():
		return nil
	case err := <-failed:
		return err
	}
}

func packetSocket(link string) (int, error) {
	nic, err := net.InterfaceByName(link)
	if err != nil {
		return -1, err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	const all = unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8 // in network order
	if err := errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1),
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, lineBuffer),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, lineBuffer),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1),
		unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP,
			&unix.PacketMreq{Ifindex: int32(nic.Index), Type: unix.PACKET_MR_PROMISC}),
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: nic.Index}),
	); err != nil {
		return -1, fmt.Errorf("packet socket on %s: %w", link, err)
	}
	return fd, nil
}

// flying is a packet on its way.
type flying struct {
	due int64 // wall clock, nanoseconds
	n   int
}

// carry moves packets from one socket to the other, for ever. It has a thread
// of its own and sleeps until a packet comes, or a little while some fly.
func carry(from, to int, delay time.Duration) error {
	runtime.LockOSThread()
	unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
	// A path does not wait for a processor. Where this is refused it does.
	unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1}, 0)
	var (
		slots      = make([]byte, lineSlots*lineSlot)
		ring       = make([]flying, lineSlots)
		head, tail int // ring[head:tail], modulo its size
		in         = newMessages(lineSlot)
		out        = newMessages(lineSlot)
	)
	in.wantControl()
	slot := func(i int) []byte { i %= lineSlots; return slots[i*lineSlot : (i+1)*lineSlot] }
	for {
		if head == tail {
			if _, err := unix.Poll([]unix.PollFd{{Fd: int32(from), Events: unix.POLLIN}}, -1); err != nil && err != unix.EINTR {
				return err
			}
		}
		for {
			room := min(udpBatch, lineSlots-(tail-head))
			if room == 0 {
				return errors.New("too many packets on their way")
			}
			for i := range room {
				in.vectors[i].Base = &slot(tail + i)[0]
			}
			in.reset()
			n, errno := in.call(unix.SYS_RECVMMSG, from, room, unix.MSG_DONTWAIT|unix.MSG_TRUNC)
			if errno == unix.EAGAIN || errno == unix.EINTR {
				break
			}
			if errno != 0 {
				if errno == unix.ENETDOWN {
					continue
				}
				return fmt.Errorf("recvmmsg: %w", errno)
			}
			for i := range n {
				size := int(in.headers[i].n)
				if size > lineSlot {
					return fmt.Errorf("a packet of %d bytes: are the link's offloads off?", size)
				}
				at := in.timestamp(i)
				if at == 0 {
					at = time.Now().UnixNano()
				}
				ring[(tail+i)%lineSlots] = flying{due: at + delay.Nanoseconds(), n: size}
			}
			tail += n
			if n < room {
				break
			}
		}
		now := time.Now().UnixNano()
		for head < tail && ring[head%lineSlots].due <= now {
			n := 0
			for n < lineBatch && head+n < tail && ring[(head+n)%lineSlots].due <= now {
				out.vectors[n].Base = &slot(head + n)[0]
				out.vectors[n].SetLen(ring[(head+n)%lineSlots].n)
				n++
			}
			done, errno := out.call(unix.SYS_SENDMMSG, to, n, 0)
			switch errno {
			case 0:
				head += done
			case unix.EINTR:
			case unix.ENOBUFS, unix.ENETDOWN, unix.EAGAIN, unix.EINVAL:
				head++ // lost, as on a wire
			default:
				return fmt.Errorf("sendmmsg: %w", errno)
			}
		}
		if head < tail {
			wait := time.Duration(ring[head%lineSlots].due - time.Now().UnixNano())
			unix.Nanosleep(&unix.Timespec{Nsec: max(0, min(wait, lineNap)).Nanoseconds()}, nil)
		}
	}
}
