// SPDX-License-Identifier: Apache-2.0

//go:build linux

package test_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/l2bridge/l2bridge/test/lab"
)

// What bad input gets: the right exit code, one message, and nothing changed.
// Each script has two machines of its own on one WAN and three sites: a and c
// on the first machine, b on the second. The commands of the scripts are:
//
//	refused CODE SITE ARGS...  l2bridge ARGS at SITE is refused; see badInput.refused
//	run SITE ARGS...           l2bridge ARGS at SITE ends with 0
//	start SITE ARGS...         l2bridge ARGS at SITE gets ready and runs on
//	end SITE                   it is told to stop and ends with 0
//	invite VAR SITE ARGS...    the token of l2bridge invite ARGS at SITE becomes $VAR,
//	                           broken within its secret $VAR_1 and $VAR_2
//	disk SITE full|free        the disk with SITE's state has no space; has space again
//	disk SITE read-only        it cannot be written
//	on SITE PROGRAM ARGS...    another program on SITE's machine ends with 0
//
// $A, $B and $C are the sites' directories with config.toml, sock and
// disk/state; $ADDR is the first machine's address; $PID is the number of what
// was last started. $PROGRAM is l2bridge, and $UNDER, when it is set, is put
// before it.
func TestBadInput(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			b := newBadInput(env.T().(testing.TB))
			env.Values[badInputKey{}] = b
			for name, s := range b.sites {
				env.Setenv(strings.ToUpper(name), s.dir)
			}
			env.Setenv("ADDR", b.sites["a"].Addr4)
			env.Setenv("PROGRAM", lab.Binary(env.T().(testing.TB)))
			env.Setenv("GORACE", "atexit_sleep_ms=0")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"refused": badCommand(3, (*badInput).refused),
			"run":     badCommand(2, (*badInput).run),
			"start":   badCommand(2, (*badInput).start),
			"end":     badCommand(1, (*badInput).end),
			"invite":  badCommand(2, (*badInput).invite),
			"disk":    badCommand(2, (*badInput).disk),
			"on":      badCommand(2, (*badInput).on),
		},
	})
}

// badInput is what one script works on.
type badInput struct {
	sites  map[string]*badSite
	tokens []string // must be seen on stdout of invite alone
}

type badInputKey struct{}

// badSite is a site with paths that scripts can spoil.
type badSite struct {
	*lab.Site
	name    string
	dir     string
	running *lab.Process // l2bridge
	mounts  *lab.Process // whose mounts the site lives in; nil: the test's
}

func newBadInput(t testing.TB) *badInput {
	two := lab.TwoSites(t, lab.Options{})
	b := &badInput{sites: make(map[string]*badSite)}
	for name, site := range map[string]*lab.Site{"a": two.A, "b": two.B, "c": two.A.Instance("c")} {
		dir := filepath.Dir(site.Socket())
		if err := os.Mkdir(filepath.Join(dir, "disk"), 0o700); err != nil {
			t.Fatal(err)
		}
		b.sites[name] = &badSite{Site: site, name: name, dir: dir}
	}
	return b
}

func badCommand(least int, f func(*badInput, *testscript.TestScript, []string)) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		if neg || len(args) < least {
			ts.Fatalf("see TestBadInput for how it is used")
		}
		f(ts.Value(badInputKey{}).(*badInput), ts, args)
	}
}

func (b *badInput) site(ts *testscript.TestScript, name string) *badSite {
	s := b.sites[name]
	if s == nil {
		ts.Fatalf("site %q: want a, b or c", name)
	}
	return s
}

// l2bridge returns the command line of l2bridge at the site.
func (s *badSite) l2bridge(ts *testscript.TestScript, args []string) []string {
	var line []string
	if s.mounts != nil {
		line = append(line, "nsenter", "--mount", "--target", strconv.Itoa(s.mounts.PID()))
	}
	line = append(line, strings.Fields(ts.Getenv("UNDER"))...)
	line = append(line, ts.Getenv("PROGRAM"))
	line = append(line, args...)
	for flag, path := range map[string]string{
		"--config": "config.toml", "--state-dir": "disk/state", "--socket": "sock",
	} {
		if !hasFlag(args, flag) {
			line = append(line, flag, filepath.Join(s.dir, path))
		}
	}
	if s.name == "c" {
		line = append(line, "--name", "c")
	}
	return line
}

func hasFlag(args []string, flag string) bool {
	for _, arg := range args {
		if arg == flag {
			return true
		}
	}
	return false
}

// exec runs a command line on the site's machine and returns its exit code.
func (s *badSite) exec(ts *testscript.TestScript, line []string) int {
	line = append([]string{"netns", "exec", s.Gateway.Name, "timeout", "--kill-after", "1", "30"}, line...)
	err := ts.Exec("ip", line...)
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	}
	ts.Fatalf("%v", err)
	return -1
}

// refused checks the exit code, that stdout is empty, that stderr has one
// message of plain ASCII and none of a token, and that the site's files and
// its machine's links are as before. Only the key that a joiner shows may be
// new: it is kept, because the founder may have signed it already.
func (b *badInput) refused(ts *testscript.TestScript, args []string) {
	s := b.site(ts, args[1])
	before := s.state(ts)
	code := s.exec(ts, s.l2bridge(ts, args[2:]))
	if strconv.Itoa(code) != args[0] {
		ts.Fatalf("exit code %d, want %s", code, args[0])
	}
	if out := ts.ReadFile("stdout"); out != "" {
		ts.Fatalf("stdout %q, want none", out)
	}
	stderr := ts.ReadFile("stderr")
	b.checkSecret(ts, stderr)
	checkMessage(ts, code, stderr)

	after := s.state(ts)
	for _, state := range []map[string]string{before, after} {
		delete(state, learned) // written while it runs, whatever else happens
	}
	if args[2] == "join" && before[siteKey] == "" && after[siteKey] != "" {
		delete(after, siteKey)
		if before[stateDir] == "" {
			delete(after, stateDir)
		}
	}
	if diff := cmp.Diff(before, after); diff != "" {
		ts.Fatalf("it changed something (-before +after):\n%s", diff)
	}
}

// checkMessage checks that there is one, beside what a log may say of the way
// to it and, after a slip of the command line, where to read on.
func checkMessage(ts *testscript.TestScript, code int, stderr string) {
	var rest []string
	for line := range strings.Lines(stderr) {
		if strings.ContainsFunc(strings.TrimSuffix(line, "\n"), func(r rune) bool { return r < ' ' || r > '~' }) {
			ts.Fatalf("stderr %q is not plain ASCII", line)
		}
		if !strings.HasPrefix(line, "time=") || !strings.Contains(line, " level=INFO ") {
			rest = append(rest, line)
		}
	}
	const usage = 2
	want := 1
	if code == usage && len(rest) > 0 && strings.HasPrefix(rest[len(rest)-1], "see l2bridge ") {
		want = 2
	}
	if len(rest) != want || !strings.HasPrefix(rest[0], "l2bridge: ") {
		ts.Fatalf("stderr %q, want one message", rest)
	}
}

// checkSecret looks for the secrets of tokens, in the tokens' own coding, whole
// or in part, and in others.
func (b *badInput) checkSecret(ts *testscript.TestScript, text string) {
	const part = 8 // characters
	for _, token := range b.tokens {
		secret, start, end := secretOf(ts, token)
		forms := []string{hex.EncodeToString(secret), base64.StdEncoding.EncodeToString(secret), strings.Trim(fmt.Sprint(secret), "[]")}
		for i := start; i+part <= end; i++ {
			forms = append(forms, token[i:i+part])
		}
		for _, form := range forms {
			if strings.Contains(text, form) {
				ts.Fatalf("%q has a token's secret in it: %q", text, form)
			}
		}
	}
}

// secretOf returns a token's secret, and between which of its characters that
// is. The layout is drawn in transport/identity/token.go.
func secretOf(ts *testscript.TestScript, token string) (secret []byte, start, end int) {
	const prefix = len("l2b1_")
	raw, err := base64.RawURLEncoding.DecodeString(token[prefix:])
	ts.Check(err)
	from := 1 + int(raw[0]) + 32 + 8
	to := from + 16
	return raw[from:to], prefix + from*4/3, prefix + to*4/3
}

const (
	stateDir = "file disk/state"
	siteKey  = "file disk/state/site.key"
	learned  = "file disk/state/learned.json"
)

// state describes the site's files and its machine's links.
func (s *badSite) state(ts *testscript.TestScript) map[string]string {
	state := make(map[string]string)
	root := s.path("")
	ts.Check(filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		text := fmt.Sprint(info.Mode(), " ", info.Sys().(*syscall.Stat_t).Uid)
		if info.Mode().IsRegular() {
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			text += fmt.Sprintf(" %d bytes %x", len(data), sha256.Sum256(data))
		}
		state["file "+strings.TrimPrefix(path, root)] = text
		return nil
	}))
	for _, name := range s.Gateway.Links() {
		link := s.Gateway.Link(name)
		state["link "+name] = fmt.Sprint(link.Type(), " ", link.Attrs().HardwareAddr, " mtu ", link.Attrs().MTU, " in ", s.Gateway.Master(name))
	}
	return state
}

// path returns where the test sees a file of the site's directory.
func (s *badSite) path(name string) string {
	root := "/"
	if s.mounts != nil {
		root = fmt.Sprintf("/proc/%d/root/", s.mounts.PID())
	}
	return root + strings.TrimPrefix(s.dir, "/") + "/" + name
}

func (b *badInput) run(ts *testscript.TestScript, args []string) {
	s := b.site(ts, args[0])
	if code := s.exec(ts, s.l2bridge(ts, args[1:])); code != 0 {
		ts.Fatalf("exit code %d, want 0", code)
	}
}

func (b *badInput) start(ts *testscript.TestScript, args []string) {
	s := b.site(ts, args[0])
	line := s.l2bridge(ts, args[1:])
	s.running = s.Gateway.Start(line[0], line[1:]...)
	s.running.WaitOutput(10*time.Second, "ready site=")
	ts.Setenv("PID", strconv.Itoa(s.running.PID()))
}

func (b *badInput) end(ts *testscript.TestScript, args []string) {
	s := b.site(ts, args[0])
	if s.running == nil {
		ts.Fatalf("site %s does not run", args[0])
	}
	if err := s.running.Stop(); err != nil {
		ts.Fatalf("%v\n%s", err, s.running.Output())
	}
	b.checkSecret(ts, s.running.Output())
	s.running = nil
}

func (b *badInput) invite(ts *testscript.TestScript, args []string) {
	b.run(ts, append([]string{args[1], "invite"}, args[2:]...))
	token := strings.TrimSpace(ts.ReadFile("stdout"))
	b.tokens = append(b.tokens, token)
	ts.Setenv(args[0], token)
	_, start, end := secretOf(ts, token)
	ts.Setenv(args[0]+"_1", token[:(start+end)/2])
	ts.Setenv(args[0]+"_2", token[(start+end)/2:])
}

// diskBytes has room for a network and its ledger.
const diskBytes = 128 << 10

// disk gives the site a disk of its own for its state, at first, and then sets
// how it is. The mount belongs to a process, so that it goes with the test
// however that ends.
func (b *badInput) disk(ts *testscript.TestScript, args []string) {
	s := b.site(ts, args[0])
	if s.mounts == nil {
		s.mounts = s.Gateway.Start("sh", "-c", fmt.Sprintf(
			"mount -t tmpfs -o size=%d,mode=0700 tmpfs %s/disk && echo mounted && exec sleep 3600", diskBytes, s.dir))
		s.mounts.WaitOutput(5*time.Second, "mounted")
	}
	fill := s.path("disk/fill")
	switch args[1] {
	case "full":
		if err := os.WriteFile(fill, make([]byte, 2*diskBytes), 0o600); !errors.Is(err, syscall.ENOSPC) {
			ts.Fatalf("filling the disk: %v", err)
		}
	case "free":
		ts.Check(os.Remove(fill))
	case "read-only":
		ts.Check(ts.Exec("nsenter", "--mount", "--target", strconv.Itoa(s.mounts.PID()), "mount", "-o", "remount,ro", s.dir+"/disk"))
	default:
		ts.Fatalf("disk %q: want full, free or read-only", args[1])
	}
}

func (b *badInput) on(ts *testscript.TestScript, args []string) {
	if code := b.site(ts, args[0]).exec(ts, args[1:]); code != 0 {
		ts.Fatalf("exit code %d, want 0", code)
	}
}
