// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	readyWait = 10 * time.Second // until "ready"; a join enrols first
	linkWait  = 15 * time.Second // until two sites see each other
)

// Status is the part of "l2bridge status -j" that tests go by.
type Status struct {
	Schema  int
	Version string
	Site    string
	ID      string
	Network string
	State   string
	SinceMS int64 `json:"since_ms"`
	TAP     string
	Bridge  string
	MTU     int
	Listen  string
	Peers   []Peer
	Drops   []Drop
	Hints   []string

	Offloads    Offloads
	PortMapping string `json:"port_mapping"`
	Limits      Limits
}

// Limits says what a site can still do to its host.
type Limits struct {
	Capabilities []string
	NoNewPrivs   bool `json:"no_new_privs"`
	Landlock     int
}

// Offloads says what the kernel does for a site.
type Offloads struct {
	TAPVnet       bool `json:"tap_vnet"`
	TAPTSO        bool `json:"tap_tso"`
	TAPUSO        bool `json:"tap_uso"`
	UDPGSO        bool `json:"udp_gso"`
	UDPGRO        bool `json:"udp_gro"`
	ReceiveBuffer int  `json:"receive_buffer"`
	SendBuffer    int  `json:"send_buffer"`
}

// Peer is one row of "l2bridge peers -j".
type Peer struct {
	Site     string
	ID       string
	State    string
	Addr     string
	Via      string
	SinceMS  int64  `json:"since_ms"`
	RTT      int64  `json:"rtt_us"`
	PathMTU  int    `json:"path_mtu"`
	Lanes    int    `json:"lanes"`
	KEX      string `json:"kex"`
	RxFrames uint64 `json:"rx_frames"`
	TxFrames uint64 `json:"tx_frames"`
	RxBytes  uint64 `json:"rx_bytes"`
	TxBytes  uint64 `json:"tx_bytes"`
	MACs     int    `json:"macs"`
	Features []string
}

// Drop is one row of "l2bridge drops -j".
type Drop struct {
	Reason string
	Port   string
	Count  uint64
}

// Station is one row of "l2bridge fdb show -j".
type Station struct {
	MAC    string
	VLAN   int
	Port   string
	AgeMS  int64 `json:"age_ms"`
	Static bool
	Moves  uint64
}

// args puts the site's own paths behind a command's arguments.
func (s *Site) args(args []string) []string {
	args = append(slices.Clone(args), "--config", filepath.Join(s.dir, "config.toml"), "--socket", s.Socket())
	if !slices.Contains(args, "--state-dir") {
		args = append(args, "--state-dir", s.StateDir())
	}
	if s.instance != "" {
		args = append(args, "-n", s.instance)
	}
	return args
}

// Socket returns the path of the control socket.
func (s *Site) Socket() string { return filepath.Join(s.dir, "sock") }

// StateDir returns the path of the site's keys and membership.
func (s *Site) StateDir() string { return filepath.Join(s.dir, "state") }

// CLI runs l2bridge at the site's gateway to its end and returns what it
// wrote to standard output, see [Namespace.Run].
func (s *Site) CLI(args ...string) (string, error) {
	s.t.Helper()
	return s.Gateway.Run(Binary(s.t), s.args(args)...)
}

// MustCLI is CLI, ending the test on an error.
func (s *Site) MustCLI(args ...string) string {
	s.t.Helper()
	return s.Gateway.MustRun(Binary(s.t), s.args(args)...)
}

// ExitCode returns the exit status in an error of CLI or Run: 0 for nil, -1
// when the command did not end by itself.
func ExitCode(err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	default:
		return -1
	}
}

// Instance returns a further instance of that name on the site's gateway: the
// same machine, another network.
func (s *Site) Instance(name string) *Site {
	s.t.Helper()
	other := *s
	other.instance, other.dir = name, shortDir(s.t)
	return &other
}

// Init founds a network at the site.
func (s *Site) Init(args ...string) {
	s.t.Helper()
	s.MustCLI(append([]string{"init", "--site", s.Name}, args...)...)
}

// Start starts a command of l2bridge at the site's gateway, to run beside the
// test.
func (s *Site) Start(args ...string) *Process {
	s.t.Helper()
	return s.Gateway.Start(Binary(s.t), s.args(args)...)
}

// StartBy is Start by way of another command, which runs it, such as prlimit.
func (s *Site) StartBy(runner []string, args ...string) *Process {
	s.t.Helper()
	return s.Gateway.Start(runner[0], slices.Concat(runner[1:], []string{Binary(s.t)}, s.args(args))...)
}

// StartOnSmallDisk is Start with the state directory on a disk of its own, of
// [SmallDiskBytes], which goes with the process. See [Process.SmallDisk].
func (s *Site) StartOnSmallDisk(args ...string) *Process {
	s.t.Helper()
	disk := filepath.Join(s.dir, "disk")
	const script = `set -e
mkdir -p "$1"
mount -t tmpfs -o size="$2",mode=0700 tmpfs "$1"
cp -a "$3"/. "$1"/
shift 3
exec "$@"`
	p := s.StartBy([]string{"sh", "-c", script, "sh", disk, fmt.Sprint(SmallDiskBytes), filepath.Join(s.dir, "state")},
		append(slices.Clone(args), "--state-dir", disk)...)
	p.smallDisk = disk
	return p
}

// SmallDiskBytes is how much [Site.StartOnSmallDisk] has room for.
const SmallDiskBytes = 256 << 10

// Up starts the site and waits until it is ready.
func (s *Site) Up(args ...string) *Process {
	s.t.Helper()
	p := s.Start(append([]string{"up"}, args...)...)
	p.WaitOutput(readyWait, "ready")
	return p
}

// Invite returns a token for another site.
func (s *Site) Invite(args ...string) string {
	s.t.Helper()
	return strings.TrimSpace(s.MustCLI(append([]string{"invite"}, args...)...))
}

// Join enrols the site with a token, starts it and waits until it is ready.
func (s *Site) Join(token string, args ...string) *Process {
	s.t.Helper()
	p := s.Start(append([]string{"join", token, "--site", s.Name}, args...)...)
	p.WaitOutput(readyWait, "ready")
	return p
}

// Status returns what the site's daemon says of itself.
func (s *Site) Status() (Status, error) {
	s.t.Helper()
	return answer[Status](s, "status")
}

// Peers returns the site's peers.
func (s *Site) Peers() ([]Peer, error) {
	s.t.Helper()
	return answer[[]Peer](s, "peers")
}

// Stations returns the site's MAC table.
func (s *Site) Stations() ([]Station, error) {
	s.t.Helper()
	return answer[[]Station](s, "fdb", "show")
}

// Drops returns how many frames the site dropped, by reason, its ports added
// up.
func (s *Site) Drops() (map[string]uint64, error) {
	s.t.Helper()
	drops, err := answer[[]Drop](s, "drops")
	if err != nil {
		return nil, err
	}
	counts := make(map[string]uint64)
	for _, d := range drops {
		counts[d.Reason] += d.Count
	}
	return counts, nil
}

// answer decodes the JSON that a command prints.
func answer[T any](s *Site, command ...string) (T, error) {
	s.t.Helper()
	var v T
	out, err := s.CLI(append(command, "-j")...)
	if err != nil {
		return v, err
	}
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		return v, fmt.Errorf("%s -j: %w\n%s", strings.Join(command, " "), err, out)
	}
	return v, nil
}

// WaitUp waits until the site has n peers, all of them up.
func (s *Site) WaitUp(n int) {
	s.t.Helper()
	Wait(s.t, linkWait, fmt.Sprintf("site %s is up with %d peers", s.Name, n), func() error {
		status, err := s.Status()
		if err != nil {
			return err
		}
		up := 0
		for _, p := range status.Peers {
			if p.State == "up" {
				up++
			}
		}
		if status.State != "up" || up != n || len(status.Peers) != n {
			return fmt.Errorf("state %s, peers %+v", status.State, status.Peers)
		}
		return nil
	})
}

// Link founds a network at the first site and has the second join it by a
// token, each with its own flags, as a user would, and waits until both are
// up.
func Link(a, b *Site, flagsA, flagsB []string) (upA, upB *Process) {
	a.t.Helper()
	a.Init(flagsA...)
	upA = a.Up()
	upB = b.Join(a.Invite(b.Name), flagsB...)
	a.WaitUp(1)
	b.WaitUp(1)
	return upA, upB
}

// LinkAll founds a network at the first site and has the others join it by
// tokens of the first, each with the flags that it is given. It does not wait
// until they see each other.
func LinkAll(sites []*Site, flags func(site *Site) []string) map[*Site]*Process {
	founder := sites[0]
	founder.t.Helper()
	founder.Init(flags(founder)...)
	up := map[*Site]*Process{founder: founder.Up()}
	for _, site := range sites[1:] {
		up[site] = site.Join(founder.Invite(site.Name), flags(site)...)
	}
	return up
}
