// SPDX-License-Identifier: Apache-2.0

package egress

import (
	"math"
	"time"

	"github.com/l2bridge/l2bridge/internal/frame"
	"github.com/l2bridge/l2bridge/transport/wire"
)

// flow is the frames of one bucket, in the order they came.
type flow struct {
	// Guarded by Queue.mu.
	lane       *Lane // its home; nil for none
	goal       *Lane // where it goes when its home is clear; nil to stay
	head, tail int32 // entries
	n, bytes   int
	listed     bool          // it stands in a list of its lane, or is parked
	parked     bool          // it waits until its home is clear
	quiet      time.Duration // when it last left the list
	held       time.Duration // when a frame of it last had waited for longer than the least target
	next       *flow         // in that list
	foreign    bool          // of frames that others send by way of us
	codel      codel

	// The lane's taker's own while the flow is listed.
	deficit int       // bytes it may send until it is another's turn
	item    wire.Item // what is on its way, all or part of the first entry; Buf nil for nothing
	ours    bool      // item.Buf is a copy of part of the entry
	last    bool      // with the item the entry is done
	taken   uint16    // segments of the entry that count as gone since the item has them
	open    bool      // part of the item is in a datagram
	born    int       // how many items the lane had begun with that
}

// loadLocked makes an item of the first frame that is worth sending, and
// reports whether there was one.
func (q *Queue) loadLocked(f *flow, now time.Duration, limit int) bool {
	for f.n > 0 {
		e := &q.entries[f.head]
		age := now - e.since
		mark := false
		if age > target {
			f.held = now
		}
		switch {
		case age >= MaxAge:
			q.stale.Add(segments(e.buf, e.from))
			q.popLocked(f)
			continue
		case f != &q.urgent && f.codel.act(q.delay, now, age, f.n == 1):
			if mark = frame.IsECT(e.buf.Bytes()); !mark {
				q.dropped.Add(1)
				q.skipLocked(f, e)
				continue
			}
			q.marked.Add(1)
		}
		f.takeLocked(e, limit, mark)
		return true
	}
	f.codel.above, f.codel.dropping = 0, false // nothing waits (RFC 8289, section 5)
	return false
}

// skipLocked drops one frame as the LAN would have seen it: of a superframe one
// segment, which tells TCP as much as all of them would and costs it less.
func (q *Queue) skipLocked(f *flow, e *entry) {
	if h := e.buf.Header(); isCuttable(h) && int(e.from)+1 < frame.Segments(h, e.buf.Bytes()) {
		e.from++
	} else {
		q.popLocked(f)
	}
}

// isCuttable reports whether a frame is a superframe, with the length of its
// headers as CheckVnet knows it.
func isCuttable(h frame.Vnet) bool { return h.GSOType != frame.GSONone && h.HdrLen != 0 }

// takeLocked makes the next item of an entry: the frame, or of a superframe the
// next run of segments that is about limit bytes long, with a congestion mark
// if so told. What others may hold too is not written to.
func (f *flow) takeLocked(e *entry, limit int, mark bool) {
	b, h := e.buf, e.buf.Header()
	f.ours, f.last, f.taken, f.open = false, true, 0, false
	switch {
	case isCuttable(h) && (e.from > 0 || b.Len() > limit):
		size := int(h.GSOSize)
		hdr, payload := b.Bytes()[:h.HdrLen], b.Bytes()[h.HdrLen:]
		from := int(e.from) * size
		to := min(from+max(1, limit/size)*size, len(payload))
		b = frame.Cut(h, hdr, payload[from:to], int(e.from))
		f.taken = uint16((to - from + size - 1) / size)
		e.from += f.taken
		f.ours, f.last = true, to == len(payload)
	case mark:
		b = frame.New(e.buf.Bytes())
		b.SetHeader(h)
		f.ours = true
	}
	if mark {
		frame.MarkCE(b.Bytes())
	}
	f.item = wire.Item{Buf: b, Relayed: e.to}
}

// doneLocked ends the item.
func (q *Queue) doneLocked(f *flow) {
	if f.ours {
		f.item.Buf.Release()
	}
	f.item = wire.Item{}
	if f.last {
		q.popLocked(f)
	}
}

// undoLocked takes an item back of which nothing was sent.
func (q *Queue) undoLocked(f *flow) {
	q.entries[f.head].from -= f.taken
	f.last = false
	q.doneLocked(f)
}

// isSuper reports whether the item is a superframe, which others may interrupt.
func (f *flow) isSuper() bool { return f.item.Buf.Header().GSOType != frame.GSONone }

// codel is the state of CoDel for a flow (RFC 8289, section 5).
type codel struct {
	above    time.Duration // when the delay will have been too great for an interval; 0 when it is not
	next     time.Duration // when to act again
	count    uint32        // how often it has, since the delay became too great
	dropping bool
}

// delay is what CoDel allows a flow.
type delay struct{ target, interval time.Duration }

// The least target is a delay that nobody minds, and above what the lanes keep
// standing by sending in batches; the least interval is a round trip of a long
// path.
const (
	target   = 5 * time.Millisecond
	interval = 100 * time.Millisecond
)

// act reports whether the frame at hand, which has waited for age, is to be
// dropped or marked. last says that no other waits behind it.
func (c *codel) act(d delay, now, age time.Duration, last bool) bool {
	if age < d.target || last {
		c.above, c.dropping = 0, false
		return false
	}
	switch {
	case c.above == 0:
		c.above = now + d.interval
		return false
	case now < c.above:
		return false
	case !c.dropping:
		c.dropping = true
		// Not long after the last time it goes on at about the rate that was
		// needed then.
		if c.count > 2 && now-c.next < 16*d.interval {
			c.count -= 2
		} else {
			c.count = 1
		}
		c.next = now + c.pause(d)
		return true
	case now < c.next:
		return false
	}
	c.count++
	c.next += c.pause(d)
	return true
}

func (c *codel) pause(d delay) time.Duration {
	return time.Duration(float64(d.interval) / math.Sqrt(float64(c.count)))
}
