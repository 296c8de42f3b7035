// SPDX-License-Identifier: Apache-2.0

package control_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/l2bridge/l2bridge/internal/control"
)

// callerVariable has this test binary be a child that asks, and says as whom.
const callerVariable = "CONTROL_TEST_CALLER"

// askAs is all that a child does. It returns the exit code.
func askAs(text string) int {
	var c callerTest
	err := json.Unmarshal([]byte(text), &c)
	if err == nil {
		err = c.ask()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// ask becomes another user and makes two requests. It prints the status of each,
// and the answers.
func (c *callerTest) ask() error {
	if err := errors.Join(syscall.Setgroups(c.Groups), syscall.Setgid(c.GID), syscall.Setuid(c.UID)); err != nil {
		return err
	}
	client := http.Client{Transport: &http.Transport{
		DialContext: func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", c.Path) },
	}}
	for _, ask := range []func() (*http.Response, error){
		func() (*http.Response, error) { return client.Get("http://l2bridge/v1/status") },
		func() (*http.Response, error) {
			return client.Post("http://l2bridge/v1/invite", "", strings.NewReader("{}"))
		},
	} {
		response, err := ask()
		if errors.Is(err, os.ErrPermission) {
			fmt.Println("no way in")
			return nil
		}
		if err != nil {
			return err
		}
		text, err := io.ReadAll(response.Body)
		if err != nil {
			return err
		}
		fmt.Println(response.StatusCode, string(text))
	}
	return nil
}

// callerTest is one who asks.
type callerTest struct {
	Name, Path string
	UID, GID   int
	Groups     []int
	Member     bool
}

// Who may use the socket is asked of the kernel, whatever its mode has become. By
// its mode nobody else gets as far.
func TestCallers(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("needs root, to be somebody else")
	}
	const group = 54321
	dir, err := os.MkdirTemp("", "callers-") // others may enter it, unlike those above t.TempDir
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "sock")
	server, err := control.Listen(path, group)
	if err := errors.Join(err, os.Chmod(dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil || st.Uid != 0 || st.Gid != group || st.Mode&0o7777 != 0o660 {
		t.Errorf("the socket belongs to %d:%d, mode %o (%v), want 0:%d, 660", st.Uid, st.Gid, st.Mode&0o7777, err, group)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, &fake{}) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()

	many := []int{}
	for g := range 200 { // more than there is room for at first
		many = append(many, 60000+g)
	}
	for _, c := range []callerTest{
		{Name: "root", Member: true},
		{Name: "nobody", UID: 65534, GID: 65534},
		{Name: "member", UID: 65534, GID: 65534, Groups: []int{7, group}, Member: true},
		{Name: "member of many groups", UID: 65534, GID: 65534, Groups: append([]int{group}, many...), Member: true},
		{Name: "of many other groups", UID: 65534, GID: 65534, Groups: many},
		{Name: "by the user's own group", UID: 65534, GID: group, Member: true},
		{Name: "of root's group", UID: 65534},
	} {
		for _, mode := range []os.FileMode{0o660, 0o666} {
			if err := os.Chmod(path, mode); err != nil {
				t.Fatal(err)
			}
			c.Path = path
			text, err := json.Marshal(c)
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), callerVariable+"="+string(text))
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%s: %v: %s", c.Name, err, out)
			}
			got := string(out)
			switch {
			case c.Member && strings.HasPrefix(got, "200 ") && !strings.Contains(got, "\n403 "):
			case !c.Member && mode == 0o660 && got == "no way in\n":
			case !c.Member && mode == 0o666 && strings.Count(got, "403 {\"error\":\"not authorised: user 65534 is neither root") == 2:
			default:
				t.Errorf("%s, mode %o: %s", c.Name, mode, got)
			}
		}
	}
}
