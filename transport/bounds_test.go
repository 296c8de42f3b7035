// SPDX-License-Identifier: Apache-2.0

package transport_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/l2bridge/l2bridge/internal/frame"
	"github.com/l2bridge/l2bridge/transport"
	"github.com/l2bridge/l2bridge/transport/identity"
	"github.com/l2bridge/l2bridge/transport/wire"
)

// A member says so much at once, and then waits; a new session does not begin anew.
func TestMessagesArePaced(t *testing.T) {
	besieged(t, func(s *siege) {
		const window = 64 << 10
		old := announces(s.t, s.cabin, s.cabin, 1, victimAddr+":4433")
		var said atomic.Int64
		flood := func(stream *quic.Stream) {
			for range 10_000 {
				if _, err := stream.Write(old); err != nil {
					return
				}
				said.Add(1)
			}
		}
		go flood(s.stream)
		time.Sleep(20 * time.Second)
		most := int64(2*transport.MaxPeers + 20*20 + window/len(old) + 10)
		if n := said.Load(); n < 2000 || n > most {
			s.t.Errorf("%d announcements were read in 20 s, want at most %d", n, most)
		}
		// What waits in its own stream delays nobody else.
		exchange(s.t, s.home, s.office, 10)
		s.control.CloseWithError(0, "")
		time.Sleep(time.Second)
		said.Store(0)
		e := s.world.evil(s.t, s.evil, "192.0.2.67")
		control, _, stream := e.session(2)
		go answerPings(control)
		go flood(stream)
		time.Sleep(10 * time.Second)
		if n := said.Load(); n > int64(10*20+2*window/len(old)+200) {
			s.t.Errorf("%d announcements were read in 10 s of another session", n)
		}
		e.tr.Close()
	})
}

// A member that does not read is not told of each change, but of the last one, when
// it reads again; others do not wait for it.
func TestUnread(t *testing.T) {
	ms := members(t, "home", "office", "cabin", "evil")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		addrs := atomic.Int64{}
		home := w.run(t, ms[0], homeAddr, nil, func(c *transport.Config) {
			c.Through = func(a netip.Addr) bool { return a.String() == evilAddr }
			c.Addresses = func() (all []string) {
				for i := range 12 { // long ones
					all = append(all, fmt.Sprintf("%s.example:%d", strings.Repeat("x", 200), 1000+100*i+int(addrs.Load())%100))
				}
				return all
			}
		})
		office := w.run(t, ms[1], officeAddr, []string{homePort}, known(officeAddr))
		cabin := w.run(t, ms[2], "192.0.2.3", []string{homePort}, known("192.0.2.3"))
		until(t, "up", 5*time.Second, all("up", home, office, cabin))
		e := w.evil(t, ms[3], evilAddr)
		narrow := func(c *quic.Config) {
			c.InitialStreamReceiveWindow, c.MaxStreamReceiveWindow = 2<<10, 2<<10
		}
		control, data := e.dial(narrow), e.dial()
		go answerPings(control)
		stream := e.say(control, e.hello(1, 0).Append(nil))
		if _, _, err := wire.ReadMessage(stream, nil); err != nil {
			t.Fatal(err)
		}
		e.say(data, e.hello(1, 1).Append(nil))
		until(t, "up", time.Second, func() bool { return home.peer("evil") != nil })
		time.Sleep(3 * time.Second)
		before := measure()
		const changes = 60
		for i := range changes {
			addrs.Add(1)
			home.Readdress()
			if i%5 == 0 {
				office.SetLAN(1400+i%2, 0) // its session is made anew: LINKS change
			}
			time.Sleep(1100 * time.Millisecond)
		}
		until(t, "up", 5*time.Second, all("up", home, office, cabin))
		if code(control, time.Millisecond) != -1 {
			t.Fatal("who does not read is not kept")
		}
		if now := measure(); now.goroutines > before.goroutines+10 || now.heap > before.heap+8<<20 {
			t.Errorf("%+v, %+v before", now, before)
		}
		read := make(chan int)
		go func() {
			n := 0
			stream.SetReadDeadline(time.Now().Add(5 * time.Second))
			for {
				if _, _, err := wire.ReadMessage(stream, nil); err != nil {
					read <- n
					return
				}
				n++
			}
		}()
		if n := <-read; n == 0 || n > 40 {
			t.Errorf("%d messages waited after %d changes", n, changes)
		}
		exchange(t, home, cabin, 10)
		e.tr.Close()
	})
}

// What is learned is stored seldom, whatever a member announces.
func TestStoredSeldom(t *testing.T) {
	ms := members(t, "home", "office", "evil")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		var stored atomic.Int64
		home := w.run(t, ms[0], homeAddr, nil, func(c *transport.Config) {
			c.Through = func(a netip.Addr) bool { return a.String() == evilAddr }
			c.Learned = func([][]byte) { stored.Add(1) }
		})
		office := w.run(t, ms[1], officeAddr, []string{homePort}, known(officeAddr))
		until(t, "up", 5*time.Second, connected(home, office))
		e := w.evil(t, ms[2], evilAddr)
		control, _, stream := e.session(1)
		go answerPings(control)
		time.Sleep(2 * time.Minute)
		stored.Store(0)
		const minutes = 4
		for i := range minutes * 60 * 2 {
			stream.Write(announces(t, ms[2], ms[2], uint64(1000+i), fmt.Sprintf("%s:%d", victimAddr, 1+i)))
			time.Sleep(500 * time.Millisecond)
		}
		if n := stored.Load(); n < minutes-2 || n > minutes+1 {
			t.Errorf("stored %d times in %d minutes, want once a minute", n, minutes)
		}
		e.tr.Close()
	})
}

// Four addresses at most are announced that only others say are ours, those that
// most say: a few liars do not displace what is true.
func TestSeenByMost(t *testing.T) {
	ms := members(t, "home", "a", "b", "evil-1", "evil-2", "evil-3", "evil-4", "evil-5")
	synctest.Test(t, func(t *testing.T) {
		const outer = "203.0.113.200" // behind all that the liars say, in order
		w := newWorld()
		w.behind(homeAddr, outer, false)
		home := w.run(t, ms[0], homeAddr, []string{"192.0.2.11:4433", "192.0.2.12:4433"}, known(homeAddr))
		a := w.run(t, ms[1], "192.0.2.11", nil, known("192.0.2.11"))
		b := w.run(t, ms[2], "192.0.2.12", nil, known("192.0.2.12"))
		until(t, "up", 10*time.Second, all("up", home, a, b))
		var last *quic.Stream
		for i, m := range ms[3:] {
			e := w.evil(t, m, fmt.Sprintf("192.0.2.%d", 70+i))
			defer e.tr.Close()
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			// Home is dialled at the address that its NAT keeps for who it dials.
			var conns [2]*quic.Conn
			for lane := range conns {
				conn, err := e.dialAt(ctx, w)
				if err != nil {
					t.Fatal(err)
				}
				stream := e.say(conn, e.hello(byte(1+i), byte(lane)).Append(nil))
				if _, _, err := wire.ReadMessage(stream, nil); err != nil {
					t.Fatal(err)
				}
				if conns[lane] = conn; lane == 0 {
					go answerPings(conn)
					stream.Write(wire.Seen{Addr: netip.MustParseAddrPort(fmt.Sprintf("203.0.113.1:%d", 1000+i))}.Append(nil))
					last = stream
				}
			}
		}
		time.Sleep(5 * time.Second)
		var addresses []string
		last.SetReadDeadline(time.Now().Add(10 * time.Second))
		for {
			typ, body, err := wire.ReadMessage(last, nil)
			if err != nil {
				break
			}
			if typ == wire.TypeMember {
				if m, _, _, err := wire.ParseMember(body); err == nil && string(m.Cert) == string(ms[0].Leaf.Certificate[0]) {
					addresses = m.Addresses
				}
			}
		}
		said := strings.Join(addresses, " ")
		if strings.Count(said, "203.0.113.") != 4 || !strings.Contains(said, outer+":4433") {
			t.Errorf("home announces %s, want its own address, %s and three lies", said, outer)
		}
	})
}

// dialAt dials home through its NAT, which lets in what answers.
func (e *evil) dialAt(ctx context.Context, w *world) (*quic.Conn, error) {
	w.set(func() {
		for inner, n := range w.nats {
			n.leaves(netip.AddrPortFrom(inner, 4433), addrPort(e.tr.Conn.LocalAddr()))
		}
	})
	return e.tr.Dial(ctx, net.UDPAddrFromAddrPort(netip.MustParseAddrPort("203.0.113.200:4433")), e.member.TLSConfig(wire.ALPN),
		&quic.Config{EnableDatagrams: true, InitialPacketSize: 1200, MaxIdleTimeout: time.Minute})
}

// However many members are away, at however many addresses, so many are tried at
// once.
func TestTriesAreBounded(t *testing.T) {
	const gone = 12
	names := []string{"home", "evil"}
	for i := range gone {
		names = append(names, fmt.Sprintf("gone-%d", i))
	}
	ms := members(t, names...)
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		var mu sync.Mutex
		dialled := make(map[netip.Addr]bool)
		w.cut = func(_, to netip.Addr) bool {
			dark := to.As4()[0] == 203
			if dark {
				mu.Lock()
				dialled[to] = true
				mu.Unlock()
			}
			return dark
		}
		home := w.run(t, ms[0], homeAddr, nil, func(c *transport.Config) {
			c.Through = func(a netip.Addr) bool { return a.String() == evilAddr }
			// A name stands for ten addresses, of which as many as ever are tried.
			c.Resolve = func(_ context.Context, host string) (all []netip.Addr, err error) {
				var member, name int
				fmt.Sscanf(host, "m%d-%d.example", &member, &name)
				for i := range 10 {
					all = append(all, netip.AddrFrom4([4]byte{203, byte(member), byte(name), byte(i)}))
				}
				return all, nil
			}
		})
		e := w.evil(t, ms[1], evilAddr)
		control, _, stream := e.session(1)
		go answerPings(control)
		for i, m := range ms[2:] {
			var addrs []string
			for j := range wire.MaxAddresses {
				addrs = append(addrs, fmt.Sprintf("m%d-%d.example:4433", i, j))
			}
			stream.Write(announces(t, m, m, 1, addrs...))
		}
		tries, perMember, perName := 0, 0, 0
		for range 12 {
			time.Sleep(250 * time.Millisecond)
			synctest.Wait()
			tries = max(tries, running("(*Peer).try("))
		}
		mu.Lock()
		per, names := make(map[byte]int), make(map[[2]byte]int)
		for a := range dialled {
			b := a.As4()
			per[b[1]]++
			names[[2]byte(b[1:])]++
			perMember, perName = max(perMember, per[b[1]]), max(perName, names[[2]byte(b[1:])])
		}
		mu.Unlock()
		if tries != 64 || len(per) != gone || perMember > 16 {
			t.Errorf("%d tries at once, want 64; %d of %d members were tried, at %d addresses each, want at most 16", tries, len(per), gone, perMember)
		}
		if perName != 8 {
			t.Errorf("%d addresses of a name were tried, want 8 of 10", perName)
		}
		if len(home.Peers()) != gone+1 {
			t.Errorf("%d peers", len(home.Peers()))
		}
		e.tr.Close()
	})
}

// running returns how many goroutines of this bubble are in a function.
func running(name string) (n int) {
	for _, stack := range bubbled() {
		if strings.Contains(stack, name) {
			n++
		}
	}
	return n
}

// More members than a site keeps track of may be made, by a CA that is not ours to
// bound: those that are one too many have no effect, and those that are known stay.
func TestMembersAreBounded(t *testing.T) {
	path := t.TempDir()
	dir, err := identity.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	founder, err := dir.Found("founder") // which does not run: it would keep a book of them
	if err != nil {
		t.Fatal(err)
	}
	self, err := enrolByPipe(founder, openDir(t), "home")
	if err != nil {
		t.Fatal(err)
	}
	office, err := enrolByPipe(founder, openDir(t), "office")
	if err != nil {
		t.Fatal(err)
	}
	evil, err := enrolByPipe(founder, openDir(t), "evil")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(path, "ca.key"))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	caKey, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	like, err := x509.ParseCertificate(evil.Leaf.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	ca := &x509.Certificate{RawSubject: like.RawIssuer, SubjectKeyId: like.AuthorityKeyId, PublicKey: caKey.(ed25519.PrivateKey).Public()}
	// announcement returns that of one more member.
	announcement := func(i int) []byte {
		public, private, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		leaf := *like
		leaf.SerialNumber = nil
		leaf.URIs = []*url.URL{{Scheme: "l2bridge", Host: founder.Network, Path: fmt.Sprintf("/m%d", i)}}
		cert, err := x509.CreateCertificate(rand.Reader, &leaf, ca, public, caKey)
		if err != nil {
			t.Fatal(err)
		}
		signed, err := wire.Member{Version: 1, MTU: 1500, Cert: cert}.Signed()
		if err != nil {
			t.Fatal(err)
		}
		return wire.AppendMember(nil, signed, ed25519.Sign(private, signed))
	}
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		home := w.run(t, self, homeAddr, nil, func(c *transport.Config) {
			c.Through = func(a netip.Addr) bool { return a.String() == evilAddr }
		})
		other := w.run(t, office, officeAddr, []string{homePort}, known(officeAddr))
		until(t, "up", 5*time.Second, connected(home, other))
		e := w.evil(t, evil, evilAddr)
		control, _, stream := e.session(1)
		go answerPings(control)
		for i := range transport.MaxPeers + 50 {
			stream.Write(announcement(i))
		}
		if got := code(control, 10*time.Second); got != -1 {
			t.Errorf("closed with %d", got)
		}
		if n := len(home.Peers()); n != transport.MaxPeers-1 {
			t.Errorf("home keeps track of %d peers, want %d", n, transport.MaxPeers-1)
		}
		exchange(t, home, other, 10)
		e.tr.Close()
	})
}

func openDir(t *testing.T) *identity.Dir {
	dir, err := identity.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	return dir
}

// A relay whose line is slow sends its own frames in their time, whatever a member
// has it relay.
func TestRelayedFloodLeavesRoom(t *testing.T) {
	ms := members(t, "home", "office", "evil")
	synctest.Test(t, func(t *testing.T) {
		const rate = 4_000_000
		w := newWorld()
		home := w.run(t, ms[0], homeAddr, nil, func(c *transport.Config) {
			c.Rate = rate
			c.Through = func(a netip.Addr) bool { return a.String() == evilAddr }
		})
		office := w.run(t, ms[1], officeAddr, []string{homePort}, known(officeAddr))
		until(t, "up", 5*time.Second, connected(home, office))
		e := w.evil(t, ms[2], evilAddr)
		control, data, stream := e.session(1)
		go answerPings(control)
		stream.Write(announces(t, ms[2], ms[2], 1))
		time.Sleep(time.Second)
		var mu sync.Mutex
		var ours, others int
		office.lan.mu.Lock()
		office.take = func(from string, b *frame.Buf) {
			mu.Lock()
			defer mu.Unlock()
			if from == "home" {
				ours += b.Len()
			} else {
				others += b.Len()
			}
		}
		office.lan.mu.Unlock()
		ctx, cancel := context.WithCancel(context.Background())
		var flood sync.WaitGroup
		flood.Go(func() {
			// 20 Mbit/s, of as many flows as frames.
			for i := 0; ctx.Err() == nil; i++ {
				d := relays(uint16(i), ms[2], ms[1], i)
				copy(d[5+16:], []byte{2, 0, byte(i >> 16), byte(i >> 8), byte(i), 9})
				record := d[2:]
				for len(d) < 1000 {
					d = append(d, record...)
				}
				data.SendDatagram(d)
				time.Sleep(400 * time.Microsecond)
			}
		})
		time.Sleep(2 * time.Second)
		mu.Lock()
		ours, others = 0, 0
		mu.Unlock()
		const lasts = 3
		for i := range lasts * 1000 { // 8 Mbit/s, twice the line's
			home.send("office", numbered(i, 1000))
			time.Sleep(time.Millisecond)
		}
		cancel()
		flood.Wait()
		mu.Lock()
		defer mu.Unlock()
		t.Logf("%d kbit/s of ours, %d relayed", ours*8/lasts/1000, others*8/lasts/1000)
		if share := ours * 8 / lasts; share < rate*4/10 {
			t.Errorf("%d bit/s of ours passed, want nearly half of %d", share, rate)
		}
		if others == 0 {
			t.Error("nothing was relayed")
		}
		e.tr.Close()
	})
}
