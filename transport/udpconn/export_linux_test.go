// SPDX-License-Identifier: Apache-2.0

package udpconn

import (
	"errors"
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// SetSend replaces the system call under WriteMsgUDP by what change makes of
// it.
func SetSend(c *Conn, change func(SendFunc) SendFunc) { c.send = change(c.send) }

type SendFunc = func(b, oob []byte, to netip.AddrPort) (n, oobn int, err error)

// ListenWith is Listen with another way to open sockets.
func ListenWith(addr netip.AddrPort, open func(string, netip.AddrPort) (*net.UDPConn, error)) (*Conn, error) {
	return listen(addr, Options{}, open)
}

// WithoutGRO makes c what it is on a kernel without UDP_GRO. It has not been
// read from yet.
func WithoutGRO(c *Conn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var option error
	err = raw.Control(func(fd uintptr) {
		option = unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_GRO, 0)
	})
	c.gro, c.rx = false, newReceiver(raw, false)
	return errors.Join(err, option)
}

// When a way refuses batches.
const (
	RefusalLimit = refusalLimit
	RefusalPause = refusalPause
	MaxRefusals  = maxRefusals
)

// Sources returns how many source addresses c has cached. Nobody reads from it.
func Sources(c *Conn) int { return len(c.rx.addrs) }

const MaxAddrs = maxAddrs

// What belongs to no connection.
type Answers struct{ answers }

const MaxAnswers = maxAnswers

func (a *Answers) Admits(packet []byte, now time.Time) bool { return a.admits(packet, now) }
func (a *Answers) IsMarked()                                { a.isMarked() }

// SetReceive replaces the system call under ReadBatch by what change makes of it.
// Nobody reads from c yet.
func SetReceive(c *Conn, change func(ReceiveFunc) ReceiveFunc) { c.rx.take = change(c.rx.take) }

type ReceiveFunc = func(fd uintptr) (int, syscall.Errno)

// Errors that are not swallowed, and the greatest number of any.
var Fatal = fatal[:]

const MaxErrno = maxErrno

var InodesOf = inodesOf
