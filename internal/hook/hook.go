// SPDX-License-Identifier: Apache-2.0

// Package hook runs the operator's commands when peers come and go: one at a
// time, in order, beside everything else.
//
//	Note ---> what waits, one for each peer ---> one hook at a time ---> log
//	          a newer change takes the place     30 s, then killed
//	          of an older one
package hook

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// Timeout is how long a hook may take until it is killed.
const Timeout = 30 * time.Second

// Config says which commands run, and what they are told of this site.
type Config struct {
	Up, Down []string // a program and its arguments; none for no hook

	Name, TAP, Bridge string

	Log *slog.Logger
}

// Change is a peer that has come up or gone down.
type Change struct {
	Up   bool
	ID   string // tells peers apart
	Peer string // its site
	Addr string // its address, "" when there is none
	Via  string // site that relays, "" when direct
	Site string // this site, which may get another name
}

// event returns the change in one word.
func (c Change) event() string {
	if c.Up {
		return "up"
	}
	return "down"
}

var (
	errTimeout = fmt.Errorf("took longer than %v, killed", Timeout)
	errClosed  = errors.New("l2bridge stops, killed")
)

// Runner runs hooks. Make one with New; Close ends it. Its methods may be called
// from any goroutine.
type Runner struct {
	cfg     Config
	execute func(ctx context.Context, argv, env []string) (output string, err error)

	ctx     context.Context // ended by kill
	kill    context.CancelCauseFunc
	running sync.WaitGroup // the goroutine that runs hooks, while there is something to run

	mu      sync.Mutex      // guards what follows
	up      map[string]bool // peers that are up, by ID
	waiting []Change        // in order, one for each peer at most
	busy    bool            // the goroutine is there
	closed  bool
}

// New returns a Runner that waits to be told.
func New(cfg Config) *Runner {
	r := &Runner{cfg: cfg, execute: execute, up: make(map[string]bool)}
	r.ctx, r.kill = context.WithCancelCause(context.Background())
	return r
}

// Note has the hook for a change run, after those that wait already. It does not
// block. What changes nothing, such as a peer that was up by way of another site
// and is now up directly, is no change. When hooks take longer than peers to
// come and go only the latest state of each peer counts: what waits for it is
// not run any more, and the same hook may run twice in a row.
func (r *Runner) Note(c Change) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed || r.up[c.ID] == c.Up {
		return
	}
	if c.Up {
		r.up[c.ID] = true
	} else {
		delete(r.up, c.ID)
	}
	r.waiting = slices.DeleteFunc(r.waiting, func(w Change) bool { return w.ID == c.ID })
	if len(r.argv(c)) == 0 {
		return
	}
	r.waiting = append(r.waiting, c)
	if !r.busy {
		r.busy = true
		r.running.Go(r.drain)
	}
}

// Close waits for the hooks that were noted, for limit at most; then it kills
// what runs and leaves out what waits. Later notes do nothing.
func (r *Runner) Close(limit time.Duration) {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	late := time.AfterFunc(limit, func() { r.kill(errClosed) })
	r.running.Wait()
	late.Stop()
	r.kill(errClosed)
}

// drain runs what waits until nothing does.
func (r *Runner) drain() {
	for {
		c, ok := r.next()
		if !ok {
			return
		}
		r.run(c)
	}
}

// next takes the first change that waits.
func (r *Runner) next() (c Change, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ctx.Err() != nil && len(r.waiting) > 0 {
		r.cfg.Log.Warn("hooks left out", "count", len(r.waiting), "error", "l2bridge stops")
		r.waiting = nil
	}
	if len(r.waiting) == 0 {
		r.busy = false
		return Change{}, false
	}
	c = r.waiting[0]
	r.waiting = r.waiting[1:]
	return c, true
}

// run runs the hook for a change to its end and logs how it went.
func (r *Runner) run(c Change) {
	ctx, cancel := context.WithTimeoutCause(r.ctx, Timeout, errTimeout)
	defer cancel()
	argv, began := r.argv(c), time.Now()
	output, err := r.execute(ctx, argv, r.environment(c))
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	log := r.cfg.Log.With("hook", argv[0], "event", c.event(), "peer", c.Peer, "took", time.Since(began).Round(time.Millisecond), "output", output)
	if err != nil {
		log.Warn("hook failed", "error", err)
		return
	}
	log.Info("hook done")
}

// argv returns the command for a change; none for no hook.
func (r *Runner) argv(c Change) []string {
	if c.Up {
		return r.cfg.Up
	}
	return r.cfg.Down
}

// environment returns all that a hook finds in its environment.
func (r *Runner) environment(c Change) []string {
	return []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"L2BRIDGE_EVENT=" + c.event(),
		"L2BRIDGE_PEER=" + c.Peer,
		"L2BRIDGE_ID=" + c.ID,
		"L2BRIDGE_ADDR=" + c.Addr,
		"L2BRIDGE_VIA=" + c.Via,
		"L2BRIDGE_NAME=" + r.cfg.Name,
		"L2BRIDGE_SITE=" + c.Site,
		"L2BRIDGE_TAP=" + r.cfg.TAP,
		"L2BRIDGE_BRIDGE=" + r.cfg.Bridge,
	}
}
