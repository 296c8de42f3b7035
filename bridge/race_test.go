// SPDX-License-Identifier: Apache-2.0

package bridge_test

import (
	"encoding/binary"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/l2bridge/l2bridge/bridge"
	"github.com/l2bridge/l2bridge/internal/frame"
)

// numbered returns frame n of a host, its number over and over again so that a
// reader sees when the memory was used for something else.
func numbered(from, to uint32, n uint64) *frame.Buf {
	b := frame.New(ether(mac(to), mac(from), 0x88, 0xb5))
	b.SetLen(14 + 8*16)
	for p := b.Bytes()[14:]; len(p) > 0; p = p[8:] {
		binary.BigEndian.PutUint64(p, n)
	}
	return b
}

// keeper is what a port does with frames that it keeps: another goroutine looks
// at them later, as a queue's sender does.
type keeper struct {
	t      *testing.T
	frames chan *frame.Buf
	last   map[frame.Station]uint64 // number of the latest frame, by who sent it
	count  int
}

// keep is a port's Send. It is called by several goroutines at once.
func (k *keeper) keep(frames []*frame.Buf) {
	for _, b := range frames {
		k.frames <- b.Retain()
	}
}

// run looks at what is kept until that ends.
func (k *keeper) run() {
	for b := range k.frames {
		_, src := frame.Stations(b.Bytes())
		p := b.Bytes()[14:]
		n := binary.BigEndian.Uint64(p)
		for ; len(p) > 0; p = p[8:] {
			if binary.BigEndian.Uint64(p) != n {
				k.t.Errorf("a frame that was kept is %x", b.Bytes())
			}
		}
		if n <= k.last[src] {
			k.t.Errorf("frame %d of %v came after %d", n, src, k.last[src])
		}
		k.last[src] = n
		k.count++
		b.Release()
	}
}

// TestPortsComeAndGo sends from the LAN, in two goroutines, to a peer that stays
// and to stations of one that comes and goes, while somebody reads the tables.
// Nothing is lost on the way to the one that stays, everything arrives in order,
// and no frame is given back while a port has it.
func TestPortsComeAndGo(t *testing.T) {
	t.Parallel()
	const rounds, steady, roaming = 1200, 31, 41 // all of it flooded would be no storm yet
	s := newSite(t, bridge.Config{})
	for _, p := range []*port{s.local, s.a, s.b} {
		p.onSend = func([]*frame.Buf) {}
	}
	var keepers sync.WaitGroup
	keep := func() *keeper {
		k := &keeper{t: t, frames: make(chan *frame.Buf, 64), last: make(map[frame.Station]uint64)}
		keepers.Go(k.run)
		return k
	}
	stays, roams := keep(), keep()
	s.c.onSend = stays.keep

	var stop atomic.Bool
	var senders, others sync.WaitGroup
	for from := range uint32(2) {
		senders.Go(func() {
			batch := make([]*frame.Buf, 0, 4)
			for n := uint64(1); n < 4*rounds; n += 4 {
				batch = append(batch[:0],
					numbered(1+from, steady, n), numbered(1+from, roaming, n+1),
					numbered(1+from, steady, n+2), numbered(1+from, unknown, n+3))
				s.local.deliver(batch)
				for _, b := range batch {
					b.Release()
				}
			}
		})
	}
	others.Go(func() {
		hi := numbered(steady, 1, 1)
		defer hi.Release()
		for !stop.Load() {
			s.c.deliver([]*frame.Buf{hi})
			s.Stations()
			s.Drops()
			s.Count("site-d")
			s.Behind(station(roaming))
		}
	})
	others.Go(func() {
		hi := numbered(roaming, 1, 1)
		defer hi.Release()
		for !stop.Load() {
			d := serve(t, s.Switch, &port{name: "site-d", onSend: roams.keep}, bridge.Mesh, 10)
			d.deliver([]*frame.Buf{hi})
			d.detach()
		}
	})
	senders.Wait()
	stop.Store(true)
	others.Wait()
	close(stays.frames)
	close(roams.frames)
	keepers.Wait()

	if min, max := 2*3*rounds, 2*4*rounds; stays.count < min || stays.count > max {
		t.Errorf("the peer that stays was sent %d frames, want %d to %d", stays.count, min, max)
	}
}
