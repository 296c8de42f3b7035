// SPDX-License-Identifier: Apache-2.0

package hook_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/l2bridge/l2bridge/internal/hook"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// commands notes what was run instead of running it.
type commands struct {
	takes time.Duration // each, unless it is killed

	mu  sync.Mutex
	ran []string // event and peer
	env []string // of the last one
}

func (c *commands) execute(ctx context.Context, argv, env []string) (string, error) {
	c.mu.Lock()
	c.env = env
	c.ran = append(c.ran, strings.Join(argv, " ")+" "+value(env, "L2BRIDGE_PEER"))
	c.mu.Unlock()
	select {
	case <-time.After(c.takes):
		return "said something", nil
	case <-ctx.Done():
		return "", errors.New("signal: killed")
	}
}

func value(env []string, name string) string {
	i := slices.IndexFunc(env, func(e string) bool { return strings.HasPrefix(e, name+"=") })
	return strings.TrimPrefix(env[i], name+"=")
}

func (c *commands) want(t *testing.T, want ...string) {
	t.Helper()
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	if diff := cmp.Diff(want, c.ran); diff != "" {
		t.Errorf("ran (-want +got):\n%s", diff)
	}
	c.ran = nil
}

// newRunner has hooks for both events.
func newRunner(c *commands) (*hook.Runner, *bytes.Buffer) {
	var log bytes.Buffer
	return hook.NewFake(hook.Config{
		Up: []string{"/on", "up"}, Down: []string{"/on", "down"},
		Name: "lab", TAP: "l2b-lab", Bridge: "br1",
		Log: slog.New(slog.NewTextHandler(&log, nil)),
	}, c.execute), &log
}

func up(peer string) hook.Change   { return hook.Change{Up: true, ID: "id of " + peer, Peer: peer} }
func down(peer string) hook.Change { return hook.Change{ID: "id of " + peer, Peer: peer} }

func TestEnvironment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c commands
		r, log := newRunner(&c)
		r.Note(hook.Change{Up: true, ID: "ab", Peer: "office", Addr: "203.0.113.7:4433", Via: "attic", Site: "home"})
		c.want(t, "/on up office")
		r.Close(time.Second)
		want := []string{
			"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
			"L2BRIDGE_EVENT=up", "L2BRIDGE_PEER=office", "L2BRIDGE_ID=ab", "L2BRIDGE_ADDR=203.0.113.7:4433", "L2BRIDGE_VIA=attic",
			"L2BRIDGE_NAME=lab", "L2BRIDGE_SITE=home", "L2BRIDGE_TAP=l2b-lab", "L2BRIDGE_BRIDGE=br1",
		}
		if diff := cmp.Diff(want, c.env); diff != "" {
			t.Errorf("environment (-want +got):\n%s", diff)
		}
		if text := log.String(); !strings.HasSuffix(text, "level=INFO msg=\"hook done\" hook=/on event=up peer=office took=0s output=\"said something\"\n") {
			t.Errorf("log: %s", text)
		}
	})
}

// One at a time, in the order of what happened, without holding up who tells.
func TestOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := commands{takes: 10 * time.Second}
		r, _ := newRunner(&c)
		defer r.Close(time.Hour)
		began := time.Now()
		for _, change := range []hook.Change{up("a"), up("b"), up("c"), down("b")} {
			r.Note(change)
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("telling took %v", took)
		}
		c.want(t, "/on up a")
		time.Sleep(10 * time.Second)
		c.want(t, "/on up c") // b has come and gone meanwhile
		time.Sleep(10 * time.Second)
		c.want(t, "/on down b")
		time.Sleep(time.Hour)
		c.want(t)
		r.Note(up("b"))
		c.want(t, "/on up b")
	})
}

// What is no change runs nothing.
func TestNoChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c commands
		r, _ := newRunner(&c)
		defer r.Close(time.Hour)
		r.Note(down("a")) // it was never up
		c.want(t)
		r.Note(up("a"))
		c.want(t, "/on up a")
		relayed := up("a")
		relayed.Via = "b"
		r.Note(relayed)
		c.want(t)
		r.Note(down("a"))
		c.want(t, "/on down a")
		r.Note(down("a"))
		c.want(t)
	})
}

// When hooks lag the latest state of each peer counts, and it is told anew even
// if the hook before said the same.
func TestLatestCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := commands{takes: 10 * time.Second}
		r, _ := newRunner(&c)
		defer r.Close(time.Hour)
		r.Note(up("a"))
		synctest.Wait()
		for range 1000 {
			r.Note(down("a"))
			r.Note(up("a"))
			r.Note(up("b"))
			r.Note(down("b"))
		}
		time.Sleep(time.Hour)
		c.want(t, "/on up a", "/on up a", "/on down b")
	})
}

// A site may have one hook of the two. Where there is none, what waits for the
// other is out of date all the same.
func TestOneHook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := commands{takes: time.Second}
		r := hook.NewFake(hook.Config{Up: []string{"/on"}, Log: slog.New(slog.DiscardHandler)}, c.execute)
		defer r.Close(time.Hour)
		r.Note(up("a"))
		r.Note(up("b"))
		r.Note(down("b"))
		time.Sleep(time.Hour)
		c.want(t, "/on a")
	})
}

func TestTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := commands{takes: time.Hour}
		r, log := newRunner(&c)
		r.Note(up("a"))
		r.Note(up("b"))
		time.Sleep(hook.Timeout - time.Millisecond)
		c.want(t, "/on up a")
		time.Sleep(time.Millisecond)
		c.want(t, "/on up b")
		time.Sleep(hook.Timeout)
		r.Close(time.Second)
		if n := strings.Count(log.String(), `level=WARN msg="hook failed" hook=/on event=up peer=`); n != 2 {
			t.Errorf("%d failures in the log:\n%s", n, log)
		}
		if want := `took=30s output="" error="took longer than 30s, killed"`; !strings.Contains(log.String(), want) {
			t.Errorf("log without %s:\n%s", want, log)
		}
	})
}

// At the end hooks get the time that is given, and no more.
func TestClose(t *testing.T) {
	for _, tt := range []struct {
		name        string
		takes, want time.Duration
		log         []string
	}{
		{"nothing to do", 0, 0, nil},
		{"in time", 300 * time.Millisecond, 600 * time.Millisecond, nil},
		{"too slow", 700 * time.Millisecond, time.Second, []string{`error="l2bridge stops, killed"`}},
		{"far too slow", time.Hour, time.Second, []string{`error="l2bridge stops, killed"`, `msg="hooks left out" count=1`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := commands{takes: tt.takes}
				r, log := newRunner(&c)
				if tt.takes > 0 {
					r.Note(up("a"))
					r.Note(up("b"))
				}
				began := time.Now()
				r.Close(time.Second)
				if took := time.Since(began); took != tt.want {
					t.Errorf("it took %v, want %v", took, tt.want)
				}
				for _, want := range tt.log {
					if !strings.Contains(log.String(), want) {
						t.Errorf("log without %s:\n%s", want, log)
					}
				}
				if tt.log == nil && strings.Contains(log.String(), "WARN") {
					t.Errorf("log:\n%s", log)
				}
				c.ran = nil
				r.Note(down("a"))
				c.want(t)
				r.Close(time.Second)
			})
		})
	}
}

// For the race detector: peers come and go in many goroutines, also at the end.
func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	var c commands
	r, _ := newRunner(&c)
	var telling sync.WaitGroup
	for n := range 8 {
		telling.Go(func() {
			for range 500 {
				r.Note(up(fmt.Sprint(n)))
				r.Note(down(fmt.Sprint(n)))
			}
		})
	}
	r.Close(time.Millisecond)
	telling.Wait()
	r.Close(time.Second)
}
