// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lab

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// built is the program under test, built once a process.
var built struct {
	once sync.Once
	dir  string
	path string
	err  error
}

// Binary returns the path of the program under test, built from this tree,
// with the race detector when the test has it. L2BRIDGE names another one to
// test instead.
func Binary(t testing.TB) string {
	t.Helper()
	built.once.Do(func() {
		if built.path = os.Getenv("L2BRIDGE"); built.path != "" {
			return
		}
		if built.dir, built.err = os.MkdirTemp("", "l2b-bin-"); built.err != nil {
			return
		}
		built.path = filepath.Join(built.dir, "l2bridge")
		args := []string{"build", "-o", built.path}
		if raceDetector {
			args = append(args, "-race")
		}
		cmd := exec.Command("go", append(args, "github.com/l2bridge/l2bridge/cmd/l2bridge")...)
		if out, err := cmd.CombinedOutput(); err != nil {
			built.err = fmt.Errorf("build l2bridge: %w\n%s", err, out)
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return built.path
}

// Main runs a package's tests, calls what is to be done after them, and removes
// what Binary built. Call it from TestMain; it does not return.
func Main(m *testing.M, after ...func() error) {
	// Else each command built with the race detector sleeps a second at its end.
	os.Setenv("GORACE", strings.TrimSpace(os.Getenv("GORACE")+" atexit_sleep_ms=0"))
	status := m.Run()
	if built.dir != "" {
		os.RemoveAll(built.dir)
	}
	for _, f := range after {
		if err := f(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			status = 1
		}
	}
	os.Exit(status)
}
