// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lab_test

import (
	"errors"
	"net"
	"testing"
	"time"

	"github.com/l2bridge/l2bridge/test/lab"
)

// What a NAT gives a socket behind it, as seen by two machines outside.
func TestNAT(t *testing.T) {
	for _, tt := range []struct {
		name string
		kind lab.NAT
		same bool // port, to whomever
	}{
		{name: "cone", same: true},
		{name: "symmetric", kind: lab.NAT{Symmetric: true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := lab.Around(t, 3, lab.Options{NAT: map[string]lab.NAT{"b": tt.kind}})
			inside := s.B.Gateway.ListenUDP(s.B.Addr4 + ":4433")
			var seen []net.Addr
			var outside []*net.UDPConn
			for _, site := range []*lab.Site{s.A, s.All[2]} {
				conn := site.Gateway.ListenUDP(site.Addr4 + ":4433")
				outside = append(outside, conn)
				seen = append(seen, seenFrom(t, inside, conn))
				if host := seen[len(seen)-1].(*net.UDPAddr).IP.String(); host != s.B.NAT.Addr4 {
					t.Errorf("seen as %s, want %s", host, s.B.NAT.Addr4)
				}
				if !reaches(t, conn, inside, seen[len(seen)-1]) {
					t.Error("the answer does not come in")
				}
			}
			if same := seen[0].String() == seen[1].String(); same != tt.same {
				t.Errorf("seen as %v, want the same: %t", seen, tt.same)
			}
			// Nobody else comes in, and asking does not spoil the port.
			stranger := s.A.Gateway.ListenUDP(s.A.Addr4 + ":0")
			if reaches(t, stranger, inside, seen[0]) {
				t.Error("a stranger comes in")
			}
			if tt.same {
				if again := seenFrom(t, inside, stranger); again.String() != seen[0].String() {
					t.Errorf("seen by the stranger as %v, want %v", again, seen[0])
				}
			}
			s.B.NAT.Rebind()
			if reaches(t, outside[0], inside, seen[0]) {
				t.Error("the old port is still known")
			}
			again := seenFrom(t, inside, outside[0])
			if again.String() == seen[0].String() {
				t.Errorf("seen as %v as before", again)
			}
			if !reaches(t, outside[0], inside, again) {
				t.Error("the answer does not come in")
			}
		})
	}
}

func TestNATForgets(t *testing.T) {
	s := lab.TwoSites(t, lab.Options{NAT: map[string]lab.NAT{"b": {Timeout: time.Second}}})
	inside, outside := s.B.Gateway.ListenUDP(s.B.Addr4+":4433"), s.A.Gateway.ListenUDP(s.A.Addr4+":4433")
	seen := seenFrom(t, inside, outside)
	if !reaches(t, outside, inside, seen) {
		t.Error("the answer does not come in")
	}
	lab.Wait(t, 10*time.Second, "the NAT has forgotten", func() error {
		time.Sleep(2 * time.Second)
		if reaches(t, outside, inside, seen) {
			return errors.New("it still knows")
		}
		return nil
	})
}

// seenFrom sends from one socket to another and returns where that comes from.
func seenFrom(t *testing.T, from, to *net.UDPConn) net.Addr {
	t.Helper()
	if _, err := from.WriteTo([]byte{1}, to.LocalAddr()); err != nil {
		t.Fatal(err)
	}
	to.SetReadDeadline(time.Now().Add(5 * time.Second))
	_, addr, err := to.ReadFrom(make([]byte, 10))
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

// reaches reports whether what one socket sends to an address comes to another.
func reaches(t *testing.T, from, to *net.UDPConn, addr net.Addr) bool {
	t.Helper()
	if _, err := from.WriteTo([]byte{1}, addr); err != nil {
		t.Fatal(err)
	}
	to.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
	_, _, err := to.ReadFrom(make([]byte, 10))
	return err == nil
}
