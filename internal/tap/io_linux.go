// SPDX-License-Identifier: Apache-2.0

package tap

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/l2bridge/l2bridge/internal/frame"
)

// A batch ends with whichever comes first. The bytes are what stays in a
// second-level cache until the batch has been delivered.
const (
	batchFrames = 64
	batchBytes  = 256 << 10
)

// stream moves frames through an open TAP. There is no batch read or write: a
// system call moves one frame (drivers/net/tun.c, tun_chr_read_iter).
type stream struct {
	name    string
	file    *os.File // non-blocking, in the runtime poller
	raw     syscall.RawConn
	vnet    bool      // a virtio-net header is read and written
	joins   bool      // UDP datagrams are made superframes of
	writers sync.Pool // of *writer
	calls             // of the system
	counters
}

// calls are the system calls of a stream, which a test has fail.
type calls struct {
	read, write func(fd uintptr, p []byte) (int, syscall.Errno)
}

func newStream(name string, file *os.File, vnet bool) (*stream, error) {
	raw, err := file.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("tap %s: %w", name, err)
	}
	s := &stream{name: name, file: file, raw: raw, vnet: vnet, calls: calls{rawRead, rawWrite}}
	s.writers.New = func() any {
		w := &writer{stream: s}
		w.write = w.writeAll
		return w
	}
	return s, nil
}

// Run reads frames and calls deliver with batches of up to 64, at once when no
// more are waiting. Frames are borrowed: deliver retains what it keeps. A
// frame's virtio-net header says only what is still to be done to it. Run
// returns nil when ctx ends, else why the TAP cannot be read, deleted or
// closed for example. It is called once at a time, from one goroutine.
func (s *stream) Run(ctx context.Context, deliver func([]*frame.Buf)) error {
	if err := s.file.SetReadDeadline(time.Time{}); err != nil {
		return fmt.Errorf("tap %s: %w", s.name, err)
	}
	woken := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		s.file.SetReadDeadline(time.Unix(1, 0)) // in the past: wakes the reader
		close(woken)
	})
	defer func() {
		if !stop() {
			<-woken
		}
	}()

	r := reader{stream: s, ctx: ctx, deliver: deliver, batch: make([]*frame.Buf, 0, batchFrames)}
	defer r.close()
	err := s.raw.Read(r.readAll)
	switch {
	case r.errno == unix.EBADFD:
		return fmt.Errorf("tap %s: %w: the device was deleted", s.name, r.errno)
	case r.errno != 0:
		return fmt.Errorf("tap %s: read: %w", s.name, r.errno)
	case err != nil && !(errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() != nil):
		return fmt.Errorf("tap %s: read: %w", s.name, err)
	}
	return nil
}

// reader is the state of Run.
type reader struct {
	*stream
	ctx     context.Context
	deliver func([]*frame.Buf)
	large   *frame.Buf // what the next frame is read into; nil when handed over
	batch   []*frame.Buf
	count   Counters // of the batch
	errno   syscall.Errno
	join    frame.Joiner
}

// readAll reads and delivers all that waits. It reports false to be called again
// when there is more, and true at the end: of ctx, or with errno.
//
// It is called by the runtime's poller and delivers before it returns. A call of
// the poller for each batch would have to begin with a read that finds nothing,
// since a poller that begins anew has forgotten what came meanwhile.
func (r *reader) readAll(fd uintptr) (done bool) {
	for r.ctx.Err() == nil {
		errno := r.fill(fd)
		if len(r.batch) > 0 {
			r.rx.add(r.count)
			r.deliver(r.batch)
			r.reset()
		}
		switch errno {
		case 0:
		case unix.EAGAIN:
			return false
		default:
			r.errno = errno
			return true
		}
	}
	return true
}

// fill reads until the batch is full, a frame is no good or a read fails. EAGAIN
// says that nothing waits any more.
func (r *reader) fill(fd uintptr) syscall.Errno {
	for len(r.batch) < batchFrames && r.count.Bytes < batchBytes {
		if r.large == nil {
			r.large = frame.Get(frame.MaxLen)
		}
		room := r.large.Room()
		if !r.vnet {
			room = room[frame.VnetLen:]
		}
		n, errno := r.read(fd, room)
		switch errno {
		case 0:
			if !r.take(n, n == len(room)) {
				return 0 // however many of these come, what came before goes on
			}
		case unix.EINTR:
		case unix.EINVAL:
			// The kernel has no virtio-net header for what it was handed, which is
			// gone by now (drivers/net/tun.c, tun_put_user and tun_do_read).
			r.drops[rxOffload].Add(1)
			return 0
		default:
			return errno
		}
	}
	return 0
}

// take adds the frame just read, n bytes with its header, to the batch, and reports
// whether it is good for that.
func (r *reader) take(n int, full bool) bool {
	if r.vnet {
		n -= frame.VnetLen
	}
	if n < frame.HeaderLen || full { // a frame that fills all the memory was cut off
		r.drops[rxMalformed].Add(1)
		return false
	}
	b := r.large
	b.SetLen(n)
	if r.vnet {
		// DATA_VALID says that our kernel checked a checksum, which nobody else
		// takes its word for. The rest may be a virtual machine's on the bridge,
		// which the kernel hands on as it is.
		h := b.Header()
		h.Flags &= frame.VnetNeedsCsum
		h, err := frame.CheckVnet(h, b.Bytes(), frame.MaxLen)
		if err != nil {
			r.drops[rxOffload].Add(1)
			return false
		}
		b.SetHeader(h)
		if h.GSOType != frame.GSONone {
			r.count.Superframes++
		}
	}
	r.count.Frames++
	r.count.Bytes += uint64(n)
	if r.joins && r.joined(b) {
		return true
	}
	if n <= frame.ShortLen { // so that a queue does not hold 64 KB for it
		b = frame.Get(n)
		copy(b.Raw(), r.large.Raw())
	} else {
		r.large = nil
	}
	if r.joins {
		r.join.Begin(b)
	}
	r.batch = append(r.batch, b)
	return true
}

// joined reports whether a frame became part of the one before it. It stays the
// caller's.
func (r *reader) joined(b *frame.Buf) bool {
	if len(r.batch) == 0 {
		return false
	}
	last := r.batch[len(r.batch)-1]
	both := r.join.Join(last, b)
	if both == nil {
		return false
	}
	if both != last {
		if last.Header().GSOType == frame.GSONone {
			r.count.Superframes++
		}
		last.Release()
		r.batch[len(r.batch)-1] = both
	}
	return true
}

func (r *reader) reset() {
	for _, b := range r.batch {
		b.Release()
	}
	r.batch, r.count = r.batch[:0], Counters{}
}

func (r *reader) close() {
	r.reset()
	if r.large != nil {
		r.large.Release()
	}
}

// Send writes frames to the LAN, each with one system call. It never blocks
// and may be called from several goroutines at once, also after Close; a frame
// that the kernel does not take is dropped and counted. Frames are borrowed.
func (s *stream) Send(frames []*frame.Buf) {
	w := s.writers.Get().(*writer)
	w.frames = frames
	// Control keeps the descriptor open without a lock. Write would have the
	// writers wait for each other.
	if err := s.raw.Control(w.write); err != nil {
		s.drops[txGone].Add(uint64(len(frames)))
	}
	w.frames = nil
	s.writers.Put(w)
}

// writer is the state of one Send. It is pooled because a function made per
// call would be an allocation per call.
type writer struct {
	*stream
	frames []*frame.Buf
	write  func(fd uintptr)
}

func (w *writer) writeAll(fd uintptr) {
	var count Counters
	for _, b := range w.frames {
		p, h := b.Raw(), b.Header()
		if !w.vnet {
			if h.Flags&frame.VnetNeedsCsum != 0 || h.GSOType != frame.GSONone {
				w.drops[txOffload].Add(1)
				continue
			}
			p = b.Bytes()
		}
		if _, errno := w.calls.write(fd, p); errno != 0 {
			w.drops[reasonOf(errno)].Add(1)
			continue
		}
		count.Frames++
		count.Bytes += uint64(b.Len())
		if h.GSOType != frame.GSONone {
			count.Superframes++
		}
	}
	w.tx.add(count)
}

// rawRead and rawWrite are read(2) and write(2) of p, which is not empty, on a
// descriptor that does not wait. See docs/design.md, "System calls".
func rawRead(fd uintptr, p []byte) (int, syscall.Errno)  { return transfer(unix.SYS_READ, fd, p) }
func rawWrite(fd uintptr, p []byte) (int, syscall.Errno) { return transfer(unix.SYS_WRITE, fd, p) }

func transfer(call, fd uintptr, p []byte) (int, syscall.Errno) {
	// Safe: the kernel reads or writes len(p) bytes of p at most, and keeps no
	// pointer to it after the call.
	n, _, errno := unix.RawSyscall(call, fd, uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}
