// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	stopGrace = 3 * time.Second // until SIGKILL
	// clockTick is USER_HZ, in which /proc/PID/stat counts; 100 on all of Linux
	// that Go runs on.
	clockTick = 10 * time.Millisecond
)

// process is a program that runs beside the measures.
type process struct {
	name string
	cmd  *exec.Cmd
	log  string
	done chan struct{}
	err  error // once done is closed
}

// command returns a program to be run in a namespace; without one, here. It is
// killed with its children when ctx ends, and when this process dies.
func command(ctx context.Context, ns, name string, args ...string) *exec.Cmd {
	if ns != "" {
		args = append([]string{"netns", "exec", ns, name}, args...)
		name = "ip"
	}
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	return cmd
}

// output runs a program to its end and returns its standard output.
func output(ctx context.Context, ns, name string, args ...string) (string, error) {
	cmd := command(ctx, ns, name, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		text := strings.TrimSpace(stderr.String())
		if text == "" {
			text = strings.TrimSpace(stdout.String())
		}
		return stdout.String(), fmt.Errorf("%s %s: %w: %s", filepath.Base(name), strings.Join(args, " "), err, lastLines(text, 5))
	}
	return stdout.String(), nil
}

// start starts a program in a namespace. What it says goes to a file.
func start(ctx context.Context, log, ns, name string, env []string, args ...string) (*process, error) {
	file, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	p := &process{name: filepath.Base(name), log: log, done: make(chan struct{})}
	p.cmd = command(context.WithoutCancel(ctx), ns, name, args...)
	p.cmd.Stdout, p.cmd.Stderr = file, file
	p.cmd.Dir = filepath.Dir(log) // for what it may leave, a core
	if len(env) > 0 {
		p.cmd.Env = append(os.Environ(), env...)
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", p.name, err)
	}
	go func() {
		defer close(p.done)
		p.err = p.cmd.Wait()
	}()
	return p, nil
}

// stop ends the process and what it started, and waits for it.
func (p *process) stop() {
	p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(stopGrace):
	}
	syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	<-p.done
}

// running returns an error with the process's last words if it has ended.
func (p *process) running() error {
	select {
	case <-p.done:
		return fmt.Errorf("%s ended: %v: %s", p.name, p.err, p.said())
	default:
		return nil
	}
}

// said returns the last lines of what the process wrote.
func (p *process) said() string {
	text, _ := os.ReadFile(p.log)
	return lastLines(strings.TrimSpace(string(text)), 6)
}

func lastLines(text string, n int) string {
	lines := strings.Split(text, "\n")
	return strings.Join(lines[max(0, len(lines)-n):], " | ")
}

// usage is what processes have used.
type usage struct {
	cpu time.Duration // user and system time
	hwm float64       // the largest one's peak of resident memory, MB of 10^6 bytes
	rss float64       // the largest one's resident memory
}

// measured adds up a process and all that descend from it.
func (p *process) measured() usage {
	var u usage
	children := make(map[int][]int)
	stats := make(map[int][]string)
	paths, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // ended meanwhile
		}
		// The name is in brackets and may hold anything: proc_pid_stat(5).
		_, rest, ok := strings.Cut(string(text), ") ")
		if !ok {
			continue
		}
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		fields := strings.Fields(rest)
		parent, _ := strconv.Atoi(fields[1])
		stats[pid] = fields
		children[parent] = append(children[parent], pid)
	}
	for todo := []int{p.cmd.Process.Pid}; len(todo) > 0; todo = todo[1:] {
		pid := todo[0]
		todo = append(todo, children[pid]...)
		fields := stats[pid]
		if fields == nil {
			continue
		}
		for _, ticks := range fields[11:15] { // utime, stime and those of children that ended
			n, _ := strconv.ParseInt(ticks, 10, 64)
			u.cpu += time.Duration(n) * clockTick
		}
		u.hwm += memory(pid, "VmHWM")
		u.rss += memory(pid, "VmRSS")
	}
	return u
}

func memory(pid int, key string) float64 {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == key+":" {
			kib, _ := strconv.ParseFloat(fields[1], 64)
			return kib * 1024 / 1e6
		}
	}
	return 0
}
