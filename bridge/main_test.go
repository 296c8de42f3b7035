// SPDX-License-Identifier: Apache-2.0

package bridge_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"net"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/l2bridge/l2bridge/bridge"
	"github.com/l2bridge/l2bridge/fdb"
	"github.com/l2bridge/l2bridge/internal/frame"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// port is a bridge.Port whose frames come from a test and go to it.
type port struct {
	name    string
	deliver func([]*frame.Buf) // set once it is attached
	detach  func()             // ends Run and waits for Serve
	onSend  func([]*frame.Buf) // instead of keeping copies, if set

	attached chan func([]*frame.Buf)
	mu       sync.Mutex
	got      [][]byte
}

func (p *port) String() string { return p.name }

func (p *port) Send(frames []*frame.Buf) {
	if p.onSend != nil {
		p.onSend(frames)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, b := range frames {
		p.got = append(p.got, bytes.Clone(b.Bytes()))
	}
}

func (p *port) Run(ctx context.Context, deliver func([]*frame.Buf)) error {
	p.attached <- deliver
	<-ctx.Done()
	return nil
}

// take returns what was sent to the port since it was asked last.
func (p *port) take() [][]byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	got := p.got
	p.got = nil
	return got
}

// input has frames come in by the port, as one batch.
func (p *port) input(frames ...[]byte) {
	batch := make([]*frame.Buf, len(frames))
	for i, f := range frames {
		batch[i] = frame.New(f)
	}
	p.deliver(batch)
	for _, b := range batch {
		b.Release()
	}
}

// serve attaches p until the test ends, or p.detach is called.
func serve(t testing.TB, sw *bridge.Switch, p *port, group bridge.Group, quota int) *port {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	p.attached = make(chan func([]*frame.Buf))
	ended := make(chan error, 1)
	go func() { ended <- sw.Serve(ctx, p, group, quota) }()
	select {
	case p.deliver = <-p.attached:
	case err := <-ended:
		cancel()
		t.Fatalf("Serve %s: %v", p, err)
	}
	p.detach = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Serve %s: %v", p, err)
		}
	})
	t.Cleanup(p.detach)
	return p
}

func attach(t testing.TB, sw *bridge.Switch, name string, group bridge.Group, quota int) *port {
	t.Helper()
	return serve(t, sw, &port{name: name}, group, quota)
}

// site is a switch with its LAN and three peers.
type site struct {
	*bridge.Switch
	table   *fdb.Table
	local   *port
	a, b, c *port
}

func newSite(t testing.TB, cfg bridge.Config) *site {
	t.Helper()
	if cfg.Table == nil {
		cfg.Table = fdb.New(fdb.Config{Max: 1 << 13})
	}
	sw := bridge.New(cfg)
	return &site{
		Switch: sw,
		table:  cfg.Table,
		local:  attach(t, sw, "local", bridge.Local, 1<<10),
		a:      attach(t, sw, "site-a", bridge.Mesh, 1<<10),
		b:      attach(t, sw, "site-b", bridge.Mesh, 1<<10),
		c:      attach(t, sw, "site-c", bridge.Mesh, 1<<10),
	}
}

// mac returns the address of the n-th host.
func mac(n uint32) net.HardwareAddr {
	return binary.BigEndian.AppendUint32(net.HardwareAddr{0x02, 0x42}, n)
}

func station(n uint32) frame.Station { return frame.NewStation(mac(n), 0) }

var broadcast = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// ether returns a frame with what follows its source address.
func ether(dst, src net.HardwareAddr, rest ...byte) []byte {
	return append(append(bytes.Clone(dst), src...), rest...)
}

// between returns an untagged frame from one host to another.
func between(from, to uint32) []byte { return ether(mac(to), mac(from), 0x88, 0xb5, 1, 2, 3) }

// hello returns a broadcast of a host.
func hello(from uint32) []byte { return ether(broadcast, mac(from), 0x88, 0xb5, 1, 2, 3) }
