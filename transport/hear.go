// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/l2bridge/l2bridge/transport/identity"
)

// errAskedOften ends a handshake before it costs a signature.
var errAskedOften = errors.New("too many ask to join at once")

// askedTLS returns the end of TLS of a site that is asked to let another in, while
// not too many do at once.
func (m *Mesh) askedTLS(ctx context.Context) (*tls.Config, error) {
	if !m.door.mayAsk(ctx) {
		return nil, errAskedOften
	}
	return m.cfg.Member.AskedTLSConfig(), nil
}

// hear answers a request to be let in on an accepted connection. What waits for a
// person is awaited by a goroutine of its own.
func (m *Mesh) hear(ctx context.Context, conn *quic.Conn) {
	within, cancel := context.WithTimeout(ctx, greeting)
	defer cancel()
	stream, err := conn.AcceptStream(within)
	if err != nil {
		closeFor(conn, nil)
		return
	}
	release := interrupt(within, stream)
	text, err := io.ReadAll(io.LimitReader(stream, identity.MaxMessage))
	if err != nil {
		closeFor(conn, nil)
		return
	}
	r, answer := m.judge(text, conn)
	if _, err := stream.Write(answer.Append(nil)); err != nil || !release() {
		closeFor(conn, nil) // it may ask again: the same key is the same request
		return
	}
	if r == nil {
		parting(within, conn, stream)
		return
	}
	m.group.Go(func() error { m.await(ctx, conn, stream, r); return nil })
}

// judge returns the answer to a request, and the request if that is to wait.
func (m *Mesh) judge(text []byte, conn *quic.Conn) (*request, identity.Answer) {
	addr := conn.RemoteAddr()
	r, answer, err := m.judged(text, conn, addr)
	if err == nil {
		return r, answer
	}
	// The name in the certificate is there for the log alone.
	cs := conn.ConnectionState().TLS
	m.requests.refused.warn(m.cfg.Log, "request to join refused", err, "addr", addr, "site", identity.Clean(cs.PeerCertificates[0].Subject.CommonName))
	var why *identity.Refusal
	if !errors.As(err, &why) {
		why = identity.ErrUnavailable
	}
	return nil, refusing(why)
}

func (m *Mesh) judged(text []byte, conn *quic.Conn, addr net.Addr) (*request, identity.Answer, error) {
	asker, err := identity.ReadAsk(text, conn.ConnectionState().TLS)
	if err != nil {
		return nil, identity.Answer{}, err
	}
	if !m.cfg.Member.Founder() {
		return nil, m.elsewhereAnswer(addrPort(addr).Addr()), nil
	}
	leaf, err := m.cfg.Member.Consider(asker)
	if err != nil {
		return nil, identity.Answer{}, err
	}
	if leaf != nil {
		return nil, m.welcome(leaf), nil
	}
	r, news, err := m.requests.file(asker, addr, conn)
	if err != nil {
		return nil, identity.Answer{}, err
	}
	if news {
		if m.requests.lines.try(time.Now(), 1) {
			m.cfg.Log.Info("site asks to join", "site", r.Site, "id", r.ID, "addr", addr)
		}
		m.event(r.event(EventAsks))
	}
	return r, identity.Answer{Kind: identity.AnswerWait, Left: time.Until(r.Until)}, nil
}

// await holds an asker's connection until a person has decided, its time is over,
// or it goes.
func (m *Mesh) await(ctx context.Context, conn *quic.Conn, stream *quic.Stream, r *request) {
	defer closeFor(conn, nil) // though the answer is not wanted: from here on nothing else counts it
	over := time.NewTimer(time.Until(r.Until))
	defer over.Stop()
	for {
		select {
		case <-r.decided:
			ctx, cancel := context.WithTimeout(ctx, greeting)
			defer cancel()
			defer interrupt(ctx, stream)()
			if _, err := stream.Write(r.answer.Append(nil)); err == nil {
				parting(ctx, conn, stream)
			}
			return
		case <-over.C:
			m.requests.end()
		case <-conn.Context().Done():
			return
		case <-ctx.Done():
			return
		}
	}
}

// parting lets the asker have the last answer: it closes the connection then.
func parting(ctx context.Context, conn *quic.Conn, stream *quic.Stream) {
	stream.Close()
	select {
	case <-conn.Context().Done():
	case <-ctx.Done():
	}
	closeFor(conn, nil)
}

// elsewhereAnswer says where the CA key is, and what this site knows of the way
// there. Strangers are told what they could find by themselves: addresses of a
// private network only when they come from one.
func (m *Mesh) elsewhereAnswer(asker netip.Addr) identity.Answer {
	a := identity.Answer{Kind: identity.AnswerElsewhere, Site: m.cfg.Member.FounderSite()}
	add := func(text string) {
		at, err := netip.ParseAddrPort(text)
		if private := err == nil && at.Addr().IsPrivate(); (asker.IsPrivate() || !private) && !slices.Contains(a.Addrs, text) {
			a.Addrs = append(a.Addrs, text)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range m.peers {
		if p.String() != a.Site {
			continue
		}
		if s := p.session.Load(); s != nil {
			add(s.control.remote().String())
		}
		if p.news != nil {
			for _, text := range p.news.Addresses {
				add(text)
			}
		}
	}
	return a
}
