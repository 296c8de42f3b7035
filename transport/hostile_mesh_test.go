// SPDX-License-Identifier: Apache-2.0

package transport_test

import (
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/l2bridge/l2bridge/internal/frame"
	"github.com/l2bridge/l2bridge/transport"
	"github.com/l2bridge/l2bridge/transport/identity"
	"github.com/l2bridge/l2bridge/transport/wire"
)

func shortID(m *identity.Member) wire.ShortID { return wire.ShortID(m.ID[:]) }

// announces returns a MEMBER with one's certificate, signed by somebody.
func announces(t *testing.T, of, by *identity.Member, version uint64, addrs ...string) []byte {
	t.Helper()
	signed, err := wire.Member{Version: version, Features: wire.FeatureRelay | wire.FeatureVia, MTU: 1500, Cert: of.Leaf.Certificate[0], Addresses: addrs}.Signed()
	if err != nil {
		t.Fatal(err)
	}
	return wire.AppendMember(nil, signed, ed25519.Sign(by.Leaf.PrivateKey.(ed25519.PrivateKey), signed))
}

// relays returns a datagram with a numbered frame that goes from one to another.
func relays(seq uint16, from, to *identity.Member, number int) []byte {
	b := numbered(number, 60)
	defer b.Release()
	d := binary.BigEndian.AppendUint16(nil, seq)
	d = append(d, 0x21)
	d = binary.BigEndian.AppendUint16(d, uint16(16+b.Len()))
	d = append(append(d, to.ID[:8]...), from.ID[:8]...)
	return append(d, b.Bytes()...)
}

// siege is home and office, which have each other for a peer, cabin, which has
// announced itself and is not there, and a member that is evil and has a session
// with home.
type siege struct {
	*world
	t                    *testing.T
	home, office         *node
	cabin, evil, foreign *identity.Member
	control, data        *quic.Conn
	stream               *quic.Stream
	toOffice, toVictim   int // packets from home
}

const victimAddr = "203.0.113.9"

func besieged(t *testing.T, f func(s *siege)) {
	ms := members(t, "home", "office", "cabin", "evil")
	foreign := members(t, "stranger")[0]
	synctest.Test(t, func(t *testing.T) {
		s := &siege{world: newWorld(), t: t, cabin: ms[2], evil: ms[3], foreign: foreign}
		s.cut = func(from, to netip.Addr) bool {
			switch to.String() {
			case officeAddr:
				s.toOffice++
			case victimAddr:
				s.toVictim++
			}
			return false
		}
		s.home = s.run(t, ms[0], homeAddr, nil, known(homeAddr), func(c *transport.Config) {
			c.Through = func(a netip.Addr) bool { return a.String() == evilAddr }
		})
		s.office = s.run(t, ms[1], officeAddr, []string{homePort}, known(officeAddr))
		until(t, "up", time.Second, all("up", s.home, s.office))
		cabin := s.run(t, s.cabin, "192.0.2.3", []string{homePort})
		until(t, "cabin", 2*time.Second, all("up", s.home, s.office, cabin))
		time.Sleep(2 * time.Second) // until it is announced
		cabin.stop()
		attached := s.home.peer("office")
		e := s.world.evil(t, s.evil, evilAddr)
		var before footprint
		s.control, s.data, s.stream = e.session(1)
		go answerPings(s.control)
		s.stream.Write(announces(t, s.evil, s.evil, 1))
		time.Sleep(10 * time.Second)
		before = measure()
		f(s)
		time.Sleep(10 * time.Second)
		exchange(t, s.home, s.office, 10)
		if !all("up", s.home, s.office)() || s.home.peer("office") != attached {
			t.Errorf("the innocent: %+v", s.home.state("office"))
		}
		if now := measure(); now.goroutines > before.goroutines+20 || now.heap > before.heap+16<<20 {
			t.Errorf("%+v, %+v before", now, before)
		}
		e.tr.Close()
	})
}

// answerPings does so until the connection ends, so that home takes its session for
// one that works.
func answerPings(conn *quic.Conn) {
	for {
		d, err := conn.ReceiveDatagram(context.Background())
		if err != nil {
			return
		}
		const mode, nonce = 5, 6
		if len(d) >= nonce+8 && wire.Mode(d[mode]) == wire.Ping {
			conn.SendDatagram(wire.AppendHeartbeat(nil, 0, wire.Pong, binary.BigEndian.Uint64(d[nonce:]), 0))
		}
	}
}

// sent returns how many packets have been sent to office, and to the victim.
func (s *siege) sent() (toOffice, toVictim int) {
	s.set(func() { toOffice, toVictim = s.toOffice, s.toVictim })
	return toOffice, toVictim
}

// say writes control messages and returns what the session was closed with, -1 for
// nothing.
func (s *siege) say(messages ...[]byte) int {
	for _, m := range messages {
		if _, err := s.stream.Write(m); err != nil {
			break
		}
	}
	return code(s.control, 2*time.Second)
}

// Announcements count only as their members signed them, the newest first.
func TestForgedAnnouncements(t *testing.T) {
	t.Parallel()
	const there = victimAddr + ":4433"
	for name, forge := range map[string]func(s *siege, i int) []byte{
		"signed by another":  func(s *siege, i int) []byte { return announces(s.t, s.office.member, s.evil, 1<<62, there) },
		"of home itself":     func(s *siege, i int) []byte { return announces(s.t, s.home.member, s.evil, 1<<62, there) },
		"of another network": func(s *siege, i int) []byte { return announces(s.t, s.foreign, s.foreign, 1, there) },
		"without certificate": func(s *siege, i int) []byte {
			m := announces(s.t, s.evil, s.evil, 1<<62, there)
			clear(m[90:200])
			return m
		},
	} {
		t.Run(name, func(t *testing.T) {
			besieged(t, func(s *siege) {
				for i := range 64 {
					s.stream.Write(forge(s, i))
				}
				if got := s.say(); got != -1 {
					s.t.Errorf("after 64: closed with %d", got)
				}
				if got := s.say(forge(s, 64)); got != wire.CloseProtocol {
					s.t.Errorf("after one more: closed with %d", got)
				}
				if _, n := s.sent(); len(s.home.Peers()) != 3 || n > 0 {
					s.t.Errorf("%d packets to the victim, peers %+v", n, s.home.Peers())
				}
			})
		})
	}
	t.Run("old and known", func(t *testing.T) {
		besieged(t, func(s *siege) {
			for i := range 1000 {
				s.stream.Write(announces(s.t, s.cabin, s.cabin, uint64(i%3), there)) // all older than what is known
			}
			got := s.say()
			if _, n := s.sent(); got != -1 || n > 0 {
				s.t.Errorf("closed with %d, %d packets to the victim", got, n)
			}
		})
	})
}

// What a member can have others do by telling much is bounded.
func TestMeshFloods(t *testing.T) {
	t.Parallel()
	noise := func(i, j int) (id wire.ShortID) {
		binary.BigEndian.PutUint64(id[:], uint64(i)<<32+uint64(j))
		return id
	}
	for name, flood := range map[string]func(s *siege, i int) []byte{
		"HAVE": func(s *siege, i int) []byte { return make(wire.Have, wire.MaxMembers).Append(nil) },
		"LINKS": func(s *siege, i int) []byte {
			links := make(wire.Links, wire.MaxMembers)
			for j := range links {
				links[j] = noise(i, j)
			}
			return links.Append(nil)
		},
		"DOUBTS": func(s *siege, i int) []byte {
			doubts := make(wire.Doubts, wire.MaxMembers)
			for j := range doubts {
				doubts[j] = noise(i, j)
			}
			return doubts.Append(nil)
		},
		"SEEN": func(s *siege, i int) []byte {
			return wire.Seen{Addr: netip.AddrPortFrom(netip.MustParseAddr(victimAddr), uint16(1+i))}.Append(nil)
		},
		"PUNCH": func(s *siege, i int) []byte {
			return wire.Punch{Destination: shortID(s.office.member), Source: shortID(s.evil)}.Append(nil)
		},
		"PUNCH for another": func(s *siege, i int) []byte {
			return wire.Punch{Destination: shortID(s.office.member), Source: shortID(s.cabin)}.Append(nil)
		},
		"MEMBER of its own": func(s *siege, i int) []byte {
			return announces(s.t, s.evil, s.evil, 1<<50+uint64(i), fmt.Sprintf("%s:%d", victimAddr, 1+i))
		},
	} {
		t.Run(name, func(t *testing.T) {
			besieged(t, func(s *siege) {
				s.set(func() { s.toOffice, s.toVictim = 0, 0 })
				began := time.Now()
				for i := range 2000 {
					s.stream.Write(flood(s, i))
					if i%100 == 0 {
						time.Sleep(100 * time.Millisecond)
					}
				}
				if got := s.say(); got != -1 {
					s.t.Errorf("closed with %d", got)
				}
				toOffice, toVictim := s.sent()
				lasted := int(time.Since(began)/time.Second) + 1
				s.t.Logf("in %d s %d packets to office, %d to the victim", lasted, toOffice, toVictim)
				// Heartbeats, news once a second, PUNCH twice a second.
				if toOffice > 20*lasted {
					s.t.Errorf("%d packets to office in %d s", toOffice, lasted)
				}
				// An address that was announced is dialled, as any member's is.
				if toVictim > 20*lasted {
					s.t.Errorf("%d packets to the victim", toVictim)
				}
			})
		})
	}
}

// A member passes for another one only while that has no session, and for whom it
// says that it reaches; it has relayed what comes from itself alone.
func TestForgedRelays(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name     string
		links    bool // it says that it reaches whom it passes for
		from, to func(s *siege) *identity.Member
		home     string // whose frames home takes them for, "" for none
		office   string
	}{
		{"as from one that is up", true, (*siege).officeMember, (*siege).homeMember, "", ""},
		{"as from one that is down", true, (*siege).cabinMember, (*siege).homeMember, "cabin", ""},
		{"as from one that is down, no link", false, (*siege).cabinMember, (*siege).homeMember, "", ""},
		{"as from itself", true, (*siege).evilMember, (*siege).homeMember, "", ""},
		{"as from the receiver", true, (*siege).homeMember, (*siege).homeMember, "", ""},
		{"as from a stranger", true, (*siege).strangeMember, (*siege).homeMember, "", ""},
		{"to a third", true, (*siege).evilMember, (*siege).officeMember, "", "evil"},
		{"to a third, as from another", true, (*siege).cabinMember, (*siege).officeMember, "", ""},
		{"to a third, as from the relay", true, (*siege).homeMember, (*siege).officeMember, "", ""},
		{"to one that is down", true, (*siege).evilMember, (*siege).cabinMember, "", ""},
		{"to a stranger", true, (*siege).evilMember, (*siege).strangeMember, "", ""},
		{"back", true, (*siege).evilMember, (*siege).evilMember, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			besieged(t, func(s *siege) {
				from, to := tt.from(s), tt.to(s)
				links := wire.Links{}
				if tt.links {
					links = wire.Links{shortID(s.home.member), shortID(from), shortID(to)}
				}
				if got := s.say(links.Append(nil)); got != -1 {
					s.t.Fatalf("closed with %d", got)
				}
				var came [2]map[string]int
				for i, n := range []*node{s.home, s.office} {
					came[i] = make(map[string]int)
					n.lan.mu.Lock()
					n.take = func(from string, b *frame.Buf) { came[i][from]++ }
					n.lan.mu.Unlock()
				}
				drops := dropped(s.home, "relay")
				const sent = 100
				for i := range sent {
					s.data.SendDatagram(relays(uint16(i), from, to, i))
					time.Sleep(time.Millisecond)
				}
				time.Sleep(time.Second)
				synctest.Wait()
				for i, want := range []string{tt.home, tt.office} {
					if n := came[i][want]; want != "" && n != sent || len(came[i]) > 1 || want == "" && len(came[i]) > 0 {
						s.t.Errorf("came to %d: %v, want of %q alone", i, came[i], want)
					}
				}
				if n := dropped(s.home, "relay") - drops; tt.home == "" && tt.office == "" && n != sent {
					s.t.Errorf("%d were counted", n)
				}
				for _, n := range []*node{s.home, s.office} {
					n.lan.mu.Lock()
					n.take = nil
					n.lan.mu.Unlock()
				}
				// Much of it takes no more room than any other traffic.
				for i := range 4000 { // twice what a queue holds
					s.data.SendDatagram(relays(uint16(i), from, to, i))
				}
				time.Sleep(time.Second)
				s.home.received()
				s.office.received()
			})
		})
	}
}

func (s *siege) homeMember() *identity.Member    { return s.home.member }
func (s *siege) officeMember() *identity.Member  { return s.office.member }
func (s *siege) cabinMember() *identity.Member   { return s.cabin }
func (s *siege) evilMember() *identity.Member    { return s.evil }
func (s *siege) strangeMember() *identity.Member { return s.foreign }
