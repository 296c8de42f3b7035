// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/l2bridge/l2bridge/transport/identity"
)

// allowance bounds how many lines a thing may write in a minute.
type allowance struct {
	each int // a minute

	mu      sync.Mutex // guards what follows
	minute  time.Time
	used    int
	skipped int
}

// take reports whether one more line may be written, and how many were not
// since the last one.
func (a *allowance) take(now time.Time) (ok bool, skipped int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if now.Sub(a.minute) >= time.Minute {
		a.minute, a.used = now, 0
	}
	if a.used == a.each {
		a.skipped++
		return false, 0
	}
	a.used++
	skipped, a.skipped = a.skipped, 0
	return true, skipped
}

// peerLines bounds the lines that each peer can bring about: one that comes, goes and
// moves all the time, by a fault or on purpose, does not fill the log.
type peerLines struct {
	mu sync.Mutex
	of map[identity.ID]*allowance
}

// take is allowance.take for a peer.
func (p *peerLines) take(id identity.ID, now time.Time) (ok bool, skipped int) {
	const each = 20
	p.mu.Lock()
	defer p.mu.Unlock()
	a := p.of[id]
	if a == nil {
		if p.of == nil {
			p.of = make(map[identity.ID]*allowance)
		}
		a = &allowance{each: each}
		p.of[id] = a
	}
	return a.take(now)
}

// limited is a log all lines of which come out of one allowance.
type limited struct {
	slog.Handler
	lines *allowance
}

func newLimited(log *slog.Logger, each int) *slog.Logger {
	return slog.New(limited{log.Handler(), &allowance{each: each}})
}

func (l limited) Handle(ctx context.Context, r slog.Record) error {
	ok, skipped := l.lines.take(time.Now())
	if !ok {
		return nil
	}
	if skipped > 0 {
		r.AddAttrs(slog.Int("skipped", skipped))
	}
	return l.Handler.Handle(ctx, r)
}

func (l limited) WithAttrs(attrs []slog.Attr) slog.Handler {
	return limited{l.Handler.WithAttrs(attrs), l.lines}
}

func (l limited) WithGroup(name string) slog.Handler {
	return limited{l.Handler.WithGroup(name), l.lines}
}
