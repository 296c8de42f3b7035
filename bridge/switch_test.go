// SPDX-License-Identifier: Apache-2.0

package bridge_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/l2bridge/l2bridge/bridge"
	"github.com/l2bridge/l2bridge/bridge/guard"
	"github.com/l2bridge/l2bridge/fdb"
	"github.com/l2bridge/l2bridge/internal/frame"
)

// Who is where when a case of TestSwitch begins.
const (
	here    = 1 // local
	a1, a2  = 11, 12
	b1      = 21
	pinned  = 22 // static at site-b
	ours    = 99 // the address of our TAP
	unknown = 1000
)

var (
	group  = net.HardwareAddr{0x01, 0x00, 0x5e, 0, 0, 0xfb}
	zero   = make(net.HardwareAddr, 6)
	pvst   = net.HardwareAddr{0x01, 0x00, 0x0c, 0xcc, 0xcc, 0xcd}
	bpdu   = reserved(0)
	peerAt = netip.MustParseAddrPort("192.0.2.7:4433")
)

func reserved(n byte) net.HardwareAddr { return net.HardwareAddr{0x01, 0x80, 0xc2, 0, 0, n} }

// outerPacket returns what follows the addresses in a packet of the tunnel's own,
// from our port to peerAt.
func outerPacket() []byte {
	p := []byte{0x08, 0x00, 0x45, 0, 0, 28, 0, 0, 0x40, 0, 64, frame.ProtoUDP, 0, 0, 198, 51, 100, 1}
	p = append(p, peerAt.Addr().AsSlice()...)
	p = binary.BigEndian.AppendUint16(p, 4433)
	p = binary.BigEndian.AppendUint16(p, peerAt.Port())
	return append(p, 0, 8, 0, 0)
}

func outerOf() *guard.Outer {
	o := new(guard.Outer)
	o.Set([]uint16{4433}, []netip.AddrPort{peerAt})
	return o
}

func TestSwitch(t *testing.T) {
	t.Parallel()
	tagged := func(vlan byte) []byte { return []byte{0x81, 0x00, 0, vlan, 0x88, 0xb5, 1} }
	for _, tt := range []struct {
		name  string
		from  string
		frame []byte
		want  string // ports, or the reason why none
	}{
		{"broadcast of the LAN", "local", hello(here), "site-a site-b site-c"},
		{"broadcast of a peer", "site-a", hello(a1), "local"},
		{"multicast of the LAN", "local", ether(group, mac(here), 8, 0), "site-a site-b site-c"},
		{"unknown, from the LAN", "local", between(here, unknown), "site-a site-b site-c"},
		{"unknown, from a peer", "site-a", between(a1, unknown), "local"},
		{"known, from the LAN", "local", between(here, a1), "site-a"},
		{"known, from a peer", "site-b", between(b1, here), "local"},
		{"static, from the LAN", "local", between(here, pinned), "site-b"},

		{"to a neighbour on the LAN", "local", between(2, here), "same_port"},
		{"to itself", "local", between(here, here), "same_port"},
		{"to a neighbour behind a peer", "site-a", between(a1, a2), "same_port"},
		{"from peer to peer", "site-a", between(a1, b1), "split_horizon"},
		{"from peer to static at a peer", "site-a", between(a1, pinned), "split_horizon"},

		{"from a group", "site-a", ether(mac(here), group, 8, 0), "bad_source"},
		{"from broadcast", "local", ether(mac(a1), broadcast, 8, 0), "bad_source"},
		{"from nobody", "site-a", ether(mac(here), zero, 8, 0), "bad_source"},
		{"to nobody", "local", ether(zero, mac(here), 8, 0), "site-a site-b site-c"},
		{"static seen elsewhere", "site-a", between(pinned, here), "static"},
		{"static seen on the LAN", "local", hello(pinned), "static"},
		{"static in its place", "site-b", between(pinned, here), "local"},
		{"static of another VLAN", "site-a", ether(mac(here), mac(pinned), tagged(5)...), "local"},

		{"own address from a peer", "site-a", between(ours, here), "own_source"},
		{"own address from a peer, tagged", "site-a", ether(broadcast, mac(ours), tagged(5)...), "own_source"},
		{"own address from the LAN", "local", between(ours, a1), "site-a"},
		{"to the own address", "site-a", between(a1, ours), "local"},

		{"BPDU", "local", ether(bpdu, mac(here), 0, 38, 0x42, 0x42, 3), "reserved"},
		{"BPDU from a peer", "site-a", ether(bpdu, mac(a1), 0, 38, 0x42, 0x42, 3), "reserved"},
		{"LLDP, tagged", "local", ether(reserved(0xe), mac(here), tagged(5)...), "reserved"},
		{"last reserved", "local", ether(reserved(0xf), mac(here), 0x88, 0xb5), "reserved"},
		{"behind the reserved", "local", ether(reserved(0x10), mac(here), 0x88, 0xb5), "site-a site-b site-c"},
		{"PVST", "local", ether(pvst, mac(here), 0, 50, 0xaa, 0xaa, 3), "pvst"},
		{"PVST of a VLAN", "site-a", ether(pvst, mac(a1), tagged(5)...), "pvst"},
		{"CDP", "local", ether(net.HardwareAddr{0x01, 0x00, 0x0c, 0xcc, 0xcc, 0xcc}, mac(here), 0, 50), "site-a site-b site-c"},

		{"priority tag", "local", ether(mac(a1), mac(here), 0x81, 0, 0xa0, 0, 8, 0), "site-a"},
		{"priority tag of a provider", "local", ether(mac(a1), mac(here), 0x88, 0xa8, 0xa0, 0, 8, 0), "site-a"},
		{"another VLAN", "local", ether(mac(a1), mac(here), tagged(5)...), "site-a site-b site-c"},
		{"VLAN of a station", "local", ether(mac(a1), mac(here), tagged(7)...), "site-a"},
		{"VLAN of a station, drop eligible", "local", ether(mac(a1), mac(here), 0x81, 0, 0x10, 7, 8, 0), "site-a"},
		{"outer tag counts", "local", ether(mac(a1), mac(here), 0x88, 0xa8, 0, 7, 0x81, 0, 0, 5, 8, 0), "site-a"},

		{"no bytes", "local", nil, "malformed"},
		{"cut header", "site-a", hello(a1)[:13], "malformed"},
		{"header only", "local", hello(here)[:14], "site-a site-b site-c"},
		{"tag missing", "local", ether(broadcast, mac(here), 0x81, 0), "malformed"},
		{"tag cut", "site-a", ether(broadcast, mac(a1), 0x88, 0xa8, 0, 7, 8), "malformed"},
		{"inner tag cut", "local", ether(broadcast, mac(here), 0x88, 0xa8, 0, 7, 0x81, 0), "site-a site-b site-c"},

		{"own packet", "local", ether(mac(a1), mac(here), outerPacket()...), "own_outer"},
		{"own packet, flooded", "local", ether(mac(unknown), mac(here), outerPacket()...), "own_outer"},
		{"own packet, own address", "local", ether(mac(a1), mac(ours), outerPacket()...), "own_outer"},
		{"like an own packet, from a peer", "site-a", ether(mac(here), mac(a1), outerPacket()...), "local"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSite(t, bridge.Config{Outer: outerOf()})
			s.SetOwn(station(ours))
			s.local.input(hello(here))
			s.a.input(hello(a1), hello(a2), ether(broadcast, mac(a1), tagged(7)...))
			s.b.input(hello(b1))
			if err := s.AddStatic(station(pinned), "site-b"); err != nil {
				t.Fatal(err)
			}
			var ports []string
			all := []*port{s.local, s.a, s.b, s.c}
			for _, p := range all {
				p.take()
			}
			for _, p := range all {
				if p.name == tt.from {
					p.input(tt.frame)
				}
			}
			for _, p := range all {
				switch got := p.take(); {
				case len(got) == 0:
				case cmp.Equal(got, [][]byte{tt.frame}):
					ports = append(ports, p.name)
				default:
					t.Errorf("%s was sent %x", p, got)
				}
			}
			want := []bridge.Drop{{Reason: tt.want, Port: tt.from, Count: 1}}
			if len(ports) > 0 {
				want = nil
			}
			if got := strings.Join(ports, " "); want == nil && got != tt.want {
				t.Errorf("sent to %q, want %q", got, tt.want)
			}
			if diff := cmp.Diff(want, s.Drops()); diff != "" {
				t.Errorf("drops (-want +got):\n%s", diff)
			}
		})
	}
}

// TestNeverLearned holds what a frame must not leave behind in the table.
func TestNeverLearned(t *testing.T) {
	t.Parallel()
	s := newSite(t, bridge.Config{Outer: outerOf()})
	s.SetOwn(station(ours))
	for _, p := range []*port{s.local, s.a} {
		p.input(
			ether(broadcast, group, 8, 0),
			ether(broadcast, broadcast, 8, 0),
			ether(broadcast, zero, 8, 0),
			ether(broadcast, zero, 0x81, 0, 0, 5, 8, 0),
			hello(ours),
			ether(broadcast, mac(ours), 0x81, 0, 0, 5, 8, 0),
			ether(bpdu, mac(1), 8, 0),
			ether(pvst, mac(2), 8, 0),
			hello(3)[:13],
			ether(broadcast, mac(4), 0x81, 0, 0),
		)
	}
	s.local.input(ether(mac(9), mac(5), outerPacket()...))
	if got := s.Stations(); len(got) > 0 {
		t.Errorf("learned %v", got)
	}
}

func TestForwardReserved(t *testing.T) {
	t.Parallel()
	const pause = 1
	for bit := range byte(16) {
		s := newSite(t, bridge.Config{ForwardReserved: 1 << bit})
		for n := range byte(16) {
			s.local.input(ether(reserved(n), mac(1), 0x88, 0xb5))
			want := 0
			if n == bit && bit != pause {
				want = 1
			}
			for _, p := range []*port{s.a, s.b, s.c} {
				if got := len(p.take()); got != want {
					t.Errorf("mask %#x: ..%02x reached %s %d times, want %d", 1<<bit, n, p, got, want)
				}
			}
		}
		s.a.input(ether(pvst, mac(11), 0, 50))
		if got := len(s.local.take()); (got == 1) != (bit == 0) {
			t.Errorf("mask %#x: PVST reached the LAN %d times", 1<<bit, got)
		}
	}
}

func TestMovesAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { // ages are listed
		s := newSite(t, bridge.Config{})
		s.local.input(hello(here))
		for i, p := range []*port{s.a, s.b, s.local, s.c, s.a} {
			p.input(hello(a1))
			want := bridge.Station{Station: station(a1), Port: p.name, Moves: i}
			if got := s.Stations()[1]; got != want {
				t.Errorf("after a frame from %s: %+v, want %+v", p, got, want)
			}
			name, _, ok := s.Behind(station(a1))
			if name != p.name || !ok {
				t.Errorf("after a frame from %s it is behind %q, %v", p, name, ok)
			}
		}
		s.a.take()
		s.local.input(between(here, a1))
		if got := s.a.take(); len(got) != 1 {
			t.Errorf("the port that the station is behind was sent %x", got)
		}
	})
}

// TestLostPeerIsForgotten has a peer go: what was sent to its stations is
// flooded from then on.
func TestLostPeerIsForgotten(t *testing.T) {
	t.Parallel()
	s := newSite(t, bridge.Config{})
	s.a.input(hello(a1), hello(a2))
	s.b.input(hello(b1))
	s.a.detach()
	s.a.take()
	if _, _, ok := s.Behind(station(a1)); ok || s.Count("site-a") != 0 {
		t.Error("stations of a lost peer are remembered")
	}
	s.local.input(between(here, a1), between(here, b1))
	for p, want := range map[*port][][]byte{
		s.a: nil,
		s.b: {between(here, a1), between(here, b1)},
		s.c: {between(here, a1)},
	} {
		if diff := cmp.Diff(want, p.take()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", p, diff)
		}
	}
}

func TestAgeing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, bridge.Config{})
		s.a.input(hello(a1), hello(a2))
		if err := s.AddStatic(station(pinned), "site-a"); err != nil {
			t.Fatal(err)
		}
		floods := func(after time.Duration, to uint32, want bool) {
			t.Helper()
			s.b.take()
			s.local.input(between(here, to))
			if got := len(s.b.take()) > 0; got != want {
				t.Errorf("after %v: a frame to %d is flooded: %v", after, to, got)
			}
		}
		time.Sleep(200 * time.Second)
		s.a.input(hello(a2))
		time.Sleep(100 * time.Second)
		floods(300*time.Second, a1, false)
		time.Sleep(time.Second)
		floods(301*time.Second, a1, true)
		floods(301*time.Second, a2, false)
		time.Sleep(200 * time.Second)
		floods(501*time.Second, a2, true)
		floods(501*time.Second, pinned, false)
		listing(t, s.Switch,
			bridge.Station{Station: station(here), Port: "local"},
			bridge.Station{Station: station(pinned), Port: "site-a", Static: true},
		)
	})
}

// TestFullPort has a peer bring more stations than it has room for. Nothing of
// the others gives way, those that it has stay alive, and what was not learned
// is flooded, not lost.
func TestFullPort(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		table := fdb.New(fdb.Config{Max: 8})
		sw := bridge.New(bridge.Config{Table: table})
		local := attach(t, sw, "local", bridge.Local, 4)
		a := attach(t, sw, "site-a", bridge.Mesh, 2)
		b := attach(t, sw, "site-b", bridge.Mesh, 4) // only 2 are left
		local.input(hello(1), hello(2))
		b.input(hello(b1))
		flood := func() {
			for n := range uint32(100) {
				a.input(hello(a1), hello(a2), hello(5000+n))
			}
		}
		flood()
		want := []bridge.Station{
			{Station: station(1), Port: "local"}, {Station: station(2), Port: "local"},
			{Station: station(a1), Port: "site-a"}, {Station: station(a2), Port: "site-a"},
			{Station: station(b1), Port: "site-b"},
		}
		if diff := cmp.Diff(want, sw.Stations()); diff != "" {
			t.Errorf("stations (-want +got):\n%s", diff)
		}
		if got := len(local.take()); got != 301 {
			t.Errorf("the LAN was sent %d frames, want 301", got)
		}
		a.take()
		b.take()
		local.input(between(1, 5000))
		if len(a.take()) != 1 || len(b.take()) != 1 {
			t.Error("a station that was not learned is not flooded to")
		}
		b.input(hello(22), hello(23))
		if got := sw.Count("site-b"); got != 2 {
			t.Errorf("site-b holds %d stations, want the 2 that were left", got)
		}

		time.Sleep(299 * time.Second)
		a.input(hello(a1))
		time.Sleep(2 * time.Second)
		if name, _, ok := sw.Behind(station(a1)); name != "site-a" || !ok {
			t.Error("a full port's station was not refreshed")
		}
		table.Sweep(table.Now())
		flood()
		if got := sw.Count("site-a"); got != 2 {
			t.Errorf("site-a holds %d stations, want 2", got)
		}
	})
}

// TestRuns has a batch whose frames go several ways: each port gets its own in
// order, in as few calls as there are changes of way.
func TestRuns(t *testing.T) {
	t.Parallel()
	sw := bridge.New(bridge.Config{Table: fdb.New(fdb.Config{})})
	var calls []string
	record := func(name string) *port {
		return &port{name: name, onSend: func(frames []*frame.Buf) {
			var numbers []string
			for _, b := range frames {
				numbers = append(numbers, fmt.Sprint(b.Bytes()[14]))
			}
			calls = append(calls, name+":"+strings.Join(numbers, ","))
		}}
	}
	local := attach(t, sw, "local", bridge.Local, 10)
	a := serve(t, sw, record("a"), bridge.Mesh, 10)
	b := serve(t, sw, record("b"), bridge.Mesh, 10)
	a.input(hello(a1))
	b.input(hello(b1))
	to := func(dst net.HardwareAddr, n byte) []byte { return ether(dst, mac(here), 0x88, 0xb5, n) }
	local.input(
		to(bpdu, 0),
		to(mac(a1), 1), to(mac(a1), 2), to(mac(b1), 3), to(mac(a1), 4),
		to(broadcast, 5), to(mac(unknown), 6),
		to(mac(here), 7), to(mac(b1), 8), to(bpdu, 9), to(mac(b1), 10),
	)
	want := []string{"a:1,2", "b:3", "a:4", "a:5,6", "b:5,6", "b:8", "b:10"}
	if diff := cmp.Diff(want, calls); diff != "" {
		t.Errorf("calls of Send (-want +got):\n%s", diff)
	}
	local.input()
}

// TestLearnsWithinBatch has a batch learn a station that the same batch then sends to.
func TestLearnsWithinBatch(t *testing.T) {
	t.Parallel()
	s := newSite(t, bridge.Config{})
	s.local.input(hello(1), between(2, 1))
	want := []bridge.Drop{{Reason: "same_port", Port: "local", Count: 1}}
	if diff := cmp.Diff(want, s.Drops()); diff != "" {
		t.Errorf("drops (-want +got):\n%s", diff)
	}
}

func TestNowhereToGo(t *testing.T) {
	t.Parallel()
	sw := bridge.New(bridge.Config{Table: fdb.New(fdb.Config{})})
	local := attach(t, sw, "local", bridge.Local, 10)
	local.input(hello(1), between(1, 2), between(2, 1))
	a := attach(t, sw, "site-a", bridge.Mesh, 10)
	local.detach()
	a.input(hello(a1))
	want := []bridge.Drop{
		{Reason: "same_port", Port: "local", Count: 1},
		{Reason: "no_port", Port: "local", Count: 2},
		{Reason: "no_port", Port: "site-a", Count: 1},
	}
	if diff := cmp.Diff(want, sw.Drops()); diff != "" {
		t.Errorf("drops (-want +got):\n%s", diff)
	}
}

// TestTwoLANs: Local ports reach every other port, a Local one too.
func TestTwoLANs(t *testing.T) {
	t.Parallel()
	s := newSite(t, bridge.Config{})
	second := attach(t, s.Switch, "second", bridge.Local, 10)
	second.input(hello(1))
	s.local.input(hello(2), between(2, 1))
	s.a.input(between(a1, 1))
	for p, want := range map[*port]int{s.local: 1, second: 3, s.a: 2, s.b: 2} {
		if got := len(p.take()); got != want {
			t.Errorf("%s was sent %d frames, want %d", p, got, want)
		}
	}
}

// superframe returns a TCP superframe with that many segments.
func superframe(to, from uint32, segments int) *frame.Buf {
	const headers, size = 54, 1000
	f := ether(mac(to), mac(from), 0x08, 0x00, 0x45)
	f = append(f, make([]byte, headers-len(f)+size*segments)...)
	f[23], f[46] = frame.ProtoTCP, 5<<4
	b := frame.New(f)
	b.SetHeader(frame.Vnet{
		Flags: frame.VnetNeedsCsum, GSOType: frame.GSOTCPv4, HdrLen: headers, GSOSize: size,
		CsumStart: 34, CsumOffset: 16,
	})
	return b
}

// TestSuperframe: a superframe passes whole, with its header, and one that is
// dropped counts for each frame that the LAN would have seen.
func TestSuperframe(t *testing.T) {
	t.Parallel()
	s := newSite(t, bridge.Config{})
	var got *frame.Buf
	d := serve(t, s.Switch, &port{name: "site-d", onSend: func(f []*frame.Buf) { got = f[0].Retain() }}, bridge.Mesh, 10)
	d.input(hello(41))
	got = nil
	b := superframe(41, here, 3)
	s.local.deliver([]*frame.Buf{b})
	if got != b || got.Header().GSOSize != 1000 {
		t.Fatal("the superframe did not arrive as it was")
	}
	got.Release()
	d.deliver([]*frame.Buf{b})
	b.Release()
	want := []bridge.Drop{{Reason: "same_port", Port: "site-d", Count: 3}}
	if diff := cmp.Diff(want, s.Drops()); diff != "" {
		t.Errorf("drops (-want +got):\n%s", diff)
	}
}

// TestBorrows: the switch keeps no reference to what is delivered, and a port
// that retains a frame has it to itself once the others are done. It runs alone:
// a frame that it releases once too often may be another test's by then.
func TestBorrows(t *testing.T) {
	s := newSite(t, bridge.Config{})
	var kept []*frame.Buf
	serve(t, s.Switch, &port{name: "site-d", onSend: func(frames []*frame.Buf) {
		for _, b := range frames {
			kept = append(kept, b.Retain())
		}
	}}, bridge.Mesh, 10)
	s.local.input(hello(1), between(1, 2), ether(bpdu, mac(1), 8, 0))
	for i, want := range [][]byte{hello(1), between(1, 2)} {
		if diff := cmp.Diff(want, kept[i].Bytes()); diff != "" {
			t.Errorf("frame %d (-want +got):\n%s", i, diff)
		}
		kept[i].Release()
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("frame %d has references left", i)
				}
			}()
			kept[i].Release()
		}()
	}
}

func TestAttachTwice(t *testing.T) {
	t.Parallel()
	s := newSite(t, bridge.Config{})
	s.a.input(hello(a1))
	err := s.Serve(t.Context(), &port{name: "site-a"}, bridge.Mesh, 10)
	if err == nil || !strings.Contains(err.Error(), `"site-a"`) {
		t.Fatalf("Serve of a second site-a: %v", err)
	}
	if name, group, ok := s.Behind(station(a1)); name != "site-a" || group != bridge.Mesh || !ok {
		t.Error("the first site-a lost its station")
	}
	s.a.detach()
	attach(t, s.Switch, "site-a", bridge.Mesh, 10)
}

// failing is a port whose Run fails at once.
type failing struct{ err error }

func (f failing) String() string                                       { return "failing" }
func (f failing) Send([]*frame.Buf)                                    {}
func (f failing) Run(context.Context, func(frames []*frame.Buf)) error { return f.err }

func TestServeReturnsWhatRunReturns(t *testing.T) {
	t.Parallel()
	sw := bridge.New(bridge.Config{Table: fdb.New(fdb.Config{})})
	for _, want := range []error{errors.New("cable cut"), nil} {
		if err := sw.Serve(t.Context(), failing{want}, bridge.Mesh, 1); err != want {
			t.Errorf("Serve = %v, want %v", err, want)
		}
	}
}

func TestServeWithoutPortsLeft(t *testing.T) {
	t.Parallel()
	table := fdb.New(fdb.Config{Max: 1})
	for range fdb.MaxPorts {
		if _, _, err := table.Attach(0); err != nil {
			t.Fatal(err)
		}
	}
	sw := bridge.New(bridge.Config{Table: table})
	if err := sw.Serve(t.Context(), failing{}, bridge.Mesh, 1); err == nil || !strings.Contains(err.Error(), `"failing"`) {
		t.Errorf("Serve = %v", err)
	}
}

// TestAttachCycles has a peer come and go more often than there are port
// numbers. Nothing is left of it but what it has counted.
func TestAttachCycles(t *testing.T) {
	t.Parallel()
	s := newSite(t, bridge.Config{})
	before := s.table.Stats()
	const cycles = fdb.MaxPorts + 10
	s.local.onSend = func([]*frame.Buf) {}
	for range cycles {
		d := attach(t, s.Switch, "site-d", bridge.Mesh, 10)
		d.input(between(41, unknown), between(41, 41)) // no broadcast: so many are a storm
		s.local.input(between(here, 41))
		if got := len(d.take()); got != 1 {
			t.Fatalf("the peer was sent %d frames, want 1", got)
		}
		d.detach()
	}
	after := s.table.Stats()
	if after.Reserved != before.Reserved || after.Entries != 1 { // here
		t.Errorf("the table was %+v, is %+v", before, after)
	}
	for _, p := range []*port{s.a, s.b, s.c} {
		if got := p.take(); len(got) > 0 {
			t.Errorf("%s was sent %d frames", p, len(got))
		}
	}
	want := []bridge.Drop{{Reason: "same_port", Port: "site-d", Count: cycles}}
	if diff := cmp.Diff(want, s.Drops()); diff != "" {
		t.Errorf("drops (-want +got):\n%s", diff)
	}
}

func TestReasonsAreNamed(t *testing.T) {
	t.Parallel()
	var names []string
	for r := bridge.Malformed; r <= bridge.Storm; r++ {
		names = append(names, r.String())
	}
	if slices.Contains(names, "") || len(slices.Compact(slices.Sorted(slices.Values(names)))) != len(names) {
		t.Errorf("reasons %q", names)
	}
}

// TestStorm has more come in than a LAN has, by two ports. What is known passes
// all the same, the rest up to the limit of its class, at each port by itself,
// and the excess is counted and told of for ten seconds.
func TestStorm(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, bridge.Config{})
		sent := make(map[string]int)
		for _, p := range []*port{s.local, s.a, s.b, s.c} {
			p.onSend = func(frames []*frame.Buf) {
				for _, b := range frames {
					sent[p.name] += frame.Segments(b.Header(), b.Bytes())
				}
			}
		}
		s.local.input(hello(here))
		s.a.input(hello(a1))
		s.b.input(hello(b1))
		clear(sent)
		storm := func(p *port, n int, f []byte) {
			batch := bufs(f)
			for range n {
				p.deliver(batch)
			}
		}
		count := func(what string, want map[string]int) {
			t.Helper()
			if diff := cmp.Diff(want, sent); diff != "" {
				t.Errorf("%s (-want +got):\n%s", what, diff)
			}
			clear(sent)
		}
		storm(s.local, 5000, hello(here))
		count("broadcast", map[string]int{"site-a": 999, "site-b": 999, "site-c": 999}) // and the first one
		storm(s.local, 50000, between(here, a1))
		count("known", map[string]int{"site-a": 50000})
		storm(s.a, 5000, hello(a1))
		count("broadcast of a peer", map[string]int{"local": 999})
		storm(s.b, 7000, ether(group, mac(b1), 8, 0))
		count("multicast of a peer", map[string]int{"local": 6000})
		storm(s.b, 12000, between(b1, unknown))
		count("unknown of a peer", map[string]int{"local": 10000})

		super := superframe(unknown, here, 60)
		for range 200 {
			s.local.deliver([]*frame.Buf{super})
		}
		super.Release()
		const whole = 10000 / 60
		count("unknown superframes", map[string]int{"site-a": whole * 60, "site-b": whole * 60, "site-c": whole * 60})

		for range 10 {
			time.Sleep(100 * time.Millisecond)
			storm(s.local, 100, hello(here))
		}
		count("a second of broadcast", map[string]int{"site-a": 500, "site-b": 500, "site-c": 500})

		wantDrops := []bridge.Drop{
			{Reason: "storm", Port: "local", Count: 4001 + (200-whole)*60 + 500},
			{Reason: "storm", Port: "site-a", Count: 4001},
			{Reason: "storm", Port: "site-b", Count: 1000 + 2000},
		}
		if diff := cmp.Diff(wantDrops, s.Drops()); diff != "" {
			t.Errorf("drops (-want +got):\n%s", diff)
		}
		want := []bridge.Policed{
			{Port: "local", Classes: []guard.Class{guard.Broadcast, guard.UnknownUnicast}},
			{Port: "site-a", Classes: []guard.Class{guard.Broadcast}},
			{Port: "site-b", Classes: []guard.Class{guard.Multicast, guard.UnknownUnicast}},
		}
		time.Sleep(8 * time.Second)
		if diff := cmp.Diff(want, s.Policed()); diff != "" {
			t.Errorf("policed (-want +got):\n%s", diff)
		}
		time.Sleep(3 * time.Second)
		if got := s.Policed(); got != nil {
			t.Errorf("11 s after the last refused frame: policed %v", got)
		}
		storm(s.local, 1000, hello(here))
		count("after silence", map[string]int{"site-a": 1000, "site-b": 1000, "site-c": 1000})

		// A site that comes back does not bring a fresh burst.
		storm(s.a, 1000, hello(a1))
		s.a.detach()
		clear(sent)
		again := serve(t, s.Switch, &port{name: "site-a"}, bridge.Mesh, 10)
		storm(again, 10, hello(a1))
		count("of a site that came back", map[string]int{})

		// What goes nowhere is no storm.
		s.local.detach()
		storm(s.c, 2000, hello(31))
		if got := s.Drops()[3]; got != (bridge.Drop{Reason: "no_port", Port: "site-c", Count: 2000}) {
			t.Errorf("without a LAN: %+v", got)
		}
	})
}
