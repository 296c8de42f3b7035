// SPDX-License-Identifier: Apache-2.0

package transport_test

import (
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/l2bridge/l2bridge/transport"
	"github.com/l2bridge/l2bridge/transport/wire"
)

// Two gateways of which one finds fault with the other: both say so in a line, no
// frame passes for a while, which is longer the second time, and then all is well
// again by itself.
func TestCutOff(t *testing.T) {
	ms := members(t, "home", "office", "cabin")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		home, office, cabin := w.three(t, ms)
		time.Sleep(2 * time.Second)
		innocent := home.peer("cabin")
		fault := func(each uint64, seconds int) {
			for range seconds {
				home.peer("office").CountDropped(wire.Malformed, each)
				time.Sleep(time.Second)
			}
		}
		fault(100, 60)
		if home.peer("office") == nil || len(home.log.lines("breaks the protocol")) != 0 {
			t.Error("what an honest site may do counts")
		}
		for i, bar := range []time.Duration{10 * time.Second, 20 * time.Second} {
			fault(101, 2)
			if home.peer("office") == nil {
				t.Fatal("cut off after two warnings")
			}
			fault(101, 1)
			began := time.Now()
			time.Sleep(100 * time.Millisecond) // of the way to office
			if home.peer("office") != nil || office.state("home").State == "up" {
				t.Fatalf("not cut off after three warnings: %+v", office.state("home"))
			}
			if st := home.state("office"); !strings.Contains(st.Error, "cut off") {
				t.Errorf("home says of it: %+v", st)
			}
			for _, l := range []struct {
				of   *node
				line string
			}{{home, "peer cut off"}, {office, "cut off by peer"}} {
				if got := l.of.log.lines(l.line); len(got) != i+1 || !strings.Contains(got[i], "malformed 101") {
					t.Errorf("%q, want another line of %q", got, l.line)
				}
			}
			// Cabin reaches both, and yet relays between them nothing.
			time.Sleep(bar - 2*time.Second)
			if home.peer("office") != nil {
				t.Errorf("back after %v of %v", time.Since(began), bar)
			}
			home.received()
			office.send("home", numbered(1, 100))
			time.Sleep(time.Second)
			if got := home.received(); len(got) > 0 {
				t.Errorf("%d frames of it came all the same", len(got))
			}
			until(t, "back", 15*time.Second, all("up", home, office, cabin))
			t.Logf("back after %v", time.Since(began))
		}
		if home.peer("cabin") != innocent {
			t.Error("the innocent was cut off")
		}
		exchange(t, home, office, 10)
		exchange(t, home, cabin, 10)
	})
}

// refused returns what a session is refused with that a member begins, -1 when it
// is not.
func (e *evil) refused(number byte) int {
	conn := e.dial()
	e.say(conn, e.hello(number, 0).Append(nil))
	got := code(conn, 200*time.Millisecond)
	conn.CloseWithError(0, "")
	return got
}

// To set the clock makes nobody's time longer, or shorter.
func TestCutOffByClock(t *testing.T) {
	if until := transport.CutOff(); !strings.Contains(until.String(), "m=") {
		t.Errorf("cut off until %v, which has no monotonic reading", until)
	}
}

// One that is reached by way of another only is back as soon as it may be.
func TestCutOffRelayed(t *testing.T) {
	ms := members(t, "home", "office", "cabin")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.cut = func(from, to netip.Addr) bool {
			return from.String() == homeAddr && to.String() == officeAddr || from.String() == officeAddr && to.String() == homeAddr
		}
		home := w.run(t, ms[0], homeAddr, nil, known(homeAddr))
		office := w.run(t, ms[1], officeAddr, []string{"192.0.2.3:4433"}, known(officeAddr))
		cabin := w.run(t, ms[2], "192.0.2.3", []string{homePort}, known("192.0.2.3"))
		relayed := func() bool { return home.state("office").State == "relayed" && office.state("home").State == "relayed" }
		until(t, "relayed", 10*time.Second, relayed)
		time.Sleep(10 * time.Second)
		for range 3 {
			home.peer("office").CountDropped(wire.Malformed, 101)
			time.Sleep(time.Second)
		}
		until(t, "cut off", time.Second, func() bool { return home.state("office").State != "relayed" })
		until(t, "relayed again", 11*time.Second, relayed)
		if !all("up", home, cabin)() {
			t.Error("the innocent was cut off")
		}
	})
}

// Who sends junk is cut off, and does not come straight back. Who is silent for
// long enough has the short time again.
func TestJunkIsCutOff(t *testing.T) {
	evilWorld(t, func(t *testing.T, _ *world, home *node, e *evil) {
		number := byte(0)
		junk := func() {
			number++
			control, data, _ := e.session(number)
			go answerPings(control)
			for i := range 400 {
				data.SendDatagram([]byte{0, byte(i), 1, 0xff, 0xff, 0})
				data.SendDatagram([]byte{0, byte(i), 0x11, 0, 24, 0xff, 31: 0})
				time.Sleep(10 * time.Millisecond)
			}
			if got := code(control, time.Second); got != wire.CloseCutOff {
				t.Errorf("closed with %d, want %d", got, wire.CloseCutOff)
			}
		}
		for i, bar := range []time.Duration{10 * time.Second, 20 * time.Second, 40 * time.Second} {
			junk()
			for range 8 {
				number++
				if got := e.refused(number); got != wire.CloseCutOff {
					t.Errorf("time %d: comes straight back: %d", i, got)
				}
				time.Sleep(bar/8 - time.Second)
			}
			time.Sleep(10 * time.Second)
		}
		if got := dropped(home, "malformed") + dropped(home, "bad_offload"); got < 300 {
			t.Errorf("%d were counted", got)
		}
		if n := len(home.log.lines("peer cut off")); n != 3 {
			t.Errorf("%d lines, want 3", n)
		}
		time.Sleep(time.Hour)
		junk()
		time.Sleep(11 * time.Second)
		if got := e.refused(200); got != -1 {
			t.Errorf("after an hour without fault: %d", got)
		}
	})
}

// A wrong message ends a session at once, and counts: the third cuts off.
func TestWrongMessagesCutOff(t *testing.T) {
	evilWorld(t, func(t *testing.T, _ *world, home *node, e *evil) {
		e.session(9) // it is known from now on
		for i, want := range []int{wire.CloseProtocol, wire.CloseProtocol, wire.CloseCutOff} {
			control, _, stream := e.session(byte(10 + i))
			stream.Write([]byte{3, 0, 1, 0}) // a PROBE_ACK that is too short
			if got := code(control, time.Second); got != want {
				t.Errorf("wrong message %d: closed with %d, want %d", i, got, want)
			}
		}
		if got := e.refused(20); got != wire.CloseCutOff {
			t.Errorf("comes straight back: %d", got)
		}
		time.Sleep(11 * time.Second)
		// In other places it counts as well.
		for i, wrong := range []func(){
			func() { e.say(e.dial(), []byte{99, 0, 1, 0}) },
			func() { h := e.hello(30, 0); h.ID[7]++; e.say(e.dial(), h.Append(nil)) },
			func() { e.session(31) }, // nothing is wrong with this
			func() {
				control, data := e.dial(), e.dial()
				e.say(control, e.hello(32, 0).Append(nil))
				time.Sleep(100 * time.Millisecond)
				h := e.hello(32, 1).Append(nil)
				e.say(data, h, h)
			},
		} {
			wrong()
			time.Sleep(300 * time.Millisecond)
			if got := e.refused(byte(40 + i)); (got == wire.CloseCutOff) != (i == 3) {
				t.Errorf("after %d: %d", i, got)
			}
		}
	})
}

// One member has a part only of what waits for a hello, and begins so many sessions
// in a time.
func TestOneMembersShare(t *testing.T) {
	evilWorld(t, func(t *testing.T, w *world, home *node, e *evil) {
		var silent []*quic.Conn
		for range 70 { // more than there is room for in all
			silent = append(silent, e.dial(func(c *quic.Config) { c.KeepAlivePeriod = time.Second }))
		}
		kept := 0
		for _, conn := range silent {
			if code(conn, 10*time.Millisecond) == -1 {
				kept++
			}
		}
		if kept == 0 || kept > 16 {
			t.Errorf("%d connections without a hello are kept, want at most 16", kept)
		}
		time.Sleep(6 * time.Second)
		lines := len(home.log.lines("peer up"))
		begun := 0
		for i := range 120 {
			control, data := e.dial(), e.dial()
			e.say(control, e.hello(byte(i), 0).Append(nil))
			time.Sleep(25 * time.Millisecond)
			e.say(data, e.hello(byte(i), 1).Append(nil))
			if code(control, 25*time.Millisecond) == -1 {
				begun++
			}
			control.CloseWithError(0, "")
		}
		lines = len(home.log.lines("peer up")) - lines
		t.Logf("%d sessions, %d lines in the log", begun, lines)
		if begun < 30 || begun > 60 || lines > 25 {
			t.Errorf("%d sessions of 120, want 30 and two a second; %d lines", begun, lines)
		}
	})
}
