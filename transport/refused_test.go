// SPDX-License-Identifier: Apache-2.0

package transport_test

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/l2bridge/l2bridge/transport/identity"
	"github.com/l2bridge/l2bridge/transport/wire"
)

// pretender returns a certificate for a site of a network by somebody who is not
// its CA.
func pretender(t *testing.T, network, site string) tls.Certificate {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(7),
		URIs:         []*url.URL{{Scheme: "l2bridge", Host: network, Path: "/" + site}},
		NotAfter:     time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(nil, template, template, public, private)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private}
}

// Who has not the key, the certificate or the language of a member gets no session
// and no frame in or out. Both sides are told why in a line, and a member that is
// there notices nothing.
func TestHandshakesRefused(t *testing.T) {
	foreign := members(t, "home", "office")[1]
	for _, tt := range []struct {
		name        string
		change      func(t *testing.T, e *evil, c *tls.Config)
		here, there string // words of the line at home, and of what the other end is told
	}{
		{"without a certificate", func(_ *testing.T, _ *evil, c *tls.Config) { c.Certificates = nil },
			"didn't provide a certificate", "certificate required"},
		{"a member's certificate with another key", func(t *testing.T, _ *evil, c *tls.Config) {
			c.Certificates[0].PrivateKey = pretender(t, "x", "x").PrivateKey
		}, "invalid signature by the client certificate", "error decrypting message"},
		{"a member's name with a key of its own", func(t *testing.T, e *evil, c *tls.Config) {
			c.Certificates[0] = pretender(t, e.member.Network, "office")
		}, "not a member of this network", "bad certificate"},
		{"a member of another network", func(_ *testing.T, _ *evil, c *tls.Config) { c.Certificates[0] = foreign.Leaf },
			"not a member of this network", "bad certificate"},
		{"HTTP/3", func(_ *testing.T, _ *evil, c *tls.Config) {
			c.NextProtos, c.Certificates = []string{"h3"}, nil
		}, "unsupported application protocols", "no application protocol"},
		{"a later version of ours", func(_ *testing.T, _ *evil, c *tls.Config) { c.NextProtos = []string{"l2bridge/2"} },
			"unsupported application protocols", "no application protocol"},
		{"no protocol", func(_ *testing.T, _ *evil, c *tls.Config) { c.NextProtos = nil },
			"did not request an application protocol", "no application protocol"},
		{"no common key exchange", func(_ *testing.T, _ *evil, c *tls.Config) { c.CurvePreferences = []tls.CurveID{tls.CurveP256} },
			"no key exchanges supported by both", "handshake failure"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			evilWorld(t, func(t *testing.T, _ *world, home *node, e *evil) {
				cfg := e.member.TLSConfig(wire.ALPN)
				tt.change(t, e, cfg)
				for range 3 {
					ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
					defer cancel()
					conn, err := e.tr.Dial(ctx, &net.UDPAddr{IP: net.ParseIP(homeAddr).To4(), Port: 4433}, cfg,
						&quic.Config{EnableDatagrams: true, InitialPacketSize: 1200})
					if err == nil { // the client is done before its certificate is judged
						e.say(conn, e.hello(1, 0).Append(nil))
						conn.SendDatagram(append([]byte{0, 0, 1, 0, 14}, make([]byte, 14)...))
						<-conn.Context().Done()
						err = context.Cause(conn.Context())
					}
					if !strings.Contains(err.Error(), tt.there) {
						t.Errorf("the other end is told %q, want %q", err, tt.there)
					}
				}
				if lines := home.log.lines("peer refused"); len(lines) != 1 || !strings.Contains(lines[0], tt.here) || !strings.Contains(lines[0], evilAddr) {
					t.Errorf("the log at home has %q, want one line with %q", lines, tt.here)
				}
				if home.peer("evil") != nil || home.attaches() != 1 {
					t.Error("it is attached")
				}
				if n := len(home.received()); n != 0 {
					t.Errorf("%d frames came in", n)
				}
			})
		})
	}
}

// Two networks whose sites have each other for a peer: a line at each says so.
func TestTwoNetworks(t *testing.T) {
	ms, others := members(t, "home"), members(t, "home", "office")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		home := w.run(t, ms[0], homeAddr, []string{officePort})
		office := w.run(t, others[1], officeAddr, []string{homePort})
		time.Sleep(time.Minute)
		for _, n := range []*node{home, office} {
			if lines := n.log.lines("peer not connected, trying again"); len(lines) != 1 || !strings.Contains(lines[0], identity.ErrNotMember.Error()) {
				t.Errorf("%s logs %q, want one line of a dial", n.member.Site, lines)
			}
			if n.attaches() != 0 {
				t.Errorf("%s has a peer", n.member.Site)
			}
			if lines := n.log.lines("level=WARN"); len(lines) > 3 {
				t.Errorf("%s logs %d lines in a minute:\n%s", n.member.Site, len(lines), strings.Join(lines, ""))
			}
		}
	})
}

// Who is through the door does not count there any more, nor who has gone.
func TestDoorIsLeft(t *testing.T) {
	evilWorld(t, func(t *testing.T, _ *world, home *node, e *evil) {
		waiting := func(what string, wantHalfOpen, wantInRooms int) {
			t.Helper()
			synctest.Wait()
			if halfOpen, inRooms := home.Waiting(); halfOpen != wantHalfOpen || inRooms != wantInRooms {
				t.Errorf("%s: %d half open and %d in rooms, want %d and %d", what, halfOpen, inRooms, wantHalfOpen, wantInRooms)
			}
		}
		waiting("with a peer", 0, 0)
		e.session(1)
		waiting("with a session more", 0, 0)
		mute := e.dial()
		time.Sleep(time.Second) // the client is done first
		waiting("with one that says nothing", 0, 1)
		mute.CloseWithError(0, "")
		time.Sleep(time.Second)
		waiting("when it has gone", 0, 0)
		cfg := e.member.TLSConfig(wire.ALPN)
		cfg.Certificates = nil
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if conn, err := e.tr.Dial(ctx, &net.UDPAddr{IP: net.ParseIP(homeAddr).To4(), Port: 4433}, cfg, &quic.Config{InitialPacketSize: 1200}); err == nil {
			<-conn.Context().Done()
		}
		waiting("when one was refused", 0, 0)
	})
}
