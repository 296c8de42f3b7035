// SPDX-License-Identifier: Apache-2.0

package transport_test

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/quic-go/quic-go"

	"github.com/l2bridge/l2bridge/transport"
	"github.com/l2bridge/l2bridge/transport/identity"
)

// asking is a site that asks to be let in.
type asking struct {
	heard  chan transport.Heard // what a person is to compare
	yes    chan error           // what the person says
	cancel context.CancelFunc
	done   chan struct{} // closed at the end, after what follows is set
	member *identity.Member
	addrs  []string
	err    error
}

// ask begins to ask at peers, from an address, with a person who says yes when told
// to.
func (w *world) ask(t *testing.T, addr string, dir *identity.Dir, site string, peers ...string) *asking {
	a := &asking{heard: make(chan transport.Heard, 1), yes: make(chan error, 1), done: make(chan struct{})}
	ctx, cancel := context.WithCancel(t.Context())
	a.cancel = cancel
	go func() {
		defer close(a.done)
		a.member, a.addrs, a.err = transport.Asking{
			Dir: dir, Site: site, Peers: peers, Patience: time.Minute,
			Listen: func() (net.PacketConn, error) { return w.listen(addr), nil },
			Heed: func(ctx context.Context, to transport.Heard) error {
				a.heard <- to
				select {
				case err := <-a.yes:
					return err
				case <-ctx.Done():
					return ctx.Err()
				}
			},
		}.Ask(ctx)
	}()
	t.Cleanup(func() { cancel(); <-a.done })
	return a
}

// ended reports whether the asking is over.
func (a *asking) ended() bool {
	select {
	case <-a.done:
		return true
	default:
		return false
	}
}

// listed waits until so many requests wait at a site, and returns them.
func listed(t *testing.T, n *node, count int) (all []transport.Request) {
	t.Helper()
	until(t, fmt.Sprintf("%d requests wait", count), 30*time.Second, func() bool {
		var err error
		if all, err = n.Requests(); err != nil {
			t.Fatal(err)
		}
		return len(all) == count
	})
	return all
}

// idOf returns the id of the key in a directory.
func idOf(t *testing.T, dir *identity.Dir) identity.ID {
	t.Helper()
	key, err := dir.SiteKey()
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return sha256.Sum256(der)
}

// A site asks, a person at each end says yes, and it is a member.
func TestAsk(t *testing.T) {
	const away = 3 * time.Minute
	for _, tt := range []struct {
		name string
		// between is what happens while the request waits.
		between func(t *testing.T, w *world, home *node) *node
	}{
		{"at once", func(_ *testing.T, _ *world, home *node) *node { return home }},
		{"the path is dark for a while", func(_ *testing.T, w *world, home *node) *node {
			w.set(func() { w.dark = true })
			time.Sleep(away)
			w.set(func() { w.dark = false })
			return home
		}},
		{"the founder is started again", func(t *testing.T, w *world, home *node) *node {
			home.kill()
			time.Sleep(time.Minute)
			return w.run(t, home.member, homeAddr, nil)
		}},
		{"the path is dark when it is approved", func(t *testing.T, w *world, home *node) *node {
			w.set(func() { w.dark = true })
			time.AfterFunc(away, func() { w.set(func() { w.dark = false }) })
			return home
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			founder, dir := members(t, "home")[0], newDir(t)
			id := idOf(t, dir)
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				home := w.run(t, founder, homeAddr, nil, func(c *transport.Config) {
					c.Addresses = func() []string { return []string{homePort} }
				})
				office := w.ask(t, officeAddr, dir, "office", homePort)
				heard := <-office.heard
				want := transport.Heard{
					Host: identity.Host{CA: founder.CAID(), Network: founder.Network, Site: "home"},
					Addr: netip.MustParseAddrPort(homePort),
				}
				if heard != want {
					t.Errorf("heard %+v, want %+v", heard, want)
				}
				r := listed(t, home, 1)[0]
				if r.Site != "office" || r.ID != id || r.Addr.Addr().String() != officeAddr || r.Until.Sub(r.Since) != 10*time.Minute {
					t.Errorf("request %+v", r)
				}
				home = tt.between(t, w, home)
				listed(t, home, 1)
				if _, err := home.Approve("office"); err != nil {
					t.Fatal(err)
				}
				listed(t, home, 0)
				time.Sleep(away + time.Minute)
				if office.ended() {
					t.Fatalf("ended without a word of the person there: %v", office.err)
				}
				if _, err := dir.Load(); !errors.Is(err, identity.ErrNotEnrolled) {
					t.Errorf("stored without a word of the person there: %v", err)
				}
				office.yes <- nil
				<-office.done
				if office.err != nil {
					t.Fatal(office.err)
				}
				up := w.run(t, office.member, officeAddr, []string{homePort})
				until(t, "up", 2*time.Second, connected(home, up))
				exchange(t, home, up, 10)

				// It is the one that the founder's book has.
				up.stop()
				again := w.ask(t, officeAddr, dir, "office", homePort)
				again.yes <- nil
				if heard := <-again.heard; !heard.Member {
					t.Error("is not a member when it asks again")
				}
				<-again.done
				if again.err != nil || !cmp.Equal(again.member.Leaf.Certificate, office.member.Leaf.Certificate) {
					t.Errorf("asked again: %v, or another certificate", again.err)
				}
			})
		})
	}
}

// A request is denied, and another of the same key or address is refused for ten
// minutes, without a line in the list.
func TestAskDenied(t *testing.T) {
	founder := members(t, "home")[0]
	dir, other := newDir(t), newDir(t)
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		home := w.run(t, founder, homeAddr, nil)
		office := w.ask(t, officeAddr, dir, "office", homePort)
		listed(t, home, 1)
		if _, err := home.Deny("office"); err != nil {
			t.Fatal(err)
		}
		refused := func(a *asking) {
			t.Helper()
			<-a.done
			if !errors.Is(a.err, identity.ErrAskDenied) {
				t.Errorf("error %v, want %v", a.err, identity.ErrAskDenied)
			}
		}
		refused(office)
		for range 20 {
			refused(w.ask(t, "192.0.2.10", dir, "office", homePort)) // the key
			refused(w.ask(t, officeAddr, other, "cabin", homePort))  // the address
			time.Sleep(20 * time.Second)
			listed(t, home, 0)
		}
		time.Sleep(10 * time.Minute)
		w.ask(t, officeAddr, dir, "office", homePort)
		listed(t, home, 1)
	})
}

// What waits is bounded: in number, in time, by address and by key.
func TestAskBounds(t *testing.T) {
	founder := members(t, "home")[0]
	var dirs []*identity.Dir
	for range 18 {
		dirs = append(dirs, newDir(t))
	}
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		home := w.run(t, founder, homeAddr, nil)
		busy := func(a *asking) {
			t.Helper()
			<-a.done
			if !errors.Is(a.err, identity.ErrAskBusy) {
				t.Errorf("error %v, want %v", a.err, identity.ErrAskBusy)
			}
		}
		from := func(i int) string { return fmt.Sprintf("192.0.2.%d", 10+i) }
		first := w.ask(t, from(0), dirs[0], "site-0", homePort)
		listed(t, home, 1)
		busy(w.ask(t, from(0)+":5000", dirs[1], "site-1", homePort))

		// Another name is another request of the same key.
		first.cancel()
		<-first.done
		w.ask(t, from(0), dirs[0], "site-zero", homePort)
		until(t, "the other name is asked for", time.Second, func() bool { return listed(t, home, 1)[0].Site == "site-zero" })

		began := time.Now()
		all := []*asking{}
		for i := 1; i < 16; i++ {
			all = append(all, w.ask(t, from(i), dirs[i], fmt.Sprint("site-", i), homePort))
			listed(t, home, i+1)
		}
		busy(w.ask(t, from(16), dirs[16], "site-16", homePort))
		if _, err := home.Approve("site-3"); err != nil {
			t.Fatal(err)
		}
		w.ask(t, from(16), dirs[16], "site-16", homePort)
		listed(t, home, 16)

		// One that has gone keeps its place, until ten minutes are over; then it
		// is there no more, and who waits is told.
		all[0].cancel()
		time.Sleep(9*time.Minute - time.Since(began))
		listed(t, home, 16)
		time.Sleep(2 * time.Minute)
		listed(t, home, 0)
		<-all[1].done
		if !errors.Is(all[1].err, identity.ErrAskEnded) {
			t.Errorf("error %v, want %v", all[1].err, identity.ErrAskEnded)
		}
		if n := len(home.log.lines("site asks to join")); n > 8 {
			t.Errorf("%d lines of log", n)
		}
	})
}

// One home has one /64 of IPv6, whatever addresses its machines have in it.
func TestAskOnePrefix(t *testing.T) {
	founder := members(t, "home")[0]
	a, b, c := newDir(t), newDir(t), newDir(t)
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		home := w.run(t, founder, "2001:db8::1", nil)
		const port = "[2001:db8::1]:4433"
		w.ask(t, "2001:db8:1:1::1", a, "one", port)
		listed(t, home, 1)
		same := w.ask(t, "2001:db8:1:1:ffff::2", b, "two", port)
		<-same.done
		if !errors.Is(same.err, identity.ErrAskBusy) {
			t.Errorf("error %v, want %v", same.err, identity.ErrAskBusy)
		}
		w.ask(t, "2001:db8:1:2::1", c, "three", port)
		listed(t, home, 2)
	})
}

// Two that ask under one name are told apart by their ids, and nobody gets in on
// the word that was for another.
func TestAskNames(t *testing.T) {
	founder := members(t, "home")[0]
	honest, rogue := newDir(t), newDir(t)
	id, other := idOf(t, honest).String(), idOf(t, rogue).String()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		home := w.run(t, founder, homeAddr, nil)
		approve := func(ref string, want error) {
			t.Helper()
			if _, err := home.Approve(ref); !errors.Is(err, want) {
				t.Errorf("approve %q: %v, want %v", ref, err, want)
			}
		}
		w.ask(t, officeAddr, honest, "office", homePort)
		listed(t, home, 1)
		approve("cabin", transport.ErrNoRequest)
		approve(id[:7], transport.ErrNoRequest)
		approve("", transport.ErrNoRequest)

		// The same name, then a name that reads like the id.
		for _, name := range []string{"office", id[:16]} {
			r := w.ask(t, "192.0.2.66", rogue, name, homePort)
			until(t, "both are asked for", time.Second, func() bool { return listed(t, home, 2)[1].Site == name })
			approve(name, transport.ErrNoRequest)
			r.cancel()
			<-r.done
		}
		if _, err := home.Deny(other); err != nil {
			t.Fatal(err)
		}

		// The honest one has gone, and somebody else has come under its name,
		// between a person's look and word.
		listed(t, home, 1)
		time.Sleep(10 * time.Minute)
		r := w.ask(t, "192.0.2.66", rogue, "office", homePort)
		<-r.heard
		approve("office", transport.ErrNoRequest)
		listed(t, home, 1)
		approve("office", nil)
	})
}

// A member without the CA key sends the asker to the founder, which it finds by
// itself, and for the same network only.
func TestAskElsewhere(t *testing.T) {
	all := members(t, "home", "office")
	foreign := members(t, "home")[0]
	dir, lost := newDir(t), newDir(t)
	const cabin = "192.0.2.9"
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		home := w.run(t, all[0], homeAddr, nil, func(c *transport.Config) {
			c.Addresses = func() []string { return []string{homePort, "10.1.2.3:4433"} }
		})
		office := w.run(t, all[1], officeAddr, []string{homePort})
		until(t, "up", 5*time.Second, connected(home, office))
		a := w.ask(t, cabin, dir, "cabin", officeAddr+":4433")
		if heard := <-a.heard; heard.Site != "home" || heard.CA != all[0].CAID() || heard.Addr.String() != homePort {
			t.Errorf("heard %+v", heard)
		}
		listed(t, home, 1)
		for what, err := range map[string]error{
			"pending": second(office.Requests()),
			"approve": second(office.Approve("cabin")),
			"deny":    second(office.Deny("cabin")),
		} {
			if !errors.Is(err, identity.ErrNotFounder) || !contains(err.Error(), `"home"`) {
				t.Errorf("%s at the office: %v, want one that names home", what, err)
			}
		}
		if _, err := home.Approve("cabin"); err != nil {
			t.Fatal(err)
		}
		a.yes <- nil
		<-a.done
		if a.err != nil {
			t.Fatal(a.err)
		}

		// Strangers hear of no address within a home, unless they are in one too.
		for from, want := range map[string][]string{
			"192.0.2.11": {homePort},
			"10.9.9.9":   {homePort, "10.1.2.3:4433"},
		} {
			answer := w.askOnce(t, from, lost, "barn", officeAddr)
			if answer.Kind != identity.AnswerElsewhere || answer.Site != "home" || !cmp.Equal(answer.Addrs, want) {
				t.Errorf("%s is answered %+v, want addresses %v", from, answer, want)
			}
		}

		// At the founder's address there is another network now.
		home.stop()
		w.run(t, foreign, homeAddr, nil)
		b := w.ask(t, "192.0.2.10", lost, "barn", officeAddr+":4433")
		<-b.done
		if !errors.Is(b.err, identity.ErrNotMember) {
			t.Errorf("error %v, want %v", b.err, identity.ErrNotMember)
		}
		if len(b.heard) != 0 {
			t.Error("a person was asked about the wrong network")
		}
	})
}

// askOnce asks on one connection, and returns the first answer.
func (w *world) askOnce(t *testing.T, from string, dir *identity.Dir, site, at string) identity.Answer {
	t.Helper()
	key, err := dir.SiteKey()
	if err != nil {
		t.Fatal(err)
	}
	sock := w.listen(from)
	defer sock.Close()
	tr := &quic.Transport{Conn: sock}
	defer tr.Close()
	conn, err := tr.Dial(t.Context(), &net.UDPAddr{IP: net.ParseIP(at).To4(), Port: 4433},
		identity.AskTLSConfig(key, site, nil), &quic.Config{InitialPacketSize: 1200})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseWithError(0, "")
	stream, err := conn.OpenStream()
	if err != nil {
		t.Fatal(err)
	}
	request, err := identity.NewAsk(site)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Write(request); err != nil {
		t.Fatal(err)
	}
	stream.Close()
	answer, err := identity.ReadAnswer(stream)
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

// Whoever asks and does not want the answer does not keep the connection by that.
func TestAskUnwantedAnswer(t *testing.T) {
	for _, tt := range []struct {
		name   string
		decide func(home *node) error
	}{
		{"denied", func(home *node) error { return second(home.Deny("office")) }},
		{"approved", func(home *node) error { return second(home.Approve("office")) }},
		{"time over", func(*node) error { time.Sleep(10 * time.Minute); return nil }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				home := w.run(t, members(t, "home")[0], homeAddr, nil)
				key, err := newDir(t).SiteKey()
				if err != nil {
					t.Fatal(err)
				}
				sock := w.listen(officeAddr)
				defer sock.Close()
				tr := &quic.Transport{Conn: sock}
				defer tr.Close()
				conn, err := tr.Dial(t.Context(), &net.UDPAddr{IP: net.ParseIP(homeAddr).To4(), Port: 4433},
					identity.AskTLSConfig(key, "office", nil), &quic.Config{InitialPacketSize: 1200, KeepAlivePeriod: time.Second})
				if err != nil {
					t.Fatal(err)
				}
				stream, err := conn.OpenStream()
				if err != nil {
					t.Fatal(err)
				}
				request, err := identity.NewAsk("office")
				if err != nil {
					t.Fatal(err)
				}
				if _, err := stream.Write(request); err != nil {
					t.Fatal(err)
				}
				stream.Close()
				listed(t, home, 1)
				stream.CancelRead(0)
				time.Sleep(time.Second)
				if conn.Context().Err() != nil {
					t.Fatal("closed before anybody has decided")
				}
				if err := tt.decide(home); err != nil {
					t.Fatal(err)
				}
				if code(conn, 6*time.Second) == -1 {
					t.Error("the connection is still open when all is said")
				}
			})
		})
	}
}

func second[T any](_ T, err error) error { return err }

func contains(s, part string) bool { return strings.Contains(s, part) }

// A machine in between shows another network, and asks at the founder with a key of
// its own. The phrases differ at both ends, and what a person approves at the
// founder all the same is of no use to it at the asker.
func TestAskMachineInTheMiddle(t *testing.T) {
	founder, evil := members(t, "home")[0], members(t, "home")[0]
	no := errors.New("not the same")
	for _, lets := range []bool{true, false} {
		t.Run(fmt.Sprint("it lets the asker in: ", lets), func(t *testing.T) {
			dir, evilDir := newDir(t), newDir(t)
			site := fmt.Sprint("office-", lets)
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				home := w.run(t, founder, homeAddr, nil)
				const middle = "192.0.2.66"
				between := w.run(t, evil, middle, nil)
				office := w.ask(t, officeAddr, dir, site, middle+":4433")
				w.ask(t, "192.0.2.67", evilDir, site, homePort)
				heard := <-office.heard
				r := listed(t, home, 1)[0]
				if heard.CA.Phrase() == founder.CAID().Phrase() || r.ID.Phrase() == idOf(t, dir).Phrase() {
					t.Error("the phrases do not differ")
				}
				listed(t, between, 1)
				want := identity.ErrNotMember
				if lets {
					if _, err := between.Approve(site); err != nil {
						t.Fatal(err)
					}
					time.Sleep(time.Minute)
					office.yes <- no
					want = no
				}
				if _, err := home.Approve(site); err != nil {
					t.Fatal(err)
				}
				// The way to the founder is free now.
				between.stop()
				w.run(t, founder, middle, nil)
				<-office.done
				if !errors.Is(office.err, want) {
					t.Errorf("error %v, want %v", office.err, want)
				}
				if _, err := dir.Load(); !errors.Is(err, identity.ErrNotEnrolled) {
					t.Errorf("let in: %v", err)
				}
			})
		})
	}
}

// Who has shown a network's phrase hears of no other, also when it asks anew.
func TestAskThatNetwork(t *testing.T) {
	founder, other := members(t, "home")[0], members(t, "home")[0]
	dir := newDir(t)
	ca := founder.CAID()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.run(t, other, homeAddr, nil)
		_, _, err := transport.Asking{
			Dir: dir, Site: "office", Peers: []string{homePort}, CA: &ca, Patience: time.Minute,
			Listen: func() (net.PacketConn, error) { return w.listen(officeAddr), nil },
			Heed:   func(context.Context, transport.Heard) error { t.Error("shown to a person"); return nil },
		}.Ask(t.Context())
		if !errors.Is(err, identity.ErrNotMember) {
			t.Errorf("error %v, want %v", err, identity.ErrNotMember)
		}
	})
}

// The person at the asker says no.
func TestAskNo(t *testing.T) {
	founder, dir := members(t, "home")[0], newDir(t)
	no := errors.New("not the same")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		home := w.run(t, founder, homeAddr, nil)
		office := w.ask(t, officeAddr, dir, "office", homePort)
		listed(t, home, 1)
		office.yes <- no
		<-office.done
		if !errors.Is(office.err, no) {
			t.Errorf("error %v, want %v", office.err, no)
		}
		listed(t, home, 1) // to be denied, or forgotten
	})
}

// Nobody answers, or only what is no member.
func TestAskUnanswered(t *testing.T) {
	dir := newDir(t)
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		began := time.Now()
		a := w.ask(t, officeAddr, dir, "office", homePort)
		<-a.done
		if took := time.Since(began); took < time.Minute || took > time.Minute+5*time.Second || !contains(a.err.Error(), "does not answer") {
			t.Errorf("after %v: %v", took, a.err)
		}
	})
}

// Strangers who connect to ask and say nothing, or nonsense, or come by hundreds,
// keep nobody else out: not a member, not an enrolment, and for no longer than
// their greeting who asks in earnest.
func TestAskHostile(t *testing.T) {
	founder := members(t, "home")[0]
	dir, rogue, joiner := newDir(t), newDir(t), newDir(t)
	key, err := rogue.SiteKey()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		say  func(t *testing.T, s *quic.Stream)
	}{
		{"nothing", func(*testing.T, *quic.Stream) {}},
		{"half", func(_ *testing.T, s *quic.Stream) { s.Write([]byte{9, 'a'}) }},
		{"a name cut short", func(_ *testing.T, s *quic.Stream) { s.Write([]byte{9, 'a'}); s.Close() }},
		{"nothing at all", func(_ *testing.T, s *quic.Stream) { s.Close() }},
		{"a name that steers terminals", func(_ *testing.T, s *quic.Stream) { s.Write([]byte("\x05a\x1b[2Jb")); s.Close() }},
		{"a reserved name", func(_ *testing.T, s *quic.Stream) { s.Write([]byte("\x03all")); s.Close() }},
		{"far too much", func(_ *testing.T, s *quic.Stream) {
			go func() { s.Write(make([]byte, 1<<20)); s.Close() }()
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				home := w.run(t, founder, homeAddr, nil)
				var open []*quic.Conn
				for i := range 120 {
					sock := w.listen(fmt.Sprintf("198.51.100.%d", i+1))
					defer sock.Close()
					tr := &quic.Transport{Conn: sock}
					defer tr.Close()
					ctx, cancel := context.WithTimeout(t.Context(), time.Second)
					conn, err := tr.Dial(ctx, &net.UDPAddr{IP: net.ParseIP(homeAddr).To4(), Port: 4433},
						identity.AskTLSConfig(key, "\x1b[31m", nil), &quic.Config{InitialPacketSize: 1200})
					cancel()
					if err != nil {
						continue
					}
					open = append(open, conn)
					if s, err := conn.OpenStream(); err == nil {
						tt.say(t, s)
					}
				}
				if len(open) == 0 || len(open) > 80 {
					t.Errorf("%d of 120 handshakes to ask went through", len(open))
				}
				heard := 0
				for _, conn := range open {
					if conn.Context().Err() == nil {
						heard++
					}
				}
				if heard > 17 { // one that was turned away may not know yet
					t.Errorf("%d connections are open at once", heard)
				}
				began := time.Now()
				token := invite(t, founder, "", homePort)
				m, _, err := w.enrol(t.Context(), "192.0.2.50", joiner, token, "joiner")
				if err != nil || time.Since(began) > 2*time.Second {
					t.Fatalf("enrolled after %v: %v", time.Since(began), err)
				}
				up := w.run(t, m, "192.0.2.50", []string{homePort})
				until(t, "a member is up", 2*time.Second, connected(home, up))
				w.ask(t, officeAddr, dir, "office", homePort)
				if r := listed(t, home, 1)[0]; r.Site != "office" {
					t.Errorf("request of %q", r.Site)
				}
				time.Sleep(10 * time.Second)
				for _, conn := range open {
					if conn.Context().Err() == nil {
						t.Error("a connection is still open")
						break
					}
				}
				if lines := home.log.lines("request to join refused"); len(lines) > 8 {
					t.Errorf("%d lines of log", len(lines))
				}
				for _, line := range home.log.lines("") {
					if contains(line, "\x1b") {
						t.Errorf("log: %q", line)
					}
				}
			})
		})
	}
}

// What a hostile network answers is judged before anybody sees it, and does not
// keep the asker for ever.
func TestAskHostileHost(t *testing.T) {
	evil := members(t, "home")[0]
	dir := newDir(t)
	for _, tt := range []struct {
		name   string
		answer []byte
		want   string
	}{
		{"nothing", nil, "does not answer"},
		{"half", []byte{0, 9, 2}, "does not answer"},
		{"a kind that is not known", []byte{0, 1, 77}, "kind 77"},
		{"too long", []byte{0xff, 0xff, 2}, "more than 8192"},
		{"two waits", []byte{0, 3, 2, 0, 0, 0, 3, 2, 0, 0}, "told to wait twice"},
		{"a refusal that steers terminals", append([]byte{0, 6, 1, 99, 3}, "\x1b[2"...), "?[2"},
		{"elsewhere, nowhere", []byte{0, 3, 3, 0, 0}, "cannot let this one in"},
		{"elsewhere, on this machine", append([]byte{0, 18, 3, 0, 1, 14}, "127.0.0.1:4433"...), "no address to dial"},
		{"no certificates", []byte{0, 6, 0, 0, 0, 0, 0, 0}, "certificate of the network"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				sock := w.listen(homeAddr)
				defer sock.Close()
				tr := &quic.Transport{Conn: sock}
				defer tr.Close()
				listener, err := tr.Listen(evil.AskedTLSConfig(), &quic.Config{InitialPacketSize: 1200})
				if err != nil {
					t.Fatal(err)
				}
				var serving sync.WaitGroup
				defer serving.Wait()
				defer listener.Close()
				serving.Go(func() {
					for {
						conn, err := listener.Accept(t.Context())
						if err != nil {
							return
						}
						serving.Go(func() {
							s, err := conn.AcceptStream(t.Context())
							if err != nil {
								return
							}
							io.ReadAll(s)
							s.Write(tt.answer)
							<-conn.Context().Done()
						})
					}
				})
				a := w.ask(t, officeAddr, dir, "office", homePort)
				a.yes <- nil
				<-a.done
				if a.err == nil || !contains(a.err.Error(), tt.want) || a.err.Error() != identity.Clean(a.err.Error()) {
					t.Errorf("error %v, want %q in it", a.err, tt.want)
				}
				if _, err := dir.Load(); !errors.Is(err, identity.ErrNotEnrolled) {
					t.Errorf("stored: %v", err)
				}
			})
		})
	}
}
