// SPDX-License-Identifier: Apache-2.0

package udpconn_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"

	"github.com/l2bridge/l2bridge/transport/udpconn"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Buffer and control message sizes as quic-go has them (MaxPacketBufferSize,
// batchSize, oobBufferSize).
const (
	packetSize = 1452
	batchSize  = 8
	oobSize    = 128
)

func newBatch(n int) []ipv4.Message {
	ms := make([]ipv4.Message, n)
	for i := range ms {
		ms[i].Buffers = [][]byte{make([]byte, packetSize)}
		ms[i].OOB = make([]byte, oobSize)
	}
	return ms
}

func listen(t testing.TB, addr string) *udpconn.Conn {
	t.Helper()
	c, err := udpconn.Listen(netip.MustParseAddrPort(addr), udpconn.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// enable sets what quic-go sets on a socket before it reads.
func enable(t testing.TB, c *udpconn.Conn) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_RECVTOS, 1)
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVTCLASS, 1)
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
	}); err != nil {
		t.Fatal(err)
	}
}

// target is c's address on the loopback of the given family.
func target(c *udpconn.Conn, loopback string) *net.UDPAddr {
	return &net.UDPAddr{IP: net.ParseIP(loopback), Port: c.LocalAddr().(*net.UDPAddr).Port}
}

// control makes one control message.
func control(level, kind int, body []byte) []byte {
	b := make([]byte, unix.CmsgSpace(len(body)))
	binary.NativeEndian.PutUint64(b, uint64(unix.CmsgLen(len(body)))) // 64-bit hosts
	binary.NativeEndian.PutUint32(b[8:], uint32(level))
	binary.NativeEndian.PutUint32(b[12:], uint32(kind))
	copy(b[unix.CmsgLen(0):], body)
	return b
}

func segmentSize(n uint16) []byte {
	return control(unix.IPPROTO_UDP, unix.UDP_SEGMENT, binary.NativeEndian.AppendUint16(nil, n))
}

// fillPattern makes n bytes of which no two segments are the same.
func fillPattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i>>8)
	}
	return b
}

// setDeadline makes a packet that does not come an error.
func setDeadline(t *testing.T, c *udpconn.Conn) {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Error(err)
	}
}

// readPackets reads until n packets are there.
func readPackets(t *testing.T, c *udpconn.Conn, n int) (packets [][]byte, last ipv4.Message) {
	t.Helper()
	ms := newBatch(batchSize)
	setDeadline(t, c)
	for len(packets) < n {
		got, err := c.ReadBatch(ms, 0)
		if err != nil {
			t.Fatalf("after %d of %d packets: %v", len(packets), n, err)
		}
		for _, m := range ms[:got] {
			packets = append(packets, bytes.Clone(m.Buffers[0][:m.N]))
			last = m
		}
	}
	return packets, last
}

func TestReadSplitsBatches(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name           string
		total, segment int
	}{
		{"single", 100, 0},
		{"two whole", 2400, 1200},
		{"odd last", 3*1200 + 1, 1200},
		{"more than one ReadBatch", 20*1000 + 999, 1000},
		{"longest", 45 * packetSize, packetSize},
		{"smallest", 64, 1},
	} {
		for _, host := range []string{"127.0.0.1", "::1"} {
			t.Run(tt.name+" "+host, func(t *testing.T) {
				t.Parallel()
				c := listen(t, "[::]:0")
				if !c.Stats().GRO || !c.Stats().GSO {
					t.Skip("no UDP_GRO or no UDP_SEGMENT in this kernel")
				}
				sender := listen(t, netip.AddrPortFrom(netip.MustParseAddr(host), 0).String())
				sent := fillPattern(tt.total)
				var oob []byte
				want := [][]byte{sent}
				if tt.segment > 0 {
					oob = segmentSize(uint16(tt.segment))
					want = nil
					for rest := sent; len(rest) > 0; {
						n := min(tt.segment, len(rest))
						want = append(want, rest[:n])
						rest = rest[n:]
					}
				}
				if _, _, err := sender.WriteMsgUDP(sent, oob, target(c, host)); err != nil {
					t.Fatal(err)
				}
				got, last := readPackets(t, c, len(want))
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("packets (-want +got):\n%s", diff)
				}
				from := last.Addr.(*net.UDPAddr).AddrPort()
				if want := sender.LocalAddr().(*net.UDPAddr).AddrPort(); from != want {
					t.Errorf("source %v, want %v", from, want)
				}
				s := c.Stats()
				if s.RxPackets != uint64(len(want)) || s.RxBytes != uint64(tt.total) || s.RxBatches != 1 || s.RxSyscalls != 1 {
					t.Errorf("stats %+v, want %d packets, %d bytes in one batch", s, len(want), tt.total)
				}
			})
		}
	}
}

func TestReadCopiesControlMessages(t *testing.T) {
	t.Parallel()
	const ecnCE = 3
	for _, tt := range []struct {
		host string
		tos  []byte
	}{
		{"127.0.0.1", control(unix.IPPROTO_IP, unix.IP_TOS, []byte{ecnCE})},
		{"::1", control(unix.IPPROTO_IPV6, unix.IPV6_TCLASS, binary.NativeEndian.AppendUint32(nil, ecnCE))},
	} {
		t.Run(tt.host, func(t *testing.T) {
			t.Parallel()
			c := listen(t, "[::]:0")
			enable(t, c)
			sender := listen(t, "[::]:0")
			oob := append(segmentSize(500), tt.tos...)
			if _, _, err := sender.WriteMsgUDP(fillPattern(1200), oob, target(c, tt.host)); err != nil {
				t.Fatal(err)
			}
			ms := newBatch(batchSize)
			n, err := c.ReadBatch(ms, 0)
			if err != nil || n != 3 {
				t.Fatalf("ReadBatch = %d, %v; want 3 packets", n, err)
			}
			for i, m := range ms[:n] {
				local, index, ecn := parseControl(t, m.OOB[:m.NN])
				if local != netip.MustParseAddr(tt.host) || index != 0 || ecn != ecnCE {
					t.Errorf("packet %d: to %v, interface %d, ECN %d; want %s, 0, %d", i, local, index, ecn, tt.host, ecnCE)
				}
				if m.Addr != ms[0].Addr {
					t.Errorf("packet %d has an address of its own", i)
				}
			}
		})
	}
}

// parseControl reads control messages as quic-go does.
func parseControl(t *testing.T, oob []byte) (local netip.Addr, index uint32, ecn byte) {
	t.Helper()
	list, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range list {
		switch [2]int32{m.Header.Level, m.Header.Type} {
		case [2]int32{unix.IPPROTO_IP, unix.IP_TOS}:
			ecn = m.Data[0] & 3
		case [2]int32{unix.IPPROTO_IPV6, unix.IPV6_TCLASS}:
			ecn = byte(binary.NativeEndian.Uint32(m.Data)) & 3
		case [2]int32{unix.IPPROTO_IP, unix.IP_PKTINFO}:
			local = netip.AddrFrom4([4]byte(m.Data[8:12]))
			index |= binary.NativeEndian.Uint32(m.Data)
		case [2]int32{unix.IPPROTO_IPV6, unix.IPV6_PKTINFO}:
			local = netip.AddrFrom16([16]byte(m.Data[:16])).Unmap()
			index |= binary.NativeEndian.Uint32(m.Data[16:])
		default:
			t.Errorf("control message %d/%d is not for quic-go", m.Header.Level, m.Header.Type)
		}
	}
	return local, index, ecn
}

func TestReadDropsWhatIsTooLong(t *testing.T) {
	t.Parallel()
	c := listen(t, "127.0.0.1:0")
	sender := listen(t, "127.0.0.1:0")
	to := target(c, "127.0.0.1")
	for _, w := range []struct {
		n   int
		oob []byte
	}{
		{packetSize + 1, nil},
		{8000, nil},
		{2*(packetSize+1) + 10, segmentSize(packetSize + 1)}, // the last one fits
		{0, nil},
		{packetSize, nil},
	} {
		if _, _, err := sender.WriteMsgUDP(fillPattern(w.n), w.oob, to); err != nil {
			t.Fatal(err)
		}
	}
	got, _ := readPackets(t, c, 2)
	want := [][]byte{fillPattern(2*(packetSize+1) + 10)[2*(packetSize+1):], fillPattern(packetSize)}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("packets (-want +got):\n%s", diff)
	}
	if s := c.Stats(); s.RxOversize != 4 || s.RxPackets != 7 {
		t.Errorf("%d packets, %d too long; want 7, 4", s.RxPackets, s.RxOversize)
	}
}

func TestReadMsgUDPReadsOnePacket(t *testing.T) {
	t.Parallel()
	c := listen(t, "127.0.0.1:0")
	sender := listen(t, "127.0.0.1:0")
	sent := fillPattern(250)
	if _, _, err := sender.WriteMsgUDP(sent, segmentSize(100), target(c, "127.0.0.1")); err != nil {
		t.Fatal(err)
	}
	var got [][]byte
	for range 3 {
		b := make([]byte, packetSize)
		n, from, err := c.ReadFrom(b)
		if err != nil {
			t.Fatal(err)
		}
		if from.String() != sender.LocalAddr().String() {
			t.Errorf("from %v, want %v", from, sender.LocalAddr())
		}
		got = append(got, b[:n])
	}
	if diff := cmp.Diff([][]byte{sent[:100], sent[100:200], sent[200:]}, got); diff != "" {
		t.Errorf("packets (-want +got):\n%s", diff)
	}
}

func TestReadDoesNotAllocate(t *testing.T) {
	c := listen(t, "[::]:0")
	enable(t, c)
	sender := listen(t, "127.0.0.1:0")
	to, b, oob := target(c, "127.0.0.1"), fillPattern(8*1200), segmentSize(1200)
	ms := newBatch(batchSize)
	allocs := testing.AllocsPerRun(200, func() {
		if _, _, err := sender.WriteMsgUDP(b, oob, to); err != nil {
			t.Fatal(err)
		}
		if n, err := c.ReadBatch(ms, 0); err != nil || n != batchSize {
			t.Fatalf("ReadBatch = %d, %v", n, err)
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations a batch sent and received, want none", allocs)
	}
}

func TestReadEnds(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		end  func(*udpconn.Conn) error
		want error
	}{
		{"by Close", (*udpconn.Conn).Close, net.ErrClosed},
		{"by deadline", func(c *udpconn.Conn) error { return c.SetReadDeadline(time.Now()) }, os.ErrDeadlineExceeded},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := listen(t, "127.0.0.1:0")
			ms := newBatch(batchSize)
			for i := range ms {
				ms[i].N = 99 // left over from an earlier batch
			}
			ended := make(chan error)
			go func() {
				_, err := c.ReadBatch(ms, 0)
				ended <- err
			}()
			if err := tt.end(c); err != nil {
				t.Fatal(err)
			}
			err := <-ended
			if !errors.Is(err, tt.want) {
				t.Errorf("error %v, want %v", err, tt.want)
			}
			// quic-go looks at messages even after an error.
			for i, m := range ms {
				if m.N != 0 || m.NN != 0 {
					t.Errorf("message %d still has length %d, %d", i, m.N, m.NN)
				}
			}
		})
	}
}

// An error of recvmmsg is counted, and the next packet waited for, without end or
// hurry; but one that says that there is no socket ends the reading.
func TestReadErrors(t *testing.T) {
	t.Parallel()
	for errno := syscall.Errno(1); errno <= udpconn.MaxErrno; errno++ {
		name := unix.ErrnoName(errno)
		if name == "" || errno == unix.EAGAIN { // which says that there is nothing
			continue
		}
		c := listen(t, "127.0.0.1:0")
		setDeadline(t, c)
		const packets = 5
		failing, calls := packets, 0
		udpconn.SetReceive(c, func(receive udpconn.ReceiveFunc) udpconn.ReceiveFunc {
			return func(fd uintptr) (int, syscall.Errno) {
				if calls++; failing > 0 {
					failing--
					return 0, errno
				}
				return receive(fd)
			}
		})
		for range packets {
			if _, err := c.WriteTo([]byte("packet"), target(c, "127.0.0.1")); err != nil {
				t.Fatal(err)
			}
		}
		n, err := c.ReadBatch(newBatch(1), 0)
		fatal := slices.Contains(udpconn.Fatal, errno)
		want := map[string]uint64{name: packets}
		if fatal || errno == unix.EINTR {
			want = map[string]uint64{}
		}
		if fatal != errors.Is(err, errno) || fatal != (n == 0) || calls > packets+1 {
			t.Errorf("%s: %d packets, %v, %d calls", name, n, err, calls)
		}
		if diff := cmp.Diff(want, c.Stats().RxErrors); diff != "" {
			t.Errorf("%s: errors counted (-want +got):\n%s", name, diff)
		}
		c.Close()
	}
}

// Errors that do not end cost a few calls for each packet that comes.
func TestReadErrorsDoNotSpin(t *testing.T) {
	t.Parallel()
	c := listen(t, "127.0.0.1:0")
	setDeadline(t, c)
	var calls atomic.Int64
	called := make(chan struct{}, 1)
	udpconn.SetReceive(c, func(udpconn.ReceiveFunc) udpconn.ReceiveFunc {
		return func(uintptr) (int, syscall.Errno) {
			calls.Add(1)
			select {
			case called <- struct{}{}:
			default:
			}
			return 0, unix.EIO
		}
	})
	ended := make(chan error, 1)
	go func() {
		_, err := c.ReadBatch(newBatch(1), 0)
		ended <- err
	}()
	const packets = 20
	for range packets {
		if _, err := c.WriteTo([]byte("packet"), target(c, "127.0.0.1")); err != nil {
			t.Fatal(err)
		}
		<-called
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("error %v, want %v", err, net.ErrClosed)
	}
	if n := calls.Load(); n > 64*(packets+2) {
		t.Errorf("%d calls for %d packets", n, packets)
	}
}

// errnoError is what package net makes of an error of sendmsg.
func errnoError(errno syscall.Errno) error {
	return &net.OpError{Op: "write", Net: "udp", Err: os.NewSyscallError("sendmsg", errno)}
}

func TestWriteErrors(t *testing.T) {
	t.Parallel()
	pin4 := control(unix.IPPROTO_IP, unix.IP_PKTINFO, make([]byte, 12))
	pin6 := control(unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, make([]byte, 20))
	gso := segmentSize(100)
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

	type testCase struct {
		name   string
		oob    []byte
		errs   []syscall.Errno // of the tries, in order; 0 is success
		want   error
		counts map[string]uint64
		oobs   [][]byte // with which it was tried
		sent   uint64
		second uint64 // sent at the second try, unpinned
	}
	cases := []testCase{
		{name: "success", oob: pin4, errs: []syscall.Errno{0}, oobs: [][]byte{pin4}, sent: 1},
		{name: "EMSGSIZE passes", errs: []syscall.Errno{unix.EMSGSIZE}, want: unix.EMSGSIZE, oobs: [][]byte{nil}},
		{
			name: "EIO of a batch", oob: join(pin4, gso), errs: []syscall.Errno{unix.EIO, 0, unix.ENOBUFS, 0},
			counts: map[string]uint64{"ENOBUFS": 1}, oobs: [][]byte{join(pin4, gso), pin4, pin4, pin4}, sent: 2,
		},
		{
			name: "EINVAL of a batch", oob: gso, errs: []syscall.Errno{unix.EINVAL, 0, 0, 0},
			oobs: [][]byte{gso, {}, {}, {}}, sent: 3,
		},
		{
			name: "EIO of a batch, then EMSGSIZE", oob: gso, errs: []syscall.Errno{unix.EIO, unix.EMSGSIZE, unix.EMSGSIZE, 0},
			want: unix.EMSGSIZE, oobs: [][]byte{gso, {}, {}, {}}, sent: 1, // the last packet is shorter
		},
		{
			name: "EIO of a batch, then EBADF", oob: gso, errs: []syscall.Errno{unix.EIO, unix.EBADF},
			want: unix.EBADF, oobs: [][]byte{gso, {}},
		},
		{name: "EPERM once", errs: []syscall.Errno{unix.EPERM, 0}, oobs: [][]byte{nil, nil}, sent: 1},
		{
			name: "EPERM twice", errs: []syscall.Errno{unix.EPERM, unix.EPERM},
			counts: map[string]uint64{"EPERM": 1}, oobs: [][]byte{nil, nil},
		},
		{
			name: "unpinned too fails", oob: join(pin4, gso), errs: []syscall.Errno{unix.ENETUNREACH, unix.EMSGSIZE},
			counts: map[string]uint64{"ENETUNREACH": 1}, oobs: [][]byte{join(pin4, gso), gso},
		},
		{
			name: "unpinned and singly too fails", oob: join(pin6, gso),
			errs: []syscall.Errno{
				unix.EINVAL, unix.EMSGSIZE,
				unix.EINVAL, unix.ENOBUFS, unix.EINVAL, unix.ENOBUFS, unix.EINVAL, unix.ENOBUFS,
			},
			counts: map[string]uint64{"EINVAL": 3}, oobs: [][]byte{join(pin6, gso), gso, pin6, {}, pin6, {}, pin6, {}},
		},
	}
	for errno := syscall.Errno(1); errno <= udpconn.MaxErrno; errno++ {
		name := unix.ErrnoName(errno)
		switch {
		case name == "", errno == unix.EPERM, errno == unix.EMSGSIZE:
			continue
		case slices.Contains(udpconn.Fatal, errno):
			cases = append(cases, testCase{name: name, errs: []syscall.Errno{errno}, want: errno, oobs: [][]byte{nil}})
			continue
		}
		cases = append(cases, testCase{
			name: name, errs: []syscall.Errno{errno}, counts: map[string]uint64{name: 1}, oobs: [][]byte{nil},
		})
	}
	for _, errno := range []syscall.Errno{unix.EINVAL, unix.ENETUNREACH, unix.EADDRNOTAVAIL} {
		cases = append(cases, testCase{
			name: unix.ErrnoName(errno) + " pinned", oob: join(pin4, gso), errs: []syscall.Errno{errno, 0},
			oobs: [][]byte{join(pin4, gso), gso}, sent: 3, second: 1,
		})
	}
	for _, tt := range cases {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := listen(t, "127.0.0.1:0")
			var oobs [][]byte
			udpconn.SetSend(c, func(udpconn.SendFunc) udpconn.SendFunc {
				return func(b, oob []byte, _ netip.AddrPort) (int, int, error) {
					errno := tt.errs[len(oobs)]
					oobs = append(oobs, bytes.Clone(oob))
					if errno != 0 {
						return 0, 0, errnoError(errno)
					}
					return len(b), len(oob), nil
				}
			})
			b := make([]byte, 250)
			n, oobn, err := c.WriteMsgUDP(b, tt.oob, target(c, "127.0.0.1"))
			if !errors.Is(err, tt.want) {
				t.Errorf("error %v, want %v", err, tt.want)
			}
			if tt.want == nil && (n != len(b) || oobn != len(tt.oob)) {
				t.Errorf("wrote %d, %d, want %d, %d", n, oobn, len(b), len(tt.oob))
			}
			s := c.Stats()
			if tt.counts == nil {
				tt.counts = map[string]uint64{}
			}
			if diff := cmp.Diff(tt.counts, s.TxErrors); diff != "" {
				t.Errorf("errors counted (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.oobs, oobs); diff != "" {
				t.Errorf("control messages (-want +got):\n%s", diff)
			}
			if s.TxPackets != tt.sent || s.TxUnpinned != tt.second {
				t.Errorf("%d packets, %d unpinned; want %d, %d", s.TxPackets, s.TxUnpinned, tt.sent, tt.second)
			}
		})
	}
}

func TestWriteAfterClose(t *testing.T) {
	t.Parallel()
	c := listen(t, "127.0.0.1:0")
	to := target(c, "127.0.0.1")
	c.Close()
	if _, err := c.WriteTo([]byte("x"), to); !errors.Is(err, net.ErrClosed) {
		t.Errorf("error %v, want %v", err, net.ErrClosed)
	}
}

func TestListenNamesOwnerOfPort(t *testing.T) {
	t.Parallel()
	c := listen(t, "127.0.0.1:0")
	addr := c.LocalAddr().(*net.UDPAddr).AddrPort()
	second, err := udpconn.Listen(addr, udpconn.Options{})
	if err == nil {
		second.Close()
		t.Fatal("the port was taken twice")
	}
	if !errors.Is(err, unix.EADDRINUSE) || !strings.Contains(err.Error(), fmt.Sprintf("(pid %d)", os.Getpid())) {
		t.Errorf("error %q, want one that names pid %d", err, os.Getpid())
	}
}

func TestListenFallsBackToIPv4(t *testing.T) {
	t.Parallel()
	for _, errno := range []syscall.Errno{unix.EAFNOSUPPORT, unix.EADDRNOTAVAIL} {
		c, err := udpconn.ListenWith(netip.MustParseAddrPort("[::]:0"), func(network string, addr netip.AddrPort) (*net.UDPConn, error) {
			if network != "udp4" {
				return nil, errnoError(errno)
			}
			return net.ListenUDP(network, net.UDPAddrFromAddrPort(addr))
		})
		if err != nil {
			t.Fatalf("%v: %v", errno, err)
		}
		defer c.Close()
		if ip := c.LocalAddr().(*net.UDPAddr).IP; !ip.Equal(net.IPv4zero) {
			t.Errorf("%v: listens on %v, want 0.0.0.0", errno, ip)
		}
	}
}

func TestListenWithoutAddress(t *testing.T) {
	t.Parallel()
	if _, err := udpconn.Listen(netip.AddrPort{}, udpconn.Options{}); err == nil {
		t.Error("listens on nothing")
	}
}

func TestInodesOf(t *testing.T) {
	t.Parallel()
	const table = `   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
  466: 00000000:1151 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 31337 2 0000000000000000 0
  467: 0100007F:1152 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 31338 2 0000000000000000 0
  468: 00000000000000000000000001000000:1151 00000000000000000000000000000000:0000 07 0:0 00:0 0 0 0 31339 2 0 0
  469: nonsense
  470: 00000000:1151 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 -1 2 0000000000000000 0
`
	if diff := cmp.Diff([]uint64{31337, 31339}, udpconn.InodesOf([]byte(table), 0x1151)); diff != "" {
		t.Errorf("inodes (-want +got):\n%s", diff)
	}
}

func FuzzInodesOf(f *testing.F) {
	f.Add([]byte("  1: 00000000:1151 0:0 07 0:0 00:0 0 0 0 7 2 0 0\n"), uint16(0x1151))
	f.Fuzz(func(t *testing.T, table []byte, port uint16) {
		if n, lines := len(udpconn.InodesOf(table, port)), bytes.Count(table, []byte("\n"))+1; n > lines {
			t.Errorf("%d sockets in %d lines", n, lines)
		}
	})
}

func TestBuffersAreGranted(t *testing.T) {
	t.Parallel()
	c, err := udpconn.Listen(netip.MustParseAddrPort("127.0.0.1:0"), udpconn.Options{BufferBytes: 64 << 10})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if s := c.Stats(); s.ReceiveBufferBytes != 128<<10 || s.SendBufferBytes != 128<<10 {
		t.Errorf("buffers of %d, %d bytes, want twice 64 KiB", s.ReceiveBufferBytes, s.SendBufferBytes)
	}
}

// Without CAP_NET_ADMIN the kernel gives net.core.rmem_max and no more, and
// Stats says so.
func TestBuffersWithoutCapability(t *testing.T) {
	t.Parallel()
	limit := func(name string) int {
		b, err := os.ReadFile("/proc/sys/net/core/" + name)
		if err != nil {
			t.Skip(err) // a namespace of an older kernel has none
		}
		n, err := strconv.Atoi(strings.TrimSpace(string(b)))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	receive, send := limit("rmem_max"), limit("wmem_max")
	opened := make(chan *udpconn.Conn, 1)
	go func() {
		defer close(opened)
		runtime.LockOSThread() // never unlocked: the thread ends without its capability
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var data [2]unix.CapUserData
		if err := unix.Capget(&header, &data[0]); err != nil {
			t.Error(err)
			return
		}
		data[0].Effective &^= 1 << unix.CAP_NET_ADMIN
		if err := unix.Capset(&header, &data[0]); err != nil {
			t.Error(err)
			return
		}
		c, err := udpconn.Listen(netip.MustParseAddrPort("127.0.0.1:0"), udpconn.Options{BufferBytes: 2 * max(receive, send)})
		if err != nil {
			t.Error(err)
			return
		}
		opened <- c
	}()
	c := <-opened
	if c == nil {
		return
	}
	defer c.Close()
	if s := c.Stats(); s.ReceiveBufferBytes != 2*receive || s.SendBufferBytes != 2*send {
		t.Errorf("buffers of %d, %d bytes, want %d, %d", s.ReceiveBufferBytes, s.SendBufferBytes, 2*receive, 2*send)
	}
}

// listenWithoutGRO listens on a kernel that has no UDP_GRO.
func listenWithoutGRO(t testing.TB) *udpconn.Conn {
	t.Helper()
	c := listen(t, "[::]:0")
	if err := udpconn.WithoutGRO(c); err != nil {
		t.Skip(err) // this kernel has none
	}
	return c
}

// Without UDP_GRO a packet is a message, and nothing else differs.
func TestReadWithoutGRO(t *testing.T) {
	t.Parallel()
	c := listenWithoutGRO(t)
	if s := c.Stats(); s.GRO {
		t.Errorf("stats %+v, want no GRO", s)
	}
	sender := listen(t, "127.0.0.1:0")
	sent := fillPattern(20 * packetSize)
	var oob []byte
	if sender.Stats().GSO {
		oob = segmentSize(packetSize)
	}
	var want [][]byte
	for rest := sent; len(rest) > 0; rest = rest[packetSize:] {
		want = append(want, rest[:packetSize])
		if oob == nil {
			if _, err := sender.WriteTo(rest[:packetSize], target(c, "127.0.0.1")); err != nil {
				t.Fatal(err)
			}
		}
	}
	if oob != nil {
		if _, _, err := sender.WriteMsgUDP(sent, oob, target(c, "127.0.0.1")); err != nil {
			t.Fatal(err)
		}
	}
	got, _ := readPackets(t, c, len(want))
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("packets (-want +got):\n%s", diff)
	}
	if s := c.Stats(); s.RxPackets != 20 || s.RxBatches != 20 {
		t.Errorf("%d packets in %d batches, want 20 in 20", s.RxPackets, s.RxBatches)
	}
}
