// SPDX-License-Identifier: Apache-2.0

package portmap

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const ourPort = 4433

var homeWay = Way{Router: netip.MustParseAddr("192.168.1.1"), Local: netip.MustParseAddr("192.168.1.2"), Device: 2}

// fakeRouter does what it is told to, and writes down what it was asked.
type fakeRouter struct {
	addr    string
	life    time.Duration
	shift   uint16 // given for the port that was asked for
	forgot  bool
	lookErr error // of look, and so of open
	addErr  error
	hang    bool // remove does not come back
	calls   []string
	start   time.Time
}

// told orders what a test has changed before what the Mapper does next: the race
// detector does not see that time does.
var told sync.Mutex

func order() {
	told.Lock()
	defer told.Unlock()
}

func (r *fakeRouter) note(format string, args ...any) {
	order()
	r.calls = append(r.calls, fmt.Sprintf("%v ", time.Since(r.start).Round(time.Second))+fmt.Sprintf(format, args...))
}

func (r *fakeRouter) look(_ context.Context, port uint16) (netip.Addr, bool, error) {
	r.note("look %d", port)
	if r.lookErr != nil {
		return netip.Addr{}, false, r.lookErr
	}
	return netip.MustParseAddr(r.addr), r.forgot && port != 0, nil
}

func (r *fakeRouter) add(_ context.Context, port uint16) (uint16, time.Duration, error) {
	r.note("add %d", port)
	if r.addErr != nil {
		return 0, 0, r.addErr
	}
	r.forgot = false
	if port == ourPort {
		port += r.shift
	}
	return port, r.life, nil
}

func (r *fakeRouter) remove(ctx context.Context, port uint16) error {
	r.note("remove %d", port)
	if r.hang {
		<-ctx.Done()
	}
	return ctx.Err()
}

// asked returns the calls of a kind since the last time.
func (r *fakeRouter) asked(kind string) (all []string) {
	for _, c := range r.calls {
		if strings.Contains(c, kind) {
			all = append(all, c)
		}
	}
	r.calls = nil
	return all
}

// rig is a Mapper among fakes, in a bubble of fake time.
type rig struct {
	t       *testing.T
	m       *Mapper
	router  *fakeRouter
	way     Way
	ok      bool
	changes int
	log     bytes.Buffer
	cancel  context.CancelFunc
	done    chan struct{}
}

func bubble(t *testing.T, test func(t *testing.T, r *rig)) {
	synctest.Test(t, func(t *testing.T) {
		r := &rig{t: t, way: homeWay, ok: true, done: make(chan struct{}),
			router: &fakeRouter{addr: "203.0.113.7", life: lifetime, start: time.Now()}}
		r.m = New(Config{
			Port:    ourPort,
			Way:     func(context.Context) (Way, bool) { order(); return r.way, r.ok },
			Changed: func() { r.changes++ },
			Log:     slog.New(slog.NewTextHandler(&r.log, nil)),
		})
		r.m.protocols = []protocol{{"fake", func(context.Context, Way, uint16) (client, error) { return r.router, nil }}}

		test(t, r)
		r.cancel()
		<-r.done
	})
}

func (r *rig) run() {
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	go func() {
		defer close(r.done)
		r.m.Run(ctx)
	}()
	synctest.Wait()
}

func (r *rig) after(d time.Duration) {
	order()
	time.Sleep(d)
	synctest.Wait()
}

// mapped checks the mapping, how often it has changed, and how many lines were
// logged that hold a text.
func (r *rig) mapped(want string, changes int) {
	r.t.Helper()
	if got := r.m.Mapping().String(); got != want {
		r.t.Errorf("mapping %q, want %q", got, want)
	}
	if r.changes != changes {
		r.t.Errorf("%d changes were told, want %d", r.changes, changes)
	}
}

func (r *rig) logged(lines map[string]int) {
	r.t.Helper()
	all := 0
	for text, want := range lines {
		if got := strings.Count(r.log.String(), text); got != want {
			r.t.Errorf("%d lines with %q, want %d:\n%s", got, text, want, &r.log)
		}
		all += want
	}
	if got := strings.Count(r.log.String(), "\n"); got != all {
		r.t.Errorf("%d lines, want %d:\n%s", got, all, &r.log)
	}
}

const mappedHome = "fake 203.0.113.7:4433 router 192.168.1.1"

func (r *rig) equal(got []string, want ...string) {
	r.t.Helper()
	if !slices.Equal(got, want) {
		r.t.Errorf("asked %q, want %q", got, want)
	}
}

// A lease is renewed when half of it is over, and nothing is said about that.
func TestRenewed(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.run()
		r.mapped(mappedHome, 1)
		r.after(3*time.Hour + time.Minute)
		r.equal(r.router.asked("add"), "0s add 4433", "1h0m0s add 4433", "2h0m0s add 4433", "3h0m0s add 4433")
		r.mapped(mappedHome, 1)
		r.logged(map[string]int{`level=INFO msg="port mapped" by=fake addr=203.0.113.7:4433 router=192.168.1.1`: 1})
	})
}

// A router may give less time, and another port, which is kept.
func TestGivenLess(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.router.life, r.router.shift = 10*time.Minute, 1000
		r.run()
		r.after(11 * time.Minute)
		r.equal(r.router.asked("add"), "0s add 4433", "5m0s add 5433", "10m0s add 5433")
		r.mapped("fake 203.0.113.7:5433 router 192.168.1.1", 1)
	})
}

// One that gives a moment is not asked more than once a minute.
func TestGivenAMoment(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.router.life = time.Second
		r.run()
		r.after(10*time.Minute + time.Second)
		if n := len(r.router.asked("add")); n != 11 {
			t.Errorf("asked %d times in 10 minutes, want 11", n)
		}
	})
}

// A router that has lost the mapping is asked again as soon as it shows, and
// another address outside is told.
func TestRestartedRouter(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.run()
		r.after(time.Minute)
		r.router.forgot, r.router.addr = true, "203.0.113.99"
		r.router.asked("")
		r.after(5 * time.Minute)
		r.equal(r.router.asked("add"), "5m0s add 4433")
		r.mapped("fake 203.0.113.99:4433 router 192.168.1.1", 2)
		r.logged(map[string]int{`msg="port mapped"`: 2})
	})
}

// No answer is no news, and asked for ever more rarely.
func TestSilence(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.router.lookErr = errSilent
		r.run()
		r.after(4 * time.Minute) // 30, 60 and 120 s, up to a quarter more
		if n := len(r.router.asked("look")); n != 4 && n != 3 {
			t.Errorf("asked %d times in 4 minutes", n)
		}
		r.after(20 * time.Hour)
		if n := len(r.router.asked("look")); n < 16 || n > 26 {
			t.Errorf("asked %d times in 20 hours, want each hour", n)
		}
		r.mapped("", 0)
		r.logged(nil)
		r.router.lookErr = nil
		r.after(75 * time.Minute)
		r.mapped(mappedHome, 1)
	})
}

// A lease is held to its end when the router falls silent, and no longer.
func TestFallsSilent(t *testing.T) {
	for _, life := range []time.Duration{lifetime, 0} {
		bubble(t, func(t *testing.T, r *rig) {
			r.router.life = life
			r.run()
			r.router.lookErr = errSilent
			r.after(2*time.Hour - time.Minute)
			r.mapped(mappedHome, 1)
			r.after(2 * time.Minute)
			r.mapped("", 2)
			r.logged(map[string]int{`msg="port mapped"`: 1, `msg="port not mapped any more"`: 1})
		})
	}
}

// What a router refuses is said once for each reason; however many it invents.
func TestRefused(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.router.addErr = &refusal{"UPnP: not authorized"}
		r.run()
		r.after(5 * time.Hour)
		r.mapped("", 0)
		r.logged(map[string]int{`level=WARN msg="port not mapped" router=192.168.1.1 error="UPnP: not authorized"`: 1})
		for i := range 100 {
			r.router.addErr = &refusal{fmt.Sprint("UPnP: error ", i)}
			r.after(76 * time.Minute)
		}
		if n := strings.Count(r.log.String(), "\n"); n != maxReasons {
			t.Errorf("%d lines, want %d", n, maxReasons)
		}
		r.router.addErr = nil
		r.after(76 * time.Minute)
		r.mapped(mappedHome, 1)
	})
}

// A renewal that is refused ends the mapping at once.
func TestRenewalRefused(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.run()
		r.router.addErr = &refusal{"NAT-PMP: not authorized, or turned off"}
		r.after(time.Hour + time.Second)
		r.mapped("", 2)
	})
}

// Behind a provider that translates addresses too, nothing is asked for.
func TestProviderTranslates(t *testing.T) {
	for _, addr := range []string{"100.64.3.4", "10.1.2.3", "192.168.0.2", "172.16.0.1", "192.0.0.2", "169.254.1.1", "127.0.0.1", "0.1.2.3", "224.0.0.1", "255.255.255.255", "2001:db8::1"} {
		bubble(t, func(t *testing.T, r *rig) {
			r.router.addr = addr
			r.run()
			r.after(10 * time.Hour)
			r.equal(r.router.asked("add"))
			r.mapped("", 0)
			r.logged(map[string]int{`level=WARN msg="port not mapped, the provider translates addresses too" addr=` + addr: 1})
		})
	}
	// One that begins to.
	bubble(t, func(t *testing.T, r *rig) {
		r.run()
		r.router.addr = "100.127.255.255"
		r.after(6 * time.Minute)
		r.mapped("", 2)
	})
}

// When the way leads elsewhere the other router is asked, at once; changes that have
// nothing to do with it are not felt.
func TestMoves(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.run()
		r.router.asked("")
		for range 100 {
			r.m.Moved()
			r.after(2 * time.Second)
		}
		r.equal(r.router.asked(""))

		r.way.Router = netip.MustParseAddr("192.168.8.1")
		r.m.Moved()
		r.after(2 * time.Second)
		r.mapped("fake 203.0.113.7:4433 router 192.168.8.1", 3) // lost, and found

		r.ok = false
		r.m.Moved()
		r.after(2 * time.Second)
		r.mapped("", 4)
		r.router.asked("")
		r.after(24 * time.Hour)
		r.equal(r.router.asked(""))

		r.ok = true
		r.m.Moved()
		r.after(2 * time.Second)
		r.mapped("fake 203.0.113.7:4433 router 192.168.8.1", 5)
	})
}

// A router that turns out to be at another site when it answers is asked for nothing.
func TestRouterElsewhere(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.m.cfg.Way = func(context.Context) (Way, bool) { return r.way, len(r.router.calls) == 0 }
		r.run()
		r.after(24 * time.Hour)
		r.equal(r.router.asked(""), "0s look 0")
		r.mapped("", 0)
	})
}

// The second protocol is asked where the first says nothing or no; its own no counts
// for less.
func TestProtocols(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		first := &fakeRouter{addr: "203.0.113.7", addErr: &refusal{"first"}, start: time.Now()}
		r.m.protocols = slices.Insert(r.m.protocols, 0,
			protocol{"silent", func(context.Context, Way, uint16) (client, error) { return nil, errors.New("garbage") }},
			protocol{"first", func(context.Context, Way, uint16) (client, error) { return first, nil }})
		r.router.addErr = &refusal{"second"}
		r.run()
		r.logged(map[string]int{"error=first": 1})
		r.router.addErr = nil
		r.after(38 * time.Second)
		r.mapped(mappedHome, 1)
	})
}

// At the stop the router is told, and not waited for.
func TestStop(t *testing.T) {
	for _, hang := range []bool{false, true} {
		bubble(t, func(t *testing.T, r *rig) {
			r.router.hang = hang
			r.run()
			r.after(time.Second)
			begin := time.Now()
			r.cancel()
			<-r.done
			if took := time.Since(begin); took > farewell {
				t.Errorf("the stop took %v", took)
			}
			r.equal(r.router.asked("remove"), "1s remove 4433")
			r.mapped("", 1)
		})
	}
}

// A lease without an end is removed when another takes its place.
func TestForeverIsRemoved(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.router.life = 0
		r.run()
		other := &fakeRouter{addr: "203.0.113.7", life: lifetime, start: time.Now()}
		old := r.router
		old.lookErr = errSilent
		other.shift = 7
		r.router = other
		r.after(6 * time.Minute)
		r.equal(old.asked("remove"), "5m0s remove 4433")
		r.mapped("fake 203.0.113.7:4440 router 192.168.1.1", 2)
	})
}
