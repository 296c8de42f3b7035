// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// openTerminal returns a terminal and what is behind it: the person.
func openTerminal(t *testing.T) (person, tty *os.File) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { person.Close() })
	raw, err := person.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var n int
	if cerr := raw.Control(func(fd uintptr) {
		if err = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); err == nil {
			n, err = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
		}
	}); cerr != nil || err != nil {
		t.Skip(cerr, err)
	}
	tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { tty.Close() })
	return person, tty
}

// sees reads from a terminal until text has come, and returns all that came.
func sees(t *testing.T, person *os.File, text string) string {
	t.Helper()
	var all strings.Builder
	b := make([]byte, 100)
	for !strings.Contains(all.String(), text) {
		n, err := person.Read(b)
		if err != nil {
			t.Fatalf("after %q: %v", all.String(), err)
		}
		all.Write(b[:n])
	}
	return all.String()
}

func echoes(t *testing.T, tty *os.File) bool {
	t.Helper()
	mode, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return mode.Lflag&unix.ECHO != 0
}

// What is typed is not shown, and the terminal is afterwards as it was.
func TestReadSecret(t *testing.T) {
	t.Parallel()
	person, tty := openTerminal(t)
	type answer struct {
		phrase string
		err    error
	}
	got := make(chan answer)
	go func() {
		phrase, err := readSecret(t.Context(), tty, "Pass phrase: ")
		got <- answer{phrase, err}
	}()
	sees(t, person, "Pass phrase: ")
	fmt.Fprintln(person, "correct horse")
	if a := <-got; a.err != nil || a.phrase != "correct horse" {
		t.Errorf("%q, %v", a.phrase, a.err)
	}
	fmt.Fprint(tty, "end")
	if shown := sees(t, person, "end"); strings.Contains(shown, "horse") {
		t.Errorf("shown: %q", shown)
	}
	if !echoes(t, tty) {
		t.Error("the terminal does not show what is typed any more")
	}
}

// Interrupted, too.
func TestReadSecretInterrupted(t *testing.T) {
	t.Parallel()
	person, tty := openTerminal(t)
	ctx, cancel := context.WithCancel(t.Context())
	got := make(chan error)
	go func() {
		_, err := readSecret(ctx, tty, "Pass phrase: ")
		got <- err
	}()
	sees(t, person, "Pass phrase: ")
	cancel()
	if err := <-got; !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want that it is canceled", err)
	}
	if !echoes(t, tty) {
		t.Error("the terminal does not show what is typed any more")
	}
}
