// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"cmp"
	"context"
	"crypto"
	"errors"
	"fmt"
	"iter"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/l2bridge/l2bridge/transport/identity"
)

// Asking is a site's request to be let into a network without a token.
type Asking struct {
	Dir   *identity.Dir
	Site  string   // the name to ask for
	Peers []string // HOST:PORTs of a member
	// CA is the key of the network's CA; nil for that of the first member that
	// answers.
	CA *identity.ID
	// Listen opens the socket.
	Listen func() (net.PacketConn, error)
	// Patience is how long nobody may answer.
	Patience time.Duration
	// Heed is called once, in a goroutine of its own, as soon as it is known what
	// a person has to compare. Nothing is accepted before it has returned nil; an
	// error ends the asking with that.
	Heed func(ctx context.Context, to Heard) error
}

// Heard is what a site hears of the network that it asks to join.
type Heard struct {
	identity.Host
	Addr   netip.AddrPort
	Member bool // it lets the site in already
}

// Ask asks until the site is let in, and stores its membership, or until it is
// refused, Heed fails, or ctx ends. A connection that is lost is made anew: the
// same key's request is the same one. Once a member has answered no other network is
// heard. addrs are the addresses of members to dial once in.
func (a Asking) Ask(ctx context.Context) (member *identity.Member, addrs []string, err error) {
	key, err := a.Dir.SiteKey()
	if err != nil {
		return nil, nil, err
	}
	request, err := identity.NewAsk(a.Site)
	if err != nil {
		return nil, nil, err
	}
	socket, err := a.Listen()
	if err != nil {
		return nil, nil, err
	}
	defer socket.Close()
	tr := newTransport(socket, nil, newGate(nil))
	defer tr.Close()

	ctx, cancel := context.WithCancelCause(ctx)
	q := &question{Asking: a, key: key, request: request, tr: tr, end: cancel, heeded: make(chan struct{})}
	defer q.heeding.Wait()
	defer cancel(nil)
	q.quiet = time.AfterFunc(a.Patience, func() { cancel(errUnanswered) })
	defer q.quiet.Stop()
	answer, err := q.run(ctx)
	if err != nil {
		return nil, nil, err
	}
	return a.Dir.Accept(q.host, a.Site, answer)
}

// ErrElsewhere says that no way is known to the site that has the CA key.
var ErrElsewhere = errors.New("the network's CA key is elsewhere")

// errUnanswered says that nobody has answered for as long as Patience.
var errUnanswered = errors.New("nobody answered in time")

// question is an Ask under way.
type question struct {
	Asking
	key     crypto.Signer
	request []byte
	tr      *quic.Transport
	end     context.CancelCauseFunc
	quiet   *time.Timer // ends it when nobody answers

	host    identity.Host // who answered last
	founder string        // whom the first member has sent us to

	heeding sync.WaitGroup
	heard   bool
	heeded  chan struct{} // closed when Heed has returned nil
}

// run asks until the site is a member by the network's word and by a person's.
func (q *question) run(ctx context.Context) (identity.Answer, error) {
	var trouble error // the last that was not the end's
	for wait := firstRetry; ; wait = min(2*wait, lastRetry) {
		answer, err := q.once(ctx)
		switch {
		case err == nil && answer.Kind == identity.AnswerMember:
			q.quiet.Stop() // a person may take longer
			select {
			case <-q.heeded:
				return answer, nil
			case <-ctx.Done():
				return answer, context.Cause(ctx)
			}
		case err == nil:
			if err := q.follow(answer); err != nil {
				return answer, err
			}
			continue
		case final(err):
			return answer, err
		case ctx.Err() == nil:
			trouble = err
		}
		if !sleep(ctx, wait) {
			return answer, q.over(context.Cause(ctx), cmp.Or(trouble, err))
		}
	}
}

// final reports whether to ask again would be of no use.
func final(err error) bool {
	var refused *identity.Refusal
	return errors.As(err, &refused) || errors.Is(err, identity.ErrNotMember) || errors.Is(err, identity.ErrBadAnswer)
}

// over says why it has ended without an answer.
func (q *question) over(cause, trouble error) error {
	switch {
	case !errors.Is(cause, errUnanswered):
		return cause
	case q.founder != "":
		return fmt.Errorf("%w: the network's CA key is at site %q, and %w", cause, q.founder, trouble)
	}
	return fmt.Errorf("%w: %w", cause, trouble)
}

// follow goes where the CA key is, by the word of a member that does not have it.
// What that says of addresses is believed no further than that they are dialled,
// once, for the same network.
func (q *question) follow(to identity.Answer) error {
	site := cmp.Or(to.Site, "that founded it")
	if q.founder != "" || len(to.Addrs) == 0 {
		return fmt.Errorf("%w: site %s cannot let this one in, site %s can (l2bridge join --peer HOST:PORT, with an address of that one)", ErrElsewhere, q.host.Site, site)
	}
	q.founder, q.Peers = site, to.Addrs
	return nil
}

// once asks on one connection and returns the last answer on it.
func (q *question) once(ctx context.Context) (identity.Answer, error) {
	conn, err := q.dial(ctx)
	if err != nil {
		return identity.Answer{}, err
	}
	defer closeFor(conn, nil)
	hang := func() { closeFor(conn, nil) }
	defer context.AfterFunc(ctx, hang)()
	slow := time.AfterFunc(greeting, hang)
	defer slow.Stop()
	addr := addrPort(conn.RemoteAddr())
	host, err := identity.HostOf(conn.ConnectionState().TLS)
	if err != nil {
		return identity.Answer{}, err
	}
	q.host, q.CA = host, &host.CA
	stream, err := conn.OpenStreamSync(ctx)
	if err != nil {
		return identity.Answer{}, explain(addr, err)
	}
	if _, err := stream.Write(q.request); err != nil {
		return identity.Answer{}, explain(addr, err)
	}
	stream.Close()
	waiting := false
	for {
		answer, err := identity.ReadAnswer(stream)
		switch {
		case err != nil && !waiting && !slow.Stop():
			return answer, explain(addr, context.DeadlineExceeded)
		case errors.Is(err, identity.ErrBadAnswer):
			return answer, fmt.Errorf("%s: %w", addr, err)
		case err != nil:
			return answer, explain(addr, err)
		case answer.Kind == identity.AnswerRefused:
			return answer, answer.Refusal
		case answer.Kind == identity.AnswerElsewhere:
			return answer, nil
		case answer.Kind == identity.AnswerWait && waiting:
			return answer, fmt.Errorf("%s: %w: told to wait twice", addr, identity.ErrBadAnswer)
		}
		q.heed(ctx, Heard{q.host, addr, answer.Kind == identity.AnswerMember})
		if answer.Kind == identity.AnswerMember {
			return answer, nil
		}
		// From here on it is QUIC that notices when the other end is gone.
		waiting = true
		slow.Stop()
		q.quiet.Reset(answer.Left + q.Patience)
	}
}

// heed has a person compare, once.
func (q *question) heed(ctx context.Context, to Heard) {
	if q.heard {
		return
	}
	q.heard = true
	q.heeding.Go(func() {
		if err := q.Heed(ctx, to); err != nil {
			q.end(err)
			return
		}
		close(q.heeded)
	})
}

// dial connects to the first of the addresses that has a member of the network.
func (q *question) dial(ctx context.Context) (*quic.Conn, error) {
	var trouble error
	addrs := func(ctx context.Context) iter.Seq[netip.AddrPort] {
		return func(yield func(netip.AddrPort) bool) {
			for a := range lookedUp(ctx, systemLookup, q.Peers, &trouble) {
				if (q.founder == "" || mayDial(a.Addr())) && !yield(a) {
					return
				}
			}
		}
	}
	cfg := quicConfig(0)
	cfg.KeepAlivePeriod = silence / 3
	try := func(ctx context.Context, addr netip.AddrPort) (*quic.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, greeting)
		defer cancel()
		conn, err := q.tr.Dial(ctx, net.UDPAddrFromAddrPort(addr), identity.AskTLSConfig(q.key, q.Site, q.CA), cfg)
		if err != nil {
			return nil, explainAsk(addr, err)
		}
		return conn, nil
	}
	conn, errs := race(ctx, addrs, try, func(late *quic.Conn) { closeFor(late, nil) })
	switch {
	case conn != nil:
		return conn, nil
	case len(errs) == 0:
		return nil, cmp.Or(trouble, ctx.Err(), errNoAddress)
	}
	return nil, worst(errs, identity.ErrNotMember)
}

// explainAsk is explain for a site that asks to be let in.
func explainAsk(addr netip.AddrPort, err error) error {
	const noApplicationProtocol = 0x100 + 120 // RFC 9001, 4.8; RFC 8446, 6.2
	ended := alert(err)
	switch {
	case errors.Is(err, identity.ErrNotMember):
		return fmt.Errorf("%s: %w", addr, err)
	case errors.Is(err, errUnanswered): // while this dial was under way
		return explain(addr, context.DeadlineExceeded)
	case ended == nil:
		return explain(addr, err)
	case ended.ErrorCode == noApplicationProtocol:
		return fmt.Errorf("%s takes no requests to join (its version is older; join with a token): %w", addr, err)
	}
	return fmt.Errorf("%s takes no more requests to join just now: %w", addr, err)
}
