// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lab

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// Terminal is what a person types at, see [Site.StartInTerminal].
type Terminal struct{ *os.File }

// Type types a line.
func (t Terminal) Type(line string) error {
	_, err := io.WriteString(t, line+"\n")
	return err
}

// StartInTerminal is Start with a terminal for standard input, output and error.
func (s *Site) StartInTerminal(args ...string) (*Process, Terminal) {
	s.t.Helper()
	screen, terminal, err := openTerminal()
	if err != nil {
		s.t.Fatalf("open a terminal: %v", err)
	}
	p := &Process{t: s.t, name: s.Gateway.Name + ": in a terminal", done: make(chan struct{})}
	p.cmd = s.Gateway.Command(context.Background(), Binary(s.t), s.args(args)...)
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = terminal, terminal, terminal
	// A session of its own, which the terminal controls; its leader leads a group.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Pdeathsig: syscall.SIGKILL}
	err = p.cmd.Start()
	terminal.Close()
	if err != nil {
		screen.Close()
		s.t.Fatalf("start %s: %v", p.name, err)
	}
	go func() {
		defer close(p.done)
		_, _ = io.Copy(&p.out, screen) // fails when the last one has left the terminal
		p.err = p.cmd.Wait()
	}()
	s.t.Cleanup(func() {
		p.finish()
		screen.Close()
	})
	return p, Terminal{screen}
}

// openTerminal returns both ends of a pseudo-terminal: see pts(4).
func openTerminal() (screen, terminal *os.File, err error) {
	screen, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, err
	}
	fd := int(screen.Fd())
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		terminal, err = os.OpenFile(filepath.Join("/dev/pts", fmt.Sprint(n)), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		screen.Close()
		return nil, nil, err
	}
	return screen, terminal, nil
}
