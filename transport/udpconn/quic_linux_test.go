// SPDX-License-Identifier: Apache-2.0

package udpconn_test

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"math/big"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/qlog"
	"github.com/quic-go/quic-go/qlogwriter"

	"github.com/l2bridge/l2bridge/transport/udpconn"
)

// connIDLen makes a datagram of the greatest size fill its packet exactly,
// without which quic-go does not batch.
const connIDLen = 17

// drops counts what quic-go throws away between the socket and Receive. It is
// a qlog trace that keeps nothing.
type drops struct {
	datagrams atomic.Int64 // the receive queue of 128 was full
	packets   atomic.Int64 // the queue of 256 before decryption was full
}

func (d *drops) AddProducer() qlogwriter.Recorder                                 { return d }
func (d *drops) SupportsSchemas(string) bool                                      { return true }
func (d *drops) Close() error                                                     { return nil }
func (d *drops) tracer(context.Context, bool, quic.ConnectionID) qlogwriter.Trace { return d }

func (d *drops) RecordEvent(e qlogwriter.Event) {
	switch e := e.(type) {
	case qlog.DatagramDropped:
		if e.Direction == qlog.DirectionReceiving {
			d.datagrams.Add(1)
		}
	case qlog.PacketDropped:
		if e.Trigger == qlog.PacketDropDOSPrevention {
			d.packets.Add(1)
		}
	}
}

// pair is a QUIC connection between two sockets of this package.
type pair struct {
	clientSock, serverSock *udpconn.Conn
	client, server         *quic.Conn
	serverDrops            *drops
}

func newPair(t testing.TB) *pair {
	t.Helper()
	return newPairWith(t, func(*udpconn.Conn) {})
}

// newPairWith lets change see the client's socket before it is used. Packets
// have their greatest size from the start.
func newPairWith(t testing.TB, change func(*udpconn.Conn)) *pair {
	t.Helper()
	client := listen(t, "127.0.0.1:0")
	change(client)
	return newPairOn(t, client, listen(t, "[::]:0"))
}

func newPairOn(t testing.TB, client, server *udpconn.Conn) *pair {
	t.Helper()
	p := &pair{clientSock: client, serverSock: server, serverDrops: new(drops)}
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(nil, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	const alpn = "udpconn-test"
	serverTLS := &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		NextProtos:   []string{alpn},
	}
	clientTLS := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{alpn}}
	config := quic.Config{
		EnableDatagrams:         true,
		MaxIdleTimeout:          time.Minute,
		InitialPacketSize:       packetSize,
		DisablePathMTUDiscovery: true,
	}
	serverConfig := config
	serverConfig.Tracer = p.serverDrops.tracer

	serverTransport := &quic.Transport{Conn: p.serverSock, ConnectionIDLength: connIDLen}
	t.Cleanup(func() { serverTransport.Close() })
	clientTransport := &quic.Transport{Conn: p.clientSock, ConnectionIDLength: connIDLen}
	t.Cleanup(func() { clientTransport.Close() })
	ln, err := serverTransport.Listen(serverTLS, &serverConfig)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if p.client, err = clientTransport.Dial(ctx, target(p.serverSock, "127.0.0.1"), clientTLS, &config); err != nil {
		t.Fatal(err)
	}
	if p.server, err = ln.Accept(ctx); err != nil {
		t.Fatal(err)
	}
	return p
}

// send sends count numbered datagrams as fast as the connection takes them.
func (p *pair) send(count, size int) error {
	b := make([]byte, size)
	for i := range count {
		binary.BigEndian.PutUint32(b, uint32(i))
		if err := p.client.SendDatagram(b); err != nil {
			return err
		}
	}
	return nil
}

// receive takes datagrams with next until count have come, in order, or been
// dropped, and returns how many came. next must end after a while.
func (p *pair) receive(t *testing.T, next func() ([]byte, error), count int) (received int) {
	t.Helper()
	last := int64(-1)
	for {
		b, err := next()
		if err != nil {
			t.Logf("after %d datagrams: %v", received, err)
			return received
		}
		received++
		seq := int64(binary.BigEndian.Uint32(b))
		if seq <= last {
			t.Fatalf("datagram %d came after %d", seq, last)
		}
		if last = seq; seq == int64(count)-1 {
			return received
		}
	}
}

// Without credit quic-go's queues overflow: here a fifth of the datagrams is
// lost, and most of those that share a packet. With it none is; of those that
// share a packet a few, as their number is a guess until they have come.
func TestCreditLosesNothing(t *testing.T) {
	for _, tt := range []struct {
		name        string
		size, count int // size 0: the greatest, in batches
		percent     int // that may be lost
		noGRO       bool
	}{
		{"full packets", 0, 100_000, 0, false},
		{"one datagram a packet", 1200, 100_000, 0, false},
		{"many datagrams a packet", 60, 150_000, 1, false},
		{"full packets without GRO", 0, 50_000, 0, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if testing.Short() {
				tt.count /= 10
			}
			server := listen(t, "[::]:0")
			if tt.noGRO {
				server = listenWithoutGRO(t)
			}
			p := newPairOn(t, listen(t, "127.0.0.1:0"), server)
			if tt.size == 0 {
				tt.size = p.greatest(t)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			f := p.serverSock.Flow(ctx, p.server)
			defer f.Close()
			sent := make(chan error, 1)
			go func() { sent <- p.send(tt.count, tt.size) }()
			received := p.receive(t, f.Receive, tt.count)
			p.server.CloseWithError(0, "") // lets send go, if it still waits
			if err := <-sent; err != nil {
				t.Fatal(err)
			}

			s := p.serverSock.Stats()
			dropped := int(p.serverDrops.datagrams.Load() + p.serverDrops.packets.Load())
			t.Logf("received %d of %d, dropped %d, held %d times, %d to the end; kernel dropped %d",
				received, tt.count, dropped, s.Holds, s.HoldTimeouts, s.RxKernelDrops)
			// A machine too busy to run a thread for longer than a hold is
			// none of ours: then what one hold lets through may be lost.
			if allowed := int(s.HoldTimeouts)*maxInFlight + tt.count*tt.percent/100; dropped > allowed {
				t.Errorf("%d datagrams dropped inside the process, want at most %d", dropped, allowed)
			}
			if s.RxKernelDrops == 0 && received+dropped < tt.count {
				t.Errorf("%d datagrams vanished", tt.count-received-dropped)
			}
			if s.Holds == 0 {
				t.Error("the reader was never held: this test shows nothing")
			}
		})
	}
}

// Flows that nobody takes anything of, and that go on, do not keep the reader from the
// others: they lose packets, which are counted.
func TestSlowFlowsHoldNobody(t *testing.T) {
	c := listen(t, "127.0.0.1:0")
	const slow, each = 20, 300
	var senders [slow + 1]*udpconn.Conn // the last one's flow is taken
	for i := range senders {
		senders[i] = listen(t, "127.0.0.1:0")
		defer c.Flow(t.Context(), newFakeConn(senders[i].LocalAddr().String())).Close()
	}
	packet := []byte{0x40, 1, 2, 3} // of a short header
	send := func(from *udpconn.Conn) {
		if _, err := from.WriteTo(packet, c.LocalAddr()); err != nil {
			t.Fatal(err)
		}
	}
	for range each {
		for _, s := range senders[:slow] {
			send(s)
		}
	}
	send(senders[slow])
	setDeadline(t, c)
	ms, handedUp := newBatch(batchSize), 0
	for last := false; !last; {
		n, err := c.ReadBatch(ms, 0)
		if err != nil {
			t.Fatal(err)
		}
		handedUp += n
		last = n > 0 && ms[n-1].Addr.String() == senders[slow].LocalAddr().String()
	}
	s := c.Stats()
	t.Logf("handed up %d, dropped %d, held %d times", handedUp, s.RxOverrun, s.Holds)
	if s.RxOverrun == 0 || handedUp+int(s.RxOverrun+s.RxKernelDrops) != slow*each+1 {
		t.Errorf("handed up %d packets, dropped %d, kernel %d, of %d", handedUp, s.RxOverrun, s.RxKernelDrops, slow*each+1)
	}
	if most := uint64(slow * each / udpconn.CreditLimit); s.Holds >= most {
		t.Errorf("held %d times, want less than %d", s.Holds, most)
	}
}

// maxInFlight is more than quic-go's queues hold.
const maxInFlight = 50 * 256

// calls keeps how many packets each of the send calls carried.
type calls struct {
	mu      sync.Mutex
	packets []int
}

func (c *calls) count(send udpconn.SendFunc) udpconn.SendFunc {
	return func(b, oob []byte, to netip.AddrPort) (int, int, error) {
		c.mu.Lock()
		c.packets = append(c.packets, (len(b)+packetSize-1)/packetSize)
		c.mu.Unlock()
		return send(b, oob, to)
	}
}

// best returns the mean of the n calls in a row that carried the most.
func (c *calls) best(n int) float64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	sum, most := 0, 0
	for i, packets := range c.packets {
		sum += packets
		if i >= n {
			sum -= c.packets[i-n]
		}
		most = max(most, sum)
	}
	return float64(most) / float64(n)
}

// It is ReadBatch that quic-go reads with, and WriteMsgUDP that it writes
// with; in batches of ten and more under load, with connection IDs of 17 bytes.
// On a busy machine the sender waits for its turn as often as the network, and
// then there is no load: so it is the best stretch of the run that counts.
func TestQUICUsesBatches(t *testing.T) {
	const (
		count   = 30_000 // datagrams
		stretch = 20     // calls
	)
	var made calls
	p := newPairWith(t, func(c *udpconn.Conn) { udpconn.SetSend(c, made.count) })
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	f := p.serverSock.Flow(ctx, p.server)
	defer f.Close()

	before, size := p.clientSock.Stats(), p.greatest(t)
	sent := make(chan error, 1)
	go func() { sent <- p.send(count, size) }()
	p.receive(t, f.Receive, count)
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	tx, rx := p.clientSock.Stats(), p.serverSock.Stats()
	if !tx.GSO || !rx.GRO {
		t.Skip("no UDP_SEGMENT or no UDP_GRO in this kernel")
	}
	packets, calls := tx.TxPackets-before.TxPackets, tx.TxSyscalls-before.TxSyscalls
	best := made.best(stretch)
	t.Logf("sent %d packets in %d calls, %.1f a call in the best %d; received %d in %d",
		packets, calls, best, stretch, rx.RxPackets, rx.RxSyscalls)
	if best < 10 {
		t.Errorf("%.1f packets a send call in the best %d of %d calls, want 10", best, stretch, calls)
	}
	if packets < 3*calls {
		t.Errorf("%d packets in %d send calls, want 3 a call in the mean of all", packets, calls)
	}
	if rx.RxPackets < packets {
		t.Errorf("ReadBatch read %d packets of %d: quic-go reads otherwise", rx.RxPackets, packets)
	}
	if rx.RxPackets < 3*rx.RxSyscalls {
		t.Errorf("%d packets read in %d calls, want at least 3 a call", rx.RxPackets, rx.RxSyscalls)
	}
}

// Receive credit stands on what quic-go does when there is no datagram: it
// asks the context for Done only then, returns nil and nil when that fires
// while Err is nil, and counts a packet after its datagrams are in the queue.
func TestQUICAsksForDoneOnlyWhenEmpty(t *testing.T) {
	p := newPair(t)
	ctx := &doneCounter{Context: t.Context()}
	if b, err := p.server.ReceiveDatagram(ctx); b != nil || err != nil || ctx.asked == 0 {
		t.Fatalf("ReceiveDatagram of an empty queue = %v, %v, Done asked for %d times; want nil, nil, once", b, err, ctx.asked)
	}
	// What is counted may be another packet than ours, so not every round
	// finds its datagram at once.
	const rounds = 100
	found := 0
	for range rounds {
		before := p.server.ConnectionStats().PacketsReceived
		if err := p.client.SendDatagram([]byte("datagram")); err != nil {
			t.Fatal(err)
		}
		for p.server.ConnectionStats().PacketsReceived == before {
			runtime.Gosched()
		}
		ctx.asked = 0
		b, err := p.server.ReceiveDatagram(ctx)
		if b != nil && ctx.asked == 0 {
			found++
		}
		for b == nil && err == nil {
			b, err = p.server.ReceiveDatagram(ctx)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if found < rounds/2 {
		t.Errorf("%d of %d datagrams were there when their packet was counted, without asking for Done", found, rounds)
	}
}

// doneCounter is a context that ends every wait, but is never done.
type doneCounter struct {
	context.Context
	asked int
}

func (c *doneCounter) Done() <-chan struct{} {
	c.asked++
	fired := make(chan struct{})
	close(fired)
	return fired
}

// A connection lives through whatever error a system call gives for a while, at
// either end, but those that say that there is no socket.
func TestQUICSurvivesErrors(t *testing.T) {
	t.Parallel()
	var sending, receiving atomic.Uint32 // the errors of the client's sends and the server's receives; 0 for none
	client, server := listen(t, "127.0.0.1:0"), listen(t, "[::]:0")
	udpconn.SetSend(client, func(send udpconn.SendFunc) udpconn.SendFunc {
		return func(b, oob []byte, to netip.AddrPort) (int, int, error) {
			if errno := sending.Load(); errno != 0 {
				return 0, 0, errnoError(syscall.Errno(errno))
			}
			return send(b, oob, to)
		}
	})
	udpconn.SetReceive(server, func(receive udpconn.ReceiveFunc) udpconn.ReceiveFunc {
		return func(fd uintptr) (int, syscall.Errno) {
			if errno := receiving.Swap(0); errno != 0 {
				return 0, syscall.Errno(errno)
			}
			return receive(fd)
		}
	})
	p := newPairOn(t, client, server)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for errno := uint32(1); errno <= udpconn.MaxErrno; errno++ {
		if slices.Contains(udpconn.Fatal, syscall.Errno(errno)) {
			continue
		}
		sending.Store(errno)
		for range 40 { // more than the queue holds: some were tried
			if err := p.client.SendDatagram(make([]byte, 60)); err != nil {
				t.Fatalf("errno %d: %v", errno, err)
			}
		}
		sending.Store(0)
		receiving.Store(errno)
		if err := p.client.SendDatagram(binary.BigEndian.AppendUint32(nil, errno)); err != nil {
			t.Fatalf("errno %d: %v", errno, err)
		}
		for came := uint32(0); came != errno; {
			b, err := p.server.ReceiveDatagram(ctx)
			if err != nil {
				t.Fatalf("errno %d: %v", errno, err)
			}
			if len(b) == 4 {
				came = binary.BigEndian.Uint32(b)
			}
		}
	}
}

// greatest returns the size of the largest datagram that fits now.
func (p *pair) greatest(t *testing.T) int {
	var tooLarge *quic.DatagramTooLargeError
	if err := p.client.SendDatagram(make([]byte, 2*packetSize)); !errors.As(err, &tooLarge) {
		t.Fatalf("error %v, want %T", err, tooLarge)
	}
	return int(tooLarge.MaxDatagramPayloadSize)
}
