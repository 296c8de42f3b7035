// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

const (
	// minPassphrase is the shortest pass phrase, in bytes, that something new is
	// encrypted with: a file that is stolen can be tried on for ever.
	minPassphrase = 8
	maxPassphrase = 1024
)

// addPassphraseFlag gives cmd the way to have no pass phrase asked for. There is
// none by argument: those are shown to everybody by ps.
func addPassphraseFlag(cmd *cobra.Command, file *string) {
	cmd.Flags().StringVar(file, "passphrase-file", "", "take the pass phrase from `FILE`, which only its owner may read")
}

// newPassphrase returns a pass phrase to encrypt with: from the file or, when that
// is "", from the terminal, twice.
func newPassphrase(ctx context.Context, file string) (string, error) {
	phrase, err := passphrase(ctx, file)
	if err != nil {
		return "", err
	}
	if len(phrase) < minPassphrase {
		return "", fmt.Errorf("pass phrase of %d bytes: want %d or more", len(phrase), minPassphrase)
	}
	if file != "" {
		return phrase, nil
	}
	again, err := askPassphrase(ctx, "The same again: ")
	if err == nil && again != phrase {
		err = errors.New("the two pass phrases differ (try again)")
	}
	if err != nil {
		return "", err
	}
	return phrase, nil
}

// passphrase returns the pass phrase in the file or, when that is "", from the
// terminal.
func passphrase(ctx context.Context, file string) (string, error) {
	if file == "" {
		return askPassphrase(ctx, "Pass phrase: ")
	}
	f, err := os.Open(file)
	if err != nil {
		return "", fmt.Errorf("pass phrase: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", fmt.Errorf("pass phrase: %w", err)
	}
	// A pipe is how shells and password managers give one.
	if kind := info.Mode().Type(); kind != 0 && kind != os.ModeNamedPipe {
		return "", usagef("--passphrase-file %s: neither a regular file nor a pipe", file)
	}
	if info.Mode()&0o077 != 0 {
		return "", usagef("--passphrase-file %s has mode %04o: others may read or change what must be secret (chmod 600 %s)", file, info.Mode().Perm(), file)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) != os.Geteuid() {
		return "", usagef("--passphrase-file %s belongs to user %d, not to user %d who runs this", file, st.Uid, os.Geteuid())
	}
	data, err := io.ReadAll(io.LimitReader(f, maxPassphrase+2))
	if err != nil {
		return "", fmt.Errorf("pass phrase: %w", err)
	}
	return onePhrase(data, "--passphrase-file "+file)
}

// onePhrase takes the pass phrase out of what was read of it, one line.
func onePhrase(data []byte, place string) (string, error) {
	data = bytes.TrimSuffix(bytes.TrimSuffix(data, []byte("\n")), []byte("\r"))
	switch {
	case len(data) == 0:
		return "", fmt.Errorf("%s: no pass phrase", place)
	case len(data) > maxPassphrase:
		return "", fmt.Errorf("%s: a pass phrase of more than %d bytes", place, maxPassphrase)
	case bytes.ContainsAny(data, "\n\x00"):
		return "", fmt.Errorf("%s: more than one line", place)
	}
	return string(data), nil
}

// askPassphrase asks on the terminal of this process, whatever its standard input
// is.
func askPassphrase(ctx context.Context, prompt string) (string, error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return "", usagef("no terminal to ask for the pass phrase: want --passphrase-file FILE")
	}
	defer tty.Close()
	return readSecret(ctx, tty, prompt)
}

// readSecret reads a line from a terminal that does not show it. When ctx ends the
// terminal is left as it was.
func readSecret(ctx context.Context, tty *os.File, prompt string) (string, error) {
	raw, err := tty.SyscallConn() // Fd would make reading block for good
	if err != nil {
		return "", err
	}
	var before *unix.Termios
	set := func(request uint, mode *unix.Termios) (err error) {
		if cerr := raw.Control(func(fd uintptr) { err = unix.IoctlSetTermios(int(fd), request, mode) }); cerr != nil {
			return cerr
		}
		return err
	}
	cerr := raw.Control(func(fd uintptr) { before, err = unix.IoctlGetTermios(int(fd), unix.TCGETS) })
	if err := errors.Join(cerr, err); err != nil {
		return "", fmt.Errorf("terminal: %w", err)
	}
	quiet := *before
	quiet.Lflag &^= unix.ECHO
	quiet.Lflag |= unix.ICANON | unix.ISIG
	if err := set(unix.TCSETSF, &quiet); err != nil {
		return "", fmt.Errorf("terminal: %w", err)
	}
	defer func() {
		_ = set(unix.TCSETS, before) // nothing to be done about it
		fmt.Fprintln(tty)            // the one typed was not shown
	}()
	fmt.Fprint(tty, prompt)
	defer context.AfterFunc(ctx, func() { tty.SetReadDeadline(time.Unix(1, 0)) })()
	line := make([]byte, maxPassphrase+2)
	n, err := tty.Read(line)
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	if err != nil {
		return "", fmt.Errorf("pass phrase: %w", err)
	}
	return onePhrase(line[:n], "terminal")
}

// isTerminal reports whether what is written to w is seen at once by somebody.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return false
	}
	var termErr error
	err = raw.Control(func(fd uintptr) { _, termErr = unix.IoctlGetTermios(int(fd), unix.TCGETS) })
	return err == nil && termErr == nil
}
