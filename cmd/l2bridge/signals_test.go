// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// heedHangup undoes that SIGHUP is ignored, as it is for what nohup starts, or after
// signal.Ignore: Reset leaves signal.Ignored as it was, only Notify changes it.
func heedHangup() {
	c := make(chan os.Signal, 1)
	signal.Notify(c, unix.SIGHUP)
	signal.Stop(c)
}

// A signal that comes just before the program is executed again must end it: what is
// executed knows nothing of it.
func TestNoSignalIsLost(t *testing.T) {
	runtime.LockOSThread() // the signal is handled here, and before Tgkill returns
	defer runtime.UnlockOSThread()
	heedHangup()
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
	defer heedHangup()
	ctx := untilSignal(context.Background())
	if err := unix.Tgkill(os.Getpid(), unix.Gettid(), unix.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if err := releaseSignals(ctx); err != nil {
		t.Errorf("SIGHUP, ignored from the start, has ended the program: %v", err)
	}
}

// A site outlives who reads its log, such as tee, which Ctrl-C ends first. A command
// that answers ends with its reader, as any other.
func TestReaderGoes(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ args, want string }{
		{"join l2b1_abc --site home --config " + filepath.Join(t.TempDir(), "l2.toml"), "exit status 0"},
		{"version", "signal: broken pipe"},
	} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		r.Close()
		cmd := exec.Command(self)
		cmd.Args = append([]string{"l2bridge"}, strings.Fields(test.args)...) // see TestMain
		cmd.Stdout, cmd.Stderr = w, w
		err = cmd.Run()
		w.Close()
		if got := cmd.ProcessState.String(); got != test.want {
			t.Errorf("%s: %s (%v), want %s", test.args, got, err, test.want)
		}
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
