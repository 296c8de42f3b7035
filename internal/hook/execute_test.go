// SPDX-License-Identifier: Apache-2.0

package hook_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/l2bridge/l2bridge/internal/hook"
)

func shell(script string) []string { return []string{"/bin/sh", "-c", script} }

func TestExecute(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 5000)
	for name, tt := range map[string]struct {
		argv []string
		want string
		err  string
	}{
		"nothing":       {shell(":"), "", ""},
		"both outputs":  {shell("echo one; echo two >&2; printf three"), "one two three", ""},
		"arguments":     {[]string{"/bin/echo", "$HOME", "a b", ";", "'"}, "$HOME a b ; '", ""},
		"environment":   {shell("tr '\\0' '\\n' </proc/$$/environ"), "A=b C=", ""},
		"directory":     {shell("pwd"), "/", ""},
		"stdin":         {shell("readlink /proc/self/fd/0; cat"), "/dev/null", ""},
		"hostile":       {shell(`printf 'a\033[2J\r\tb\0\377\n\n'`), "a?[2J? b??", ""},
		"long":          {shell("echo " + long), long[:1024] + "...", ""},
		"exactly":       {shell("printf " + long[:1024]), long[:1024], ""},
		"endless":       {shell("head -c 10000000 /dev/zero | tr '\\0' y"), strings.Repeat("y", 1024) + "...", ""},
		"exit status":   {shell("echo sorry; exit 7"), "sorry", "exit status 7"},
		"a signal":      {shell("kill -9 $$"), "", "signal: killed"},
		"no program":    {[]string{"/nowhere/on-peer"}, "", "no such file or directory"},
		"not a program": {[]string{"/dev/null"}, "", "permission denied"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := hook.Execute(t.Context(), tt.argv, []string{"A=b", "C="})
			if got != tt.want {
				t.Errorf("wrote %.200q, want %.200q", got, tt.want)
			}
			if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
				t.Errorf("%v, want %q", err, tt.err)
			}
		})
	}
}

// A hook gets none of our files and sockets.
func TestExecuteInheritsNothing(t *testing.T) {
	t.Parallel()
	file, err := os.Create(filepath.Join(t.TempDir(), "ours"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	out, err := hook.Execute(t.Context(), shell("for f in /proc/$$/fd/*; do readlink $f; done | grep -c /ours"), nil)
	if out != "0" {
		t.Errorf("it has our file %s times (%v)", out, err)
	}
}

// At the end of its time the whole group goes, deaf or not.
func TestExecuteKills(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "pids")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() {
		out, err := hook.Execute(ctx, shell("trap '' TERM INT HUP; sleep 1000 & echo begun; echo $$ $! >"+file+".new; mv "+file+".new "+file+"; wait"), nil)
		if out != "begun" {
			t.Errorf("wrote %q", out)
		}
		done <- err
	}()
	pids := strings.Fields(waitFile(t, file))
	cancel()
	var exit *exec.ExitError
	if err := <-done; !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Errorf("it ended with %v", err)
	}
	for _, pid := range pids {
		gone(t, pid)
	}
}

// What a hook leaves running does not hold it up, and is left alone.
func TestExecuteLeavesRunning(t *testing.T) {
	t.Parallel()
	began := time.Now()
	out, err := hook.Execute(t.Context(), shell("sleep 1000 & echo $!"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("it took %v", took)
	}
	pid, err := strconv.Atoi(out)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Errorf("what it left running: %v", err)
	}
}

// waitFile returns the text of a file once it is there.
func waitFile(t *testing.T, path string) string {
	t.Helper()
	for range 2000 {
		if text, err := os.ReadFile(path); err == nil {
			return string(text)
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("there is no %s", path)
	return ""
}

// gone waits until a process has ended; nobody may have reaped it.
func gone(t *testing.T, pid string) {
	t.Helper()
	for range 2000 {
		stat, err := os.ReadFile("/proc/" + pid + "/stat")
		if err != nil || strings.Contains(string(stat), ") Z ") {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("process %s is still there", pid)
}

// Whatever a hook writes, in whatever pieces, the log gets one short line.
func FuzzOutput(f *testing.F) {
	f.Add([]byte("one\ntwo\x1b[2J"), 3)
	f.Fuzz(func(t *testing.T, text []byte, piece int) {
		got := hook.Written(text, piece)
		if len(got) > 1024+3 || strings.ContainsFunc(got, func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Errorf("%q became %q", text, got)
		}
	})
}
