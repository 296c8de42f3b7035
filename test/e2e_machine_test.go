// SPDX-License-Identifier: Apache-2.0

//go:build linux

package test_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/l2bridge/l2bridge/test/lab"
)

// machineFaults are what happens to a gateway and not to the path.
func machineFaults() (faults []fault) {
	for _, side := range sides {
		faults = append(faults,
			fault{
				name:   side.name + " loses its TAP",
				end:    func(t *testing.T, n *network) { side.site(n).Gateway.Delete(defaultTAP) },
				within: 2 * time.Second,
			},
			fault{
				name:   side.name + " loses its WAN link",
				begin:  func(t *testing.T, n *network) { side.site(n).Unplug() },
				lasts:  4 * time.Second,
				end:    func(t *testing.T, n *network) { n.Plug(side.site(n)) },
				within: 2 * time.Second,
			})
		for _, lasts := range []time.Duration{10 * time.Second, time.Minute} {
			other := "a"
			if side.name == "listener" {
				other = "b"
			}
			faults = append(faults, fault{
				name:   fmt.Sprintf("%s is frozen for %v", side.name, lasts),
				begin:  func(t *testing.T, n *network) { n.up[side.site(n)].Signal(unix.SIGSTOP) },
				lasts:  lasts,
				end:    func(t *testing.T, n *network) { n.up[side.site(n)].Signal(unix.SIGCONT) },
				within: 2 * time.Second,
				tells:  []string{other},
				full:   lasts > 10*time.Second,
			})
		}
	}
	return faults
}

// With few file descriptors a site either works or ends with an error that says
// so, and with 64 it works. It does not spin.
func TestFewDescriptors(t *testing.T) {
	t.Parallel()
	s, _, upB := join(t, lab.Options{Hosts: 1})
	upB.Stop()
	works := false
	for _, limit := range []int{8, 13, 63, 64} {
		up := s.B.StartBy([]string{"prlimit", fmt.Sprintf("--nofile=%d:%d", limit, limit)}, "up")
		began := time.Now()
		reached := errors.New("not tried")
		for reached != nil && up.Running() && time.Since(began) < 6*time.Second {
			_, reached = s.B.Hosts[0].Run("ping", "-n", "-c1", "-W1", s.A.Hosts[0].Addr4)
		}
		if reached == nil {
			works = limit == 64
			// Who asks for its status must not be what ends it.
			for range 5 {
				if _, err := s.B.Status(); err != nil {
					t.Errorf("%d descriptors: %v", limit, err)
				}
			}
			ping(t, s.B.Hosts[0].Namespace, s.A.Hosts[0].Addr4, recvWait)
		}
		if ran := time.Since(began); ran > time.Second && up.CPU() > ran/2 {
			t.Errorf("%d descriptors: %v of processor time in %v", limit, up.CPU(), ran)
		}
		if up.Running() {
			if reached != nil {
				t.Errorf("%d descriptors: does not work, and says\n%s", limit, up.Output())
			}
			if err := up.Stop(); err != nil {
				t.Errorf("%d descriptors: stop: %v", limit, err)
			}
		} else {
			out := up.Output()
			if code := lab.ExitCode(up.Err()); code != 1 || !strings.Contains(out, "open files") {
				t.Errorf("%d descriptors: ended with status %d, want 1, and a line that says why:\n%s", limit, code, out)
			}
			if strings.Contains(out, "goroutine ") {
				t.Errorf("%d descriptors: it crashed:\n%s", limit, out)
			}
		}
		t.Logf("%d descriptors: works: %t", limit, reached == nil)
	}
	if !works {
		t.Error("64 are not enough")
	}
}

// A full disk under the state directory hurts neither a site that runs nor its
// start; what must be kept is refused, with the reason, and goes through once
// there is room.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	s, upA, _ := join(t, lab.Options{Hosts: 1})
	upA.Stop()
	up := s.A.StartOnSmallDisk("up")
	up.WaitOutput(readyLimit, "ready")
	s.B.WaitUp(1)

	fillDisk(t, up)
	ping(t, s.A.Hosts[0].Namespace, s.B.Hosts[0].Addr4, recvWait)
	for _, command := range [][]string{{"invite", "c"}, {"fdb", "add", "02:00:00:00:00:09", "b"}} {
		_, err := s.A.CLI(command...)
		if lab.ExitCode(err) != 1 || !strings.Contains(err.Error(), "no space left on device") {
			t.Errorf("%s: %v, want exit status 1 and the reason", strings.Join(command, " "), err)
		}
	}
	alive(t, up)
	before := up.CPU()
	time.Sleep(2 * time.Second)
	if used := up.CPU() - before; used > time.Second {
		t.Errorf("%v of processor time in 2s", used)
	}
	ping(t, s.A.Hosts[0].Namespace, s.B.Hosts[0].Addr4, recvWait)

	emptyDisk(t, up)
	for _, command := range [][]string{{"invite", "c"}, {"fdb", "add", "02:00:00:00:00:09", "b"}} {
		if _, err := s.A.CLI(command...); err != nil {
			t.Errorf("with room again: %v", err)
		}
	}
	fillDisk(t, up)
	if err := up.Stop(); err != nil {
		t.Errorf("stop with a full disk: %v", err)
	}
}

const readyLimit = 10 * time.Second

// fillers returns the paths, as seen from here, of what fills the small disk of a
// process: large and then small, so that not a byte is left.
func fillers(p *lab.Process) (paths [2]string) {
	for i := range paths {
		paths[i] = filepath.Join("/proc", fmt.Sprint(p.PID()), "root", p.SmallDisk(), fmt.Sprint("filler", i))
	}
	return paths
}

func fillDisk(t *testing.T, p *lab.Process) {
	t.Helper()
	for i, size := range []int{1 << 20, 4096} {
		err := os.WriteFile(fillers(p)[i], make([]byte, size), 0o600)
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("the disk is not full: %v", err)
		}
	}
}

func emptyDisk(t *testing.T, p *lab.Process) {
	t.Helper()
	for _, path := range fillers(p) {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

// A gateway with little memory carries all the same.
func TestLittleMemory(t *testing.T) {
	const cgroup, limit = "/sys/fs/cgroup/memory", 96 << 20
	if _, err := os.Stat(filepath.Join(cgroup, "memory.limit_in_bytes")); err != nil {
		t.Skip("no memory controller of cgroup v1")
	}
	t.Parallel()
	s, _, upB := join(t, lab.Options{Hosts: 1})
	dir := filepath.Join(cgroup, fmt.Sprintf("l2b-%d", os.Getpid()))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Skipf("no cgroup of our own: %v", err)
	}
	t.Cleanup(func() {
		lab.Wait(t, recvWait, "the cgroup is removed", func() error { return os.Remove(dir) })
	})
	t.Cleanup(upB.Kill)
	for name, value := range map[string]int{"memory.limit_in_bytes": limit, "cgroup.procs": upB.PID()} {
		if err := os.WriteFile(filepath.Join(dir, name), fmt.Append(nil, value), 0); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	a, b := s.A.Hosts[0], s.B.Hosts[0]
	ping(t, a.Namespace, b.Addr4, recvWait)
	loads := []*lab.Load{lab.UDPLoad(a, b, loadFull), lab.TCPLoad(b, a, loadFull)}
	time.Sleep(8 * time.Second)
	for _, load := range loads {
		load.Stop()
	}
	t.Logf("UDP %+v", loads[0].Count())
	alive(t, upB)
	ping(t, a.Namespace, b.Addr4, recvWait)
}
