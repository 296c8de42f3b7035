// SPDX-License-Identifier: Apache-2.0

//go:build linux

package control_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/l2bridge/l2bridge/internal/control"
)

// exhausted names the socket of a daemon without descriptors, which this test's
// binary then is.
const exhausted = "L2BRIDGE_TEST_EXHAUSTED"

// A daemon that has no descriptor left answers all the same, each who asks.
func TestNoDescriptors(t *testing.T) {
	if path := os.Getenv(exhausted); path != "" {
		runExhausted(t, path)
		return
	}
	t.Parallel()
	path := filepath.Join(t.TempDir(), "l2.sock")
	cmd := exec.Command(os.Args[0], "-test.run=^TestNoDescriptors$")
	cmd.Env = append(os.Environ(), exhausted+"="+path)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	stop, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer stop.Close()
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	c := control.Dial(path)
	var asking sync.WaitGroup
	for range 8 {
		asking.Go(func() {
			for range 5 {
				if _, err := c.Status(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	asking.Wait()
}

// runExhausted serves at path, without descriptors but those it has then, until
// standard input ends.
func runExhausted(t *testing.T, path string) {
	s, err := control.Listen(path, -1)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, &fake{}) }()
	if _, err := control.Dial(path).Status(ctx); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 64, Max: 64}); err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0); err == unix.EMFILE {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	fmt.Println("exhausted")
	os.Stdin.Read(make([]byte, 1))
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
}
