// SPDX-License-Identifier: Apache-2.0

// Command l2bridge puts two or more sites on one Ethernet segment.
package main

import (
	"context"
	"io"
	"os"
)

func main() {
	os.Exit(run(untilSignal(context.Background()), os.Args[1:], os.Stdout, os.Stderr))
}

// run is the whole program: arguments in, exit code out.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	a := app{engine: daemonEngine{}, stdout: stdout, stderr: stderr}
	return a.run(ctx, args)
}
