// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
)

// stack is a call stack that was met, and for how long.
type stack struct {
	ms    float64
	calls []string // the outermost first
}

// A stack of "go tool pprof -traces -unit=ms" is one line for each function,
// the innermost first, with the time before that:
//
//	-----------+-------------------------------------------------------
//	     1.50ms   runtime.memmove
//	              main.f (inline)
//	              main.main
var (
	separator = regexp.MustCompile(`^-+\+-+$`)
	innermost = regexp.MustCompile(`^\s*(-?[0-9.]+)ms\s+(\S.*)$`)
	label     = regexp.MustCompile(`^\s*\S+:\s`) // of a sample; none of a function has a space behind a colon
)

var errNoStack = errors.New("no stack in it: was there any load?")

func parseTraces(r io.Reader) (stacks []stack, err error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	begun := false
	var now *stack
	for lines.Scan() {
		line := lines.Text()
		switch m := innermost.FindStringSubmatch(line); {
		case separator.MatchString(line):
			begun, now = true, nil
		case !begun || strings.TrimSpace(line) == "" || label.MatchString(line):
			// the profile's head
		case now == nil && m != nil:
			ms, err := strconv.ParseFloat(m[1], 64)
			if err != nil {
				return nil, fmt.Errorf("line %q: %w", line, err)
			}
			stacks = append(stacks, stack{ms: ms, calls: []string{function(m[2])}})
			now = &stacks[len(stacks)-1]
		case now == nil:
			return nil, fmt.Errorf("line %q: want a time and a function", line)
		default:
			now.calls = append([]string{function(line)}, now.calls...)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	if len(stacks) == 0 {
		return nil, errNoStack
	}
	return stacks, nil
}

func function(s string) string {
	return strings.TrimSuffix(strings.TrimSpace(s), " (inline)")
}
