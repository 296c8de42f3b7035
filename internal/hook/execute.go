// SPDX-License-Identifier: Apache-2.0

package hook

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"syscall"
	"time"
)

const (
	// outputKept is how much of what a hook writes comes into the log, in bytes.
	outputKept = 1024
	// lingering is how long the output of a hook that has ended is waited for:
	// what it left running may hold it open for ever.
	lingering = 100 * time.Millisecond
)

// execute runs a command to its end, or until ctx ends and then kills its whole
// process group. It returns the beginning of what the command wrote, as one line
// of printable ASCII.
func execute(ctx context.Context, argv, env []string) (string, error) {
	var out output
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir, cmd.Env = "/", env
	cmd.Stdout, cmd.Stderr = &out, &out // one writer: one pipe, in the order written
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error {
		err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		if errors.Is(err, syscall.ESRCH) {
			return os.ErrProcessDone
		}
		return err
	}
	cmd.WaitDelay = lingering
	err := cmd.Run()
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil // it has ended well, and left something running
	}
	return out.String(), err
}

// output keeps the beginning of what is written to it and takes the rest, so
// that nobody waits.
type output struct {
	kept []byte
	more bool
}

func (o *output) Write(p []byte) (int, error) {
	n := min(len(p), outputKept-len(o.kept))
	o.kept = append(o.kept, p[:n]...)
	o.more = o.more || n < len(p)
	return len(p), nil
}

// String returns what was kept as one line of printable ASCII.
func (o *output) String() string {
	line := make([]byte, 0, len(o.kept)+len("..."))
	for _, c := range o.kept {
		switch {
		case c == '\n', c == '\t':
			c = ' '
		case c < ' ', c > '~':
			c = '?'
		}
		line = append(line, c)
	}
	for len(line) > 0 && line[len(line)-1] == ' ' {
		line = line[:len(line)-1]
	}
	if o.more {
		line = append(line, "..."...)
	}
	return string(line)
}
