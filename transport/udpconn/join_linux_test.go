// SPDX-License-Identifier: Apache-2.0

package udpconn_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/l2bridge/l2bridge/transport/udpconn"
)

// sentBatch is one message as the kernel is given it.
type sentBatch struct {
	b, oob []byte
	to     netip.AddrPort
}

// record has c send nothing, and returns where it notes what it would have sent.
func record(c *udpconn.Conn) *[]sentBatch {
	var sent []sentBatch
	udpconn.SetSend(c, func(udpconn.SendFunc) udpconn.SendFunc {
		return func(b, oob []byte, to netip.AddrPort) (int, int, error) {
			sent = append(sent, sentBatch{bytes.Clone(b), bytes.Clone(oob), to})
			return len(b), len(oob), nil
		}
	})
	return &sent
}

// quicBatch is how many packets quic-go has in a batch.
func quicBatch(segment int) int { return 20 << 10 / segment }

// What quic-go fills one behind the other goes in one message, at once when it
// has nothing more.
func TestBatchesAreJoined(t *testing.T) {
	const segment = 1436
	to := net.UDPAddrFromAddrPort(netip.MustParseAddrPort("192.0.2.1:4433"))
	tests := []struct {
		name    string
		packets []int // of each batch
		want    []int // of each message
	}{
		{"32 datagrams", []int{14, 14, 4}, []int{32}},
		{"a short one", []int{4}, []int{4}},
		{"a full one with nothing behind it", []int{14}, []int{14}},
		{"more than a message holds", []int{14, 14, 14, 14, 14}, []int{42, 28}},
		{"the end of one does not fit", []int{14, 14, 14, 4}, []int{42, 4}},
	}
	// A batch is held until the scheduler turns to run, which with one P it does when
	// nobody else goes on. A busy machine may come in between; not always.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got []int
			for try := 0; try < 100 && !slices.Equal(got, tt.want); try++ {
				got = joined(t, segment, tt.packets, to)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("messages of %v packets, want %v", got, tt.want)
			}
		})
	}
}

// joined writes batches of so many packets and returns how many were in each
// message.
func joined(t *testing.T, segment int, packets []int, to *net.UDPAddr) (got []int) {
	synctest.Test(t, func(t *testing.T) {
		c := listen(t, "127.0.0.1:0")
		sent := record(c)
		var all, went []byte
		for _, n := range packets {
			b := fillPattern(n * segment)
			if _, _, err := c.WriteMsgUDP(b, segmentSize(uint16(segment)), to); err != nil {
				t.Fatal(err)
			}
			all = append(all, b...)
		}
		began := time.Now()
		synctest.Wait()
		if time.Since(began) != 0 {
			t.Error("a batch was held for a time")
		}
		for _, s := range *sent {
			got = append(got, len(s.b)/segment)
			went = append(went, s.b...)
		}
		if !bytes.Equal(went, all) {
			t.Error("what went is not what was given")
		}
	})
	return got
}

// Whatever is written, to several addresses and in several sizes, by itself or in
// batches: each packet goes once, to its address, with its control messages, in the
// order given, and no message is longer than the kernel takes.
func TestJoinedIsWhatWasGiven(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		type packet struct {
			b   string
			oob string
			to  netip.AddrPort
		}
		split := func(s sentBatch, segment int) (packets []packet) {
			for b := s.b; len(b) > 0; {
				n := min(len(b), segment)
				packets = append(packets, packet{string(b[:n]), string(s.oob), s.to})
				b = b[n:]
			}
			return packets
		}
		type write struct {
			sentBatch
			pause bool // then the joiner has its turn
		}
		var writes []write
		var given []packet
		number := uint64(0)
		for range rapid.IntRange(1, 30).Draw(rt, "writes") {
			segment := rapid.SampledFrom([]int{400, 1200, 1436, 1452}).Draw(rt, "segment")
			packets := rapid.SampledFrom([]int{1, 4, quicBatch(segment), quicBatch(segment), quicBatch(segment)}).Draw(rt, "packets")
			b := make([]byte, packets*segment)
			for i := range packets {
				binary.BigEndian.PutUint64(b[i*segment:], number)
				number++
			}
			if rapid.IntRange(0, 3).Draw(rt, "short") == 0 {
				b = b[:len(b)-segment+8]
			}
			w := write{pause: rapid.IntRange(0, 3).Draw(rt, "pause") == 0}
			w.b, w.to = b, netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(rapid.IntRange(1, 2).Draw(rt, "to"))}), 4433)
			if packets > 1 {
				w.oob = segmentSize(uint16(segment))
			}
			writes, given = append(writes, w), append(given, split(w.sentBatch, segment)...)
		}

		var sent *[]sentBatch
		synctest.Test(t, func(t *testing.T) {
			c := listen(t, "127.0.0.1:0")
			sent = record(c)
			for _, w := range writes {
				if _, _, err := c.WriteMsgUDP(w.b, w.oob, net.UDPAddrFromAddrPort(w.to)); err != nil {
					t.Fatal(err)
				}
				if w.pause {
					synctest.Wait()
				}
			}
			synctest.Wait()
		})

		var went []packet
		for _, s := range *sent {
			segment := max(len(s.b), 1)
			if len(s.oob) > 0 {
				segment = int(binary.NativeEndian.Uint16(s.oob[unix.CmsgLen(0):]))
			}
			if n := (len(s.b) + segment - 1) / segment; len(s.b) > 65507 || n > 64 {
				rt.Errorf("a message of %d bytes and %d packets", len(s.b), n)
			}
			went = append(went, split(s, segment)...)
		}
		if !slices.Equal(went, given) {
			rt.Fatalf("%d packets went, %d were given, and they are not the same", len(went), len(given))
		}
	})
}

// An error of a batch that went later than it was given is told to who gives the
// next one.
func TestLateErrorIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := listen(t, "127.0.0.1:0")
		closed := &net.OpError{Op: "write", Err: net.ErrClosed}
		udpconn.SetSend(c, func(udpconn.SendFunc) udpconn.SendFunc {
			return func(b, oob []byte, to netip.AddrPort) (int, int, error) { return 0, 0, closed }
		})
		to := net.UDPAddrFromAddrPort(netip.MustParseAddrPort("192.0.2.1:4433"))
		full := make([]byte, quicBatch(1200)*1200)
		if _, _, err := c.WriteMsgUDP(full, segmentSize(1200), to); err != nil {
			t.Fatalf("a batch that is held: %v", err)
		}
		synctest.Wait()
		if _, _, err := c.WriteMsgUDP(full, segmentSize(1200), to); !errors.Is(err, net.ErrClosed) {
			t.Errorf("the next one: %v, want %v", err, closed)
		}
	})
}
