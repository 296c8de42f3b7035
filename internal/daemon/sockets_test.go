// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/l2bridge/l2bridge/internal/config"
	"github.com/l2bridge/l2bridge/transport/udpconn"
)

// What the sockets of more lanes have dropped is told as well, and not forgotten when
// they are closed.
func TestSocketDrops(t *testing.T) {
	s := &site{cfg: config.Config{Listen: netip.MustParseAddrPort("127.0.0.1:0")}}
	var err error
	if s.conn, err = listen(s.cfg); err != nil {
		t.Fatal(err)
	}
	defer s.conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for want := range uint64(2) {
		more, err := s.listenMore()
		if err != nil {
			t.Fatal(err)
		}
		more.(*udpconn.Conn).Guard(udpconn.NewGate([16]byte{}))
		read := make(chan struct{})
		go func() {
			defer close(read)
			more.ReadFrom(make([]byte, 2048)) // until it is closed
		}()
		if _, err := s.conn.WriteTo([]byte("of no connection"), more.LocalAddr().(*net.UDPAddr)); err != nil {
			t.Fatal(err)
		}
		for s.socketDrops()["stranger"] != want+1 && ctx.Err() == nil {
			time.Sleep(time.Millisecond)
		}
		more.Close()
		more.Close()
		<-read
		if got := s.socketDrops()["stranger"]; got != want+1 || len(s.sockets.open) != 0 {
			t.Errorf("%d strangers, want %d; %d sockets are open", got, want+1, len(s.sockets.open))
		}
	}
}
