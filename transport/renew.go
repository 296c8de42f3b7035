// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/l2bridge/l2bridge/transport/identity"
)

// renew judges a member's request for another key on an accepted connection.
func (m *Mesh) renew(ctx context.Context, conn *quic.Conn) {
	addr := conn.RemoteAddr()
	site, _, err := identity.Peer(conn.ConnectionState().TLS)
	if err == nil {
		err = m.renewOn(ctx, conn)
	}
	if err != nil {
		m.refused.warn(m.cfg.Log, "key not changed", err, "peer", site, "addr", addr)
	} else {
		m.cfg.Log.Info("site gets another key", "peer", site, "addr", addr)
	}
}

func (m *Mesh) renewOn(ctx context.Context, conn *quic.Conn) error {
	return answerOn(ctx, conn, func(request []byte) ([]byte, error) {
		if err := m.barred(conn); err != nil {
			closeFor(conn, err) // with the reason in its code
			return nil, err
		}
		return m.cfg.Member.Renew(request, conn.ConnectionState().TLS)
	})
}

// barred returns why the member at the other end is cut off, nil when it is not:
// under another key it would not be any more.
func (m *Mesh) barred(conn *quic.Conn) error {
	_, id, err := identity.Peer(conn.ConnectionState().TLS)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if p := m.peers[id]; p != nil {
		return p.barError(time.Now())
	}
	return nil
}

// Renew gets this site another key, and the name site, from the holder of the CA
// key, or by itself where that is this site. The membership that it returns is
// stored, with an error too, and is to be taken on with Become.
func (m *Mesh) Renew(ctx context.Context, site string) (*identity.Member, error) {
	m.mu.Lock()
	member, tr, door := m.cfg.Member, m.quic, m.door
	m.mu.Unlock()
	if member.Founder() {
		return member.RenewOwn(site)
	}
	holder := m.holder(member)
	if holder == nil || tr == nil {
		return nil, fmt.Errorf("site %q, which holds the network's CA key, is not known here (see l2bridge peers)", member.FounderSite())
	}
	ask := func(ctx context.Context, addr netip.AddrPort) ([]byte, error) {
		ctx, cancel := context.WithTimeout(ctx, greeting)
		defer cancel()
		defer door.gate.Dials(addr)()
		conn, err := tr.Dial(ctx, net.UDPAddrFromAddrPort(addr), member.RenewTLSConfig(), quicConfig(0))
		if err != nil {
			return nil, explainRenew(addr, err)
		}
		defer closeFor(conn, nil)
		request, err := member.NewRenewRequest(site, conn.ConnectionState().TLS)
		if err != nil {
			return nil, err
		}
		reply, err := exchangeOn(ctx, conn, request)
		if err != nil {
			return nil, explain(addr, err)
		}
		return reply, nil
	}
	var lookups error
	reply, errs := race(ctx, func(ctx context.Context) iter.Seq[netip.AddrPort] { return holder.addresses(ctx, &lookups) }, ask, func([]byte) {})
	cutOff := slices.IndexFunc(errs, func(err error) bool { return errors.Is(err, errCutOff) })
	switch {
	case cutOff >= 0:
		return nil, fmt.Errorf("site %s, which holds the network's CA key, gives this one no other key now: %w", holder, errs[cutOff])
	case len(errs) > 0:
		return nil, fmt.Errorf("site %s, which holds the network's CA key, does not answer directly: %w", holder, errs[0])
	case reply == nil && ctx.Err() != nil:
		return nil, ctx.Err()
	case reply == nil:
		return nil, fmt.Errorf("site %s, which holds the network's CA key, has no address to dial", holder)
	}
	return member.Renewed(site, reply)
}

// holder returns the peer that holds the CA key, nil when it is not known.
func (m *Mesh) holder(member *identity.Member) *Peer {
	list := member.Revocations()
	m.mu.Lock()
	defer m.mu.Unlock()
	var named *Peer
	for id, p := range m.peers {
		if id == list.Holder.ID {
			return p
		}
		if list.Holds(identity.Site{ID: id, Name: p.String()}) {
			named = p
		}
	}
	return named
}

// explainRenew is explain for a member that changes its key.
func explainRenew(addr netip.AddrPort, err error) error {
	if alert(err) != nil {
		return fmt.Errorf("%s gives no keys (only the site that holds the network's CA key does): %w", addr, err)
	}
	return explain(addr, err)
}

// keepBook has the founder note whom it has met: what a site's former keys wait
// for. It runs until ctx ends. To note it may take its time.
func (m *Mesh) keepBook(ctx context.Context) {
	for {
		var met [][]byte
		m.mu.Lock()
		for id, p := range m.peers {
			if p.news != nil && m.cfg.Member.Awaits(id) {
				met = append(met, p.news.Cert)
			}
		}
		m.mu.Unlock()
		for _, cert := range met {
			news, err := m.cfg.Member.Met(cert)
			if err != nil {
				m.refused.warn(m.cfg.Log, "site met and not noted", err)
			}
			if len(news) > 0 {
				m.putOut(news)
			}
		}
		select {
		case <-m.arrived:
		case <-ctx.Done():
			return
		}
	}
}
