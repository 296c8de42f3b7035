// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/netip"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/l2bridge/l2bridge/transport/identity"
)

// enrol judges a request to join on an accepted connection.
func (m *Mesh) enrol(ctx context.Context, conn *quic.Conn) {
	addr := conn.RemoteAddr()
	site, err := m.enrolOn(ctx, conn)
	if err != nil {
		m.refused.warn(m.cfg.Log, "join refused", err, "addr", addr, "site", site)
	} else {
		m.cfg.Log.Info("site joined", "addr", addr, "site", site)
	}
}

func (m *Mesh) enrolOn(ctx context.Context, conn *quic.Conn) (site string, err error) {
	err = answerOn(ctx, conn, func(request []byte) ([]byte, error) {
		cs := conn.ConnectionState().TLS
		// The name is there for the log; it is the request that counts.
		site = identity.Clean(cs.PeerCertificates[0].Subject.CommonName)
		var members []string
		if m.cfg.Addresses != nil {
			members = m.cfg.Addresses()
		}
		return m.cfg.Member.Enrol(request, cs, members)
	})
	return site, err
}

// answerOn takes the request on an accepted connection, sends what judge replies,
// and ends the connection. It is exchangeOn's other end.
func answerOn(ctx context.Context, conn *quic.Conn, judge func(request []byte) (reply []byte, err error)) error {
	defer closeFor(conn, nil)
	ctx, cancel := context.WithTimeout(ctx, greeting)
	defer cancel()
	stream, err := conn.AcceptStream(ctx)
	if err != nil {
		return err
	}
	defer interrupt(ctx, stream)()
	request, err := io.ReadAll(io.LimitReader(stream, identity.MaxMessage))
	if err != nil {
		return err
	}
	reply, err := judge(request)
	if _, werr := stream.Write(reply); werr != nil && err == nil {
		err = werr // it asks again with the same key, and is told again
	}
	parting(ctx, conn, stream)
	return err
}

// Enrol joins the network of a token as site: it shows the key in dir to one of
// the token's addresses, and stores the membership that comes back. It tries
// again, on a socket of its own that listen opens, until it is refused or ctx
// ends. addrs are the addresses of members to dial from now on.
func Enrol(ctx context.Context, listen func() (net.PacketConn, error), dir *identity.Dir, token identity.Token, site string) (member *identity.Member, addrs []string, err error) {
	key, err := dir.SiteKey()
	if err != nil {
		return nil, nil, err
	}
	conn, err := listen()
	if err != nil {
		return nil, nil, err
	}
	defer conn.Close()
	tr := newTransport(conn, nil, newGate(nil))
	defer tr.Close()
	ask := func(ctx context.Context, addr netip.AddrPort) ([]byte, error) {
		ctx, cancel := context.WithTimeout(ctx, greeting)
		defer cancel()
		conn, err := tr.Dial(ctx, net.UDPAddrFromAddrPort(addr), identity.JoinTLSConfig(key, site, token.CA), quicConfig(0))
		if err != nil {
			return nil, explainJoin(addr, err)
		}
		defer closeFor(conn, nil)
		return requestOn(ctx, conn, token, site)
	}
	wait := firstRetry
	for {
		var err error
		reply, errs := race(ctx, func(ctx context.Context) iter.Seq[netip.AddrPort] {
			return lookedUp(ctx, systemLookup, token.Addrs, &err)
		}, ask, func([]byte) {})
		switch {
		case reply != nil:
			return dir.Join(token, site, reply)
		case len(errs) > 0:
			// Another machine may have one of the founder's addresses: it is
			// hopeless only when all say so.
			err = worst(errs, identity.ErrNotMember)
		case err == nil:
			err = cmp.Or(ctx.Err(), errNoAddress)
		}
		if errors.Is(err, identity.ErrNotMember) {
			return nil, nil, err
		}
		if !sleep(ctx, wait) {
			return nil, nil, fmt.Errorf("nobody answered in time: %w", err)
		}
		wait = min(2*wait, lastRetry)
	}
}

func requestOn(ctx context.Context, conn *quic.Conn, token identity.Token, site string) ([]byte, error) {
	request, err := identity.NewJoinRequest(token, site, conn.ConnectionState().TLS)
	if err != nil {
		return nil, err
	}
	return exchangeOn(ctx, conn, request)
}

// exchangeOn sends a request, and returns the reply.
func exchangeOn(ctx context.Context, conn *quic.Conn, request []byte) ([]byte, error) {
	stream, err := conn.OpenStreamSync(ctx)
	if err != nil {
		return nil, err
	}
	defer interrupt(ctx, stream)()
	if _, err := stream.Write(request); err != nil {
		return nil, err
	}
	stream.Close()
	reply, err := io.ReadAll(io.LimitReader(stream, identity.MaxMessage))
	if err == nil && len(reply) == 0 {
		err = io.ErrUnexpectedEOF
	}
	return reply, err
}

// explainJoin is explain for a site that is no member yet.
func explainJoin(addr netip.AddrPort, err error) error {
	if errors.Is(err, identity.ErrNotMember) {
		return fmt.Errorf("%s: %w", addr, err)
	}
	if alert(err) != nil {
		return fmt.Errorf("%s takes no new members (only the site that founded the network does): %w", addr, err)
	}
	return explain(addr, err)
}

// interrupt ends what waits on a stream when ctx ends, until release is called:
// a machine that says nothing must hold up neither a stop nor a race.
func interrupt(ctx context.Context, stream *quic.Stream) (release func() bool) {
	return context.AfterFunc(ctx, func() { stream.SetDeadline(time.Unix(1, 0)) }) // in the past
}
