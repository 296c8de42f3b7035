// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lab

import (
	"encoding/binary"
	"errors"
	"net"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/mdlayher/packet"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	frameMax   = 1 << 17  // above a 64 KB superframe with its tags
	wireBuffer = 64 << 20 // bytes of frames that wait in a Wire's socket
)

// Wire sends and receives whole Ethernet frames on one link. It sees what
// arrives at the link, not what leaves by it.
type Wire struct {
	t    testing.TB
	name string
	conn *packet.Conn
	raw  syscall.RawConn
	buf  []byte
}

// Wire opens a link for raw frames of every kind. It is closed when the test
// ends.
func (n *Namespace) Wire(ifname string) *Wire {
	n.t.Helper()
	w := &Wire{t: n.t, name: n.Name + ": " + ifname, buf: make([]byte, frameMax)}
	err := n.Do(func() error {
		ifi, err := net.InterfaceByName(ifname)
		if err != nil {
			return err
		}
		w.conn, err = packet.Listen(ifi, packet.Raw, unix.ETH_P_ALL, nil)
		if err != nil {
			return err
		}
		if err := w.conn.SetPromiscuous(true); err != nil {
			return err
		}
		w.raw, err = w.conn.SyscallConn()
		return err
	})
	if err != nil {
		n.t.Fatalf("%s: open: %v", w.name, err)
	}
	n.t.Cleanup(func() { w.conn.Close() })

	var errs []error
	err = w.raw.Control(func(fd uintptr) {
		errs = []error{
			// The kernel takes the outer tag off each frame it receives and tells
			// it here, see packet(7).
			unix.SetsockoptInt(int(fd), unix.SOL_PACKET, unix.PACKET_AUXDATA, 1),
			unix.SetsockoptInt(int(fd), unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
			unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, wireBuffer),
		}
	})
	if err := errors.Join(append(errs, err)...); err != nil {
		n.t.Fatalf("%s: set up: %v", w.name, err)
	}
	return w
}

// Send sends one frame out of the link as it is. The kernel refuses one that
// is longer than the link's MTU with its header and one tag.
func (w *Wire) Send(frame []byte) error {
	_, err := w.conn.WriteTo(frame, &packet.Addr{HardwareAddr: frame[:6]})
	return err
}

// Recv returns the next frame that arrives, tags and all, or
// [os.ErrDeadlineExceeded] when none has within limit. What waits already is
// taken, however late it is: on a busy machine a short limit is over before it is
// waited for. The frame is the caller's.
func (w *Wire) Recv(limit time.Duration) ([]byte, error) {
	if err := w.conn.SetReadDeadline(time.Now().Add(limit)); err != nil {
		return nil, err
	}
	var frame []byte
	var recvErr error
	look := func(fd uintptr) bool {
		for leaving := true; leaving; {
			frame, leaving, recvErr = w.recv(int(fd))
		}
		return !errors.Is(recvErr, unix.EAGAIN)
	}
	found := false
	err := w.raw.Control(func(fd uintptr) { found = look(fd) })
	if err == nil && !found {
		err = w.raw.Read(look)
	}
	if err != nil {
		return nil, err
	}
	return frame, recvErr
}

// recv takes the next frame, and tells of one that left by the link: what another
// Wire sends between the making of the socket and its PACKET_IGNORE_OUTGOING is
// in there too.
func (w *Wire) recv(fd int) (frame []byte, leaving bool, err error) {
	oob := make([]byte, unix.CmsgSpace(int(unsafe.Sizeof(unix.TpacketAuxdata{}))))
	n, oobn, flags, from, err := unix.Recvmsg(fd, w.buf, oob, unix.MSG_DONTWAIT)
	if err != nil {
		return nil, false, os.NewSyscallError("recvmsg", err)
	}
	if from, ok := from.(*unix.SockaddrLinklayer); ok && from.Pkttype == unix.PACKET_OUTGOING {
		return nil, true, nil
	}
	if flags&unix.MSG_TRUNC != 0 {
		return nil, false, errors.New("frame larger than the receive buffer")
	}
	frame = slices.Clone(w.buf[:n])
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return nil, false, err
	}
	for _, m := range messages {
		if m.Header.Level != unix.SOL_PACKET || m.Header.Type != unix.PACKET_AUXDATA {
			continue
		}
		var aux unix.TpacketAuxdata
		if _, err := binary.Decode(m.Data, binary.NativeEndian, &aux); err != nil {
			return nil, false, err
		}
		if aux.Status&unix.TP_STATUS_VLAN_VALID != 0 {
			frame = slices.Insert(frame, 12,
				byte(aux.Vlan_tpid>>8), byte(aux.Vlan_tpid), byte(aux.Vlan_tci>>8), byte(aux.Vlan_tci))
		}
	}
	return frame, false, nil
}

// Next returns the next frame that match accepts, and ends the test when none
// has come within limit.
func (w *Wire) Next(limit time.Duration, what string, match func(frame []byte) bool) []byte {
	w.t.Helper()
	deadline := time.Now().Add(limit)
	for {
		frame, err := w.Recv(time.Until(deadline))
		if err != nil {
			w.t.Fatalf("%s: no %s within %v: %v", w.name, what, limit, err)
		}
		if match(frame) {
			return frame
		}
	}
}

// Drain throws away what waits in the socket.
func (w *Wire) Drain() {
	for {
		if _, err := w.Recv(0); err != nil {
			return
		}
	}
}

// Splice sends each frame that arrives at one link out of another, whatever
// the MTU of either: a device that stands for a host whose frames are longer
// than AF_PACKET or a Linux bridge lets pass. One direction only.
func (n *Namespace) Splice(from, to string) {
	n.t.Helper()
	in, out := n.Link(from), n.Link(to)
	n.must("ingress of "+from, n.nl.QdiscAdd(&netlink.Ingress{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: in.Attrs().Index,
		Handle:    netlink.MakeHandle(0xffff, 0),
		Parent:    netlink.HANDLE_INGRESS,
	}}))
	n.must("splice "+from+" to "+to, n.nl.FilterAdd(&netlink.U32{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: in.Attrs().Index,
			Parent:    netlink.MakeHandle(0xffff, 0),
			Priority:  1,
			Protocol:  unix.ETH_P_ALL,
		},
		// Match anything. A key is looked at even with an empty mask, and this one
		// is there in the shortest frame: the end of the Ethernet header.
		Sel: &netlink.TcU32Sel{
			Flags: netlink.TC_U32_TERMINAL,
			Nkeys: 1,
			Keys:  []netlink.TcU32Key{{Off: -4}},
		},
		Actions: []netlink.Action{netlink.NewMirredAction(out.Attrs().Index)},
	}))
}
