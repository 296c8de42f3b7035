// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"unicode"
	"unicode/utf8"
)

// addToCommand adds a word to a command: its program, or an argument.
func addToCommand(command []string, word string) ([]string, error) {
	// Control characters are also what Go's quotes and TOML's differ in.
	if !utf8.ValidString(word) || strings.ContainsFunc(word, unicode.IsControl) {
		return command, errors.New("a control character (put what needs it in a script)")
	}
	if len(command) == 0 {
		if err := checkProgram(word); err != nil {
			return command, err
		}
	}
	return append(command, word), nil
}

// checkProgram checks that path is a program that may run as root.
func checkProgram(path string) error {
	if !filepath.IsAbs(path) {
		return errors.New("want the absolute path of a program (such as /usr/local/bin/on-peer)")
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return errors.New("no such file (make it, or take the setting out)")
	case err != nil:
		if errno := syscall.Errno(0); errors.As(err, &errno) {
			err = errno
		}
		return fmt.Errorf("%w (want the path of a program that can be read)", err)
	case !info.Mode().IsRegular():
		return errors.New("not a regular file (want a program or a script)")
	case info.Mode()&0o111 == 0:
		return errors.New("not executable (chmod +x it)")
	case info.Mode()&0o002 != 0:
		return errors.New("anybody may write to it, and it runs as root (chmod o-w it)")
	}
	return nil
}
