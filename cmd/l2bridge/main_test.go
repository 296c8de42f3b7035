// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	stdcmp "cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
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
	"github.com/spf13/cobra"

	"github.com/l2bridge/l2bridge/internal/config"
	"github.com/l2bridge/l2bridge/internal/control"
	"github.com/l2bridge/l2bridge/internal/daemon"
	"github.com/l2bridge/l2bridge/internal/event"
	"github.com/l2bridge/l2bridge/internal/sealed"
)

// In scripts l2bridge is the program with an engine that only says what it
// was asked.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"l2bridge": func() {
			a := app{engine: toldEngine{}, stdout: os.Stdout, stderr: os.Stderr}
			os.Exit(a.run(context.Background(), os.Args[1:]))
		},
	})
}

// toldEngine prints its calls on stderr and fails as $ENGINE tells it to.
type toldEngine struct{}

func (toldEngine) told(call string, cfg config.Config, rest ...any) error {
	fmt.Fprintf(os.Stderr, "engine: %s site=%s bridge=%s tap=%s mtu=%d peers=%v%s\n",
		call, cfg.Site, cfg.Bridge, cfg.TAP, cfg.MTU, cfg.Peers, fmt.Sprint(rest...))
	return map[string]error{
		"init exists":    fmt.Errorf("%w: in /state", daemon.ErrExists),
		"join refused":   fmt.Errorf("%w: token is used up", daemon.ErrRefused),
		"join other":     fmt.Errorf("%w: n2", daemon.ErrOtherNetwork),
		"join nobody":    errors.New("nobody answers within 1m0s"),
		"join not":       daemon.ErrNotMember,
		"join ask":       daemon.ErrNotMember,
		"join alone":     daemon.ErrNotMember,
		"ask alone":      daemon.ErrFiled,
		"join denied":    daemon.ErrNotMember,
		"ask denied":     fmt.Errorf("%w: a person has denied this", daemon.ErrRefused),
		"ask not":        daemon.ErrNotMember,
		"up not":         daemon.ErrNotMember,
		"up broken":      errors.New("open tap l2b0: device busy\n\x1b[31m"),
		"join interrupt": context.Canceled,
	}[call+" "+os.Getenv("ENGINE")]
}

func (toldEngine) ConfineJoin(context.Context, config.Config) error { return nil }
func (toldEngine) ConfineRun(context.Context, config.Config) error  { return nil }

func (e toldEngine) Init(_ context.Context, cfg config.Config, _ *slog.Logger) error {
	return e.told("init", cfg)
}

func (e toldEngine) Join(_ context.Context, cfg config.Config, token string, timeout time.Duration, _ *slog.Logger) error {
	return e.told("join", cfg, " token="+token, " timeout=", timeout)
}

func (e toldEngine) Ask(_ context.Context, cfg config.Config, timeout time.Duration, person daemon.Person, _ *slog.Logger) error {
	err := e.told("ask", cfg, " wait=", person.Wait, " timeout=", timeout)
	if os.Getenv("ENGINE") == "alone" {
		const evil = "\x1b[2J"
		person.Show(daemon.Question{Site: cfg.Site, Network: "k3v9q2m7", Founder: "home" + evil, Addr: "203.0.113.7:4433" + evil,
			Phrase: "legal winner thank year wave sausage", CAPhrase: "letter advice cage absurd amount doctor" + evil})
	}
	return err
}

func (e toldEngine) Run(_ context.Context, cfg config.Config, log *slog.Logger) error {
	log.Info("joining", "site", cfg.Site)
	log.Info("ready", "site", cfg.Site)
	return e.told("up", cfg)
}

func (e toldEngine) ReadCA(stateDir string) (daemon.CA, error) {
	if os.Getenv("ENGINE") == "guest" {
		return daemon.CA{}, fmt.Errorf("%w (do it at site \"home\")", daemon.ErrNotFounder)
	}
	return daemon.CA{Network: "k3v9q2m7", Data: []byte("the secret")}, nil
}

func (e toldEngine) SiteName(cfg config.Config) (string, error) {
	switch os.Getenv("ENGINE") {
	case "guest":
		return "cabin", nil
	case "unreadable":
		return cfg.Site, errors.New("state directory /var/lib/l2bridge/default: permission denied")
	}
	return cfg.Site, nil
}

func (e toldEngine) Leave(string) (control.Left, error) {
	if os.Getenv("ENGINE") == "guest" {
		return control.Left{}, nil
	}
	return control.Left{Network: "k3v9q2m7", Site: "office", Founder: "home"}, nil
}

func (e toldEngine) DropCA(string, [sha256.Size]byte) error {
	fmt.Fprintln(os.Stderr, "engine: drop")
	return nil
}

func (e toldEngine) ImportCA(_ string, data []byte, site string) (string, error) {
	fmt.Fprintf(os.Stderr, "engine: import %s site=%s\n", data, site)
	return stdcmp.Or(site, "home"), nil
}

// Seal writes the pass phrase beside what is not quite a secret, in hexadecimal.
func (e toldEngine) Seal(passphrase string, secret []byte) ([]byte, error) {
	return fmt.Appendf(nil, "sealed %x %x", passphrase, secret), nil
}

func (e toldEngine) Open(passphrase string, text []byte) ([]byte, error) {
	var with, secret []byte
	if _, err := fmt.Sscanf(string(text), "sealed %x %x", &with, &secret); err != nil {
		return nil, fmt.Errorf("%w: %w", sealed.ErrDamaged, err)
	}
	if string(with) != passphrase {
		return nil, sealed.ErrPassphrase
	}
	return secret, nil
}

// backend is a daemon as scripts meet it.
type backend struct {
	status   control.Status
	stations []control.Station
	guest    bool // not the founder
	pending  []control.Pending
}

func (b *backend) Status() control.Status      { return b.status }
func (b *backend) Peers() []control.Peer       { return b.status.Peers }
func (b *backend) Drops() []control.Drop       { return b.status.Drops }
func (b *backend) Stations() []control.Station { return b.stations }

func (b *backend) AddStation(mac net.HardwareAddr, vlan uint16, port string) error {
	if port == "attic" {
		return fmt.Errorf("port %q: %w: no such site (l2bridge peers shows them)", port, control.ErrNotFound)
	}
	b.stations = append(b.stations, control.Station{MAC: mac.String(), VLAN: vlan, Port: port, Static: true})
	return nil
}

func (b *backend) DelStation(mac net.HardwareAddr, vlan uint16) error {
	for i, s := range b.stations {
		if s.MAC == mac.String() && s.VLAN == vlan {
			b.stations = append(b.stations[:i], b.stations[i+1:]...)
			return nil
		}
	}
	return fmt.Errorf("station %v vlan %d: %w", mac, vlan, control.ErrNotFound)
}

func (b *backend) FlushStations(port string) (n int, err error) {
	var kept []control.Station
	for _, s := range b.stations {
		if s.Static || port != "" && s.Port != port {
			kept = append(kept, s)
		} else {
			n++
		}
	}
	b.stations = kept
	return n, nil
}

func (b *backend) Test(_ context.Context, site string, each time.Duration, progress func(control.TestProgress)) (control.TestReport, error) {
	progress(control.TestProgress{Phase: "up", BitsPS: 1_000_000})
	hostile := strings.HasPrefix(b.status.Site, "\x1b")
	if site != "office" && !hostile {
		return control.TestReport{}, fmt.Errorf("site %q: %w (there are: office)", site, control.ErrNotFound)
	}
	r := control.TestReport{
		Site: site, Addr: "203.0.113.7:4433", PathMTU: 1436, Lanes: 2, Superframes: true,
		Idle: control.TestRTT{MinUS: 19_100, AvgUS: 20_345, P99US: 21_000, MaxUS: 21_500, Sent: 50},
		Up: control.TestDirection{BitsPS: 9_412_345, Mbits: 9, Frame: 1514, Sent: 5000, Recv: 4800, Dropped: 150, Lost: 50, LossPPM: 10_309,
			RTT: control.TestRTT{MinUS: 19_100, AvgUS: 24_000, P99US: 60_300, MaxUS: 61_000, Sent: 150, Lost: 1, LossPPM: 6666}},
		Down:  control.TestDirection{BitsPS: uint64(each), Mbits: uint64(each / 1_000_000), Frame: 1514, LossPPM: 50},
		Sizes: control.TestSizes{Least: 14, Most: 1514, Sent: 1501, Received: 1501},
	}
	if b.guest || hostile {
		r.Sizes.Received = 1400
		r.Sizes.Failed = []control.TestRange{{From: 60, To: 60}, {From: 1415, To: 1514}}
	}
	if hostile {
		r.Site, r.Addr = b.status.Site, b.status.Site
	}
	return r, nil
}

func (b *backend) Revoke(_ context.Context, site string) (control.Revoked, error) {
	switch {
	case b.guest:
		return control.Revoked{}, fmt.Errorf("%w: the CA key is at site home (run this there)", control.ErrNotAuthorised)
	case site == "gone":
		return control.Revoked{Site: site}, nil
	case site != "office":
		return control.Revoked{}, fmt.Errorf("%w: no site %q", control.ErrNotFound, site)
	}
	return control.Revoked{Site: site, IDs: []string{strings.Repeat("cd", 32)}}, nil
}

func (b *backend) Leave(context.Context) (control.Left, error) {
	if !b.guest {
		return control.Left{}, fmt.Errorf("%w: others are members still", control.ErrInvalid)
	}
	return control.Left{Network: "k3v9q2m7", Site: "office", Founder: "home", Told: 2, Peers: 3}, nil
}

func (b *backend) Rekey(_ context.Context, site string) (control.Rekeyed, error) {
	if site == "office" {
		return control.Rekeyed{}, fmt.Errorf("%w: site name \"office\" is in use by another key", control.ErrNotAuthorised)
	}
	return control.Rekeyed{Site: stdcmp.Or(site, b.status.Site), ID: strings.Repeat("ef", 32)}, nil
}

func (b *backend) DropCA([sha256.Size]byte) error { return nil }

func (b *backend) ImportCA(data []byte) (string, error) { return b.status.Site, nil }

func (b *backend) Events(kinds ...event.Kind) (*event.Subscription, error) {
	return new(event.Bus).Subscribe(kinds...) // nothing ever happens
}

func (b *backend) Pending() ([]control.Pending, error) {
	if b.guest {
		return nil, fmt.Errorf("%w: the CA key is at site home", control.ErrNotAuthorised)
	}
	return b.pending, nil
}

func (b *backend) Approve(ref string) (control.Pending, error) {
	all, err := b.Pending()
	if err != nil {
		return control.Pending{}, err
	}
	for _, p := range all {
		if p.Site == ref || strings.HasPrefix(p.ID, ref) {
			return p, nil
		}
	}
	return control.Pending{}, fmt.Errorf("%w: nobody asks to join as %q", control.ErrNotFound, ref)
}

func (b *backend) Deny(ref string) (control.Pending, error) { return b.Approve(ref) }

func (b *backend) Invite(_ context.Context, site string, ttl time.Duration) (string, error) {
	if b.guest {
		return "", fmt.Errorf("%w: the CA key is at site home (invite there)", control.ErrNotAuthorised)
	}
	return fmt.Sprintf("l2b1_%s-%d", site, ttl/time.Second), nil
}

// backends are the daemons of every script: $SOCK/NAME.sock.
func backends() map[string]*backend {
	hostile := "\x1b]0;x\a\u009b31m\n" + strings.Repeat("x", 5000)
	return map[string]*backend{
		"up": {
			status: control.Status{
				Site: "home", ID: strings.Repeat("ab", 32), Network: "k3v9q2m7", Founder: true,
				State: control.StateUp, SinceMS: 7_805_000, TAP: "l2b0", Bridge: "br0", BridgePorts: []string{"eth1", "l2b0"},
				MTU: 1500, Listen: "[::]:4433",
				Peers: []control.Peer{
					{Site: "office", ID: strings.Repeat("cd", 32), State: control.PeerUp, Addr: "203.0.113.7:4433", SinceMS: 59_999,
						RTTUS: 21_345, PathMTU: 1441, Lanes: 2, Kex: "X25519MLKEM768", RxFrames: 10, TxFrames: 20,
						RxBytes: 1_234_567_890, TxBytes: 999, MACs: 12,
						Features: []string{control.FeatureCsum, control.FeatureTSO, control.FeatureUSO}},
					{Site: "attic", State: control.PeerRelayed, Addr: "203.0.113.9:4433", Via: "office", SinceMS: 266_400_000, MACs: 1},
				},
				Drops:       []control.Drop{{Reason: "own_outer", Port: "local", Count: 7}, {Reason: "mtu_peer", Port: "office"}},
				Hints:       []string{"bridge br0 has no other port: ip link set eth1 master br0"},
				PortMapping: "upnp 203.0.113.7:4433 router 192.168.1.1",
				Limits:      control.Limits{Capabilities: []string{"cap_net_admin"}, NoNewPrivs: true, Landlock: 7},
				Offloads: control.Offloads{TAPVnet: true, TAPTSO: true, TAPUSO: true, UDPGRO: true,
					ReceiveBuffer: 425_984, SendBuffer: 8 << 20},
			},
			stations: []control.Station{
				{MAC: "52:54:00:00:00:02", Port: "office", AgeMS: 61_000, Moves: 3},
				{MAC: "52:54:00:00:00:01", Port: "local", AgeMS: 999},
				{MAC: "52:54:00:00:00:01", VLAN: 20, Port: "office", Static: true},
			},
			pending: []control.Pending{{Site: "cabin", ID: strings.Repeat("9f86d081", 8), Addr: "198.51.100.9:4433", AgeMS: 61_000, LeftMS: 539_000,
				Phrase: "legal winner thank year wave sausage", CAPhrase: "letter advice cage absurd amount doctor"}},
		},
		"alone": {status: control.Status{Site: "home", State: control.StateConnecting, TAP: "l2b-lab", MTU: 9000}},
		"guest": {guest: true, status: control.Status{Site: "office", State: control.StateDegraded}},
		"hostile": {
			status: control.Status{Site: hostile, ID: hostile, Network: hostile, State: control.State(hostile), TAP: hostile,
				Bridge: hostile, BridgePorts: []string{hostile}, Listen: hostile, PortMapping: hostile, Hints: []string{hostile},
				Peers: []control.Peer{{Site: hostile, State: control.PeerState(hostile), Addr: hostile, Kex: hostile, Features: []string{hostile}}},
				Drops: []control.Drop{{Reason: hostile, Port: hostile, Count: 1}}},
			stations: []control.Station{{MAC: hostile, Port: hostile}},
			pending:  []control.Pending{{Site: hostile, ID: hostile, Addr: hostile, Phrase: hostile, CAPhrase: hostile}},
		},
	}
}

func serve(t testing.TB, path string, b control.Backend) {
	server, err := control.Listen(path, -1)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, b) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			// A script's own directory may be too long for a socket's path.
			dir, err := os.MkdirTemp("", "l2b")
			if err != nil {
				return err
			}
			tb := env.T().(testing.TB)
			tb.Cleanup(func() { os.RemoveAll(dir) })
			for name, b := range backends() {
				serve(tb, filepath.Join(dir, name+".sock"), b)
			}
			env.Setenv("SOCK", dir)
			env.Setenv("GORACE", "atexit_sleep_ms=0") // else a second each, with -race
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			// exits CODE ARGS...: l2bridge ARGS exits with CODE.
			"exits": func(ts *testscript.TestScript, neg bool, args []string) {
				if neg || len(args) < 1 {
					ts.Fatalf("usage: exits CODE ARGS...")
				}
				code := 0
				var exit *exec.ExitError
				if err := ts.Exec("l2bridge", args[1:]...); errors.As(err, &exit) {
					code = exit.ExitCode()
				} else if err != nil {
					ts.Fatalf("%v", err)
				}
				if strconv.Itoa(code) != args[0] {
					ts.Fatalf("exit code %d, want %s", code, args[0])
				}
			},
			// ascii FILE: FILE has printable ASCII and line ends alone, and no
			// line is longer than a screen holds.
			"ascii": func(ts *testscript.TestScript, neg bool, args []string) {
				for line := range strings.Lines(ts.ReadFile(args[0])) {
					if len(line) > 1100 || strings.ContainsFunc(strings.TrimSuffix(line, "\n"), func(r rune) bool { return r < ' ' || r > '~' }) {
						ts.Fatalf("%.200q", line)
					}
				}
			},
		},
	})
}

// The journal has times of its own; a file that somebody has the log go to instead has
// none, though the variable is in the environment still.
func TestLogTimes(t *testing.T) {
	file, err := os.OpenFile(filepath.Join(t.TempDir(), "log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		t.Fatal(err)
	}
	st := info.Sys().(*syscall.Stat_t)
	journal := fmt.Sprintf("%d:%d", st.Dev, st.Ino)
	for stream, want := range map[string]string{
		"":            "time=",
		journal:       "level=INFO",
		journal + "0": "time=",
		"nonsense":    "time=",
	} {
		t.Setenv("JOURNAL_STREAM", stream)
		if err := file.Truncate(0); err != nil {
			t.Fatal(err)
		}
		a := app{stderr: file}
		a.logger().Info("joining")
		got, err := os.ReadFile(file.Name())
		if err != nil || !bytes.HasPrefix(got, []byte(want)) {
			t.Errorf("JOURNAL_STREAM=%s: %q, %v; want %s", stream, got, err, want)
		}
	}
}

// Every command says what it is, with two examples, in plain ASCII of 80
// columns; --help goes to stdout.
func TestHelp(t *testing.T) {
	a := app{}
	var walk func(cmd *cobra.Command)
	walk = func(cmd *cobra.Command) {
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
		name := cmd.CommandPath()
		if cmd.Short == "" || strings.HasSuffix(cmd.Short, ".") || len(cmd.Short) > 66 {
			t.Errorf("%s: summary %q", name, cmd.Short)
		}
		if n := strings.Count(cmd.Example, "l2bridge"); n < 2 {
			t.Errorf("%s: %d examples, want 2", name, n)
		}
		var stdout, stderr bytes.Buffer
		args := append(strings.Fields(name)[1:], "--help")
		if code := run(t.Context(), args, &stdout, &stderr); code != exitDone || stderr.Len() > 0 || stdout.Len() == 0 {
			t.Errorf("%s --help: code %d, stderr %q", name, code, &stderr)
		}
		for line := range strings.Lines(stdout.String()) {
			if len(line) > 104 || strings.ContainsFunc(strings.TrimSuffix(line, "\n"), func(r rune) bool { return r < ' ' || r > '~' }) {
				t.Errorf("%s --help: %q", name, line)
			}
		}
	}
	walk(a.rootCommand())
}

// Each setting of the config that has a flag has it on init, up and join.
func TestRunFlags(t *testing.T) {
	a := app{}
	root := a.rootCommand()
	for _, name := range []string{"init", "up", "join"} {
		cmd, _, err := root.Find([]string{name})
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range config.Settings() {
			if s.Flag != "" && cmd.Flags().Lookup(s.Flag) == nil {
				t.Errorf("%s has no --%s", name, s.Flag)
			}
		}
	}
}

// counted is a daemon that is gone at its third answer.
type counted struct {
	*backend
	asked chan struct{}
}

func (c counted) Status() control.Status {
	c.asked <- struct{}{}
	return c.backend.Status()
}

func TestWatch(t *testing.T) {
	path := filepath.Join(t.TempDir(), "l2.sock")
	server, err := control.Listen(path, -1)
	if err != nil {
		t.Fatal(err)
	}
	b := counted{backends()["alone"], make(chan struct{})}
	serving, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- server.Serve(serving, b) }()

	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	var stdout, stderr bytes.Buffer
	a := app{stdout: &stdout, stderr: &stderr}
	ticks, done := make(chan time.Time), make(chan error, 1)
	go func() { done <- a.watch(ctx, control.Dial(path), ticks) }()

	<-b.asked
	ticks <- time.Time{}
	<-b.asked
	ticks <- time.Time{} // taken only after the second answer was shown
	<-b.asked
	stop()
	if err := <-served; err != nil {
		t.Fatal(err)
	}
	for range 2 { // the daemon is away; watch goes on
		ticks <- time.Time{}
	}
	interrupt()
	if err := <-done; err != nil {
		t.Errorf("interrupted: %v, want nil", err)
	}
	if n := strings.Count(stdout.String(), "CONNECTING for"); n < 2 || n > 3 {
		t.Errorf("%d screens, want 2 and perhaps the one cut off:\n%s", n, &stdout)
	}
	if !strings.Contains(stderr.String(), "not running") {
		t.Errorf("stderr %q does not say that the daemon is away", &stderr)
	}
	if err := a.watch(t.Context(), control.Dial(path), nil); !errors.Is(err, control.ErrNotRunning) {
		t.Errorf("with no daemon at first: %v, want %v", err, control.ErrNotRunning)
	}
}

func TestHumanUnits(t *testing.T) {
	var got []string
	for _, ms := range []int64{-5, 0, 999, 59_999, 60_000, 3_599_000, 3_600_000, 86_399_000, 86_400_000, 1 << 53} {
		got = append(got, ago(ms))
	}
	for _, n := range []uint64{0, 999, 1000, 999_949, 999_950, 999_999_999, 1_500_000_000, 1<<64 - 1} {
		got = append(got, size(n))
	}
	for _, us := range []int64{0, -1, 49, 195, 21_345} {
		got = append(got, roundTrip(us))
	}
	want := []string{
		"0s", "0s", "0s", "59s", "1m0s", "59m59s", "1h0m", "23h59m", "1d0h", "104249991d8h",
		"0B", "999B", "1.0kB", "999.9kB", "1.0MB", "1.0GB", "1.5GB", "18.4EB",
		"", "", "0.0ms", "0.2ms", "21.3ms",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Whatever the words, a filter that is accepted is one that the daemon takes.
func FuzzFilter(f *testing.F) {
	for _, seed := range []string{"", "52:54:00:12:34:56 port office vlan 20", "vlan 4095", "dev local port x", "port", "vlan 0 5254.0012.3456"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := parseFilter(strings.Split(text, " "))
		if err != nil {
			if !isUsage(err) || len(err.Error()) > 600 {
				t.Errorf("%q: %v", text, err)
			}
			return
		}
		if got.mac != nil && len(got.mac) != 6 || got.vlan > control.MaxVLAN || len(got.port) > 63 {
			t.Errorf("%q: %+v", text, got)
		}
	})
}

func FuzzClean(f *testing.F) {
	f.Add("\x1b[2J")
	f.Add(strings.Repeat("\u009b", 400))
	f.Fuzz(func(t *testing.T, s string) {
		for limit, got := range map[int]string{64: clean(s), 1024: cleanLine(s)} {
			if len(got) > limit || strings.ContainsFunc(got, func(r rune) bool { return r < ' ' || r > '~' }) {
				t.Errorf("%q became %q", s, got)
			}
		}
	})
}

// Help that nobody gets is an error, as any answer is.
func TestHelpNotWritten(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	for _, args := range []string{"--help", "help up", "fdb add --help", "completion bash", "version"} {
		if code := run(t.Context(), strings.Fields(args), full, io.Discard); code != exitError {
			t.Errorf("%s: exit code %d, want %d", args, code, exitError)
		}
	}
}
