// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"testing"
	"time"

	"github.com/quic-go/quic-go"
)

func TestWanted(t *testing.T) {
	for _, tt := range []struct {
		name   string
		busy   int
		rtt    time.Duration
		shaped bool
		want   int
	}{
		{"nobody waits", 0, 20 * time.Millisecond, false, 1},
		{"one flow", 1, 20 * time.Millisecond, false, 1},
		{"eight flows", 8, 20 * time.Millisecond, false, 8},
		{"many flows", 100, 20 * time.Millisecond, false, MaxLanes},
		{"a rate is what they wait for", 8, 20 * time.Millisecond, true, 1},
	} {
		if got := wanted(tt.busy, tt.rtt, tt.shaped); got != tt.want {
			t.Errorf("%s: %d lanes, want %d", tt.name, got, tt.want)
		}
	}
}

func TestPiece(t *testing.T) {
	lane := func(window uint64, rtt time.Duration) quic.ConnectionStats {
		return quic.ConnectionStats{CongestionWindow: window, SmoothedRTT: rtt}
	}
	for _, tt := range []struct {
		name  string
		stats quic.ConnectionStats
		rate  uint64
		want  int
	}{
		{"nothing known", lane(38400, 0), 0, 1 << 16},
		{"a LAN", lane(1<<20, time.Millisecond), 0, 1 << 16},
		{"25 Mbit/s", lane(62500, 20*time.Millisecond), 0, 6250},
		{"very slow", lane(2400, time.Second), 0, minPiece},
		{"a rate of 19 Mbit/s", lane(1<<20, time.Millisecond), 19e6, 4750},
	} {
		if got := piece(tt.stats, tt.rate); got != tt.want {
			t.Errorf("%s: pieces of %d bytes, want %d", tt.name, got, tt.want)
		}
	}
}

// What a PARITY covers follows the loss, and none is sent where none is lost.
func TestCovers(t *testing.T) {
	for _, tt := range []struct {
		lostOf10000 uint64
		want        int
	}{{0, 0}, {1, 0}, {10, 28}, {100, 8}, {500, 4}} {
		var st steering
		got := 0
		for i := range uint64(200) {
			got = st.covers(10000*i, tt.lostOf10000*i)
		}
		if got != tt.want {
			t.Errorf("%d of 10000 lost: %d, want %d", tt.lostOf10000, got, tt.want)
		}
		for range 600 { // two minutes later
			got = st.covers(10000*199, tt.lostOf10000*199)
		}
		if got != 0 {
			t.Errorf("%d of 10000 lost, long ago: %d, want 0", tt.lostOf10000, got)
		}
	}
}
