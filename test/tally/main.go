// SPDX-License-Identifier: Apache-2.0

// Command tally reads the output of "go test -json" on standard input and
// tells a person what matters of it: a line for each package, all that a
// failing test wrote, and at last "N passed, N failed". It exits with status 1
// when anything failed, a build included, or when no test ran.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
)

func main() {
	ok, err := tally(os.Stdin, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "tally:", err)
	}
	if !ok || err != nil {
		os.Exit(1)
	}
}

// event is one line of "go test -json", see "go doc test2json".
type event struct {
	Action  string
	Package string
	Test    string
	Elapsed float64 // seconds
	Output  string
}

// run is a test, or with an empty name the rest of its package.
type run struct{ pkg, test string }

// counts tells tests and subtests alike. A package that fails with no failing
// test, as one that does not build, counts as a failed one.
type counts struct {
	passed, failed, skipped int

	output     map[run]*strings.Builder // of what has not ended yet
	order      []run
	failedHere map[string]int // failed tests by package
}

// tally reports whether all went well.
func tally(in io.Reader, out io.Writer) (ok bool, err error) {
	c := counts{output: make(map[run]*strings.Builder), failedHere: make(map[string]int)}
	lines := bufio.NewReader(in)
	for {
		line, readErr := lines.ReadString('\n')
		if line != "" {
			c.line(line, out)
		}
		if readErr == io.EOF {
			break
		}
		if readErr != nil {
			return false, readErr
		}
	}
	// What never ended was cut off with go test itself.
	for _, r := range c.order {
		if b := c.output[r]; b != nil && r.test != "" {
			fmt.Fprintf(out, "--- no end: %s %s\n%s", r.pkg, r.test, b)
			c.failed++
		}
	}
	if c.passed+c.failed == 0 {
		fmt.Fprintln(out, "no test ran")
	}
	fmt.Fprintf(out, "%d passed, %d failed", c.passed, c.failed)
	if c.skipped > 0 {
		fmt.Fprintf(out, ", %d skipped", c.skipped)
	}
	fmt.Fprintln(out)
	return c.failed == 0 && c.passed > 0, nil
}

func (c *counts) line(line string, out io.Writer) {
	var e event
	if !strings.HasPrefix(line, "{") || json.Unmarshal([]byte(line), &e) != nil {
		io.WriteString(out, line) // from the go command itself
		return
	}
	r := run{e.Package, e.Test}
	switch e.Action {
	case "build-output":
		io.WriteString(out, e.Output)
	case "output":
		b := c.output[r]
		if b == nil {
			b = new(strings.Builder)
			c.output[r] = b
			c.order = append(c.order, r)
		}
		b.WriteString(e.Output)
	case "pass", "fail", "skip":
		if e.Test == "" {
			c.endPackage(e, out)
		} else {
			c.endTest(e, out)
		}
	}
}

func (c *counts) endTest(e event, out io.Writer) {
	r := run{e.Package, e.Test}
	switch e.Action {
	case "pass":
		c.passed++
	case "skip":
		c.skipped++
	case "fail":
		c.failed++
		c.failedHere[e.Package]++
		if b := c.output[r]; b != nil {
			fmt.Fprintf(out, "%s: %s", e.Package, b)
		}
	}
	delete(c.output, r)
}

func (c *counts) endPackage(e event, out io.Writer) {
	if e.Action == "fail" {
		if c.failedHere[e.Package] == 0 {
			c.failed++
		}
		fmt.Fprintf(out, "FAIL  %s  %.1fs\n", e.Package, e.Elapsed)
	} else if e.Action == "pass" {
		fmt.Fprintf(out, "ok    %s  %.1fs\n", e.Package, e.Elapsed)
	}
	for _, r := range c.order {
		if b := c.output[r]; b != nil && r.pkg == e.Package {
			if e.Action == "fail" {
				io.WriteString(out, b.String())
			}
			delete(c.output, r)
		}
	}
}
