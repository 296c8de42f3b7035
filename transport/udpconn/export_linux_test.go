// SPDX-License-Identifier: Apache-2.0

package udpconn

import (
	"net"
	"net/netip"
)

// SetSend replaces the system call under WriteMsgUDP by what change makes of
// it.
func SetSend(c *Conn, change func(SendFunc) SendFunc) { c.send = change(c.send) }

type SendFunc = func(b, oob []byte, to netip.AddrPort) (n, oobn int, err error)

// ListenWith is Listen with another way to open sockets.
func ListenWith(addr netip.AddrPort, open func(string, netip.AddrPort) (*net.UDPConn, error)) (*Conn, error) {
	return listen(addr, Options{}, open)
}

// Transient are the errors that Conn swallows.
var Transient = transient[:]

var InodesOf = inodesOf
