// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/l2bridge/l2bridge/test/wirepeer"
)

// session is a control lane and data lanes. Its control stream is never read.
type session struct {
	*rogue
	number  uint64
	control *quic.Conn
	stream  *quic.Stream
	data    []*quic.Conn
	sockets []*socket // of data lanes, each its own: receive credit is kept by address
	beside  sync.WaitGroup
}

const greeting = 3 * time.Second

// begin makes a session as a gateway does.
func (r *rogue) begin(ctx context.Context) (*session, error) {
	s := &session{rogue: r, number: r.rng.Uint64()}
	var err error
	if s.control, s.stream, err = s.lane(ctx, r.socket, 0); err != nil {
		return nil, err
	}
	for number := 1; number <= r.lanes; number++ {
		own, err := listen()
		if err != nil {
			s.close()
			return nil, err
		}
		s.sockets = append(s.sockets, own)
		conn, _, err := s.lane(ctx, own, byte(number))
		if err != nil {
			s.close()
			return nil, err
		}
		s.data = append(s.data, conn)
	}
	s.beside.Go(s.answerPings)
	return s, nil
}

// lane dials a lane, and waits for the answer to its HELLO.
func (s *session) lane(ctx context.Context, from *socket, number byte) (*quic.Conn, *quic.Stream, error) {
	ctx, cancel := context.WithTimeout(ctx, greeting)
	defer cancel()
	conn, err := s.dial(ctx, from)
	if err != nil {
		return nil, nil, err
	}
	stream, err := conn.OpenStream()
	if err != nil {
		return nil, nil, err
	}
	said := wirepeer.Hello{
		ID: s.member.ID, Boot: s.boot, Session: s.number, Lane: number, ConnectionID: 17, MTU: 1500,
		Features: wirepeer.CSUM | wirepeer.TSO | wirepeer.USO | wirepeer.RELAY | wirepeer.VIA | wirepeer.TEST | wirepeer.PARITY,
	}
	if _, err := stream.Write(said.Append(nil)); err != nil {
		return nil, nil, err
	}
	answer := make([]byte, len(said.Append(nil)))
	stream.SetReadDeadline(time.Now().Add(greeting))
	for n := 0; n < len(answer); {
		m, err := stream.Read(answer[n:])
		if err != nil {
			conn.CloseWithError(0, "")
			return nil, nil, err
		}
		n += m
	}
	return conn, stream, nil
}

func (r *rogue) dial(ctx context.Context, from *socket) (*quic.Conn, error) {
	return from.tr.Dial(ctx, r.victim, r.member.TLSConfig("l2bridge/1"), &quic.Config{
		EnableDatagrams: true, InitialPacketSize: 1200, MaxIdleTimeout: 10 * time.Second,
		InitialStreamReceiveWindow: 1 << 10, MaxStreamReceiveWindow: 1 << 10, // what is not read waits there
	})
}

// answerPings keeps the session alive.
func (s *session) answerPings() {
	in := wirepeer.New(1500)
	for {
		d, err := s.control.ReceiveDatagram(context.Background())
		if err != nil {
			return
		}
		for _, e := range in.Datagram(d) {
			if h, ok := e.(wirepeer.Heartbeat); ok && h.Mode == 1 {
				s.control.SendDatagram(s.heartbeat(2, h.Nonce))
			}
		}
	}
}

func (r *rogue) heartbeat(mode byte, nonce uint64) []byte {
	const least = 64
	return wirepeer.Pad(wirepeer.AppendHeartbeat(make([]byte, 2), wirepeer.Heartbeat{Mode: mode, Nonce: nonce}), least)
}

// attack goes on until the session is closed, or ctx ends, and returns how many
// datagrams it has sent, and why the session was closed.
func (s *session) attack(ctx context.Context) (sent int, why error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var makers []func(*rogue) []byte
	for _, kind := range s.kinds {
		if f := datagrams[kind]; f != nil {
			makers = append(makers, f)
		}
		if f := besides[kind]; f != nil {
			s.beside.Go(func() { f(ctx, s) })
		}
	}
	// A lane takes the next one as soon as its window lets it: none waits for another.
	out, failed := make(chan []byte), make(chan error, len(s.data))
	for _, lane := range s.data {
		s.beside.Go(func() { failed <- send(ctx, lane, out) })
	}
	const step = 5 * time.Millisecond
	tick := time.NewTicker(step)
	defer tick.Stop()
	began, due := time.Now(), 0
	var next []byte
	for {
		to := out
		if next == nil && sent < due {
			s.count++
			next = makers[s.count%len(makers)](s.rogue)
		}
		if next == nil {
			to = nil
		}
		select {
		case to <- next:
			next, sent = nil, sent+1
		case err := <-failed:
			return sent, err
		case <-ctx.Done():
			return sent, nil
		case <-s.control.Context().Done():
			return sent, context.Cause(s.control.Context())
		case <-tick.C:
			if len(makers) > 0 {
				due = int(time.Since(began).Seconds() * float64(s.rate))
			}
		}
	}
}

// send sends datagrams on a lane until that or ctx ends.
func send(ctx context.Context, lane *quic.Conn, datagrams <-chan []byte) error {
	for {
		select {
		case d := <-datagrams:
			err := lane.SendDatagram(d)
			if lane.Context().Err() != nil {
				return context.Cause(lane.Context())
			}
			if err != nil {
				return fmt.Errorf("datagram of %d bytes: %w", len(d), err)
			}
		case <-ctx.Done():
			return nil
		}
	}
}

func (s *session) close() {
	s.control.CloseWithError(0, "")
	for _, conn := range s.data {
		conn.CloseWithError(0, "")
	}
	s.beside.Wait()
	for _, own := range s.sockets {
		own.close()
	}
}

// socket is a UDP socket with QUIC on it.
type socket struct {
	conn *net.UDPConn
	tr   *quic.Transport
}

func listen() (*socket, error) {
	conn, err := net.ListenUDP("udp", nil)
	if err != nil {
		return nil, err
	}
	return &socket{conn, &quic.Transport{Conn: conn, ConnectionIDLength: 17}}, nil
}

func (s *socket) close() {
	s.tr.Close()
	s.conn.Close()
}
