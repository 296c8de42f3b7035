// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"os"
	"os/signal"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// A signal that comes just before the program is executed again must end it: what is
// executed knows nothing of it.
func TestNoSignalIsLost(t *testing.T) {
	runtime.LockOSThread() // the signal is handled here, and before Tgkill returns
	defer runtime.UnlockOSThread()
	for _, sig := range []unix.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGHUP} {
		for range 100 {
			ctx := untilSignal(context.Background())
			if err := unix.Tgkill(os.Getpid(), unix.Gettid(), sig); err != nil {
				t.Fatal(err)
			}
			if releaseSignals(ctx) == nil {
				t.Fatalf("%v was lost", sig)
			}
		}
	}
}

// "nohup l2bridge up &" outlives its terminal.
func TestHangupIgnored(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	signal.Ignore(unix.SIGHUP)
	defer signal.Reset(unix.SIGHUP)
	ctx := untilSignal(context.Background())
	if err := unix.Tgkill(os.Getpid(), unix.Gettid(), unix.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if err := releaseSignals(ctx); err != nil {
		t.Errorf("SIGHUP, ignored from the start, has ended the program: %v", err)
	}
}

func TestReleaseSignals(t *testing.T) {
	ctx := untilSignal(context.Background())
	if err := releaseSignals(ctx); err != nil {
		t.Errorf("without a signal: %v", err)
	}
	if ctx.Err() != nil {
		t.Error("the context has ended")
	}
	if err := releaseSignals(context.Background()); err != nil {
		t.Errorf("where none are caught: %v", err)
	}
}
