// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lab

import (
	"slices"
	"testing"
	"time"
)

func TestOutage(t *testing.T) {
	start := time.Now()
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	row := func(from, to int) (times []time.Time) {
		for ms := from; ms <= to; ms += 100 {
			times = append(times, at(ms))
		}
		return times
	}
	const ms = time.Millisecond
	sent := row(0, 5000)
	for _, tt := range []struct {
		name      string
		sent      []time.Time
		came      []time.Time
		ended     int
		back, gap time.Duration
		fails     bool
	}{
		{name: "none", came: row(1, 5000), ended: 50, back: 51 * ms},
		{name: "in the middle", came: slices.Concat(row(1, 300), row(2401, 5000)), ended: 1300, back: 1101 * ms, gap: 2200 * ms},
		{name: "begins after its end", came: slices.Concat(row(1, 300), row(2401, 5000)), ended: 50, back: 2351 * ms, gap: 2200 * ms},
		{name: "back, and away again", came: slices.Concat(row(1, 300), row(1001, 1200), row(2001, 5000)), ended: 500, back: 1501 * ms, gap: 900 * ms},
		{name: "one lost on the way", came: slices.Concat(row(1, 1000), row(1101, 5000)), ended: 50, back: 51 * ms, gap: 200 * ms},
		{name: "nobody asked", sent: slices.Concat(row(0, 1000), row(3000, 5000)), came: slices.Concat(row(1, 1001), row(3001, 5000)), ended: 50, back: 51 * ms},
		{name: "never", came: row(1, 300), ended: 1000, gap: 4799 * ms, fails: true},
		{name: "not for good", came: row(1, 4000), ended: 1000, gap: 1099 * ms, back: 1 * ms, fails: true},
		{name: "not for long", came: slices.Concat(row(1, 300), row(4501, 5000)), ended: 1000, gap: 4300 * ms, fails: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.sent == nil {
				tt.sent = sent
			}
			o, err := outage(tt.sent, tt.came, start, at(tt.ended), at(5000), time.Second, 2)
			if (err != nil) != tt.fails {
				t.Errorf("error %v, want one: %t", err, tt.fails)
			}
			if o.Gap != tt.gap || err == nil && o.Back != tt.back {
				t.Errorf("got %+v, want back %v, gap %v", o, tt.back, tt.gap)
			}
		})
	}
}
