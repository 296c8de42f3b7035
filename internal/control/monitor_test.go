// SPDX-License-Identifier: Apache-2.0

package control_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/l2bridge/l2bridge/internal/control"
	"github.com/l2bridge/l2bridge/internal/event"
)

// monitor is a client that listens, in a goroutine of its own.
type monitor struct {
	told chan event.Event
	done chan error
	end  context.CancelFunc
}

// startMonitor returns when the daemon has it: what is published from now on it is told.
func startMonitor(t *testing.T, path string, f *fake, kinds ...event.Kind) *monitor {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	m := &monitor{told: make(chan event.Event), done: make(chan error, 1), end: cancel}
	t.Cleanup(func() {
		cancel()
		<-m.done
	})
	go func() {
		err := control.Dial(path).Monitor(ctx, func(e event.Event) error {
			if e.What == "knock" {
				e = event.Event{Kind: e.Kind}
			}
			select {
			case m.told <- e:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}, kinds...)
		m.done <- err
		close(m.done)
	}()
	kind := event.Link
	if len(kinds) > 0 {
		kind = kinds[0]
	}
	for {
		f.bus.Publish(event.Event{Kind: kind, What: "knock"})
		select {
		case <-m.told:
			return m
		case err := <-m.done:
			t.Fatalf("Monitor ended: %v", err)
		case <-time.After(time.Millisecond):
		}
	}
}

// next returns the next event that is no knock.
func (m *monitor) next(t *testing.T) event.Event {
	t.Helper()
	for {
		select {
		case e := <-m.told:
			if e.What != "" {
				return e
			}
		case err := <-m.done:
			t.Fatalf("Monitor ended: %v", err)
		}
	}
}

func TestMonitor(t *testing.T) {
	t.Parallel()
	f := &fake{}
	path := serve(t, f)
	all := startMonitor(t, path, f)
	some := startMonitor(t, path, f, event.Guard, event.Loop)
	want := []event.Event{
		{TimeMS: 1, Kind: event.Link, What: "up", Site: "office", ID: "ab", Addr: "192.0.2.1:4433", Via: "attic"},
		{TimeMS: 2, Kind: event.Guard, What: "storm", Port: "office", Reason: `a "reason" <of> two` + "\nlines", Count: 1 << 63},
		{TimeMS: 3, Kind: event.MAC, What: "moved", MAC: "02:00:00:00:00:01", VLAN: 7, Port: "local", From: "office"},
	}
	for _, e := range want {
		f.bus.Publish(e)
		if diff := cmp.Diff(e, all.next(t)); diff != "" {
			t.Errorf("all (-want +got):\n%s", diff)
		}
	}
	if diff := cmp.Diff(want[1], some.next(t)); diff != "" {
		t.Errorf("some (-want +got):\n%s", diff)
	}
	some.end()
	if err := <-some.done; !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
	all.end()
	for f.bus.Wants(event.Loop) { // until the daemon sees that both have gone
		time.Sleep(time.Millisecond)
	}
}

// What told returns ends it.
func TestMonitorFails(t *testing.T) {
	t.Parallel()
	f := &fake{}
	path := serve(t, f)
	ctx, cancel := context.WithCancel(t.Context())
	var publishing sync.WaitGroup
	defer publishing.Wait()
	defer cancel()
	publishing.Go(func() {
		for ctx.Err() == nil {
			f.bus.Publish(event.Event{Kind: event.Link})
			time.Sleep(time.Millisecond)
		}
	})
	full := errors.New("disk full")
	if err := control.Dial(path).Monitor(t.Context(), func(event.Event) error { return full }); err != full {
		t.Errorf("got %v, want %v", err, full)
	}
	absent := control.Dial(t.TempDir() + "/none.sock")
	if err := absent.Monitor(t.Context(), nil); !errors.Is(err, control.ErrNotRunning) || !strings.Contains(err.Error(), "nobody answers") {
		t.Errorf("no daemon: %v", err)
	}
}

// As many as may listen leave room for other commands; the next one is told why
// not, and comes in when one has gone.
func TestMonitorBound(t *testing.T) {
	t.Parallel()
	f := &fake{}
	path := serve(t, f)
	var all []*monitor
	for range event.MaxSubscriptions {
		all = append(all, startMonitor(t, path, f, event.MAC))
	}
	c := control.Dial(path)
	if err := c.Monitor(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "16 listen for events already") {
		t.Errorf("one more: %v", err)
	}
	if _, err := c.Peers(t.Context()); err != nil {
		t.Errorf("another command: %v", err)
	}
	all[0].end()
	<-all[0].done
	for { // until the daemon has seen that, too
		s, err := f.bus.Subscribe()
		if err == nil {
			s.Close()
			break
		}
		time.Sleep(time.Millisecond)
	}
	startMonitor(t, path, f)
}

// deaf is a client that asks for events of stations and then reads nothing.
func deaf(t *testing.T, path string) net.Conn {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	io.WriteString(conn, "POST /v1/monitor HTTP/1.1\r\nHost: x\r\nContent-Length: 17\r\n\r\n"+`{"kinds":["mac"]}`)
	if _, err := io.ReadFull(conn, make([]byte, len("HTTP/1.1 200 OK"))); err != nil {
		t.Fatal(err)
	}
	return conn
}

const overfilled = 5000

// overfill publishes until those who do not read have full sockets and queues.
func overfill(f *fake) {
	reason := strings.Repeat("x", 1000)
	for range overfilled {
		f.bus.Publish(event.Event{Kind: event.MAC, What: "moved", Reason: reason})
	}
}

// A client that does not read loses events and holds nobody up: not who
// publishes, not who reads. When it reads on it is told how many it has lost.
func TestMonitorDeaf(t *testing.T) {
	t.Parallel()
	f := &fake{}
	path := serve(t, f)
	conn := deaf(t, path)
	reads := startMonitor(t, path, f, event.Link)
	overfill(f)
	f.bus.Publish(event.Event{Kind: event.Link, What: "up"})
	if e := reads.next(t); e.What != "up" {
		t.Errorf("got %+v", e)
	}
	f.bus.Publish(event.Event{Kind: event.MAC, What: "last"})
	conn.SetReadDeadline(time.Now().Add(30 * time.Second))
	told, lost := uint64(0), uint64(0)
	lines := bufio.NewScanner(conn)
	for what := ""; what != "last"; {
		if !lines.Scan() {
			t.Fatalf("after %d events and %d lost: %v", told, lost, lines.Err())
		}
		var e event.Event
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			continue // of HTTP
		}
		what = e.What
		if e.Kind == event.Lost {
			lost += e.Count
		} else if e.Kind != 0 {
			told++
		}
	}
	if lost == 0 || told+lost != overfilled+1 {
		t.Errorf("told of %d events and of %d lost ones, want %d together", told, lost, overfilled+1)
	}
}

// Listeners do not keep the daemon from ending, whether they read or not, and
// see that it has.
func TestMonitorEndsWithDaemon(t *testing.T) {
	t.Parallel()
	for _, reads := range []bool{true, false} {
		t.Run(fmt.Sprint("reads ", reads), func(t *testing.T) {
			t.Parallel()
			path := t.TempDir() + "/l2.sock"
			s, err := control.Listen(path, -1)
			if err != nil {
				t.Fatal(err)
			}
			f := &fake{}
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			served := make(chan error, 1)
			go func() { served <- s.Serve(ctx, f) }()
			var m *monitor
			if reads {
				m = startMonitor(t, path, f)
			} else {
				for range 5 {
					deaf(t, path)
				}
				overfill(f)
			}
			began := time.Now()
			stop()
			if err := <-served; err != nil {
				t.Error(err)
			}
			if took := time.Since(began); took > time.Second {
				t.Errorf("the end took %v", took)
			}
			if reads {
				for {
					select {
					case <-m.told: // a knock on its way
						continue
					case err = <-m.done:
					}
					break
				}
				if !errors.Is(err, control.ErrNotRunning) || !strings.Contains(err.Error(), "has ended") {
					t.Errorf("the listener: %v", err)
				}
			}
		})
	}
}

// A daemon that sends what is no event, or no end of one, is not believed.
func TestMonitorForeign(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ body, want string }{
		"no json":   {"hello\n", "answer: invalid character"},
		"a kind":    {`{"kind":"weather"}` + "\n", "unknown kind of event"},
		"no end":    {strings.Repeat("x", 70_000), "token too long"},
		"cut short": {`{"kind":"link","ev`, "unexpected end"},
		"nothing":   {"", "has ended"},
	} {
		path := t.TempDir() + "/x"
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			conn, err := l.Accept()
			if err == nil {
				io.ReadFull(conn, make([]byte, 10))
				io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n"+tt.body)
				conn.Close()
			}
		}()
		err = control.Dial(path).Monitor(t.Context(), func(e event.Event) error { t.Errorf("%s: told %+v", name, e); return nil })
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", name, err, tt.want)
		}
		l.Close()
	}
}

// Whatever a daemon sends, the client ends without a panic, and each event that
// it tells has a kind.
func FuzzMonitor(f *testing.F) {
	f.Add([]byte(`{"time_ms":1,"kind":"link","event":"up","vlan":7}` + "\n" + `{"kind":"lost","count":18446744073709551615}` + "\n"))
	f.Add([]byte(`{"kind":"kind(0)"}` + "\n"))
	f.Add([]byte("[]\n\n"))
	path := f.TempDir() + "/x"
	l, err := net.Listen("unix", path)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { l.Close() })
	f.Fuzz(func(t *testing.T, body []byte) {
		served := make(chan struct{})
		go func() {
			defer close(served)
			conn, err := l.Accept()
			if err == nil {
				io.ReadFull(conn, make([]byte, 10))
				conn.Write(append([]byte("HTTP/1.1 200 OK\r\n\r\n"), body...))
				conn.Close()
			}
		}()
		err := control.Dial(path).Monitor(t.Context(), func(e event.Event) error {
			if text := e.Kind.String(); strings.Contains(text, "(") && e.Kind != 0 {
				t.Errorf("kind %s", text)
			}
			return nil
		})
		if err == nil {
			t.Error("the end was no error")
		}
		<-served
	})
}
