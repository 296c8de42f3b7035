// SPDX-License-Identifier: Apache-2.0

//go:build linux

package test_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/l2bridge/l2bridge/test/lab"
)

// threads returns what limits the threads of a process, each kind once: the lines
// of /proc/PID/task/*/status.
func threads(t *testing.T, pid int) (kinds []string) {
	t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(tasks) < 2 {
		t.Fatalf("process %d has %d threads (%v)", pid, len(tasks), err)
	}
	seen := map[string]bool{}
	for _, task := range tasks {
		status, err := os.ReadFile(task)
		if err != nil {
			continue // it has ended
		}
		if kind := limitsOf(status); !seen[kind] {
			seen[kind] = true
			kinds = append(kinds, kind)
		}
	}
	return kinds
}

// limitsOf returns the lines of a status in /proc that say what a thread may do.
func limitsOf(status []byte) string {
	var kind []string
	for line := range bytes.Lines(status) {
		if bytes.HasPrefix(line, []byte("Cap")) || bytes.HasPrefix(line, []byte("NoNewPrivs")) {
			kind = append(kind, strings.Join(strings.Fields(string(line)), " "))
		}
	}
	return strings.Join(kind, ", ")
}

// limitedTo is what limitsOf returns of a thread with these capabilities.
func limitedTo(caps ...int) string {
	var set uint64
	for _, c := range caps {
		set |= 1 << c
	}
	return fmt.Sprintf("CapInh: %016x, CapPrm: %016x, CapEff: %016x, CapBnd: %016x, CapAmb: %016x, NoNewPrivs: 1", 0, set, set, set, 0)
}

// A gateway that runs, by join or by up, has CAP_NET_ADMIN in every thread and
// nothing else, leaves no core, and listens on no TCP port. It can do all the same
// what it is there for: the TAP that was deleted comes back.
func TestPrivileges(t *testing.T) {
	t.Parallel()
	const group = 54321
	s := lab.TwoSites(t, lab.Options{})
	s.A.Gateway.Etc("group", fmt.Sprintf("root:x:0:\nl2bridge:x:%d:\n", group))
	upA, upB := link(t, s)

	landlock, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		landlock = 0
	}
	for site, up := range map[*lab.Site]*lab.Process{s.A: upA, s.B: upB} {
		if diff := cmp.Diff([]string{limitedTo(unix.CAP_NET_ADMIN)}, threads(t, up.PID())); diff != "" {
			t.Errorf("threads at %s (-want +got):\n%s", site.Name, diff)
		}
		proc := func(name string) string {
			text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", up.PID(), name))
			if err != nil {
				t.Fatal(err)
			}
			return string(text)
		}
		if name := proc("comm"); name != "l2bridge\n" {
			t.Errorf("it is called %q", name)
		}
		for line := range strings.Lines(proc("limits")) {
			if core, ok := strings.CutPrefix(line, "Max core file size"); ok && strings.Join(strings.Fields(core), " ") != "0 0 bytes" {
				t.Errorf("core files of %s", core)
			}
		}
		for _, table := range []string{"net/tcp", "net/tcp6"} {
			for line := range strings.Lines(proc(table)) {
				const listening = "0A" // TCP_LISTEN of include/net/tcp_states.h
				if fields := strings.Fields(line); len(fields) > 3 && fields[3] == listening {
					t.Errorf("%s: a listener: %s", table, line)
				}
			}
		}
		want := lab.Limits{Capabilities: []string{"cap_net_admin"}, NoNewPrivs: true, Landlock: int(landlock)}
		status, err := site.Status()
		if diff := cmp.Diff(want, status.Limits); diff != "" || err != nil {
			t.Errorf("status of %s: %v (-want +got):\n%s", site.Name, err, diff)
		}
	}

	// The socket's group is the one of that name, or root's where there is none.
	for site, gid := range map[*lab.Site]uint32{s.A: group, s.B: 0} {
		var st unix.Stat_t
		if err := unix.Stat(site.Socket(), &st); err != nil || st.Uid != 0 || st.Gid != gid || st.Mode&0o7777 != 0o660 {
			t.Errorf("socket of %s: %d:%d, mode %o (%v), want 0:%d, 660", site.Name, st.Uid, st.Gid, st.Mode&0o7777, err, gid)
		}
	}

	s.B.Gateway.Delete(defaultTAP)
	upB.WaitOutput(outageWait, "tap is back")

	// What is in the state directory can be written.
	s.B.MustCLI("fdb", "add", "02:00:00:00:00:01", "local")
	if err := upA.Stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(s.A.Socket()); !os.IsNotExist(err) {
		t.Errorf("the socket after the stop: %v", err)
	}

	// A port below 1024 takes one capability more.
	upA = s.A.Up(bare("--listen", "[::]:443")...)
	if diff := cmp.Diff([]string{limitedTo(unix.CAP_NET_ADMIN, unix.CAP_NET_BIND_SERVICE)}, threads(t, upA.PID())); diff != "" {
		t.Errorf("threads on port 443 (-want +got):\n%s", diff)
	}
}
