// SPDX-License-Identifier: Apache-2.0

package hook

import "context"

// Execute runs one command.
var Execute = execute

// NewFake is New with another way to run a command.
func NewFake(cfg Config, execute func(ctx context.Context, argv, env []string) (string, error)) *Runner {
	r := New(cfg)
	r.execute = execute
	return r
}

// Written returns what is kept of text, written in pieces of that length.
func Written(text []byte, piece int) string {
	var o output
	for len(text) > 0 {
		n := min(max(1, piece), len(text))
		o.Write(text[:n])
		text = text[n:]
	}
	return o.String()
}
