// SPDX-License-Identifier: Apache-2.0

//go:build linux

package test_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"

	"github.com/l2bridge/l2bridge/test/lab"
)

// What the test's own kernel grants, all that l2bridge asks for.
var wholeOffloads = lab.Offloads{TAPVnet: true, TAPTSO: true, TAPUSO: true, UDPGSO: true, UDPGRO: true,
	ReceiveBuffer: 8 << 20, SendBuffer: 8 << 20}

// stream is a TCP connection that one end writes to and the other reads from,
// both at full rate, until it is told to end.
type stream struct {
	near, far      net.Conn
	sent, received hash.Hash
	passed         atomic.Int64 // bytes that arrived
	end            atomic.Bool
}

// bothWays has a stream run from the first host of each site to that of the other,
// until finish, which checks that all that was sent has arrived as it was.
func bothWays(t *testing.T, s *lab.Sites) (ways []*stream, finish func()) {
	a, b := s.A.Hosts[0], s.B.Hosts[0]
	ways = []*stream{newStream(t, a, b), newStream(t, b, a)}
	var g errgroup.Group
	for _, w := range ways {
		g.Go(w.write)
		g.Go(w.read)
	}
	return ways, func() {
		t.Helper()
		for _, w := range ways {
			w.end.Store(true)
		}
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
		for i, w := range ways {
			if !w.whole() {
				t.Errorf("way %d: %d bytes arrived altered", i, w.passed.Load())
			}
		}
	}
}

func newStream(t *testing.T, from, to *lab.Host) *stream {
	s := &stream{sent: sha256.New(), received: sha256.New()}
	s.near, s.far = connect(t, from, to)
	deadline := time.Now().Add(2 * time.Minute)
	s.near.SetDeadline(deadline)
	s.far.SetDeadline(deadline)
	return s
}

func (s *stream) write() error {
	defer s.near.Close()
	source := rand.NewChaCha8([32]byte{byte(rand.Uint32())})
	b := make([]byte, 256<<10)
	for !s.end.Load() {
		source.Read(b)
		s.sent.Write(b)
		if _, err := s.near.Write(b); err != nil {
			return err
		}
	}
	return nil
}

func (s *stream) read() error {
	b := make([]byte, 256<<10)
	for {
		n, err := s.far.Read(b)
		s.received.Write(b[:n])
		s.passed.Add(int64(n))
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// whole reports whether what was sent is what arrived, once both ends are done.
func (s *stream) whole() bool { return bytes.Equal(s.sent.Sum(nil), s.received.Sum(nil)) }

// wait waits until so many bytes more have arrived.
func (s *stream) wait(t *testing.T, more int64) {
	t.Helper()
	want := s.passed.Load() + more
	lab.Wait(t, time.Minute, fmt.Sprintf("%d MB more arrive", more>>20), func() error {
		if n := s.passed.Load(); n < want {
			return fmt.Errorf("%d bytes to go", want-n)
		}
		return nil
	})
}

// A peer that takes no superframes gets none, is named in status, and nothing
// is lost or altered at full rate both ways. What a queue drops for TCP to find
// its speed, the TAP's own among them, is no loss.
func TestPeerWithoutSuperframes(t *testing.T) {
	const amount = 32 << 20 // each way, and more
	s := lab.TwoSites(t, lab.Options{Hosts: 1})
	lab.Link(s.A, s.B, []string{"--advertise", s.A.Addr4 + ":4433"}, []string{"--superframes", "off"})

	const hint = "site b takes no superframes"
	wantHint(t, s.A, hint)
	for _, tt := range []struct {
		site     *lab.Site
		offloads lab.Offloads
		takes    []string // the other one
	}{
		{s.A, wholeOffloads, []string{}},
		{s.B, func() lab.Offloads { o := wholeOffloads; o.TAPTSO, o.TAPUSO = false, false; return o }(), []string{"csum", "tso", "uso"}},
	} {
		status, err := tt.site.Status()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tt.offloads, status.Offloads); diff != "" {
			t.Errorf("site %s: offloads (-want +got):\n%s", tt.site.Name, diff)
		}
		if len(status.Peers) != 1 || !cmp.Equal(tt.takes, status.Peers[0].Features) {
			t.Errorf("site %s: peers %+v, want one that takes %q", tt.site.Name, status.Peers, tt.takes)
		}
		if tt.site == s.B && hasHint(status.Hints, "superframes") {
			t.Errorf("hints %q for what was turned off", status.Hints)
		}
	}

	before := drops(t, s)
	ways, finish := bothWays(t, s)
	for _, w := range ways {
		w.wait(t, amount)
	}
	finish()
	rise := dropped(before, drops(t, s))
	t.Logf("%d and %d MB; drops %v", ways[0].passed.Load()>>20, ways[1].passed.Load()>>20, rise)
	for reason, n := range rise {
		switch reason {
		case "same_port", "no_port", "reserved", "tap_overflow", "queue_full", "queue_delay":
			continue
		case "reassembly", "late", "stale":
			if rise["socket_full"] > 0 {
				continue // this machine was too busy to read
			}
		case "socket_full", "unproven": // no frames
			continue
		}
		t.Errorf("%d frames dropped: %s", n, reason)
	}
}

// A path that becomes narrower while TCP runs over it costs what is in flight
// then: the connection goes on, and status shows what the path carries now.
func TestPathNarrowsUnderTCP(t *testing.T) {
	const (
		narrow = 1280
		amount = 8 << 20 // before, and after
	)
	for _, tt := range []struct {
		name   string
		shrink func(s *lab.Sites)
	}{
		{"in its middle, which says nothing", func(s *lab.Sites) {
			for _, router := range s.WAN {
				router.Filter("output", "drop",
					"icmp type destination-unreachable icmp code frag-needed", "icmpv6 type packet-too-big")
				router.MustRun("ip", "link", "set", "dev", "middle", "mtu", strconv.Itoa(narrow))
			}
		}},
		{"at the gateway's own link", func(s *lab.Sites) {
			s.A.Gateway.MustRun("ip", "link", "set", "dev", lab.WANLink, "mtu", strconv.Itoa(narrow))
			s.WAN[0].MustRun("ip", "link", "set", "dev", s.A.Uplink, "mtu", strconv.Itoa(narrow))
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s, upA, upB := join(t, lab.Options{Hosts: 1, Narrow: 1500})
			ways, finish := bothWays(t, s)
			wantPath := func(what string, good func(int) bool) {
				t.Helper()
				lab.Wait(t, 30*time.Second, what, func() error {
					for _, site := range []*lab.Site{s.A, s.B} {
						peers, err := site.Peers()
						if err != nil {
							return err
						}
						if len(peers) != 1 || !good(peers[0].PathMTU) {
							return fmt.Errorf("site %s: peers %+v", site.Name, peers)
						}
					}
					return nil
				})
			}
			wantPath("the path has been measured", func(size int) bool { return size > 1400 })
			for _, w := range ways {
				w.wait(t, amount)
			}
			tt.shrink(s)
			wantPath("status shows the narrower path", func(size int) bool { return size >= 1200 && size <= narrow-28 })
			for _, w := range ways {
				w.wait(t, amount)
			}
			finish()
			alive(t, upA, upB)
		})
	}
}

// In a user namespace, as a container without privileges is, the kernel makes
// the TAP and does not let the socket's buffers be raised beyond its limits:
// status says how large they are, and what to do.
func TestBuffersMayNotBeRaised(t *testing.T) {
	receive, send := coreLimit(t, "rmem_max"), coreLimit(t, "wmem_max")
	dir, err := os.MkdirTemp("", "l2b-") // short enough for a socket's path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	binary := lab.Binary(t)
	command := func(args ...string) *exec.Cmd {
		args = append(args, "--config", filepath.Join(dir, "config.toml"),
			"--state-dir", filepath.Join(dir, "state"), "--socket", filepath.Join(dir, "sock"))
		return exec.CommandContext(t.Context(), binary, args...)
	}
	run := func(args ...string) string {
		t.Helper()
		out, err := command(args...).Output()
		if err != nil {
			t.Fatalf("%q: %v", args, err)
		}
		return string(out)
	}
	run("init", "--site", "home", "--bridge", "")

	up := command("up")
	var log bytes.Buffer
	up.Stdout, up.Stderr = &log, &log
	up.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}},
		Pdeathsig:   syscall.SIGKILL,
	}
	if err := up.Start(); err != nil {
		t.Skipf("no user namespaces here: %v", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- up.Wait() }()
	lab.Wait(t, recvWait, "the daemon answers", func() error {
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("the daemon ended: %v\n%s", err, log.String())
		default:
		}
		return command("status").Run()
	})

	var status lab.Status
	if err := json.Unmarshal([]byte(run("status", "--json")), &status); err != nil {
		t.Fatal(err)
	}
	want := wholeOffloads
	want.ReceiveBuffer, want.SendBuffer = min(2*receive, 8<<20), min(2*send, 8<<20)
	if diff := cmp.Diff(want, status.Offloads); diff != "" {
		t.Errorf("offloads (-want +got):\n%s", diff)
	}
	text := run("status")
	for name, size := range map[string]int{"rmem_max": want.ReceiveBuffer, "wmem_max": want.SendBuffer} {
		remedy := fmt.Sprintf("net.core.%s=%d", name, 4<<20)
		said := slices.ContainsFunc(status.Hints, func(hint string) bool { return strings.Contains(hint, remedy) })
		if short := size < 8<<20; said != short || strings.Contains(text, remedy) != short {
			t.Errorf("buffer of %d bytes, hints %q, want %q: %t, in\n%s", size, status.Hints, remedy, short, text)
		}
	}
	if err := up.Process.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("the daemon ended: %v\n%s", err, log.String())
	}
}

// coreLimit reads one of the kernel's limits of a socket's buffer.
func coreLimit(t *testing.T, name string) int {
	t.Helper()
	b, err := os.ReadFile("/proc/sys/net/core/" + name)
	if errors.Is(err, os.ErrNotExist) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	return n
}
