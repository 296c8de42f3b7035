// SPDX-License-Identifier: Apache-2.0

package transport_test

import (
	"encoding/binary"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/l2bridge/l2bridge/internal/frame"
)

// traffic is numbered frames that flow between sites, and what came of them: none
// may come twice, at another site than it was sent to, or from another one than
// sent it. What is older than memory is forgotten, and must not come any more.
type traffic struct {
	t *testing.T

	mu    sync.Mutex // guards what follows
	first uint32     // number of sent[0]
	sent  []parcel
}

// memory is more than frames wait anywhere.
const memory = 30 * time.Second

type parcel struct {
	from, to string
	at, came time.Time
}

// at has what comes to a site checked.
func (f *traffic) at(n *node) {
	site := n.member.Site
	n.lan.mu.Lock()
	defer n.lan.mu.Unlock()
	n.take = func(from string, b *frame.Buf) {
		f.mu.Lock()
		defer f.mu.Unlock()
		number := binary.BigEndian.Uint32(b.Bytes()[14:])
		i := int(number - f.first)
		if i < 0 || i >= len(f.sent) {
			f.t.Errorf("frame %d came to %s from %s, which was sent long ago or never", number, site, from)
			return
		}
		p := &f.sent[i]
		if p.from != from || p.to != site {
			f.t.Errorf("frame %d from %s to %s came to %s from %s", number, p.from, p.to, site, from)
		}
		if !p.came.IsZero() {
			f.t.Errorf("frame %d from %s to %s came twice, after %v and %v", number, p.from, p.to, p.came.Sub(p.at), time.Since(p.at))
		}
		p.came = time.Now()
	}
}

// send sends a frame of so many bytes from a site to another.
func (f *traffic) send(from *node, to string, length int) {
	now := time.Now()
	f.mu.Lock()
	old := 0
	for old < len(f.sent) && now.Sub(f.sent[old].at) > memory {
		old++
	}
	if old > len(f.sent)/2 {
		f.sent = append(f.sent[:0], f.sent[old:]...)
		f.first += uint32(old)
	}
	number := f.first + uint32(len(f.sent))
	f.sent = append(f.sent, parcel{from: from.member.Site, to: to, at: now})
	f.mu.Unlock()
	from.send(to, numbered(int(number), length))
}

// gap returns the longest time from since on in which nothing came from a site to
// another.
func (f *traffic) gap(from, to string, since time.Time) (longest time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range f.sent {
		if p.from == from && p.to == to && p.came.After(since) {
			longest, since = max(longest, p.came.Sub(since)), p.came
		}
	}
	return max(longest, time.Since(since))
}

// lost returns the frames that were sent since and have not come.
func (f *traffic) lost(since time.Time) (all []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, p := range f.sent {
		if !p.at.Before(since) && p.came.IsZero() {
			all = append(all, fmt.Sprintf("%d from %s to %s", int(f.first)+i, p.from, p.to))
		}
	}
	return all
}
