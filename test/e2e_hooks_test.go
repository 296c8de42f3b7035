// SPDX-License-Identifier: Apache-2.0

//go:build linux

package test_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/l2bridge/l2bridge/test/lab"
)

// onPeer notes, in a file for each run, its arguments and all that it finds in
// its environment, and then does what the test has put beside it.
const onPeer = `#!/bin/sh
cd %[1]q
n=$(ls runs | wc -l)
cat /proc/$$/status >status
{ echo "arguments:$*"; tr '\0' '\n' </proc/$$/environ; } >new
mv new runs/$n
echo "ran for $L2BRIDGE_PEER"
if [ -e then-$L2BRIDGE_EVENT ]; then . ./then-$L2BRIDGE_EVENT; fi
`

// hooks are those of a site.
type hooks struct {
	t   *testing.T
	dir string
}

// setHooks gives a site hooks. It has no config file of its own yet that names any.
func setHooks(t *testing.T, site *lab.Site) hooks {
	t.Helper()
	h := hooks{t, t.TempDir()}
	script := filepath.Join(h.dir, "on peer") // no shell is to see the space
	config := filepath.Join(filepath.Dir(site.Socket()), "config.toml")
	file, err := os.OpenFile(config, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	_, err = fmt.Fprintf(file, "\non_up = [%q, \"a b\", \"$HOME\"]\non_down = [%q]\n", script, script)
	if err := errors.Join(err, os.Mkdir(filepath.Join(h.dir, "runs"), 0o755), os.WriteFile(script, fmt.Appendf(nil, onPeer, h.dir), 0o755)); err != nil {
		t.Fatal(err)
	}
	return h
}

// then has hooks for an event run a line of shell at their end.
func (h hooks) then(event, line string) {
	h.t.Helper()
	if err := os.WriteFile(filepath.Join(h.dir, "then-"+event), []byte(line+"\n"), 0o644); err != nil {
		h.t.Fatal(err)
	}
}

// run waits for the n-th run of a hook and returns its lines.
func (h hooks) run(n int) []string {
	h.t.Helper()
	var text []byte
	lab.Wait(h.t, outageWait, fmt.Sprintf("hook run %d", n), func() (err error) {
		text, err = os.ReadFile(filepath.Join(h.dir, "runs", fmt.Sprint(n)))
		return err
	})
	return strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
}

// A peer comes, goes, and comes back; then this site stops. Each time the hook
// runs, with these arguments, that environment and nothing else.
func TestHooks(t *testing.T) {
	t.Parallel()
	s := lab.TwoSites(t, lab.Options{Hosts: 1})
	s.A.Init("--advertise", s.A.Addr4+":4433")
	h := setHooks(t, s.A)
	upA := s.A.Up()
	upB := s.B.Join(s.A.Invite(s.B.Name))
	s.A.WaitUp(1)
	peers, err := s.A.Peers()
	if err != nil {
		t.Fatal(err)
	}
	want := func(event, arguments, addr string) []string {
		return []string{
			"arguments:" + arguments,
			"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
			"L2BRIDGE_EVENT=" + event, "L2BRIDGE_PEER=b", "L2BRIDGE_ID=" + peers[0].ID, "L2BRIDGE_ADDR=" + addr, "L2BRIDGE_VIA=",
			"L2BRIDGE_NAME=default", "L2BRIDGE_SITE=a", "L2BRIDGE_TAP=l2b0", "L2BRIDGE_BRIDGE=br0",
		}
	}
	up, down := want("up", "a b $HOME", peers[0].Addr), want("down", "", "")
	if diff := cmp.Diff(up, h.run(0)); diff != "" {
		t.Errorf("it came (-want +got):\n%s", diff)
	}
	// It has what the gateway has, and writes where it likes.
	status, err := os.ReadFile(filepath.Join(h.dir, "status"))
	if diff := cmp.Diff(limitedTo(unix.CAP_NET_ADMIN), limitsOf(status)); diff != "" || err != nil {
		t.Errorf("limits of a hook: %v (-want +got):\n%s", err, diff)
	}
	if err := upB.Stop(); err != nil {
		t.Fatal(err)
	}
	went := h.run(1)
	went[5] = down[5] // its address, which may be known no more
	if diff := cmp.Diff(down, went); diff != "" {
		t.Errorf("it went (-want +got):\n%s", diff)
	}
	upA.WaitOutput(recvWait, `msg="hook done" hook=`)
	upA.WaitOutput(recvWait, `event=down peer=b took=`)
	s.B.Up()
	s.A.WaitUp(1)
	again := h.run(2)
	if again[2] != "L2BRIDGE_EVENT=up" {
		t.Errorf("it came back: %q", again)
	}
	// A hook that fails is told of, and nothing else comes of it.
	h.then("down", "exit 7")
	if err := upA.Stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
	last := h.run(3)
	last[5] = down[5]
	if diff := cmp.Diff(down, last); diff != "" {
		t.Errorf("we stop (-want +got):\n%s", diff)
	}
	for _, want := range []string{`msg="hook failed"`, `output="ran for b" error="exit status 7"`} {
		if !strings.Contains(upA.Output(), want) {
			t.Errorf("no %s in the log", want)
		}
	}
}

// A hook that does not end keeps nobody from working, nor from stopping in time.
func TestHookHangs(t *testing.T) {
	t.Parallel()
	s := lab.TwoSites(t, lab.Options{Hosts: 1})
	s.A.Init("--advertise", s.A.Addr4+":4433")
	h := setHooks(t, s.A)
	h.then("up", `trap "" TERM INT HUP; sleep 1000 & echo $! >pid.new; mv pid.new pid; wait`)
	upA := s.A.Up()
	upB := s.B.Join(s.A.Invite(s.B.Name))
	h.run(0)
	var pid []byte
	lab.Wait(t, recvWait, "the hook hangs", func() (err error) {
		pid, err = os.ReadFile(filepath.Join(h.dir, "pid"))
		return err
	})
	ping(t, s.A.Hosts[0].Namespace, s.B.Hosts[0].Addr4, outageWait)
	if err := upB.Stop(); err != nil {
		t.Fatal(err)
	}
	upA.WaitOutput(recvWait, `msg="peer down"`)

	began := time.Now()
	if err := upA.Stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("it took %v to stop", took)
	}
	for _, want := range []string{`error="l2bridge stops, killed"`, `msg="hooks left out" count=1`} {
		if !strings.Contains(upA.Output(), want) {
			t.Errorf("no %s in the log", want)
		}
	}
	lab.Wait(t, recvWait, "what the hook started has gone", func() error {
		stat, err := os.ReadFile("/proc/" + strings.TrimSpace(string(pid)) + "/stat")
		if errors.Is(err, fs.ErrNotExist) || strings.Contains(string(stat), ") Z ") {
			return nil
		}
		return fmt.Errorf("%s%v", stat, err)
	})
	if _, err := os.Stat(filepath.Join(h.dir, "runs", "1")); err == nil {
		t.Error("the hook that waited has run")
	}
}

// A site whose hook is not there does not start.
func TestHookMissing(t *testing.T) {
	t.Parallel()
	s := lab.TwoSites(t, lab.Options{})
	s.A.Init(bare()...)
	h := setHooks(t, s.A)
	if err := os.Remove(filepath.Join(h.dir, "on peer")); err != nil {
		t.Fatal(err)
	}
	_, err := s.A.CLI("up")
	if lab.ExitCode(err) != 1 || !strings.Contains(err.Error(), `on peer": no such file (make it, or take the setting out)`) {
		t.Errorf("got %v", err)
	}
}
