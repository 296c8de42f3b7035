// SPDX-License-Identifier: Apache-2.0

package event_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/l2bridge/l2bridge/internal/event"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func subscribe(t *testing.T, b *event.Bus, kinds ...event.Kind) *event.Subscription {
	t.Helper()
	s, err := b.Subscribe(kinds...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// next returns an event that must be there.
func next(t *testing.T, s *event.Subscription) event.Event {
	t.Helper()
	e, err := s.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// empty checks that nothing waits.
func empty(t *testing.T, s *event.Subscription) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	if e, err := s.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %+v, %v; want nothing", e, err)
	}
}

// Each listener gets the kinds that it asked for, in order, from when it asked.
func TestKinds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b event.Bus
		b.Publish(event.Event{Kind: event.Link, What: "before"})
		all, some := subscribe(t, &b), subscribe(t, &b, event.MAC, event.MTU)
		time.Sleep(time.Second)
		now := time.Now().UnixMilli()
		for k := event.Link; k < event.Lost; k++ {
			b.Publish(event.Event{Kind: k, What: "now"})
		}
		b.Publish(event.Event{Kind: event.MTU, What: "then", TimeMS: 7})
		for k := event.Link; k < event.Lost; k++ {
			if diff := cmp.Diff(event.Event{TimeMS: now, Kind: k, What: "now"}, next(t, all)); diff != "" {
				t.Errorf("all (-want +got):\n%s", diff)
			}
		}
		next(t, all)
		empty(t, all)
		for _, want := range []event.Event{
			{TimeMS: now, Kind: event.MAC, What: "now"}, {TimeMS: now, Kind: event.MTU, What: "now"}, {TimeMS: 7, Kind: event.MTU, What: "then"},
		} {
			if diff := cmp.Diff(want, next(t, some)); diff != "" {
				t.Errorf("some (-want +got):\n%s", diff)
			}
		}
		empty(t, some)
	})
}

// Whoever waits is woken, by an event or by the end of its context.
func TestNextWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b event.Bus
		s := subscribe(t, &b)
		got := make(chan event.Event, 1)
		go func() { got <- next(t, s) }()
		synctest.Wait()
		b.Publish(event.Event{Kind: event.Loop, Count: 3})
		if e := <-got; e.Count != 3 {
			t.Errorf("got %+v", e)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		b.Publish(event.Event{Kind: event.Loop})
		if _, err := s.Next(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("after the end, with an event that waits: %v", err)
		}
	})
}

// One who does not read loses the oldest and is told how many, before the rest;
// others lose nothing.
func TestSlowListener(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const most, more = 1024, 500
		var b event.Bus
		slow, quick := subscribe(t, &b), subscribe(t, &b)
		for i := range uint64(most + more) {
			b.Publish(event.Event{TimeMS: int64(i + 1), Kind: event.MAC, Count: i})
			if e := next(t, quick); e.Count != i || e.Kind != event.MAC {
				t.Fatalf("quick: got %+v, want number %d", e, i)
			}
		}
		if diff := cmp.Diff(event.Event{TimeMS: more, Kind: event.Lost, What: "lost", Count: more}, next(t, slow)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		for i := range uint64(most) {
			if e := next(t, slow); e.Count != more+i || e.Kind != event.MAC {
				t.Fatalf("slow: got %+v, want number %d", e, more+i)
			}
		}
		empty(t, slow)
	})
}

func TestWants(t *testing.T) {
	var b event.Bus
	want := func(link, mac bool) {
		t.Helper()
		if b.Wants(event.Link) != link || b.Wants(event.MAC) != mac {
			t.Errorf("link %t, mac %t; want %t, %t", b.Wants(event.Link), b.Wants(event.MAC), link, mac)
		}
	}
	want(false, false)
	link := subscribe(t, &b, event.Link)
	want(true, false)
	all := subscribe(t, &b)
	want(true, true)
	link.Close()
	link.Close()
	want(true, true)
	all.Close()
	want(false, false)
	if n := testing.AllocsPerRun(100, func() { b.Publish(event.Event{Kind: event.MAC, MAC: "x"}) }); n > 0 {
		t.Errorf("%v allocations while nobody listens", n)
	}
}

func TestBound(t *testing.T) {
	var b event.Bus
	var all []*event.Subscription
	for range event.MaxSubscriptions {
		all = append(all, subscribe(t, &b))
	}
	if _, err := b.Subscribe(); err == nil {
		t.Error("one more than the bound")
	}
	all[3].Close()
	subscribe(t, &b)
}

// For the race detector: many publish, some listen, and they come and go. What
// each one is told adds up to what was published meanwhile, at most.
func TestManyAtOnce(t *testing.T) {
	const publishers, each = 8, 5000
	var b event.Bus
	ctx, stop := context.WithCancel(t.Context())
	var publishing, listening sync.WaitGroup
	for range 4 {
		listening.Go(func() {
			for ctx.Err() == nil {
				s, err := b.Subscribe(event.MAC)
				if err != nil {
					t.Error(err)
					return
				}
				told := uint64(0)
				for told < each {
					e, err := s.Next(ctx)
					if err != nil {
						break
					}
					told++
					if e.Kind == event.Lost {
						told += e.Count - 1
					}
				}
				if told > publishers*each {
					t.Errorf("told of %d", told)
				}
				s.Close()
			}
		})
	}
	for range publishers {
		publishing.Go(func() {
			for range each {
				b.Publish(event.Event{Kind: event.MAC})
				b.Publish(event.Event{Kind: event.Guard})
			}
		})
	}
	publishing.Wait()
	stop()
	listening.Wait()
	if b.Wants(event.MAC) {
		t.Error("somebody still listens")
	}
}

// The JSON is a promise: names, order, and every field.
func TestJSON(t *testing.T) {
	full := event.Event{TimeMS: 1, Kind: event.Guard, What: "storm", Site: "a", ID: "b", Addr: "c", Via: "d", MAC: "e", VLAN: 2,
		Port: "f", From: "g", Reason: "h", Count: 3}
	for _, tt := range []struct {
		e    event.Event
		want string
	}{
		{full, `{"time_ms":1,"kind":"guard","event":"storm","site":"a","id":"b","addr":"c","via":"d","mac":"e","vlan":2,"port":"f","from":"g","reason":"h","count":3}`},
		{event.Event{Kind: event.Lost}, `{"time_ms":0,"kind":"lost","event":"","site":"","id":"","addr":"","via":"","mac":"","vlan":0,"port":"","from":"","reason":"","count":0}`},
	} {
		got, err := json.Marshal(tt.e)
		if err != nil || string(got) != tt.want {
			t.Errorf("%v\ngot  %s\nwant %s", err, got, tt.want)
		}
		var back event.Event
		if err := json.Unmarshal(got, &back); err != nil || back != tt.e {
			t.Errorf("read back: %+v, %v", back, err)
		}
	}
	if err := json.Unmarshal([]byte(`{"kind":"weather"}`), new(event.Event)); err == nil {
		t.Error("an unknown kind was read")
	}
}

func TestParseKind(t *testing.T) {
	want := []string{"link", "mac", "loop", "guard", "mtu", "join"}
	if diff := cmp.Diff(want, event.KindNames()); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
	for _, name := range want {
		if k, err := event.ParseKind(name); err != nil || k.String() != name {
			t.Errorf("%s: got %v, %v", name, k, err)
		}
	}
	for _, name := range []string{"", "lost", "Link", "links", "link "} {
		if k, err := event.ParseKind(name); err == nil {
			t.Errorf("%q: got %v", name, k)
		}
	}
	if got := fmt.Sprint(event.Kind(0), event.Kind(99)); got != "kind(0) kind(99)" {
		t.Errorf("no kinds: %s", got)
	}
}

func BenchmarkPublish(b *testing.B) {
	for _, listeners := range []int{0, 1, 16} {
		b.Run(fmt.Sprint(listeners), func(b *testing.B) {
			var bus event.Bus
			for range listeners {
				s, err := bus.Subscribe()
				if err != nil {
					b.Fatal(err)
				}
				defer s.Close()
			}
			b.ReportAllocs()
			for b.Loop() {
				bus.Publish(event.Event{Kind: event.MAC, What: "moved"})
			}
		})
	}
}
