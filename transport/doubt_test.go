// SPDX-License-Identifier: Apache-2.0

package transport_test

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

// When a path is silent for a moment, or the machine at one end of it has no time to
// answer, one of the two may doubt that it works and the other not. What the one then
// sends by way of a relay arrives, and so does what either sends afterwards; also
// when it is a relay that doubts, or is doubted.
func TestOneDoubts(t *testing.T) {
	t.Parallel()
	ms := members(t, "home", "vps", "office", "cabin")
	const vpsAddr, cabinAddr = "192.0.2.3", "192.0.2.4"
	for _, tt := range []struct {
		name   string
		apart  bool     // office and cabin never reach each other directly
		silent []string // the path between these is
		state  string   // of office and cabin
	}{
		{name: "direct", silent: []string{officeAddr, cabinAddr}, state: "up"},
		{name: "relay", apart: true, silent: []string{homeAddr, officeAddr}, state: "relayed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				between := func(pair []string, a, b netip.Addr) bool {
					return a.String() == pair[0] && b.String() == pair[1] || a.String() == pair[1] && b.String() == pair[0]
				}
				silent := false
				w.cut = func(a, b netip.Addr) bool {
					return tt.apart && between([]string{officeAddr, cabinAddr}, a, b) || silent && between(tt.silent, a, b)
				}
				home := w.run(t, ms[0], homeAddr, nil, known(homeAddr))
				w.run(t, ms[1], vpsAddr, []string{homePort}, known(vpsAddr))
				office := w.run(t, ms[2], officeAddr, []string{homePort}, known(officeAddr))
				cabin := w.run(t, ms[3], cabinAddr, []string{homePort}, known(cabinAddr))
				until(t, tt.state, 2*time.Second, all(tt.state, office, cabin))
				time.Sleep(5 * time.Second)
				f := &traffic{t: t}
				f.at(office)
				f.at(cabin)
				flow := func(lasts time.Duration) {
					for end := time.Now().Add(lasts); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
						f.send(office, "cabin", 100)
						f.send(cabin, "office", 100)
					}
				}
				attached := office.attaches() + cabin.attaches()
				step := 97 * time.Millisecond
				if raceEnabled {
					step *= 3
				}
				for lasts := 1100 * time.Millisecond; lasts < 2*time.Second; lasts += step {
					w.set(func() { silent = true })
					flow(lasts)
					w.set(func() { silent = false })
					began := time.Now()
					flow(4 * time.Second)
					time.Sleep(time.Second)
					// What quic-go has in its queue goes with a session that was not heard.
					const queued = 2 * 32
					lost := f.lost(began)
					if len(lost) > queued || dropped(office, "relay")+dropped(cabin, "relay")+dropped(home, "relay") > 0 {
						t.Errorf("silent for %v: %d frames are lost after it: %v; %v %v %v", lasts,
							len(lost), lost[:min(5, len(lost))], office.Drops(), cabin.Drops(), home.Drops())
					}
				}
				if n := office.attaches() + cabin.attaches() - attached; n != 0 {
					t.Errorf("attached %d times again", n)
				}
			})
		})
	}
}
