// SPDX-License-Identifier: Apache-2.0

package bridge_test

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/l2bridge/l2bridge/bridge"
	"github.com/l2bridge/l2bridge/bridge/guard"
	"github.com/l2bridge/l2bridge/fdb"
	"github.com/l2bridge/l2bridge/internal/frame"
)

// model is a switch made of maps, for times in whole seconds.
type model struct {
	own      frame.Station
	outer    *guard.Outer
	mask     uint16
	max      int
	now      int
	ports    []modelPort
	stations map[frame.Station]bridge.Station // Age is the second it was last seen
	statics  map[frame.Station]string
	drops    map[bridge.Drop]uint64 // by reason and port
}

type modelPort struct {
	name  string
	group bridge.Group
	room  int
}

const modelAgeing = 300

func (m *model) port(name string) *modelPort {
	for i := range m.ports {
		if m.ports[i].name == name {
			return &m.ports[i]
		}
	}
	return nil
}

func (m *model) isFull(name string) bool {
	n := 0
	for _, s := range m.stations {
		if s.Port == name {
			n++
		}
	}
	return n >= m.port(name).room
}

func (m *model) sleep(seconds int) {
	m.now += seconds
	maps.DeleteFunc(m.stations, func(_ frame.Station, s bridge.Station) bool {
		return !s.Static && m.now-int(s.Age) > modelAgeing
	})
}

func (m *model) attach(name string, group bridge.Group, quota int) bool {
	if m.port(name) != nil {
		return false
	}
	left := m.max
	for _, p := range m.ports {
		left -= p.room
	}
	m.ports = append(m.ports, modelPort{name, group, min(quota, left)})
	for _, s := range slices.Sorted(maps.Keys(m.statics)) {
		if m.statics[s] == name {
			m.pin(s, name)
		}
	}
	return true
}

func (m *model) detach(name string) {
	m.ports = slices.DeleteFunc(m.ports, func(p modelPort) bool { return p.name == name })
	maps.DeleteFunc(m.stations, func(_ frame.Station, s bridge.Station) bool { return s.Port == name })
}

// pin makes a static entry at an attached port.
func (m *model) pin(s frame.Station, name string) bool {
	if m.stations[s].Port != name && m.isFull(name) {
		return false
	}
	m.stations[s] = bridge.Station{Station: s, Port: name, Static: true}
	return true
}

func (m *model) addStatic(s frame.Station, name string) bool {
	if s.IsGroup() || s.IsZero() {
		return false
	}
	if m.port(name) == nil {
		delete(m.stations, s)
	} else if !m.pin(s, name) {
		return false
	}
	m.statics[s] = name
	return true
}

func (m *model) delete(s frame.Station) bool {
	_, known := m.stations[s]
	_, static := m.statics[s]
	delete(m.stations, s)
	delete(m.statics, s)
	return known || static
}

func (m *model) flush(name string) {
	maps.DeleteFunc(m.stations, func(_ frame.Station, s bridge.Station) bool {
		return !s.Static && (name == "" || s.Port == name)
	})
}

// learn reports whether the frame may pass.
func (m *model) learn(s frame.Station, in string) bool {
	switch old, known := m.stations[s]; {
	case known && old.Port == in:
		old.Age = time.Duration(m.now)
		m.stations[s] = old
	case known && old.Static:
		return false
	case m.isFull(in):
	case known:
		m.stations[s] = bridge.Station{Station: s, Port: in, Age: time.Duration(m.now), Moves: old.Moves + 1}
	default:
		m.stations[s] = bridge.Station{Station: s, Port: in, Age: time.Duration(m.now)}
	}
	return true
}

// route returns the ports that a frame goes to, or why it goes nowhere.
func (m *model) route(in string, f []byte) (to []string, why string) {
	if len(f) < 14 {
		return nil, "malformed"
	}
	vlan := uint16(0)
	if kind := [2]byte(f[12:]); kind == [2]byte{0x81, 0x00} || kind == [2]byte{0x88, 0xa8} {
		if len(f) < 18 {
			return nil, "malformed"
		}
		vlan = uint16(f[14])<<8&0xf00 | uint16(f[15])
	}
	to6, from6 := fmt.Sprintf("%x", f[:6]), fmt.Sprintf("%x", f[6:12])
	dst, src := frame.NewStation(f[:6], vlan), frame.NewStation(f[6:12], vlan)
	multicast := f[0]%2 == 1
	local := m.port(in).group == bridge.Local
	switch {
	case f[6]%2 == 1 || from6 == "000000000000":
		return nil, "bad_source"
	case to6 == "0180c2000001":
		return nil, "reserved"
	case to6[:11] == "0180c200000" && m.mask>>(f[5]&15)%2 == 0:
		return nil, "reserved"
	case to6 == "01000ccccccd" && m.mask%2 == 0:
		return nil, "pvst"
	case local && m.outer.Match(f):
		return nil, "own_outer"
	case from6 == fmt.Sprintf("%x", []byte(m.own.MAC())):
		if !local {
			return nil, "own_source"
		}
	case !m.learn(src, in):
		return nil, "static"
	}
	if at, known := m.stations[dst]; known && !multicast {
		switch {
		case at.Port == in:
			return nil, "same_port"
		case !local && m.port(at.Port).group != bridge.Local:
			return nil, "split_horizon"
		}
		return []string{at.Port}, ""
	}
	for _, p := range m.ports {
		if p.name != in && (local || p.group == bridge.Local) {
			to = append(to, p.name)
		}
	}
	if to == nil {
		return nil, "no_port"
	}
	return to, ""
}

// input returns what each port is sent of a batch, and counts what is dropped.
func (m *model) input(in string, frames [][]byte) map[string][][]byte {
	sent := make(map[string][][]byte)
	for _, f := range frames {
		to, why := m.route(in, f)
		if why != "" {
			m.drops[bridge.Drop{Reason: why, Port: in}]++
		}
		for _, p := range to {
			sent[p] = append(sent[p], f)
		}
	}
	return sent
}

func (m *model) listing() []bridge.Station {
	var all []bridge.Station
	for _, s := range m.stations {
		s.Age = time.Duration(m.now-int(s.Age)) * time.Second
		if s.Static {
			s.Age = 0
		}
		all = append(all, s)
	}
	for s, port := range m.statics {
		if _, known := m.stations[s]; !known {
			all = append(all, bridge.Station{Station: s, Port: port, Static: true})
		}
	}
	slices.SortFunc(all, func(a, b bridge.Station) int { return int(a.Station) - int(b.Station) }) // 60 bits each
	return all
}

// both is a switch and its model.
type both struct {
	model
	table *fdb.Table
	sw    *bridge.Switch
	live  map[string]*port
	fails []string
}

func newBoth(max int, mask uint16) *both {
	table, outer := fdb.New(fdb.Config{Max: max}), outerOf()
	b := &both{
		model: model{
			own: station(ours), outer: outer, mask: mask, max: max,
			stations: make(map[frame.Station]bridge.Station), statics: make(map[frame.Station]string),
			drops: make(map[bridge.Drop]uint64),
		},
		table: table,
		sw:    bridge.New(bridge.Config{Table: table, Outer: outer, ForwardReserved: mask}),
		live:  make(map[string]*port),
	}
	b.sw.SetOwn(b.own)
	return b
}

func (b *both) failf(format string, a ...any) { b.fails = append(b.fails, fmt.Sprintf(format, a...)) }

func (b *both) input(in string, frames [][]byte) {
	want := b.model.input(in, frames)
	b.live[in].input(frames...)
	for name, p := range b.live {
		got := p.take()
		if !slices.EqualFunc(want[name], got, bytes.Equal) {
			b.failf("from %s: %s was sent (-want +got):\n%s", in, name, cmp.Diff(want[name], got))
		}
	}
}

// compare looks at what both know. It asks cmp only for the words: it is slow.
func (b *both) compare() {
	if want, got := b.listing(), b.sw.Stations(); !slices.Equal(want, got) {
		b.failf("stations (-want +got):\n%s", cmp.Diff(want, got))
	}
	got := make(map[bridge.Drop]uint64)
	for _, d := range b.sw.Drops() {
		got[bridge.Drop{Reason: d.Reason, Port: d.Port}] = d.Count
	}
	if !maps.Equal(b.drops, got) {
		b.failf("drops (-want +got):\n%s", cmp.Diff(b.drops, got))
	}
	if got := b.sw.Statics(); !maps.Equal(b.model.statics, got) {
		b.failf("static entries (-want +got):\n%s", cmp.Diff(b.model.statics, got))
	}
}

// op is one thing that happens to a switch. It is drawn before the switch is
// made, because the switch lives in a bubble of fake time.
type op struct {
	Kind    string
	Port    string
	Frames  [][]byte
	Station frame.Station
	Seconds int
	Quota   int
}

func (o op) String() string {
	return fmt.Sprintf("%s %s %x %v %ds %d", o.Kind, o.Port, o.Frames, o.Station, o.Seconds, o.Quota)
}

var (
	portNames = []string{"local", "site-a", "site-b", "site-c"}

	drawUnicast = rapid.Map(rapid.Uint32Range(1, 8), func(n uint32) []byte { return mac(n) })
	drawSpecial = rapid.Map(rapid.SampledFrom([][]byte{zero, broadcast, group, pvst, mac(ours), reserved(16)}), slices.Clone[[]byte])
	drawBarred  = rapid.Map(rapid.ByteRange(0, 15), func(n byte) []byte { return reserved(n) })
	drawSource  = rapid.OneOf(drawUnicast, drawUnicast, drawUnicast, drawSpecial)
	drawTarget  = rapid.OneOf(drawUnicast, drawUnicast, drawUnicast, drawSpecial, drawBarred)
	drawRest    = rapid.SampledFrom([][]byte{
		{0x88, 0xb5}, {0x88, 0xb5, 1, 2, 3, 4, 5, 6},
		{0x81, 0, 0, 0, 8, 0}, {0x81, 0, 0xe0, 5, 8, 0}, {0x88, 0xa8, 0x10, 5, 0x81, 0, 0, 6, 8, 0},
		{0x81, 0}, {0x81, 0, 0, 5}, outerPacket(), append([]byte{0x81, 0, 0, 5}, outerPacket()...),
	})
	drawFrame = rapid.Custom(func(t *rapid.T) []byte {
		f := ether(drawTarget.Draw(t, "to"), drawSource.Draw(t, "from"), drawRest.Draw(t, "rest")...)
		if rapid.IntRange(0, 15).Draw(t, "cut") == 15 {
			f = f[:rapid.IntRange(0, 14).Draw(t, "length")]
		}
		return f
	})
	drawOp = rapid.Custom(func(t *rapid.T) op {
		return op{
			Kind: rapid.SampledFrom([]string{
				"input", "input", "input", "input", "input", "input", "sleep", "attach", "detach", "static", "delete", "flush",
			}).Draw(t, "kind"),
			Port:    rapid.SampledFrom(portNames).Draw(t, "port"),
			Frames:  rapid.SliceOfN(drawFrame, 1, 6).Draw(t, "frames"),
			Station: frame.NewStation(drawSource.Draw(t, "mac"), rapid.SampledFrom([]uint16{0, 0, 5}).Draw(t, "vlan")),
			Seconds: rapid.IntRange(1, 200).Draw(t, "seconds"),
			Quota:   rapid.IntRange(0, 6).Draw(t, "quota"),
		}
	})
)

func groupOf(name string) bridge.Group {
	if name == "local" {
		return bridge.Local
	}
	return bridge.Mesh
}

func (b *both) attach(t *testing.T, o op) {
	if b.model.attach(o.Port, groupOf(o.Port), o.Quota) {
		b.live[o.Port] = attach(t, b.sw, o.Port, groupOf(o.Port), o.Quota)
	} else if b.sw.Serve(t.Context(), &port{name: o.Port}, groupOf(o.Port), o.Quota) == nil {
		b.failf("%s was attached twice", o.Port)
	}
}

func (b *both) apply(t *testing.T, o op) {
	_, attached := b.live[o.Port]
	switch o.Kind {
	case "input":
		if attached {
			b.input(o.Port, o.Frames)
		}
	case "sleep":
		time.Sleep(time.Duration(o.Seconds) * time.Second)
		b.table.Sweep(b.table.Now()) // as its Run does each second
		b.model.sleep(o.Seconds)
	case "attach":
		b.attach(t, o)
	case "detach":
		if attached {
			b.live[o.Port].detach()
			delete(b.live, o.Port)
			b.model.detach(o.Port)
		}
	case "static":
		err := b.sw.AddStatic(o.Station, o.Port)
		if want := b.model.addStatic(o.Station, o.Port); (err == nil) != want {
			b.failf("AddStatic(%v, %s) = %v", o.Station, o.Port, err)
		}
	case "delete":
		if got, want := b.sw.Delete(o.Station), b.model.delete(o.Station); got != want {
			b.failf("Delete(%v) = %v", o.Station, got)
		}
	case "flush":
		name := o.Port
		if o.Quota == 0 {
			name, attached = "", true
		}
		n, err := b.sw.Flush(name)
		if (err == nil) != attached {
			b.failf("Flush(%q) = %d, %v", name, n, err)
		}
		if attached {
			before := len(b.model.stations)
			b.model.flush(name)
			if want := before - len(b.model.stations); n != want {
				b.failf("Flush(%q) = %d, want %d", name, n, want)
			}
		}
	}
}

// TestModel has the same things happen to a switch and to its model, and holds
// that every frame goes where the model says, in order and once, or is counted
// under the reason that the model says, and that both know the same stations.
func TestModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(1, 80).Draw(rt, "n") // SliceOf's own choice is short
		ops := rapid.SliceOfN(drawOp, n, n).Draw(rt, "ops")
		max := rapid.IntRange(1, 24).Draw(rt, "max")
		mask := rapid.Uint16().Draw(rt, "mask")
		quota := rapid.IntRange(0, 6).Draw(rt, "quota")
		var fails []string
		synctest.Test(t, func(t *testing.T) {
			b := newBoth(max, mask)
			for _, name := range portNames {
				b.attach(t, op{Port: name, Quota: quota})
			}
			for i, o := range ops {
				if b.apply(t, o); len(b.fails) == 0 {
					b.compare()
				}
				if len(b.fails) > 0 {
					b.failf("after operation %d: %v", i, o)
					break
				}
			}
			fails = b.fails
		})
		for _, f := range fails {
			rt.Error(f)
		}
	})
}

// FuzzSwitch has frames of any bytes come in by any port. The first byte says
// by which, the second how long the frame is, and so on.
func FuzzSwitch(f *testing.F) {
	f.Add([]byte{0, 17})
	for i, frames := range [][][]byte{
		{hello(1), between(11, 1), between(1, 11)},
		{ether(bpdu, mac(1), 8, 0), ether(broadcast, mac(ours), 8, 0), ether(mac(2), mac(1), outerPacket()...)},
		{ether(broadcast, mac(1), 0x81, 0), ether(broadcast, mac(1), 0x81, 0, 0, 5, 8, 0), ether(mac(1), mac(2), 0x88, 0xa8, 0, 5, 8, 0)},
		{nil, hello(1)[:13], hello(1)[:14], ether(mac(pinned), mac(pinned), 8, 0)},
	} {
		var seed []byte
		for j, fr := range frames {
			seed = append(append(seed, byte(i+j), byte(len(fr))), fr...)
		}
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		synctest.Test(t, func(t *testing.T) { // the model knows of no time that passes meanwhile
			b := newBoth(8, 1<<14)
			for _, name := range portNames {
				b.attach(t, op{Port: name, Quota: 2})
			}
			if err := b.sw.AddStatic(station(pinned), "site-b"); err != nil || !b.model.addStatic(station(pinned), "site-b") {
				t.Fatal(err)
			}
			for len(p) >= 2 {
				in, n := portNames[int(p[0])%len(portNames)], min(int(p[1]), len(p)-2)
				b.input(in, [][]byte{p[2 : 2+n]})
				p = p[2+n:]
			}
			b.compare()
			for _, fail := range b.fails {
				t.Error(fail)
			}
		})
	})
}
