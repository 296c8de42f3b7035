// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	stopGrace   = 5 * time.Second // until SIGKILL
	outputLimit = 1 << 20         // bytes kept of one process's output
)

// Process is a program that runs beside the test.
type Process struct {
	t    testing.TB
	name string
	cmd  *exec.Cmd
	out  output
	done chan struct{} // closed once err is set
	err  error

	smallDisk string
}

// Start starts a program in the namespace. What it writes is kept, and shown
// when the test fails. At the end of the test it is stopped, and a data race
// or panic that it reported fails the test.
func (n *Namespace) Start(name string, args ...string) *Process {
	n.t.Helper()
	p := &Process{t: n.t, name: n.Name + ": " + filepath.Base(name), done: make(chan struct{})}
	p.cmd = n.Command(context.Background(), name, args...)
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	if err := p.cmd.Start(); err != nil {
		n.t.Fatalf("start %s: %v", p.name, err)
	}
	go func() {
		defer close(p.done)
		p.err = p.cmd.Wait()
	}()
	n.t.Cleanup(p.finish)
	return p
}

// Stop ends the process with SIGTERM, see End.
func (p *Process) Stop() error { return p.End(syscall.SIGTERM) }

// End ends the process with a signal, five seconds later with SIGKILL, waits
// for it, and returns how it ended: nil for exit status 0. What is left of its
// process group is killed.
func (p *Process) End(sig os.Signal) error {
	p.Signal(sig)
	select {
	case <-p.done:
	case <-time.After(stopGrace):
		killGroup(p.cmd)
		<-p.done
		return fmt.Errorf("%s: still running %v after it was told to stop", p.name, stopGrace)
	}
	killGroup(p.cmd)
	return p.err
}

// Kill ends the process at once with SIGKILL and waits for it.
func (p *Process) Kill() {
	killGroup(p.cmd)
	<-p.done
}

// Signal sends sig to the process, if it still runs.
func (p *Process) Signal(sig os.Signal) {
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Errorf("signal %s: %v", p.name, err)
	}
}

// PID returns the process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// SmallDisk returns the state directory of a process on a small disk, in its
// view of the file system: /proc/PID/root leads there.
func (p *Process) SmallDisk() string { return p.smallDisk }

// CPU returns the processor time that the process has used, its threads' all
// together.
func (p *Process) CPU() time.Duration {
	p.t.Helper()
	const tick = 10 * time.Millisecond // USER_HZ, which is 100 everywhere
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.PID()))
	if err != nil {
		return 0 // it has ended
	}
	// The name is in brackets and may hold anything: proc_pid_stat(5).
	_, rest, _ := strings.Cut(string(text), ") ")
	const utime, stime = 11, 12 // counted from the one behind the name
	var used time.Duration
	for i, field := range strings.Fields(rest) {
		if i == utime || i == stime {
			n, _ := strconv.Atoi(field)
			used += time.Duration(n) * tick
		}
	}
	return used
}

// RSS returns how many bytes of memory the process has.
func (p *Process) RSS() int {
	p.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", p.PID()))
	if err != nil {
		return 0 // it has ended
	}
	var size, resident int
	fmt.Sscan(string(text), &size, &resident)
	return resident * os.Getpagesize()
}

// Running reports whether the process has not ended.
func (p *Process) Running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err returns how the process ended, after Done: nil for exit status 0.
func (p *Process) Err() error { return p.err }

// Output returns what the process has written so far to standard output and
// standard error, the last megabyte of it.
func (p *Process) Output() string { return p.out.String() }

// WaitOutput waits until the process has written text, and ends the test if it
// does not within limit or ends before.
func (p *Process) WaitOutput(limit time.Duration, text string) {
	p.t.Helper()
	Wait(p.t, limit, fmt.Sprintf("%s writes %q", p.name, text), func() error {
		if strings.Contains(p.Output(), text) {
			return nil
		}
		select {
		case <-p.done:
			p.t.Fatalf("%s ended before it wrote %q: %v\n%s", p.name, text, p.err, p.Output())
		default:
		}
		return errors.New(p.Output())
	})
}

func (p *Process) finish() {
	select {
	case <-p.done:
	default:
		p.Stop()
	}
	out := p.Output()
	for _, alarm := range []string{"WARNING: DATA RACE", "\npanic: ", "\nfatal error: "} {
		if strings.Contains("\n"+out, alarm) {
			p.t.Errorf("%s reported %q", p.name, strings.TrimSpace(alarm))
		}
	}
	if p.t.Failed() {
		p.t.Logf("%s wrote:\n%s", p.name, out)
	}
}

// ownGroup puts a child in a process group of its own, to be signalled whole,
// and has the kernel end it when the test is killed.
func ownGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

func killGroup(cmd *exec.Cmd) error {
	err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	if errors.Is(err, syscall.ESRCH) {
		return os.ErrProcessDone
	}
	return err
}

// output is a writer that keeps the end of what it is given.
type output struct {
	mu  sync.Mutex
	buf []byte
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.buf = append(o.buf, b...)
	if len(o.buf) > 2*outputLimit {
		o.buf = append(o.buf[:0], o.buf[len(o.buf)-outputLimit:]...)
	}
	return len(b), nil
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return string(o.buf)
}
