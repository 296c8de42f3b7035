// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package udpconn

import (
	"context"
	"net"
	"net/netip"
)

// Conn is a plain UDP socket here: the tunnel itself runs on Linux only, but
// what talks about it builds everywhere.
type Conn struct {
	*net.UDPConn
	flows flows
}

// Listen opens a UDP socket on addr.
func Listen(addr netip.AddrPort, opts Options) (*Conn, error) {
	udp, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr))
	if err != nil {
		return nil, err
	}
	_ = udp.SetReadBuffer(opts.bufferBytes())
	_ = udp.SetWriteBuffer(opts.bufferBytes())
	return &Conn{UDPConn: udp}, nil
}

// Guard does nothing here.
func (c *Conn) Guard(*Gate) {}

// Flow returns the receiving side of conn; the reader is never held for it.
func (c *Conn) Flow(ctx context.Context, conn Datagrams, beside ...Datagrams) *Flow {
	return c.flows.open(ctx, conn, beside)
}

// Stats returns nothing: only Linux counts.
func (c *Conn) Stats() Stats { return Stats{} }
