// SPDX-License-Identifier: Apache-2.0

package udpconn_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// A packet goes from a socket of each kind to an address of each kind that it can
// reach, and what it cannot is an error that says so.
func TestWriteReaches(t *testing.T) {
	t.Parallel()
	tests := []struct {
		from, to string
		refused  bool
	}{
		{from: "127.0.0.1:0", to: "127.0.0.1:0"},
		{from: "[::1]:0", to: "[::1]:0"},
		{from: "[::]:0", to: "127.0.0.1:0"},
		{from: "[::]:0", to: "[::1]:0"},
		{from: "127.0.0.1:0", to: "[::1]:0", refused: true},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%s to %s", tt.from, tt.to), func(t *testing.T) {
			from, to := listen(t, tt.from), listen(t, tt.to)
			addr := to.LocalAddr().(*net.UDPAddr)
			for _, size := range []int{1, 1452} {
				n, _, err := from.WriteMsgUDP(make([]byte, size), nil, addr)
				if tt.refused {
					if err == nil {
						t.Errorf("%d bytes were sent", size)
					}
					continue
				}
				if n != size || err != nil {
					t.Fatalf("WriteMsgUDP of %d bytes = %d, %v", size, n, err)
				}
				b := make([]byte, 2000)
				got, source, err := to.ReadFrom(b)
				if err != nil || got != size || source.(*net.UDPAddr).Port != from.LocalAddr().(*net.UDPAddr).Port {
					t.Errorf("%d bytes came from %v, %v; sent were %d", got, source, err, size)
				}
			}
		})
	}
}

// An address with a zone goes out of that interface.
func TestWriteToZone(t *testing.T) {
	t.Parallel()
	c := listen(t, "[::]:0")
	to := net.UDPAddrFromAddrPort(netip.MustParseAddrPort("[fe80::1%lo]:9"))
	if _, _, err := c.WriteMsgUDP([]byte{1}, nil, to); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
		t.Error(err)
	}
	if n := c.Stats().TxErrors["EINVAL"]; n != 0 {
		t.Error("the kernel saw an address without its interface")
	}
}
