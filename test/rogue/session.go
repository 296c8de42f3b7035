// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"fmt"
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
	beside  sync.WaitGroup
}

const greeting = 3 * time.Second

// begin makes a session as a gateway does.
func (r *rogue) begin(ctx context.Context) (*session, error) {
	s := &session{rogue: r, number: r.rng.Uint64()}
	var err error
	if s.control, s.stream, err = s.lane(ctx, 0); err != nil {
		return nil, err
	}
	for number := 1; number <= r.lanes; number++ {
		conn, _, err := s.lane(ctx, byte(number))
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
func (s *session) lane(ctx context.Context, number byte) (*quic.Conn, *quic.Stream, error) {
	ctx, cancel := context.WithTimeout(ctx, greeting)
	defer cancel()
	conn, err := s.dial(ctx)
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

func (r *rogue) dial(ctx context.Context) (*quic.Conn, error) {
	return r.tr.Dial(ctx, r.victim, r.member.TLSConfig("l2bridge/1"), &quic.Config{
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
	const step = 5 * time.Millisecond
	tick := time.NewTicker(step)
	defer tick.Stop()
	began := time.Now()
	for {
		select {
		case <-ctx.Done():
			return sent, nil
		case <-s.control.Context().Done():
			return sent, context.Cause(s.control.Context())
		case <-tick.C:
		}
		due := int(time.Since(began).Seconds() * float64(s.rate))
		for ; len(makers) > 0 && sent < due; sent++ {
			s.count++
			d := makers[s.count%len(makers)](s.rogue)
			lane := s.data[s.count%len(s.data)]
			if err := lane.SendDatagram(d); err != nil {
				if lane.Context().Err() == nil {
					return sent, fmt.Errorf("datagram of %d bytes: %w", len(d), err)
				}
				<-s.control.Context().Done()
				return sent, context.Cause(s.control.Context())
			}
		}
	}
}

func (s *session) close() {
	s.control.CloseWithError(0, "")
	for _, conn := range s.data {
		conn.CloseWithError(0, "")
	}
	s.beside.Wait()
}
