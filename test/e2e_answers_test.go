// SPDX-License-Identifier: Apache-2.0

//go:build linux

package test_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/l2bridge/l2bridge/test/lab"
)

// The fields that scripts may count on, with the kind of each. There may be
// more.
var (
	statusFields = shape{
		"schema": number, "version": text, "site": text, "id": text, "network": text, "state": text,
		"since_ms": number, "tap": text, "bridge": text, "mtu": number, "listen": text,
		"peers": array, "drops": array,
	}
	peerFields = shape{
		"site": text, "id": text, "state": text, "addr": text, "via": text, "since_ms": number,
		"rtt_us": number, "path_mtu": number, "lanes": number, "kex": text, "rx_frames": number,
		"tx_frames": number, "rx_bytes": number, "tx_bytes": number, "macs": number,
	}
	stationFields = shape{
		"mac": text, "vlan": number, "port": text, "age_ms": number, "static": boolean, "moves": number,
	}
	dropFields = shape{"reason": text, "port": text, "count": number}
)

type kind string

const (
	text    kind = "string"
	number  kind = "float64"
	boolean kind = "bool"
	array   kind = "[]interface {}"
)

type shape map[string]kind

// check reports fields of an object that are missing or of another kind.
func (s shape) check(t *testing.T, what string, object any) {
	t.Helper()
	fields, ok := object.(map[string]any)
	if !ok {
		t.Errorf("%s is %T, want an object", what, object)
		return
	}
	for _, name := range slices.Sorted(maps.Keys(s)) {
		if got := fmt.Sprintf("%T", fields[name]); got != string(s[name]) {
			t.Errorf("%s: %q is %s (%v), want %s", what, name, got, fields[name], s[name])
		}
	}
}

// What the commands tell of a running site, as programs read it.
func TestAnswers(t *testing.T) {
	s, _, _ := join(t, lab.Options{Hosts: 1})
	a := s.A.Hosts[0]
	ping(t, a.Namespace, s.B.Hosts[0].Addr4, recvWait)

	ask := func(command ...string) any {
		t.Helper()
		var v any
		out := s.A.MustCLI(append(command, "-j")...)
		if err := json.Unmarshal([]byte(out), &v); err != nil {
			t.Fatalf("%v: %v\n%s", command, err, out)
		}
		return v
	}
	rows := func(s shape, least int, command ...string) {
		t.Helper()
		list, ok := ask(command...).([]any)
		if !ok || len(list) < least {
			t.Errorf("%v: %v, want an array of %d at least", command, list, least)
		}
		for _, row := range list {
			s.check(t, strings.Join(command, " "), row)
		}
	}
	statusFields.check(t, "status", ask("status"))
	rows(peerFields, 1, "peers")
	rows(stationFields, 2, "fdb", "show")
	rows(dropFields, 0, "drops")

	status, err := s.A.Status()
	if err != nil {
		t.Fatal(err)
	}
	if status.Site != "a" || status.TAP != defaultTAP || status.Bridge != lab.BridgeName || status.MTU != 1500 || len(status.ID) != 64 {
		t.Errorf("status %+v", status)
	}
	peer := status.Peers[0]
	if peer.Site != "b" || peer.KEX != "X25519MLKEM768" || peer.Via != "" || peer.PathMTU < 1200 || peer.RTT <= 0 ||
		peer.RxFrames == 0 || peer.TxFrames == 0 {
		t.Errorf("peer %+v", peer)
	}
	if out := s.A.MustCLI("status"); !strings.HasPrefix(out, "UP") {
		t.Errorf("status begins with %q, want UP", out)
	}
	s.A.MustCLI("status", "--check")
}

// Static entries outlive a restart; flushing spares them.
func TestStationsByHand(t *testing.T) {
	s, upA, _ := join(t, lab.Options{Hosts: 1})
	const mac = "02:77:00:00:00:77"
	s.A.MustCLI("fdb", "add", mac, "b", "vlan", "7")
	s.A.MustCLI("fdb", "flush")
	if err := upA.Stop(); err != nil {
		t.Fatal(err)
	}
	s.A.Up()
	s.A.MustCLI("fdb", "get", mac, "vlan", "7")
	s.A.MustCLI("fdb", "del", mac, "vlan", "7")
	for _, command := range []string{"get", "del"} {
		if _, err := s.A.CLI("fdb", command, mac, "vlan", "7"); lab.ExitCode(err) != 1 {
			t.Errorf("fdb %s without a hit: %v, want exit status 1", command, err)
		}
	}
}

// How commands end when they cannot do what is asked.
func TestRefusals(t *testing.T) {
	s := lab.TwoSites(t, lab.Options{})
	third := s.B.Instance("third")
	refused := func(site *lab.Site, want int, command ...string) {
		t.Helper()
		out, err := site.CLI(command...)
		if lab.ExitCode(err) != want {
			t.Errorf("%v: %v, want exit status %d", command, err, want)
		}
		if out != "" {
			t.Errorf("%v: wrote %q to standard output", command, out)
		}
	}
	refused(s.A, 3, "status")
	refused(s.A, 3, "invite")
	s.A.Init(bare()...)
	refused(s.A, 1, "init", "--site", "a")
	s.A.Up()
	token := s.A.Invite()
	if strings.ContainsAny(token, " \n") || !strings.HasPrefix(token, "l2b1_") || len(token) > 512 {
		t.Errorf("token %q, want one line that begins with l2b1_, 512 bytes at most", token)
	}
	up := s.B.Join(token, bare()...)
	s.B.WaitUp(1)
	refused(s.B, 4, "invite")
	refused(third, 4, append([]string{"join", token, "--site", "third"}, bare("--listen", "[::]:4434")...)...)
	refused(third, 4, append([]string{"join", "--peer", s.A.Addr4 + ":4433", "--site", "third"}, bare("--listen", "[::]:4434")...)...)
	refused(third, 2, "join", "nonsense")
	refused(third, 1, append([]string{"join", token[:len(token)-1]}, bare("--listen", "[::]:4434")...)...)
	refused(third, 2, "status", "--no-such-flag")

	// Joining again with the same token is just running.
	if err := up.Stop(); err != nil {
		t.Fatal(err)
	}
	s.B.Join(token, bare()...)
	s.B.WaitUp(1)
}
