// SPDX-License-Identifier: Apache-2.0

package transport_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/l2bridge/l2bridge/transport"
)

// What a peer sends at once is delivered when its port is attached, which takes the
// switch a moment: at the first session, and at one that begins as the port goes.
func TestAttachedLate(t *testing.T) {
	ms := members(t, "home", "office")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		const late = 50 * time.Millisecond
		home := w.run(t, ms[0], homeAddr, nil, func(c *transport.Config) {
			serve := c.Serve
			c.Serve = func(ctx context.Context, p *transport.Peer) error {
				time.Sleep(late)
				defer time.Sleep(late)
				return serve(ctx, p)
			}
		})
		office := w.run(t, ms[1], officeAddr, []string{homePort})
		for range 3 {
			until(t, "up", 2*time.Second, func() bool { return office.peer("home") != nil })
			const count = 50
			for i := range count {
				office.send("home", numbered(i, 100))
				time.Sleep(2 * time.Millisecond)
			}
			time.Sleep(time.Second)
			checkNumbers(t, home.received(), 0, count)
			if n := dropped(home, "not_attached"); n != 0 {
				t.Errorf("%d frames found no port", n)
			}
			office.stop()
			office = w.run(t, ms[1], officeAddr, []string{homePort})
		}
	})
}
