// SPDX-License-Identifier: Apache-2.0

//go:build linux

package confine_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/l2bridge/l2bridge/internal/confine"
)

// order is what a child, which is this test binary again, is to do.
type order struct {
	Limits confine.Limits
	Dir    string // where it may write
}

// report is what the child says of itself once it is limited.
type report struct {
	State    confine.State
	PID      int
	Groups   []int
	Threads  map[string]int // each kind of thread, by its lines in status, and how many
	Core     uint64         // RLIMIT_CORE
	Dumpable int
	Writes   map[string]string // what it tried to write, and the error
	Leftover string            // the marker
}

const orderVariable = "CONFINE_TEST"

func TestMain(m *testing.M) {
	text := os.Getenv(orderVariable)
	if text == "" {
		os.Exit(m.Run())
	}
	if err := obey(text); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// obey limits the child twice, as join does, and reports.
func obey(text string) error {
	var o order
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		return err
	}
	first := o.Limits
	first.Files = nil
	before := func() error {
		_, err := fmt.Fprintln(os.Stderr, "before")
		return err
	}
	for _, l := range []confine.Limits{first, o.Limits} {
		if err := confine.Enter(l, before); err != nil {
			return err
		}
	}
	r := report{State: confine.Now(), PID: os.Getpid(), Threads: map[string]int{}, Writes: map[string]string{}, Leftover: os.Getenv("L2BRIDGE_CONFINED")}
	r.Groups, _ = os.Getgroups()
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &limit); err != nil {
		return err
	}
	r.Core = limit.Max
	dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	if err != nil {
		return err
	}
	r.Dumpable = dumpable
	tasks, err := filepath.Glob("/proc/self/task/*/status")
	if err != nil {
		return err
	}
	for _, task := range tasks {
		status, err := os.ReadFile(task)
		if err != nil {
			continue // the thread has ended
		}
		var kind []string
		for line := range strings.Lines(string(status)) {
			if strings.HasPrefix(line, "Cap") || strings.HasPrefix(line, "NoNewPrivs") {
				kind = append(kind, strings.Join(strings.Fields(line), " "))
			}
		}
		r.Threads[strings.Join(kind, ", ")]++
	}
	for name, try := range tries(o.Dir) {
		r.Writes[name] = ""
		if err := try(); err != nil {
			r.Writes[name] = err.Error()
			if errno := syscall.Errno(0); errors.As(err, &errno) {
				r.Writes[name] = unix.ErrnoName(errno)
			}
		}
	}
	return json.NewEncoder(os.Stdout).Encode(r)
}

// tries are ways to change the file system, inside of what is allowed and outside.
func tries(dir string) map[string]func() error {
	state, run, out := filepath.Join(dir, "state"), filepath.Join(dir, "run"), filepath.Join(dir, "out")
	write := func(path string) func() error {
		return func() error { return os.WriteFile(path, []byte("x"), 0o600) }
	}
	bind := func(path string) func() error {
		return func() error {
			l, err := net.Listen("unix", path)
			if err != nil {
				return err
			}
			return l.Close() // removes it
		}
	}
	return map[string]func() error{
		"file in state":     write(filepath.Join(state, "new")),
		"rename in state":   func() error { return os.Rename(filepath.Join(state, "old"), filepath.Join(state, "older")) },
		"remove in state":   func() error { return os.Remove(filepath.Join(state, "older-still")) },
		"socket in state":   bind(filepath.Join(state, "sock")),
		"socket in run":     bind(filepath.Join(run, "sock")),
		"file in run":       write(filepath.Join(run, "new")),
		"file elsewhere":    write(filepath.Join(out, "new")),
		"truncate":          func() error { return os.Truncate(filepath.Join(out, "there"), 0) },
		"over another":      write(filepath.Join(out, "there")),
		"remove elsewhere":  func() error { return os.Remove(filepath.Join(out, "there")) },
		"move out of state": func() error { return os.Rename(filepath.Join(state, "stays"), filepath.Join(out, "stays")) },
		"directory":         func() error { return os.Mkdir(filepath.Join(out, "dir"), 0o700) },
		"link":              func() error { return os.Symlink("/", filepath.Join(out, "link")) },
		"by way of a link":  write(filepath.Join(state, "way-out", "new")),
		"read":              func() error { _, err := os.ReadFile(filepath.Join(out, "there")); return err },
		"device":            func() error { f, err := os.OpenFile("/dev/zero", os.O_WRONLY, 0); f.Close(); return err },
		"other device":      func() error { f, err := os.OpenFile("/dev/full", os.O_WRONLY, 0); f.Close(); return err },
		"signal":            func() error { return syscall.Kill(os.Getppid(), 0) },
	}
}

// child runs o, and returns what it reports.
func child(t *testing.T, program string, o order, attr *syscall.SysProcAttr, env ...string) (report, string, error) {
	t.Helper()
	text, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), append(env, orderVariable+"="+string(text))...)
	cmd.SysProcAttr = attr
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	var r report
	if err == nil {
		if err := json.Unmarshal(out, &r); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if cmd.Process.Pid != r.PID {
			t.Errorf("process %d became %d", cmd.Process.Pid, r.PID)
		}
	}
	return r, said.String(), err
}

// self is the path of this program.
func self(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// playground is a directory with what tries need.
func playground(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "confine-") // t.TempDir is too long for sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	for _, sub := range []string{"state", "run", "out"} {
		err = errors.Join(err, os.Mkdir(filepath.Join(dir, sub), 0o700))
	}
	for _, file := range []string{"state/old", "state/older-still", "state/stays", "out/there"} {
		err = errors.Join(err, os.WriteFile(filepath.Join(dir, file), []byte("old"), 0o600))
	}
	err = errors.Join(err, os.Symlink(filepath.Join(dir, "out"), filepath.Join(dir, "state", "way-out")))
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func places(dir string) []confine.Place {
	return []confine.Place{
		{Path: filepath.Join(dir, "state"), Use: confine.Files},
		{Path: filepath.Join(dir, "run"), Use: confine.Sockets},
		{Path: "/dev/zero", Use: confine.Device},
		{Path: filepath.Join(dir, "nowhere"), Use: confine.Files},
	}
}

// kernelHas reports which Landlock there is, asked another way than by the package.
func kernelHas() int {
	abi, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return 0
	}
	return int(abi)
}

// As root, all but the named capability goes, from every set of every thread, and
// nothing can be written elsewhere than is allowed.
func TestEnter(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	dir := playground(t)
	const group = 54321
	limits := confine.Limits{Caps: []int{unix.CAP_NET_ADMIN}, Group: group, Files: places(dir)}
	got, said, err := child(t, self(t), order{limits, dir}, &syscall.SysProcAttr{Credential: &syscall.Credential{}})
	if err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	if n := strings.Count(said, "before\n"); n != 2 {
		t.Errorf("it looked before it was limited %d times, want once for each limit", n)
	}
	const admin = "0000000000001000"
	const none = "0000000000000000"
	kind := fmt.Sprintf("CapInh: %s, CapPrm: %s, CapEff: %s, CapBnd: %s, CapAmb: %s, NoNewPrivs: 1", none, admin, admin, admin, none)
	if len(got.Threads) != 1 || got.Threads[kind] < 2 {
		t.Errorf("threads %v, want several, all with %s", got.Threads, kind)
	}
	want := report{
		State:  confine.State{Caps: []string{"cap_net_admin"}, NoNewPrivs: true, Landlock: kernelHas()},
		PID:    got.PID,
		Groups: []int{group}, Threads: got.Threads, Writes: allowed(kernelHas()),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// allowed says what a process may do to the file system.
func allowed(abi int) map[string]string {
	no := "EACCES"
	if abi == 0 {
		no = ""
	}
	since := func(with int, errno string) string {
		if abi < with {
			return ""
		}
		return errno
	}
	return map[string]string{
		"file in state": "", "rename in state": "", "remove in state": "", "socket in run": "", "read": "", "device": "",
		"socket in state": no, "file in run": no, "file elsewhere": no, "over another": no, "remove elsewhere": no,
		"directory": no, "link": no, "by way of a link": no, "other device": no,
		"move out of state": map[bool]string{true: "EXDEV", false: no}[abi == 1],
		"truncate":          since(3, "EACCES"),
		"signal":            since(6, "EPERM"),
	}
}

// Who is not root gives up what there is to give up, and keeps what the program's
// file or its caller has given.
func TestEnterAsNobody(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to be somebody else")
	}
	const nobody = 65534
	for name, tt := range map[string]struct {
		file    []byte // capabilities of the program's file
		ambient []uintptr
		want    []string
	}{
		"nothing": {want: []string{}},
		// struct vfs_cap_data of linux/capability.h, version 2, effective:
		// CAP_NET_ADMIN (12) and CAP_NET_RAW (13).
		"of the file": {file: []byte{0: 1, 3: 2, 5: 0x30, 19: 0}, want: []string{"cap_net_admin"}},
		"ambient":     {ambient: []uintptr{unix.CAP_NET_ADMIN, unix.CAP_NET_RAW}, want: []string{"cap_net_admin"}},
	} {
		// Made before anything runs in parallel: a file that a child, just forked,
		// has still open for writing cannot be executed.
		dir := playground(t)
		program := copyOfSelf(t, dir)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, d := range []string{".", "state", "run", "out", "state/old", "state/older-still", "state/stays", "out/there"} {
				if err := os.Chown(filepath.Join(dir, d), nobody, nobody); err != nil {
					t.Fatal(err)
				}
			}
			if tt.file != nil {
				if err := unix.Setxattr(program, "security.capability", tt.file, 0); err != nil {
					t.Skip("no file capabilities here: ", err)
				}
			}
			limits := confine.Limits{Caps: []int{unix.CAP_NET_ADMIN}, Group: 54321, Files: places(dir)}
			got, said, err := child(t, program, order{limits, dir},
				&syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}, AmbientCaps: tt.ambient})
			if err != nil {
				t.Fatalf("%v: %s", err, said)
			}
			want := confine.State{Caps: tt.want, NoNewPrivs: true, Landlock: kernelHas()}
			if diff := cmp.Diff(want, got.State); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			may := allowed(kernelHas())
			may["signal"] = "EPERM"
			if diff := cmp.Diff(may, got.Writes); diff != "" {
				t.Errorf("writes (-want +got):\n%s", diff)
			}
		})
	}
}

// copyOfSelf puts a copy of this program where anybody may execute it.
func copyOfSelf(t *testing.T, dir string) string {
	t.Helper()
	text, err := os.ReadFile(self(t))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "program")
	if err := errors.Join(os.WriteFile(path, text, 0o600), os.Chmod(path, 0o755)); err != nil { // whatever the umask
		t.Fatal(err)
	}
	return path
}

// As a container without CAP_SETPCAP and CAP_SETGID starts it.
func TestEnterInContainer(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	if _, err := exec.LookPath("setpriv"); err != nil {
		t.Skip(err)
	}
	dir := playground(t)
	limits := confine.Limits{Caps: []int{unix.CAP_NET_ADMIN}, Group: 54321, Files: places(dir)}
	text, err := json.Marshal(order{limits, dir})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("setpriv", "--bounding-set", "-all,+net_admin,+chown", self(t))
	cmd.Env = append(os.Environ(), orderVariable+"="+string(text))
	out, err := cmd.Output()
	var got report
	if err := errors.Join(err, json.Unmarshal(out, &got)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"cap_net_admin"}, got.State.Caps); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Nobody gets around the limits by saying that they are in force.
func TestMarkerIsNoPass(t *testing.T) {
	t.Parallel()
	dir := playground(t)
	for _, stage := range []string{"capabilities", "files"} {
		_, said, err := child(t, self(t), order{confine.Limits{Files: places(dir)}, dir}, nil, "L2BRIDGE_CONFINED="+stage)
		if err == nil || !strings.Contains(said, "not in force") {
			t.Errorf("%s: %v, %q", stage, err, said)
		}
	}
}

// A program below a directory that is closed to root without capabilities, as
// another user's home is, can be limited.
func TestEnterBelowHome(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	dir := playground(t)
	home := t.TempDir()
	program := copyOfSelf(t, home)
	if err := errors.Join(os.Chmod(home, 0o700), os.Chown(home, 65534, 65534)); err != nil {
		t.Fatal(err)
	}
	limits := confine.Limits{Caps: []int{unix.CAP_NET_ADMIN}, Files: places(dir)}
	got, said, err := child(t, program, order{limits, dir}, &syscall.SysProcAttr{})
	if err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	if diff := cmp.Diff([]string{"cap_net_admin"}, got.State.Caps); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// What it takes to come to a file goes by the modes of all on the way.
func TestReach(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	const somebody = 65534
	dir := t.TempDir()
	make := func(name string, mode os.FileMode, uid int) {
		t.Helper()
		path := filepath.Join(dir, name)
		var err error
		if strings.HasSuffix(name, "/") {
			err = os.Mkdir(path, 0o700)
		} else {
			err = os.WriteFile(path, nil, 0o600)
		}
		if err := errors.Join(err, os.Chown(path, uid, uid), os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
	}
	make("ours/", 0o700, 0)
	make("ours/secret", 0o600, 0)
	make("ours/theirs", 0o600, somebody)
	make("open/", 0o755, somebody)
	make("open/file", 0o644, somebody)
	make("home/", 0o700, somebody)
	make("home/file", 0o644, somebody)
	make("home/state/", 0o700, 0)
	if err := os.Symlink(filepath.Join(dir, "home/file"), filepath.Join(dir, "ours/link")); err != nil {
		t.Fatal(err)
	}
	none, search, override := []int(nil), []int{unix.CAP_DAC_READ_SEARCH}, []int{unix.CAP_DAC_OVERRIDE}
	for _, tt := range []struct {
		path          string
		read, replace []int
	}{
		{"ours/secret", none, none},
		{"ours/theirs", search, search},
		{"ours/none", none, none},
		{"ours/none/of/these", none, none},
		{"ours/link", search, search},
		{"open/file", none, override},
		{"open/none", none, override},
		{"home/file", search, override},
		{"home/none", search, override},
		{"home/state", search, override},
		{"home/state/file", search, override},
	} {
		path := filepath.Join(dir, tt.path)
		if diff := cmp.Diff(tt.read, confine.ToRead(path)); diff != "" {
			t.Errorf("%s: read (-want +got):\n%s", tt.path, diff)
		}
		if diff := cmp.Diff(tt.replace, confine.ToReplace(path)); diff != "" {
			t.Errorf("%s: replace (-want +got):\n%s", tt.path, diff)
		}
	}
}
