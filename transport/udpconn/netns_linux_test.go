// SPDX-License-Identifier: Apache-2.0

package udpconn_test

import (
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"

	"github.com/l2bridge/l2bridge/transport/udpconn"
)

// inNamespace runs the test on a thread in a network namespace of its own, in
// which the loopback is up. The thread ends with the test.
func inNamespace(t *testing.T, test func(t *testing.T, lo netlink.Link)) {
	if os.Geteuid() != 0 {
		t.Skip("needs root for a network namespace")
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread is not used again
		ns, err := netns.New()
		if err != nil {
			t.Error(err)
			return
		}
		defer ns.Close()
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			t.Error(err)
			return
		}
		if err := netlink.LinkSetUp(lo); err != nil {
			t.Error(err)
			return
		}
		test(t, lo)
	}()
	<-done
}

// deliver sends packets from one socket to the other until one arrives: the
// kernel makes a new IPv6 address's route in its own time. It returns nil
// when none does.
func deliver(t *testing.T, from, to *udpconn.Conn, addr net.Addr) []ipv4.Message {
	ms := newBatch(1)
	var err error
	for range 100 {
		if _, err := from.WriteTo([]byte("packet"), addr); err != nil {
			t.Error(err)
			return nil
		}
		if err := to.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
			t.Error(err)
			return nil
		}
		if _, err = to.ReadBatch(ms, 0); err == nil {
			return ms
		}
	}
	t.Errorf("nothing arrived: %v", err)
	return nil
}

// A reply whose source address was removed leaves from another one.
func TestReplyAfterAddressIsGone(t *testing.T) {
	for _, tt := range []struct{ name, remote, first, second, nowhere string }{
		{"IPv4", "192.0.2.1/32", "192.0.2.2/32", "192.0.2.3/32", "198.51.100.1"},
		{"IPv6", "2001:db8::1/128", "2001:db8::2/128", "2001:db8::3/128", "2001:db8:1::1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inNamespace(t, func(t *testing.T, lo netlink.Link) {
				var addrs []*netlink.Addr
				for _, s := range []string{tt.remote, tt.first, tt.second} {
					a, err := netlink.ParseAddr(s)
					if err != nil {
						t.Error(err)
						return
					}
					a.Flags = unix.IFA_F_NODAD
					if err := netlink.AddrAdd(lo, a); err != nil {
						t.Error(err)
						return
					}
					addrs = append(addrs, a)
				}
				port := func(c *udpconn.Conn) int { return c.LocalAddr().(*net.UDPAddr).Port }
				server := listen(t, "[::]:0")
				enable(t, server)
				client := listen(t, netip.AddrPortFrom(netip.MustParsePrefix(tt.remote).Addr(), 0).String())

				setDeadline(t, client)
				first := &net.UDPAddr{IP: addrs[1].IP, Port: port(server)}
				question := deliver(t, client, server, first)
				if question == nil {
					return
				}
				local, index, _ := parseControl(t, question[0].OOB[:question[0].NN])
				if !addrs[1].IP.Equal(local.AsSlice()) || index != 0 {
					t.Errorf("question to %v, interface %d, want %v, 0", local, index, addrs[1].IP)
				}
				// The control messages in are fit to go out, as quic-go makes
				// its own from them. The TOS stays.
				oob := question[0].OOB[:question[0].NN]

				if err := netlink.AddrDel(lo, addrs[1]); err != nil {
					t.Error(err)
					return
				}
				if _, _, err := server.WriteMsgUDP([]byte("answer"), oob, question[0].Addr.(*net.UDPAddr)); err != nil {
					t.Error(err)
					return
				}
				answer := newBatch(1)
				if _, err := client.ReadBatch(answer, 0); err != nil {
					t.Error(err)
					return
				}
				if from := answer[0].Addr.(*net.UDPAddr); from.IP.Equal(first.IP) || from.Port != first.Port {
					t.Errorf("answer from %v, want another address", from)
				}
				if s := server.Stats(); s.TxUnpinned != 1 {
					t.Errorf("%d batches sent unpinned, want 1", s.TxUnpinned)
				}

				// No route at all is swallowed.
				if _, _, err := server.WriteMsgUDP([]byte("lost"), oob, &net.UDPAddr{IP: net.ParseIP(tt.nowhere), Port: 1}); err != nil {
					t.Errorf("without a route: %v", err)
				}
				if s := server.Stats(); len(s.TxErrors) != 1 {
					t.Errorf("errors %v, want one kind", s.TxErrors)
				}
			})
		})
	}
}

// A link-local address keeps its interface, without which it means nothing.
func TestLinkLocalKeepsInterface(t *testing.T) {
	inNamespace(t, func(t *testing.T, lo netlink.Link) {
		a, err := netlink.ParseAddr("fe80::1/64")
		if err != nil {
			t.Error(err)
			return
		}
		a.Flags = unix.IFA_F_NODAD
		if err := netlink.AddrAdd(lo, a); err != nil {
			t.Error(err)
			return
		}
		c, sender := listen(t, "[::]:0"), listen(t, "[::]:0")
		enable(t, c)
		to := &net.UDPAddr{IP: a.IP, Port: c.LocalAddr().(*net.UDPAddr).Port, Zone: "lo"}
		ms := deliver(t, sender, c, to)
		if ms == nil {
			return
		}
		if _, index, _ := parseControl(t, ms[0].OOB[:ms[0].NN]); int(index) != lo.Attrs().Index {
			t.Errorf("interface %d, want %d", index, lo.Attrs().Index)
		}
		if from := ms[0].Addr.(*net.UDPAddr); from.Zone == "" {
			t.Errorf("address %v has no zone", from)
		}
		// And the address is good for a reply.
		if _, _, err := c.WriteMsgUDP([]byte("y"), nil, ms[0].Addr.(*net.UDPAddr)); err != nil {
			t.Error(err)
		}
		if s := c.Stats(); s.TxPackets != 1 {
			t.Errorf("no reply: %v", s.TxErrors)
		}
	})
}
