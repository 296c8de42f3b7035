// SPDX-License-Identifier: Apache-2.0

package transport_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/l2bridge/l2bridge/transport"
)

// Of two machines with one key one stays, and the other is told, and keeps away
// until the first stops.
func TestTwins(t *testing.T) {
	t.Parallel()
	ms := members(t, "home", "office")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		const twinAddr = "192.0.2.9"
		twice := 0
		home := w.run(t, ms[0], homeAddr, nil, known(homeAddr), func(c *transport.Config) {
			c.Event = func(e transport.Event) {
				if e.Kind == transport.EventTwice {
					twice++
				}
			}
		})
		first := w.run(t, ms[1], officeAddr, []string{homePort}, known(officeAddr))
		until(t, "up", time.Second, connected(home, first))
		time.Sleep(10 * time.Second)
		twin := w.run(t, ms[1], twinAddr, []string{homePort}, known(twinAddr))
		time.Sleep(time.Minute) // in which they may take each other's place, and then not any more

		sites := map[string]*node{officeAddr + ":4433": first, twinAddr + ":4433": twin}
		since := home.state("office").Since
		for range 10 {
			time.Sleep(time.Minute)
			if st := home.state("office"); st.State != "up" || st.Since != since {
				t.Errorf("home sees %+v, up since %v before", st, since)
				since = st.Since
			}
		}
		in := sites[home.state("office").Addr]
		out := map[*node]*node{first: twin, twin: first}[in]
		if st := out.state("home"); st.State == "up" || !strings.Contains(st.Error, "identity used twice") {
			t.Errorf("the one that is kept out sees %+v", st)
		}
		if twice == 0 || twice > 30 {
			t.Errorf("home was told %d times", twice)
		}
		exchange(t, home, in, 10)
		in.stop()
		took := until(t, "the other one gets in", time.Minute, func() bool { return home.state("office").Addr != "" && out.state("home").State == "up" })
		t.Logf("the other one is in after %v", took)
		exchange(t, home, out, 10)
	})
}

// A site that is restarted again and again is not taken for two.
func TestRestartsAreNoTwins(t *testing.T) {
	t.Parallel()
	ms := members(t, "home", "office")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		home := w.run(t, ms[0], homeAddr, nil, known(homeAddr), func(c *transport.Config) {
			c.Event = func(e transport.Event) {
				if e.Kind == transport.EventTwice {
					t.Errorf("%+v", e)
				}
			}
		})
		for i := range 50 {
			office := w.run(t, ms[1], officeAddr, []string{homePort}, known(officeAddr))
			until(t, "up", 2*time.Second, connected(home, office))
			time.Sleep(time.Duration(i*37%1500) * time.Millisecond)
			if i%2 == 0 {
				office.kill()
			} else {
				office.stop()
			}
		}
	})
}
