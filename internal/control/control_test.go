// SPDX-License-Identifier: Apache-2.0

package control_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/l2bridge/l2bridge/internal/control"
	"github.com/l2bridge/l2bridge/internal/event"
)

func TestMain(m *testing.M) {
	if text := os.Getenv(callerVariable); text != "" {
		os.Exit(askAs(text))
	}
	goleak.VerifyTestMain(m)
}

// fake is a small daemon: a table of stations and fixed answers.
type fake struct {
	control.Backend // nil: a call that a test does not expect panics
	status          control.Status
	stations        []control.Station
	inviteErr       error
	invite          chan string
	testErr         error
	testing         chan error // what the test's context said when it ended
	bus             event.Bus
}

func (f *fake) Status() control.Status      { return f.status }
func (f *fake) Peers() []control.Peer       { return f.status.Peers }
func (f *fake) Drops() []control.Drop       { return f.status.Drops }
func (f *fake) Stations() []control.Station { return f.stations }
func (f *fake) FlushStations(port string) (int, error) {
	if port == "nowhere" {
		return 0, fmt.Errorf("%w: no port %q", control.ErrNotFound, port)
	}
	return len(f.stations) + len(port), nil
}

func (f *fake) AddStation(mac net.HardwareAddr, vlan uint16, port string) error {
	if port != control.LocalPort {
		return fmt.Errorf("port %q: %w: no such site", port, control.ErrInvalid)
	}
	f.stations = append(f.stations, control.Station{MAC: mac.String(), VLAN: vlan, Port: port, Static: true})
	return nil
}

func (f *fake) DelStation(mac net.HardwareAddr, vlan uint16) error {
	for i, s := range f.stations {
		if s.MAC == mac.String() && s.VLAN == vlan {
			f.stations = append(f.stations[:i], f.stations[i+1:]...)
			return nil
		}
	}
	return fmt.Errorf("%v: %w", mac, control.ErrNotFound)
}

func (f *fake) Revoke(_ context.Context, site string) (control.Revoked, error) {
	if site != "attic" {
		return control.Revoked{}, fmt.Errorf("site %q: %w", site, control.ErrNotFound)
	}
	return control.Revoked{Site: site}, nil
}

func (f *fake) Leave(context.Context) (control.Left, error) {
	return control.Left{Network: "net", Site: "home", Founder: "attic", Told: 1, Peers: 2}, nil
}

func (f *fake) Rekey(_ context.Context, site string) (control.Rekeyed, error) {
	return control.Rekeyed{Site: site, ID: "0123"}, nil
}

func (f *fake) DropCA(sum [sha256.Size]byte) error {
	if sum[0] != 1 {
		return fmt.Errorf("%w: no CA key here", control.ErrNotAuthorised)
	}
	return nil
}

func (f *fake) ImportCA(data []byte) (string, error) {
	return fmt.Sprintf("home%d", len(data)), nil
}

func (f *fake) Invite(ctx context.Context, site string, ttl time.Duration) (string, error) {
	if f.invite != nil {
		f.invite <- "asked"
		<-ctx.Done()
		return "", ctx.Err()
	}
	return fmt.Sprintf("l2b1_%s_%v", site, ttl), f.inviteErr
}

func (f *fake) Events(kinds ...event.Kind) (*event.Subscription, error) {
	return f.bus.Subscribe(kinds...)
}

func (f *fake) Test(ctx context.Context, site string, each time.Duration, progress func(control.TestProgress)) (control.TestReport, error) {
	if site == "nowhere" {
		return control.TestReport{}, fmt.Errorf("%w: no site %q", control.ErrNotFound, site)
	}
	progress(control.TestProgress{Phase: "idle"})
	if f.testing != nil {
		<-ctx.Done()
		f.testing <- ctx.Err()
		return control.TestReport{}, ctx.Err()
	}
	progress(control.TestProgress{Phase: "up", BitsPS: uint64(each)})
	return control.TestReport{Site: site, Up: control.TestDirection{BitsPS: 1 << 40}}, f.testErr
}

// serve runs a daemon until the test ends and returns its socket's path.
func serve(t *testing.T, b control.Backend) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "run", "l2.sock")
	s, err := control.Listen(path, -1)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, b) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("after Serve: %v, want no socket", err)
		}
	})
	return path
}

func TestClient(t *testing.T) {
	t.Parallel()
	f := &fake{status: control.Status{Site: "home", State: control.StateUp,
		Peers: []control.Peer{{Site: "office", State: control.PeerUp, RxBytes: 1 << 63, Features: []string{control.FeatureCsum}}},
		Drops: []control.Drop{{Reason: "own_outer", Port: control.LocalPort, Count: 7}}}}
	c, ctx := control.Dial(serve(t, f)), t.Context()

	status, err := c.Status(ctx)
	want := f.status
	want.Schema, want.Version = control.Schema, control.Version()
	want.BridgePorts, want.Hints = []string{}, []string{}
	want.Limits.Capabilities = []string{}
	if diff := cmp.Diff(want, status); diff != "" || err != nil {
		t.Errorf("Status: %v (-want +got):\n%s", err, diff)
	}
	peers, err := c.Peers(ctx)
	if diff := cmp.Diff(f.status.Peers, peers); diff != "" || err != nil {
		t.Errorf("Peers: %v (-want +got):\n%s", err, diff)
	}
	drops, err := c.Drops(ctx)
	if diff := cmp.Diff(f.status.Drops, drops); diff != "" || err != nil {
		t.Errorf("Drops: %v (-want +got):\n%s", err, diff)
	}

	mac := net.HardwareAddr{0x52, 0x54, 0, 0x12, 0x34, 0x56}
	if stations, err := c.Stations(ctx); err != nil || len(stations) != 0 || stations == nil {
		t.Errorf("Stations: %v, %v; want an empty list", stations, err)
	}
	if err := c.AddStation(ctx, mac, 4094, control.LocalPort); err != nil {
		t.Errorf("AddStation: %v", err)
	}
	stations, err := c.Stations(ctx)
	added := []control.Station{{MAC: "52:54:00:12:34:56", VLAN: 4094, Port: "local", Static: true}}
	if diff := cmp.Diff(added, stations); diff != "" || err != nil {
		t.Errorf("Stations: %v (-want +got):\n%s", err, diff)
	}
	if n, err := c.FlushStations(ctx, "office"); n != 1+len("office") || err != nil {
		t.Errorf("FlushStations: %d, %v", n, err)
	}
	if err := c.DelStation(ctx, mac, 4094); err != nil {
		t.Errorf("DelStation: %v", err)
	}
	if token, err := c.Invite(ctx, "attic", 90*time.Minute); token != "l2b1_attic_1h30m0s" || err != nil {
		t.Errorf("Invite: %q, %v", token, err)
	}
	if r, err := c.Revoke(ctx, "attic"); r.Site != "attic" || r.IDs == nil || err != nil {
		t.Errorf("Revoke: %+v, %v", r, err)
	}
	if l, err := c.Leave(ctx); l != (control.Left{Network: "net", Site: "home", Founder: "attic", Told: 1, Peers: 2}) || err != nil {
		t.Errorf("Leave: %+v, %v", l, err)
	}
	if r, err := c.Rekey(ctx, "house"); r != (control.Rekeyed{Site: "house", ID: "0123"}) || err != nil {
		t.Errorf("Rekey: %+v, %v", r, err)
	}
	if err := c.DropCA(ctx, [sha256.Size]byte{1}); err != nil {
		t.Errorf("DropCA: %v", err)
	}
	// As long as anybody's is; its bytes are the daemon's to judge.
	if site, err := c.ImportCA(ctx, make([]byte, 9<<20)); site != "home9437184" || err != nil {
		t.Errorf("ImportCA: %q, %v", site, err)
	}
}

// The kind and the text of an error arrive, and only its own kind.
func TestErrors(t *testing.T) {
	t.Parallel()
	f := &fake{inviteErr: fmt.Errorf("the CA key is at site home: %w", control.ErrNotAuthorised)}
	c, ctx := control.Dial(serve(t, f)), t.Context()
	station := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	_, unauthorised := c.Invite(ctx, "", time.Hour)
	_, noTTL := c.Invite(ctx, "", 0)
	_, noPort := c.FlushStations(ctx, "nowhere")
	f2 := &fake{inviteErr: errors.New("disk full")}
	_, plain := control.Dial(serve(t, f2)).Invite(ctx, "", time.Hour)
	_, absent := control.Dial(filepath.Join(t.TempDir(), "none.sock")).Status(ctx)

	kinds := []error{control.ErrNotFound, control.ErrNotAuthorised, control.ErrInvalid, control.ErrNotRunning}
	for name, tt := range map[string]struct {
		err, kind error
		text      string
	}{
		"no such station": {c.DelStation(ctx, station, 0), control.ErrNotFound, "02:00:00:00:00:01: not found"},
		"no such port":    {noPort, control.ErrNotFound, `no port "nowhere"`},
		"not the founder": {unauthorised, control.ErrNotAuthorised, "the CA key is at site home: not authorised"},
		"no such site":    {c.AddStation(ctx, station, 0, "attic"), control.ErrInvalid, `port "attic"`},
		"vlan":            {c.AddStation(ctx, station, 4095, "local"), control.ErrInvalid, "vlan 4095: want 0 to 4094"},
		"group":           {c.AddStation(ctx, net.HardwareAddr{1, 0, 0, 0, 0, 0}, 0, "local"), control.ErrInvalid, "a group address"},
		"zero":            {c.DelStation(ctx, make(net.HardwareAddr, 6), 0), control.ErrInvalid, "the zero address"},
		"long":            {c.DelStation(ctx, make(net.HardwareAddr, 8), 0), control.ErrInvalid, "want a MAC address"},
		"ttl":             {noTTL, control.ErrInvalid, "ttl 0 ms"},
		"no CA key":       {c.DropCA(ctx, [sha256.Size]byte{}), control.ErrNotAuthorised, "no CA key here"},
		"other":           {plain, nil, "disk full"},
		"no daemon":       {absent, control.ErrNotRunning, `none.sock (start it with "l2bridge up")`},
	} {
		if tt.err == nil || !strings.Contains(tt.err.Error(), tt.text) {
			t.Errorf("%s: got %v, want %q in it", name, tt.err, tt.text)
		}
		for _, kind := range kinds {
			if errors.Is(tt.err, kind) != (kind == tt.kind) {
				t.Errorf("%s: %v is %v: %t", name, tt.err, kind, kind != tt.kind)
			}
		}
	}
}

// The JSON is a promise: names, order, and [] for nothing.
func TestJSON(t *testing.T) {
	t.Parallel()
	get := func(b control.Backend, path string) string {
		w := httptest.NewRecorder()
		control.Routes(b).ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		if w.Code != http.StatusOK || w.Header().Get("Content-Type") != "application/json" {
			t.Errorf("%s: %d, %v", path, w.Code, w.Header())
		}
		return strings.TrimSuffix(w.Body.String(), "\n")
	}
	version, _ := json.Marshal(control.Version())
	empty, full := &fake{}, &fake{
		status: control.Status{
			Site: "home", ID: "ab", Network: "n1", Founder: true, State: control.StateLoop, SinceMS: 1,
			TAP: "l2b0", Bridge: "br0", BridgePorts: []string{"l2b0"}, MTU: 1500, Listen: "[::]:4433",
			Hints: []string{"h"}, PortMapping: "p",
			Peers: []control.Peer{{
				Site: "office", ID: "cd", State: control.PeerRelayed, Addr: "192.0.2.1:4433", Via: "attic", SinceMS: 2,
				RTTUS: 3, PathMTU: 1441, Lanes: 4, Kex: "X25519MLKEM768", RxFrames: 5, TxFrames: 6, RxBytes: 7, TxBytes: 8, MACs: 9,
				Features: []string{control.FeatureCsum, control.FeatureTSO, control.FeatureUSO},
			}, {Site: "attic"}},
			Offloads: control.Offloads{TAPVnet: true, TAPTSO: true, UDPGRO: true, ReceiveBuffer: 8 << 20, SendBuffer: 425984},
			Drops:    []control.Drop{{Reason: "loop", Port: "office", Count: 10}},
		},
		stations: []control.Station{{MAC: "02:00:00:00:00:01", VLAN: 1, Port: "office", AgeMS: 2, Static: true, Moves: 3}},
	}
	peers := `{"site":"office","id":"cd","state":"relayed","addr":"192.0.2.1:4433","via":"attic","since_ms":2,"rtt_us":3,` +
		`"path_mtu":1441,"lanes":4,"kex":"X25519MLKEM768","rx_frames":5,"tx_frames":6,"rx_bytes":7,"tx_bytes":8,"macs":9,"features":["csum","tso","uso"]},` +
		`{"site":"attic","id":"","state":"","addr":"","via":"","since_ms":0,"rtt_us":0,"path_mtu":0,"lanes":0,"kex":"",` +
		`"rx_frames":0,"tx_frames":0,"rx_bytes":0,"tx_bytes":0,"macs":0,"features":[]}`
	drop := `{"reason":"loop","port":"office","count":10}`
	for _, tt := range []struct{ path, got, want string }{
		{"empty status", get(empty, "/v1/status"), `{"schema":1,"version":` + string(version) + `,"site":"","id":"","network":"","founder":false,` +
			`"state":"","since_ms":0,"tap":"","bridge":"","bridge_ports":[],"mtu":0,"listen":"","peers":[],"drops":[],"hints":[],` +
			`"offloads":{"tap_vnet":false,"tap_tso":false,"tap_uso":false,"udp_gso":false,"udp_gro":false,"receive_buffer":0,"send_buffer":0},"port_mapping":"","limits":{"capabilities":[],"no_new_privs":false,"landlock":0}}`},
		{"status", get(full, "/v1/status"), `{"schema":1,"version":` + string(version) + `,"site":"home","id":"ab","network":"n1","founder":true,` +
			`"state":"loop","since_ms":1,"tap":"l2b0","bridge":"br0","bridge_ports":["l2b0"],"mtu":1500,"listen":"[::]:4433",` +
			`"peers":[` + peers + `],"drops":[` + drop + `],"hints":["h"],` +
			`"offloads":{"tap_vnet":true,"tap_tso":true,"tap_uso":false,"udp_gso":false,"udp_gro":true,"receive_buffer":8388608,"send_buffer":425984},"port_mapping":"p","limits":{"capabilities":[],"no_new_privs":false,"landlock":0}}`},
		{"no peers", get(empty, "/v1/peers"), `[]`},
		{"peers", get(full, "/v1/peers"), `[` + peers + `]`},
		{"no drops", get(empty, "/v1/drops"), `[]`},
		{"drops", get(full, "/v1/drops"), `[` + drop + `]`},
		{"no stations", get(empty, "/v1/fdb"), `[]`},
		{"stations", get(full, "/v1/fdb"), `[{"mac":"02:00:00:00:00:01","vlan":1,"port":"office","age_ms":2,"static":true,"moves":3}]`},
	} {
		if diff := cmp.Diff(tt.want, tt.got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.path, diff)
		}
	}
}

func TestHostileRequests(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		method, path, body string
		want               int
	}{
		"no body":        {"POST", "/v1/fdb/add", "", 400},
		"not json":       {"POST", "/v1/fdb/add", "mac=1", 400},
		"a list":         {"POST", "/v1/fdb/add", "[]", 400},
		"unknown field":  {"POST", "/v1/fdb/flush", `{"port":"","vlans":[1]}`, 400},
		"vlan range":     {"POST", "/v1/fdb/del", `{"mac":"02:00:00:00:00:01","vlan":65536}`, 400},
		"negative vlan":  {"POST", "/v1/fdb/del", `{"mac":"02:00:00:00:00:01","vlan":-1}`, 400},
		"long mac":       {"POST", "/v1/fdb/del", `{"mac":"` + strings.Repeat("f", 3000) + `"}`, 400},
		"big body":       {"POST", "/v1/fdb/flush", `{"port":"` + strings.Repeat("f", 5000) + `"}`, 400},
		"deep":           {"POST", "/v1/fdb/flush", strings.Repeat(`{"port":`, 500), 400},
		"ttl overflow":   {"POST", "/v1/invite", `{"ttl_ms":9223372036854775807}`, 400},
		"negative ttl":   {"POST", "/v1/invite", `{"ttl_ms":-1}`, 400},
		"kind":           {"POST", "/v1/monitor", `{"kinds":["weather"]}`, 400},
		"kind's type":    {"POST", "/v1/monitor", `{"kinds":[3]}`, 400},
		"wrong method":   {"GET", "/v1/invite", "", 405},
		"write to read":  {"POST", "/v1/status", "{}", 405},
		"unknown route":  {"GET", "/v2/status", "", 404},
		"path traversal": {"GET", "/v1/../../etc/passwd", "", 307},
	} {
		w := httptest.NewRecorder()
		control.Routes(&fake{}).ServeHTTP(w, httptest.NewRequest(tt.method, tt.path, strings.NewReader(tt.body)))
		if w.Code != tt.want || w.Body.Len() > 600 {
			t.Errorf("%s: %d %.80q, want %d", name, w.Code, w.Body, tt.want)
		}
	}
}

// An answer that is none of ours is an error, whatever it says.
func TestForeignServer(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]string{
		"404 text":  "HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nno\n",
		"200 text":  "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nno\n",
		"cut short": "HTTP/1.1 200 OK\r\nContent-Length: 300\r\n\r\n{\"schema\"",
		"no http":   "SSH-2.0-x\r\n",
		"silence":   "",
	} {
		path := filepath.Join(t.TempDir(), "x")
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			c, err := l.Accept()
			if err == nil {
				io.ReadFull(c, make([]byte, 10))
				io.WriteString(c, answer)
				c.Close()
			}
		}()
		_, err = control.Dial(path).Status(t.Context())
		if err == nil || errors.Is(err, control.ErrNotFound) || errors.Is(err, control.ErrNotRunning) {
			t.Errorf("%s: got %v", name, err)
		}
		l.Close()
	}
}

// A daemon that was stopped (SIGSTOP) takes connections and answers nothing.
func TestNoAnswer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client := control.Dial(path)
	client.SetPatience(time.Millisecond)
	want := "control socket " + path + ": the daemon takes connections and does not answer"
	if _, err := client.Status(t.Context()); err == nil || errors.Is(err, control.ErrNotRunning) || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("got %v, want %s", err, want)
	}
}

// That the daemon ends before it has answered is said so, and not in words of HTTP.
func TestDaemonGoes(t *testing.T) {
	t.Parallel()
	for name, read := range map[string]func(io.Reader) error{
		"in the middle of a request": func(r io.Reader) error { _, err := r.Read(make([]byte, 1)); return err },
		"behind a request":           func(r io.Reader) error { _, err := http.ReadRequest(bufio.NewReader(r)); return err },
	} {
		path := filepath.Join(t.TempDir(), "sock")
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		asked := make(chan error, 1)
		go func() {
			_, err := control.Dial(path).Status(t.Context())
			asked <- err
		}()
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if err := read(c); err != nil {
			t.Fatal(err)
		}
		c.Close()
		l.Close()
		want := "control socket " + path + ": the daemon has ended without an answer (see its log, and try again)"
		if err := <-asked; err == nil || err.Error() != want {
			t.Errorf("%s: got %v, want %s", name, err, want)
		}
	}
}

// Connections beyond the bound wait; they are served when others go.
func TestConnectionBound(t *testing.T) {
	t.Parallel()
	path := serve(t, &fake{})
	var held []net.Conn
	for range 32 {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		roundTrip(t, c) // so the server has taken the connection
		held = append(held, c)
	}
	answered := make(chan error, 1)
	go func() {
		_, err := control.Dial(path).Status(context.Background())
		answered <- err
	}()
	for range 100 { // far longer than an answer takes
		roundTrip(t, held[0])
	}
	select {
	case err := <-answered:
		t.Fatalf("a 33rd connection was served: %v", err)
	default:
	}
	held[7].Close()
	if err := <-answered; err != nil {
		t.Errorf("after one has gone: %v", err)
	}
}

func roundTrip(t *testing.T, c net.Conn) {
	t.Helper()
	io.WriteString(c, "GET /v1/drops HTTP/1.1\r\nHost: l2bridge\r\n\r\n")
	if n, err := c.Read(make([]byte, 4096)); n == 0 {
		t.Fatal(err)
	}
}

// Members of the socket's group come to it, also where root's umask is strict.
func TestStrictUmask(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077))
	path := filepath.Join(t.TempDir(), "l2bridge", "l2.sock")
	s, err := control.Listen(path, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for p, want := range map[string]os.FileMode{path: 0o660, filepath.Dir(path): 0o755} {
		if info, err := os.Stat(p); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v; want %v", p, info.Mode(), err, want)
		}
	}
	// A directory that was there is its owner's.
	private := filepath.Join(t.TempDir(), "private")
	if err := os.Mkdir(private, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := control.MakeDir(filepath.Join(private, "l2.sock")); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(private); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%s: %v, %v; want 0700", private, info.Mode(), err)
	}
}

// Serve ends though clients hang on: one idle, one that says nothing, one in
// the middle of a request, one whose request is under way.
func TestServeEnds(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "l2.sock")
	s, err := control.Listen(path, -1)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	f := &fake{invite: make(chan string)}
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, f) }()
	for _, text := range []string{"GET /v1/drops HTTP/1.1\r\nHost: x\r\n\r\n", "", "POST /v1/invite HTTP/1.1\r\nHost: x\r\nContent-Length: 90\r\n\r\n{"} {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		io.WriteString(c, text)
	}
	asked := make(chan error, 1)
	go func() {
		_, err := control.Dial(path).Invite(context.Background(), "", time.Hour)
		asked <- err
	}()
	<-f.invite
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := <-asked; err == nil {
		t.Error("a request that was cut off succeeded")
	}
}

func TestListen(t *testing.T) {
	t.Parallel()
	t.Run("modes", func(t *testing.T) {
		path := serve(t, &fake{})
		for p, want := range map[string]os.FileMode{path: os.ModeSocket | 0o660, filepath.Dir(path): os.ModeDir | 0o755} {
			if info, err := os.Stat(p); err != nil || info.Mode() != want {
				t.Errorf("%s: %v, %v; want %v", p, info.Mode(), err, want)
			}
		}
	})
	t.Run("live", func(t *testing.T) {
		path := serve(t, &fake{})
		_, err := control.Listen(path, -1)
		want := fmt.Sprintf("%s: in use by \"control.test\" (pid %d) (", path, os.Getpid())
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
		if _, err := control.Dial(path).Status(t.Context()); err != nil {
			t.Errorf("the owner no longer answers: %v", err)
		}
	})
	t.Run("stale", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "l2.sock")
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		l.(*net.UnixListener).SetUnlinkOnClose(false)
		l.Close()
		if _, err := control.Dial(path).Status(t.Context()); !errors.Is(err, control.ErrNotRunning) {
			t.Errorf("client: got %v, want %v", err, control.ErrNotRunning)
		}
		s, err := control.Listen(path, -1)
		if err != nil {
			t.Fatal(err)
		}
		s.Close()
	})
	t.Run("not a socket", func(t *testing.T) {
		dir := t.TempDir()
		file, link := filepath.Join(dir, "file"), filepath.Join(dir, "link")
		if err := errors.Join(os.WriteFile(file, []byte("theirs"), 0o600), os.Symlink(file, link)); err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{file, link, dir} {
			if _, err := control.Listen(path, -1); err == nil || !strings.Contains(err.Error(), "no socket") {
				t.Errorf("%s: got %v", path, err)
			}
			if _, err := os.Lstat(path); err != nil {
				t.Errorf("taken away: %v", err)
			}
		}
	})
	t.Run("replaced", func(t *testing.T) { // by hand, while we ran
		path := filepath.Join(t.TempDir(), "l2.sock")
		s, err := control.Listen(path, -1)
		if err != nil {
			t.Fatal(err)
		}
		os.Remove(path)
		if err := os.WriteFile(path, []byte("theirs"), 0o600); err != nil {
			t.Fatal(err)
		}
		s.Close()
		if _, err := os.Stat(path); err != nil {
			t.Errorf("the other's file is gone: %v", err)
		}
	})
}

func TestParseMAC(t *testing.T) {
	for text, want := range map[string]string{
		"52:54:00:12:34:56": "52:54:00:12:34:56", "52-54-00-12-34-5A": "52:54:00:12:34:5a", "5254.0012.3456": "52:54:00:12:34:56",
		"": "", "52:54:00:12:34": "", "52:54:00:12:34:56:78:9a": "", "525400123456": "52:54:00:12:34:56", "home": "",
		"ff:ff:ff:ff:ff:ff": "", "01:00:5e:00:00:01": "", "00:00:00:00:00:00": "",
	} {
		mac, err := control.ParseMAC(text)
		if mac.String() != want || (err == nil) != (want != "") {
			t.Errorf("%q: got %v, %v; want %q", text, mac, err, want)
		}
	}
}

// Whatever the body, the answer is JSON, and a refusal unless it was good.
func FuzzRequest(f *testing.F) {
	for _, seed := range []string{`{"mac":"52:54:00:12:34:56","vlan":7,"port":"local"}`, `{"port":"office"}`, `{"site":"attic","ttl_ms":3600000}`, `{"site":"attic","time_ms":1000}`, `{`, ``} {
		for route := range uint8(5) {
			f.Add(route, []byte(seed))
		}
	}
	routes := []string{"/v1/fdb/add", "/v1/fdb/del", "/v1/fdb/flush", "/v1/invite", "/v1/test"}
	f.Fuzz(func(t *testing.T, route uint8, body []byte) {
		w := httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodPost, routes[int(route)%len(routes)], bytes.NewReader(body))
		control.Routes(&fake{}).ServeHTTP(w, r)
		lines := bytes.Split(bytes.TrimSpace(w.Body.Bytes()), []byte("\n")) // of a test, several
		if slices.ContainsFunc(lines, func(line []byte) bool { return !json.Valid(line) }) || w.Code != 200 && w.Code != 400 && w.Code != 404 {
			t.Errorf("%d %q", w.Code, w.Body)
		}
	})
}
