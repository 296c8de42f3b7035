// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A log that nobody reads holds nothing up. What was lost meanwhile is told when it is
// read again.
func TestLogIsNotRead(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	const size = 4096
	if _, err := unix.FcntlInt(w.Fd(), unix.F_SETPIPE_SZ, size); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, strings.Repeat("x", size)); err != nil { // Fd has made it block
		t.Fatal(err)
	}
	a := app{stderr: w}
	log := a.logger()
	for range 100 {
		log.Info("joining")
	}
	log.Info("ready", "site", "home") // which has a form of its own
	if _, err := io.ReadFull(r, make([]byte, size)); err != nil {
		t.Fatal(err)
	}
	log.Info("joined")
	w.Close()
	rest, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	lost, line, _ := strings.Cut(string(rest), "\n")
	if lost != "l2bridge: 101 lines of the log were lost: nobody read them" || !strings.HasSuffix(line, "level=INFO msg=joined\n") {
		t.Errorf("behind a pause: %q", rest)
	}
}
