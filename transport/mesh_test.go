// SPDX-License-Identifier: Apache-2.0

package transport_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go/testutils/simnet"
	"go.uber.org/goleak"

	"github.com/l2bridge/l2bridge/internal/frame"
	"github.com/l2bridge/l2bridge/transport"
	"github.com/l2bridge/l2bridge/transport/identity"
	"github.com/l2bridge/l2bridge/transport/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// lan stands for the switch of a site: it keeps what its peers send.
type lan struct {
	mu     sync.Mutex
	peers  map[string]*transport.Peer
	frames [][]byte
}

func (l *lan) serve(ctx context.Context, p *transport.Peer) error {
	l.mu.Lock()
	l.peers[p.String()] = p
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		delete(l.peers, p.String())
		l.mu.Unlock()
	}()
	return p.Run(ctx, func(frames []*frame.Buf) {
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, b := range frames {
			l.frames = append(l.frames, bytes.Clone(b.Bytes()))
		}
	})
}

func (l *lan) peer(site string) *transport.Peer {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.peers[site]
}

func (l *lan) take() [][]byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.frames
	l.frames = nil
	return f
}

// members founds a network in temporary directories and enrols sites by the
// founder's own hand.
func members(t *testing.T, sites ...string) []*identity.Member {
	t.Helper()
	var out []*identity.Member
	for i, site := range sites {
		dir, err := identity.Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { dir.Close() })
		var m *identity.Member
		if i == 0 {
			m, err = dir.Found(site)
		} else {
			m, err = enrolByPipe(out[0], dir, site)
		}
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, m)
	}
	return out
}

// enrolByPipe enrols a site as Enrol does, without a network.
func enrolByPipe(founder *identity.Member, dir *identity.Dir, site string) (*identity.Member, error) {
	token, err := founder.Invite(site, time.Hour, []string{"192.0.2.1:4433"})
	if err != nil {
		return nil, err
	}
	key, err := dir.SiteKey()
	if err != nil {
		return nil, err
	}
	a, b := net.Pipe()
	server, client := tls.Server(a, founder.EnrolTLSConfig()), tls.Client(b, identity.JoinTLSConfig(key, site, token.CA))
	shaken := make(chan error, 1)
	go func() { shaken <- server.Handshake() }()
	if err := errors.Join(client.Handshake(), <-shaken); err != nil {
		return nil, err
	}
	request, err := identity.NewJoinRequest(token, site, client.ConnectionState())
	if err != nil {
		return nil, err
	}
	reply, err := founder.Enrol(request, server.ConnectionState(), nil)
	if err != nil {
		return nil, err
	}
	m, _, err := dir.Join(token, site, reply)
	return m, err
}

// world is a simulated network.
type world struct {
	net    *simnet.Simnet
	router simnet.Router
}

func newWorld() *world {
	r := &simnet.PerfectRouter{}
	return &world{&simnet.Simnet{Router: r}, r}
}

func (w *world) endpoint(ip string, latency time.Duration) *simnet.SimConn {
	return w.net.NewEndpoint(&net.UDPAddr{IP: net.ParseIP(ip).To4(), Port: 4433}, simnet.NodeBiDiLinkSettings{Latency: latency})
}

// site runs a Mesh on an endpoint.
func (w *world) site(t *testing.T, conn net.PacketConn, m *identity.Member, peers ...string) (*transport.Mesh, *lan, func()) {
	var dial [][]string
	for _, p := range peers {
		dial = append(dial, []string{p})
	}
	l := &lan{peers: make(map[string]*transport.Peer)}
	mesh := transport.New(transport.Config{
		Member: m, Conn: conn, Dial: dial, MTU: 1500,
		Features: wire.FeatureCsum | wire.FeatureTSO | wire.FeatureUSO,
		Serve:    l.serve,
		Resolve: func(context.Context, string) ([]netip.Addr, error) {
			return nil, fmt.Errorf("no names here")
		},
		Log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})).With("site", m.Site),
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- mesh.Run(ctx) }()
	return mesh, l, func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("mesh of %s: %v", m.Site, err)
		}
	}
}

func numbered(n, length int) *frame.Buf {
	b := frame.Get(length)
	f := b.Bytes()
	for i := range f {
		f[i] = byte(n + i)
	}
	copy(f, []byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb5, byte(n >> 8), byte(n)})
	return b
}

func TestTwoSites(t *testing.T) {
	ms := members(t, "home", "office")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		a, b := w.endpoint("192.0.2.1", 10*time.Millisecond), w.endpoint("192.0.2.2", 10*time.Millisecond)
		if err := w.net.Start(); err != nil {
			t.Fatal(err)
		}
		defer w.net.Close()
		_, home, stopHome := w.site(t, a, ms[0])
		mesh, office, stopOffice := w.site(t, b, ms[1], "192.0.2.1:4433")
		time.Sleep(time.Second)
		if home.peer("office") == nil || office.peer("home") == nil {
			t.Fatalf("after a second the sites are not connected: %+v", mesh.Peers())
		}
		var want [][]byte
		for i := range 100 {
			f := numbered(i, 60+i*14)
			want = append(want, bytes.Clone(f.Bytes()))
			office.peer("home").Send([]*frame.Buf{f})
			f.Release()
		}
		time.Sleep(time.Second)
		got := home.take()
		if len(got) != len(want) {
			t.Fatalf("%d frames of %d came; %v", len(got), len(want), mesh.Drops())
		}
		for i := range want {
			if !bytes.Equal(got[i], want[i]) {
				t.Fatalf("frame %d differs", i)
			}
		}
		st := mesh.Peers()[0]
		if st.State != "up" || st.Site != "home" || st.Kex != "X25519MLKEM768" {
			t.Errorf("status %+v", st)
		}
		stopOffice()
		synctest.Wait()
		time.Sleep(100 * time.Millisecond)
		if home.peer("office") != nil {
			t.Error("a site that said goodbye is still attached")
		}
		stopHome()
		a.Close()
		b.Close()
	})
}
