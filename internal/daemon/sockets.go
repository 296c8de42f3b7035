// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"net"
	"net/netip"
	"sync"

	"github.com/l2bridge/l2bridge/transport/udpconn"
)

// sockets are those of lanes beyond the first, which come and go.
type sockets struct {
	mu   sync.Mutex // guards what follows
	open map[*udpconn.Conn]struct{}
	gone socketDrops // of those that are closed
}

// socketDrops are counters of packets that a socket has dropped, by reason.
type socketDrops map[string]uint64

func (d socketDrops) addDrops(st udpconn.Stats) {
	d["socket_full"] += st.RxKernelDrops
	d["oversize"] += st.RxOversize
	d["stranger"] += st.RxStrange
	d["overrun"] += st.RxOverrun
	d["answer_limit"] += st.TxAnswersDropped
	d["unproven"] += st.TxUnproven
}

// listenMore opens a socket for one more lane, on any port of the address that
// the site listens on.
func (s *site) listenMore() (net.PacketConn, error) {
	more := &s.sockets
	more.mu.Lock()
	defer more.mu.Unlock()
	var conn *udpconn.Conn
	conn, err := udpconn.Listen(netip.AddrPortFrom(s.cfg.Listen.Addr(), 0), udpconn.Options{Closed: func(st udpconn.Stats) {
		more.mu.Lock()
		defer more.mu.Unlock()
		delete(more.open, conn)
		more.gone.addDrops(st)
	}})
	if err != nil {
		return nil, err // not a nil *Conn in an interface
	}
	if more.open == nil {
		more.open, more.gone = make(map[*udpconn.Conn]struct{}), make(socketDrops)
	}
	more.open[conn] = struct{}{}
	return conn, nil
}

// socketDrops returns what all sockets of the tunnel have dropped since we run.
func (s *site) socketDrops() socketDrops {
	all := make(socketDrops)
	all.addDrops(s.conn.Stats())
	more := &s.sockets
	more.mu.Lock()
	defer more.mu.Unlock()
	for conn := range more.open {
		all.addDrops(conn.Stats())
	}
	for reason, n := range more.gone {
		all[reason] += n
	}
	return all
}
