// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/l2bridge/l2bridge/transport/identity"
)

func TestAllowance(t *testing.T) {
	t.Parallel()
	a, now := allowance{each: 8}, time.Now()
	for minute := range 3 {
		for n := range 20 {
			ok, skipped := a.take(now)
			want := 0
			if minute > 0 && n == 0 {
				want = 12
			}
			if ok != (n < 8) || skipped != want {
				t.Errorf("minute %d, line %d: %v after %d skipped, want %v after %d", minute, n, ok, skipped, n < 8, want)
			}
			now = now.Add(time.Second)
		}
		now = now.Add(41 * time.Second)
	}
}

// A peer that does not come to rest has so many lines, and takes none from others.
func TestPeerLines(t *testing.T) {
	var lines peerLines
	began := time.Now()
	written, told := 0, 0
	for i := range 10 * 60 {
		ok, skipped := lines.take(identity.ID{1}, began.Add(time.Duration(i)*time.Second))
		if ok {
			written++
			told += skipped
		}
	}
	if written != 10*20 || told != 9*40 {
		t.Errorf("%d lines in ten minutes, that tell of %d others; want 200 and 360", written, told)
	}
	if ok, _ := lines.take(identity.ID{2}, began); !ok {
		t.Error("another peer has none left")
	}
}

// A log with an allowance says how many lines it has left out, whatever was added to it.
func TestLimitedLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		log := newLimited(slog.New(slog.NewTextHandler(&out, nil)), 8)
		for range 20 {
			log.Warn("a")
			log.With("port", "l2b0").Info("b")
			log.Debug("not shown, and not counted")
		}
		time.Sleep(time.Minute)
		log.WithGroup("g").Info("c", "port", "l2b0")
		log.Info("d")
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		if len(lines) != 10 {
			t.Fatalf("%d lines, want 8 and 2:\n%s", len(lines), &out)
		}
		if !strings.Contains(lines[8], "skipped=32") || strings.Contains(lines[9], "skipped") {
			t.Errorf("after the minute: %q", lines[8:])
		}
	})
}
