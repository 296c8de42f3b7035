// SPDX-License-Identifier: Apache-2.0

// Command profile draws the flame graph of a CPU profile: profile TITLE FILE
// reads what runtime/pprof wrote and writes an SVG to standard output. It asks
// "go tool pprof" for the stacks; a picture needs nothing else.
package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: profile TITLE FILE >PICTURE.svg")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "profile:", err)
		os.Exit(1)
	}
}

func run(title, file string) error {
	text, err := exec.Command("go", "tool", "pprof", "-traces", "-unit=ms", file).Output()
	if err != nil {
		if exit, ok := err.(*exec.ExitError); ok {
			return fmt.Errorf("go tool pprof: %w: %s", err, strings.TrimSpace(string(exit.Stderr)))
		}
		return fmt.Errorf("go tool pprof: %w", err)
	}
	stacks, err := parseTraces(bytes.NewReader(text))
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	_, err = os.Stdout.Write(draw(title, grow(stacks)))
	return err
}
