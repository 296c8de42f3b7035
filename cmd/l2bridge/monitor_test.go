// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/l2bridge/l2bridge/internal/control"
	"github.com/l2bridge/l2bridge/internal/event"
)

// eventful is a daemon in which things happen whenever somebody begins to listen.
type eventful struct {
	*backend
	bus    event.Bus
	events []event.Event
}

func (b *eventful) Events(kinds ...event.Kind) (*event.Subscription, error) {
	s, err := b.bus.Subscribe(kinds...)
	for _, e := range b.events {
		b.bus.Publish(e)
	}
	return s, err
}

// lines is a standard output that calls full when it has so many lines.
type lines struct {
	bytes.Buffer
	most int
	full func()
}

func (l *lines) Write(p []byte) (int, error) {
	n, err := l.Buffer.Write(p)
	if bytes.Count(l.Bytes(), []byte("\n")) == l.most {
		l.full()
	}
	return n, err
}

func TestMonitor(t *testing.T) {
	hostile := "\x1b]0;x\a\u009b31m\n" + strings.Repeat("x", 5000)
	b := &eventful{backend: backends()["up"], events: []event.Event{
		{TimeMS: 1, Kind: event.Link, What: "up", Site: "office", ID: strings.Repeat("cd", 32), Addr: "203.0.113.7:4433"},
		{TimeMS: 2, Kind: event.Link, What: "relayed", Site: "attic", Via: "office", Reason: "no way there"},
		{TimeMS: 3, Kind: event.MAC, What: "moved", MAC: "52:54:00:00:00:01", VLAN: 20, Port: "local", From: "office"},
		{TimeMS: 4, Kind: event.Guard, What: "storm", Port: "office", Count: 3000, Reason: "more than 1000 a second"},
		{TimeMS: 5, Kind: event.MTU, What: hostile, Site: hostile, Addr: hostile, Via: hostile, MAC: hostile, Port: hostile, From: hostile, Reason: hostile},
		{TimeMS: 6, Kind: event.Lost, What: "lost", Count: 17},
	}}
	path := filepath.Join(t.TempDir(), "l2.sock")
	serve(t, path, b)
	monitor := func(most int, args ...string) string {
		t.Helper()
		ctx, interrupt := context.WithCancel(t.Context())
		defer interrupt()
		stdout, stderr := lines{most: most, full: interrupt}, bytes.Buffer{}
		if code := run(ctx, append([]string{"monitor", "--socket", path}, args...), &stdout, &stderr); code != exitDone || stderr.Len() > 0 {
			t.Errorf("%q: code %d, stderr %q", args, code, &stderr)
		}
		return stdout.String()
	}
	at := func(ms int64) string { return time.UnixMilli(ms).Format("2006-01-02 15:04:05.000") }
	got := strings.Split(monitor(6), "\n")
	for _, line := range got {
		if len(line) > 1800 || strings.ContainsFunc(line, func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Errorf("%.200q", line)
		}
	}
	got[4] = got[4][:40]
	want := []string{
		at(1) + " link  up office 203.0.113.7:4433",
		at(2) + " link  relayed attic via office: no way there",
		at(3) + " mac   moved 52:54:00:00:00:01 vlan 20 port local from office",
		at(4) + " guard storm port office count 3000: more than 1000 a second",
		at(5) + " mtu   ?]0;x???31m"[:40-len(at(5))],
		at(6) + " lost  count 17",
		"",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}

	if got, want := monitor(2, "guard", "mac", "mac"), want[2]+"\n"+want[3]+"\n"; got != want {
		t.Errorf("two kinds:\n%s\nwant\n%s", got, want)
	}
	const up = `{"time_ms":1,"kind":"link","event":"up","site":"office","id":"cdcd`
	if got := monitor(2, "-j", "link"); !strings.HasPrefix(got, up) || !strings.HasSuffix(got, `"count":0}`+"\n") {
		t.Errorf("JSON:\n%s", got)
	}
}

// A daemon that ends, and a disk that is full, end it too.
func TestMonitorEnds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "l2.sock")
	server, err := control.Listen(path, -1)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	served := make(chan error, 1)
	b := &eventful{backend: backends()["up"], events: []event.Event{{Kind: event.Loop, What: "found"}}}
	go func() { served <- server.Serve(ctx, b) }()

	var stderr bytes.Buffer
	if code := run(t.Context(), []string{"monitor", "--socket", path}, full{}, &stderr); code != exitError || stderr.String() != "l2bridge: disk full\n" {
		t.Errorf("disk full: code %d, stderr %q", code, &stderr)
	}
	stderr.Reset()
	stdout := lines{most: 1, full: stop}
	want := fmt.Sprintf("l2bridge: not running: the daemon at %s has ended\n", path)
	if code := run(t.Context(), []string{"monitor", "--socket", path}, &stdout, &stderr); code != exitNotRunning || stderr.String() != want {
		t.Errorf("daemon gone: code %d, stderr %q, want %q", code, &stderr, want)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// full is a standard output on a full disk.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("disk full") }

// Whatever the words, what is accepted are kinds that one can listen for.
func FuzzKinds(f *testing.F) {
	f.Add("")
	f.Add("link mac loop guard mtu link")
	f.Add("lost")
	f.Fuzz(func(t *testing.T, text string) {
		words := strings.Fields(text)
		kinds, err := parseKinds(words)
		if err != nil {
			if !isUsage(err) || len(err.Error()) > 600 {
				t.Errorf("%q: %v", text, err)
			}
			return
		}
		for i, k := range kinds {
			if k.String() != words[i] || k == event.Lost {
				t.Errorf("%q became %v", words[i], k)
			}
		}
	})
}

// Whatever an event says, a terminal gets one line of printable ASCII.
func FuzzPrintEvent(f *testing.F) {
	f.Add(uint8(1), "up\n", "\x1b[2J", uint16(4095), uint64(1))
	f.Fuzz(func(t *testing.T, kind uint8, a, b string, vlan uint16, count uint64) {
		var out strings.Builder
		printEvent(&out, event.Event{Kind: event.Kind(kind), What: a, Site: b, MAC: a, VLAN: vlan, Port: b, From: a, Addr: b, Via: a, Reason: b, Count: count})
		line, ended := strings.CutSuffix(out.String(), "\n")
		if !ended || strings.ContainsFunc(line, func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Errorf("%q", out.String())
		}
	})
}
