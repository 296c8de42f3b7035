// SPDX-License-Identifier: Apache-2.0

package udpconn

import (
	"encoding/binary"
	"net"
	"net/netip"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// receiver holds what came out of the kernel and was not yet handed up. One
// goroutine at a time uses it, except for its counters.
type receiver struct {
	raw  syscall.RawConn
	call func(fd uintptr) bool                 // r.recv, bound once: a method value allocates
	take func(fd uintptr) (int, syscall.Errno) // msgs.recv
	err  syscall.Errno                         // of the last call that gave up

	msgs  *messages
	count rxCounters
	addrs map[source]*net.UDPAddr

	filled, next int       // messages in msgs, and the first not yet begun
	now          time.Time // when the reader last came back from waiting

	// The message that is being handed up.
	rest    []byte // payload still to go
	segment int    // length of each packet in it; the last one may be shorter
	oob     []byte // control messages for each of them
	from    source
	addr    *net.UDPAddr // nil until a packet is handed up
}

// source names a sender. It differs from netip.AddrPort only in having the
// zone as a number, which costs no allocation to look up.
type source struct {
	addr  netip.AddrPort
	scope uint32
}

// maxAddrs bounds the cache of source addresses. A flood from made-up sources
// makes it start over, which costs one allocation a peer.
const maxAddrs = 512

// maxSoftErrors is how many errors in a row recvmmsg may give before we wait
// for the next packet instead of trying again.
const maxSoftErrors = 64

// rxCounters is written by the reader only.
type rxCounters struct {
	packets, bytes, batches, syscalls, oversize, strange, overrun, marks atomic.Uint64
	errors                                                               errnoCounters
}

func (r *rxCounters) into(s *Stats) {
	s.RxPackets = r.packets.Load()
	s.RxBytes = r.bytes.Load()
	s.RxBatches = r.batches.Load()
	s.RxSyscalls = r.syscalls.Load()
	s.RxOversize = r.oversize.Load()
	s.RxStrange = r.strange.Load()
	s.RxOverrun = r.overrun.Load()
	s.RxMarks = r.marks.Load()
	s.RxErrors = r.errors.byName()
}

func newReceiver(raw syscall.RawConn, gro bool) *receiver {
	size := packetBufferBytes
	if gro {
		size = groBufferBytes
	}
	r := &receiver{raw: raw, msgs: newMessages(size), addrs: make(map[source]*net.UDPAddr)}
	r.call, r.take = r.recv, r.msgs.recv
	return r
}

// ReadBatch fills ms with packets that came in, one each, and returns how
// many, at least one unless it returns an error. It blocks until there is a
// packet, [Conn.Close] or the read deadline; and up to maxHold while the next
// packet's [Flow] is out of credit. Each packet goes into the first buffer of
// its message, whole: one that is too long, that the [Gate] does not admit, or whose
// flow overruns the others is dropped and counted. Addr is shared by all packets of a
// sender and must not be changed. The flags are not used.
func (c *Conn) ReadBatch(ms []ipv4.Message, _ int) (int, error) {
	for {
		n, held := c.rx.split(ms, &c.flows, c.gate.Load())
		switch {
		case n > 0:
			return n, nil
		case held != nil:
			held.hold()
			c.rx.now = time.Now()
		default:
			if err := c.rx.fill(); err != nil {
				// After an error quic-go looks at the messages all the same.
				for i := range ms {
					ms[i].N, ms[i].NN = 0, 0
				}
				return 0, err
			}
		}
	}
}

// split hands up packets of the messages at hand as long as there is room in
// ms and the senders have credit. A flow that is out of credit is returned.
func (r *receiver) split(ms []ipv4.Message, flows *flows, gate *Gate) (n int, held *Flow) {
	for n < len(ms) {
		if len(r.rest) == 0 && !r.begin(flows) {
			return n, nil
		}
		flow := flows.of(r.from.addr)
		room := flow.room(r.now)
		var taken int
		for len(r.rest) > 0 && n < len(ms) {
			if gate != nil {
				if !gate.Admits(r.packet()) {
					r.drop(&r.count.strange)
					continue
				}
				gate.Received(r.packet(), r.from.addr)
			}
			credited := flow != nil && isShortHeader(r.rest[0])
			if credited && taken == room {
				if flow.overruns(r.now) {
					r.drop(&r.count.overrun)
					continue
				}
				held = flow
				break
			}
			if r.handUp(&ms[n]) {
				n++
				if credited {
					taken++
				}
			}
		}
		flow.take(taken, r.now)
		if held != nil {
			return n, held
		}
	}
	return n, nil
}

// packet returns the next packet of the message at hand.
func (r *receiver) packet() []byte { return r.rest[:min(r.segment, len(r.rest))] }

// drop passes over the next packet, and counts it.
func (r *receiver) drop(count *atomic.Uint64) {
	r.rest = r.rest[len(r.packet()):]
	count.Add(1)
}

// handUp copies the next packet into m and reports whether it fitted.
func (r *receiver) handUp(m *ipv4.Message) bool {
	packet := r.packet()
	if len(packet) > len(m.Buffers[0]) {
		r.drop(&r.count.oversize)
		return false
	}
	r.rest = r.rest[len(packet):]
	m.N = copy(m.Buffers[0], packet)
	m.NN = 0
	if len(r.oob) <= len(m.OOB) {
		m.NN = copy(m.OOB, r.oob)
	}
	if r.addr == nil {
		r.addr = r.address(r.from)
	}
	m.Addr, m.Flags = r.addr, 0
	return true
}

// begin takes up the next message that has something to hand up, and reports
// whether there was one.
func (r *receiver) begin(flows *flows) bool {
	for r.next < r.filled {
		i := r.next
		r.next++
		payload, oob, complete := r.msgs.message(i)
		r.count.batches.Add(1)
		r.count.bytes.Add(uint64(len(payload)))
		var waited time.Duration
		r.segment, waited = r.control(oob)
		if r.segment <= 0 || r.segment > len(payload) {
			r.segment = len(payload)
		}
		if len(payload) == 0 {
			r.count.packets.Add(1)
			continue
		}
		r.count.packets.Add(uint64((len(payload) + r.segment - 1) / r.segment))
		if !complete {
			r.count.oversize.Add(1)
			continue
		}
		from, scope := r.msgs.names[i].addr()
		r.rest = payload
		if s := (source{from, scope}); s != r.from {
			r.from, r.addr = s, nil
		}
		if flows.of(from).waitedTooLong(r.now, waited) && markCE(r.oob) {
			r.count.marks.Add(1)
		}
		return true
	}
	return false
}

// control keeps in r.oob those control messages that quic-go reads, in place,
// and returns the size of the packets that GRO joined, 0 if it did not, and how
// long the first of them has waited in the socket.
func (r *receiver) control(oob []byte) (segment int, waited time.Duration) {
	kept := oob[:0]
	for len(oob) > 0 {
		level, kind, body, whole, rest, ok := nextControl(oob)
		if !ok {
			break
		}
		switch {
		case level == unix.IPPROTO_UDP && kind == unix.UDP_GRO && len(body) >= 4:
			segment = int(int32(binary.NativeEndian.Uint32(body)))
		case level == unix.SOL_SOCKET && kind == unix.SO_TIMESTAMPNS_NEW && len(body) >= 16:
			// struct __kernel_timespec
			came := time.Unix(int64(binary.NativeEndian.Uint64(body)), int64(binary.NativeEndian.Uint64(body[8:])))
			waited = r.now.Sub(came)
		case isPktinfo(level, kind):
			clearInterface(level, body)
			kept = append(kept, whole...)
		case isTOS(level, kind):
			kept = append(kept, whole...)
		}
		oob = rest
	}
	r.oob = kept
	return segment, waited
}

// isTOS reports whether a control message holds the TOS or traffic class.
func isTOS(level, kind int32) bool {
	return level == unix.IPPROTO_IP && kind == unix.IP_TOS ||
		level == unix.IPPROTO_IPV6 && kind == unix.IPV6_TCLASS
}

// markCE turns ECT into CE, as a router on the path would, and reports whether
// there was ECT. A TOS is one byte, a traffic class an int.
func markCE(oob []byte) bool {
	const ecnMask, ecnCE = 3, 3
	for len(oob) > 0 {
		level, kind, body, _, rest, ok := nextControl(oob)
		if !ok {
			break
		}
		if isTOS(level, kind) {
			ecn := body[:1]
			if len(body) >= 4 {
				ecn = body[:4]
			}
			tos := uint32(ecn[0])
			if len(ecn) == 4 {
				tos = binary.NativeEndian.Uint32(ecn)
			}
			if tos&ecnMask == 0 {
				return false
			}
			if len(ecn) == 4 {
				binary.NativeEndian.PutUint32(ecn, tos|ecnCE)
			} else {
				ecn[0] |= ecnCE
			}
			return true
		}
		oob = rest
	}
	return false
}

// address returns the one *net.UDPAddr for s.
func (r *receiver) address(s source) *net.UDPAddr {
	if a, ok := r.addrs[s]; ok {
		return a
	}
	if len(r.addrs) >= maxAddrs {
		clear(r.addrs)
	}
	a := net.UDPAddrFromAddrPort(s.addr)
	if s.scope != 0 {
		a.Zone = strconv.FormatUint(uint64(s.scope), 10)
	}
	r.addrs[s] = a
	return a
}

// fill waits for packets and takes what one recvmmsg brings.
func (r *receiver) fill() error {
	r.next, r.filled = 0, 0
	if err := r.raw.Read(r.call); err != nil {
		return err
	}
	if r.err != 0 {
		return &net.OpError{Op: "read", Net: "udp", Err: r.err}
	}
	r.count.syscalls.Add(1)
	r.now = time.Now()
	return nil
}

// recv is called by the runtime's poller when the socket may be readable, and
// reports whether it is done. Only an error that no retry mends ends the
// reading, since that ends every connection of the transport.
func (r *receiver) recv(fd uintptr) (done bool) {
	for range maxSoftErrors {
		r.filled, r.err = r.take(fd)
		switch {
		case r.err == 0:
			return r.filled > 0
		case r.err == unix.EAGAIN:
			return false
		case r.err == unix.EINTR || r.count.errors.swallow(r.err):
			continue
		default:
			return true
		}
	}
	return false
}
