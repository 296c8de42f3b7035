// SPDX-License-Identifier: Apache-2.0

package control_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/l2bridge/l2bridge/internal/control"
)

func TestTest(t *testing.T) {
	t.Parallel()
	f := &fake{}
	c := control.Dial(serve(t, f))
	var told []control.TestProgress
	note := func(p control.TestProgress) { told = append(told, p) }

	report, err := c.Test(t.Context(), "office", 2*time.Second, note)
	want := control.TestReport{Site: "office", Up: control.TestDirection{BitsPS: 1 << 40}}
	want.Sizes.Failed = []control.TestRange{}
	if diff := cmp.Diff(want, report); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	if diff := cmp.Diff([]control.TestProgress{{Phase: "idle"}, {Phase: "up", BitsPS: 2_000_000_000}}, told); diff != "" {
		t.Errorf("progress (-want +got):\n%s", diff)
	}
	if _, err := c.Test(t.Context(), "nowhere", time.Second, note); !errors.Is(err, control.ErrNotFound) || !strings.Contains(err.Error(), `no site "nowhere"`) {
		t.Errorf("no such site: %v", err)
	}
	for _, each := range []time.Duration{-time.Second, 0, 999 * time.Millisecond, 31 * time.Second, 1 << 62} {
		if _, err := c.Test(t.Context(), "office", each, note); !errors.Is(err, control.ErrInvalid) {
			t.Errorf("%v each: %v", each, err)
		}
	}
	f.testErr = errors.New("the session has ended: goodbye")
	if _, err := c.Test(t.Context(), "office", time.Second, note); err == nil || err.Error() != f.testErr.Error() {
		t.Errorf("an error on the way: %v", err)
	}
}

// A test ends when the one who asked for it goes, and when the daemon ends.
func TestTestEnds(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		end  func(client, server context.CancelFunc)
	}{
		{"client", func(client, _ context.CancelFunc) { client() }},
		{"daemon", func(_, server context.CancelFunc) { server() }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			path := t.TempDir() + "/l2.sock"
			s, err := control.Listen(path, -1)
			if err != nil {
				t.Fatal(err)
			}
			f := &fake{testing: make(chan error, 1)}
			serving, stop := context.WithCancel(t.Context())
			defer stop()
			served := make(chan error, 1)
			go func() { served <- s.Serve(serving, f) }()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			began, done := make(chan bool, 1), make(chan error, 1)
			go func() {
				_, err := control.Dial(path).Test(ctx, "office", time.Second, func(control.TestProgress) { began <- true })
				done <- err
			}()
			<-began
			tt.end(cancel, stop)
			if err := <-done; err == nil {
				t.Error("a test that was cut off succeeded")
			}
			if err := <-f.testing; !errors.Is(err, context.Canceled) {
				t.Errorf("the daemon's side: %v", err)
			}
			stop()
			if err := <-served; err != nil {
				t.Error(err)
			}
		})
	}
}
