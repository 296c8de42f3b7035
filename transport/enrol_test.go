// SPDX-License-Identifier: Apache-2.0

package transport_test

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/quic-go/quic-go"

	"github.com/l2bridge/l2bridge/transport"
	"github.com/l2bridge/l2bridge/transport/identity"
)

// newDir returns an empty state directory.
func newDir(t *testing.T) *identity.Dir {
	t.Helper()
	dir, err := identity.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	return dir
}

// enrol joins from an address.
func (w *world) enrol(ctx context.Context, addr string, dir *identity.Dir, token identity.Token, site string) (*identity.Member, []string, error) {
	var sock *socket
	m, addrs, err := transport.Enrol(ctx, func() (net.PacketConn, error) {
		sock = w.listen(addr)
		return sock, nil
	}, dir, token, site)
	return m, addrs, err
}

func invite(t *testing.T, founder *identity.Member, site string, addrs ...string) identity.Token {
	t.Helper()
	token, err := founder.Invite(site, time.Hour, addrs)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// A site enrols, and is a member at once.
func TestEnrol(t *testing.T) {
	const nobody, other = "192.0.2.9:4433", "192.0.2.8"
	founder, foreign := members(t, "home")[0], members(t, "home")[0]
	for _, tt := range []struct {
		name  string
		addrs []string
		late  time.Duration // the founder is
	}{
		{"at once", []string{homePort}, 0},
		{"one address is dead", []string{nobody, homePort}, 0},
		{"another network has one address", []string{other + ":4433", homePort}, 0},
		{"another network has one address, and the founder is late", []string{other + ":4433", homePort}, 10 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir, site := newDir(t), "site-"+string('a'+rune(len(tt.name)%26))
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				var home *node
				var started sync.WaitGroup
				started.Go(func() {
					time.Sleep(tt.late)
					home = w.run(t, founder, homeAddr, nil, func(c *transport.Config) {
						c.Addresses = func() []string { return []string{homePort, "home.example:4433"} }
					})
				})
				w.run(t, foreign, other, nil)
				m, addrs, err := w.enrol(t.Context(), officeAddr, dir, invite(t, founder, site, tt.addrs...), site)
				if err != nil {
					t.Fatal(err)
				}
				started.Wait()
				if diff := cmp.Diff([]string{homePort, "home.example:4433"}, addrs); diff != "" {
					t.Errorf("addresses (-want +got):\n%s", diff)
				}
				time.Sleep(10 * time.Second) // the founder sees the connection close
				if n := len(home.log.lines(`msg="site joined" at=home addr=192.0.2.2:4433 site=` + site)); n != 1 {
					t.Errorf("%d lines of log tell of it", n)
				}
				office := w.run(t, m, officeAddr, []string{homePort})
				until(t, "up", time.Second, connected(home, office))
				exchange(t, home, office, 10)
			})
		})
	}
}

func TestEnrolRefused(t *testing.T) {
	founder := members(t, "home")[0]
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		home := w.run(t, founder, homeAddr, nil)

		used := invite(t, founder, "", homePort)
		if _, _, err := w.enrol(t.Context(), officeAddr, newDir(t), used, "first"); err != nil {
			t.Fatal(err)
		}
		old := invite(t, founder, "", homePort)
		time.Sleep(2 * time.Hour)
		stranger := members(t, "home")[0]
		forged := invite(t, stranger, "", homePort)
		forged.CA, forged.Network = used.CA, used.Network
		for _, tt := range []struct {
			name  string
			token identity.Token
			site  string
			want  error
		}{
			{"used token", used, "second", identity.ErrTokenUsed},
			{"token that has ended", old, "third", identity.ErrTokenEnded},
			{"wrong token", forged, "fourth", identity.ErrTokenUnknown},
			{"name in use", invite(t, founder, "", homePort), "first", identity.ErrSiteTaken},
			{"another network's token", invite(t, stranger, "", homePort), "fifth", identity.ErrNotMember},
		} {
			dir := newDir(t)
			began := time.Now()
			_, _, err := w.enrol(t.Context(), officeAddr, dir, tt.token, tt.site)
			if !errors.Is(err, tt.want) {
				t.Errorf("%s: error %v, want %v", tt.name, err, tt.want)
			}
			if took := time.Since(began); took > time.Second {
				t.Errorf("%s: took %v", tt.name, took)
			}
			if _, err := dir.Load(); err == nil {
				t.Errorf("%s: is a member all the same", tt.name)
			}
		}
		time.Sleep(10 * time.Second) // the founder logs when the connection is closed
		if n := len(home.log.lines("join refused")); n != 4 {
			t.Errorf("%d lines of log about refusals, want 4", n)
		}
	})
}

// Two machines race for a token; one of them has it.
func TestEnrolRace(t *testing.T) {
	founder := members(t, "home")[0]
	dirs := []*identity.Dir{newDir(t), newDir(t), newDir(t), newDir(t)}
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.run(t, founder, homeAddr, nil)
		token := invite(t, founder, "", homePort)
		var racers sync.WaitGroup
		errs := make([]error, len(dirs))
		for i, dir := range dirs {
			racers.Go(func() {
				_, _, errs[i] = w.enrol(t.Context(), []string{"192.0.2.10", "192.0.2.11", "192.0.2.12", "192.0.2.13"}[i], dir, token, "racer")
			})
		}
		racers.Wait()
		won := 0
		for _, err := range errs {
			switch {
			case err == nil:
				won++
			case !errors.Is(err, identity.ErrTokenUsed):
				t.Errorf("error %v, want %v", err, identity.ErrTokenUsed)
			}
		}
		if won != 1 {
			t.Errorf("%d have won", won)
		}
	})
}

// The founder is away, the path is dark, or the reply is lost: the joiner asks
// again, and the same key is given the same certificate for the used token.
func TestEnrolAgain(t *testing.T) {
	founder := members(t, "home")[0]
	dir := newDir(t)
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		token := invite(t, founder, "", homePort)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		if _, _, err := w.enrol(ctx, officeAddr, dir, token, "office"); err == nil || !errors.Is(ctx.Err(), context.DeadlineExceeded) {
			t.Fatalf("error %v of nobody's answer", err)
		}
		// The reply is lost: home is not heard from the moment that it judges.
		judged := 0
		w.run(t, founder, homeAddr, nil, func(c *transport.Config) {
			c.Addresses = func() []string {
				if judged++; judged == 1 {
					w.set(func() { w.dark = true })
					time.AfterFunc(30*time.Second, func() { w.set(func() { w.dark = false }) })
				}
				return nil
			}
		})
		began := time.Now()
		m, _, err := w.enrol(t.Context(), officeAddr, dir, token, "office")
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took < 30*time.Second {
			t.Errorf("took %v: the reply was not lost", took)
		}
		if m.Site != "office" || judged != 2 {
			t.Errorf("is %q, judged %d times", m.Site, judged)
		}
	})
}

// A machine that asks to join and then says nothing does not hold up a stop.
func TestMuteJoiner(t *testing.T) {
	founder := members(t, "home")[0]
	dir := newDir(t)
	key, err := dir.SiteKey()
	if err != nil {
		t.Fatal(err)
	}
	token := invite(t, founder, "office", homePort)
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		home := w.run(t, founder, homeAddr, nil)
		sock := w.listen("192.0.2.66")
		defer sock.Close()
		tr := &quic.Transport{Conn: sock}
		defer tr.Close()
		conn, err := tr.Dial(t.Context(), &net.UDPAddr{IP: net.ParseIP(homeAddr).To4(), Port: 4433},
			identity.JoinTLSConfig(key, "office", token.CA), &quic.Config{InitialPacketSize: 1200})
		if err != nil {
			t.Fatal(err)
		}
		stream, err := conn.OpenStream()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Write([]byte{0}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		began := time.Now()
		home.stop()
		if took := time.Since(began); took > time.Second {
			t.Errorf("the stop took %v", took)
		}
	})
}
