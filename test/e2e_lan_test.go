// SPDX-License-Identifier: Apache-2.0

//go:build linux

package test_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/l2bridge/l2bridge/test/lab"
)

// leaseScript is what udhcpc calls with what it was given. The system's own
// would rewrite the resolver's configuration of this machine.
const leaseScript = `#!/bin/sh
[ "$1" = bound ] && ip address add "$ip/$mask" dev "$interface"
exit 0
`

// advertisement is the configuration of a router whose hosts make their own
// addresses.
const advertisement = `interface ` + hostLink + ` {
	AdvSendAdvert on;
	prefix 2001:db8:77::/64 { };
};
`

// A host gets its address from a server at the other site, by DHCP and by
// router advertisement.
func TestAddressesFromTheOtherSite(t *testing.T) {
	s, _, _ := join(t, lab.Options{Hosts: 1})
	client, server := s.A.Hosts[0], s.B.Hosts[0]
	dir := t.TempDir()
	write := func(name, content string, mode os.FileMode) (path string) {
		path = filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}

	t.Run("DHCP", func(t *testing.T) {
		dnsmasq := server.Start("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0",
			"--interface="+hostLink, "--bind-interfaces", "--user=root", "--log-facility=-", "--log-dhcp",
			"--pid-file="+filepath.Join(dir, "dnsmasq.pid"), "--dhcp-leasefile="+filepath.Join(dir, "leases"),
			"--dhcp-range=10.77.0.100,10.77.0.150,1h")
		dnsmasq.WaitOutput(recvWait, "DHCP, IP range")
		client.DelAddr(hostLink, client.Addr4+"/24")
		client.MustRun("udhcpc", "-f", "-q", "-n", "-t", "10", "-T", "1", "-i", hostLink,
			"-s", write("lease", leaseScript, 0o755))
		if !hasAddr(t, client, netip.MustParsePrefix("10.77.0.0/24")) {
			t.Error("no address of the lease's network")
		}
		ping(t, client.Namespace, server.Addr4, recvWait)
	})
	t.Run("SLAAC", func(t *testing.T) {
		server.AddAddr(hostLink, "2001:db8:77::1/64")
		server.Sysctl("net/ipv6/conf/all/forwarding", "1")
		server.Start("radvd", "--nodaemon", "--logmethod=stderr", "--pidfile="+filepath.Join(dir, "radvd.pid"),
			"--config="+write("radvd.conf", advertisement, 0o644))
		client.Sysctl("net/ipv6/conf/"+hostLink+"/accept_ra", "1")
		client.SetDown(hostLink)
		client.SetUp(hostLink) // sends a router solicitation
		lab.Wait(t, 20*time.Second, "host has an address of the advertised prefix", func() error {
			if !hasAddr(t, client, netip.MustParsePrefix("2001:db8:77::/64")) {
				return fmt.Errorf("%s", client.MustRun("ip", "-6", "address", "show", "dev", hostLink))
			}
			return nil
		})
		ping(t, client.Namespace, "2001:db8:77::1", recvWait)
	})
}

func hasAddr(t *testing.T, h *lab.Host, prefix netip.Prefix) bool {
	t.Helper()
	var links []struct {
		Addrs []struct{ Local netip.Addr } `json:"addr_info"`
	}
	out := h.MustRun("ip", "-j", "address", "show", "dev", hostLink, "scope", "global")
	if err := json.Unmarshal([]byte(out), &links); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, link := range links {
		for _, addr := range link.Addrs {
			if prefix.Contains(addr.Local) {
				return true
			}
		}
	}
	return false
}

// What finds its partner by broadcast or multicast finds it at the other site.
func TestDiscovery(t *testing.T) {
	s, _, _ := join(t, lab.Options{Hosts: 1})
	a, b := s.A.Hosts[0], s.B.Hosts[0]

	t.Run("ARP", func(t *testing.T) {
		ping(t, a.Namespace, b.Addr4, recvWait)
		var neighbours []struct{ LLAddr string }
		out := a.MustRun("ip", "-j", "neighbour", "show", "to", b.Addr4, "dev", hostLink)
		if err := json.Unmarshal([]byte(out), &neighbours); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		want := b.Link(hostLink).Attrs().HardwareAddr.String()
		if len(neighbours) != 1 || neighbours[0].LLAddr != want {
			t.Errorf("neighbour of %s: %+v, want the host's own address %s", b.Addr4, neighbours, want)
		}
	})
	t.Run("mDNS", func(t *testing.T) {
		const group = "224.0.0.251:5353"
		to := net.UDPAddrFromAddrPort(netip.MustParseAddrPort(group))
		asking, answering := a.ListenMulticast(hostLink, group), b.ListenMulticast(hostLink, group)
		exchange := func(from, at *net.UDPConn, message []byte) {
			t.Helper()
			if _, err := from.WriteTo(message, to); err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, 1500)
			at.SetReadDeadline(time.Now().Add(recvWait))
			n, _, err := at.ReadFrom(buf)
			if err != nil || !bytes.Equal(buf[:n], message) {
				t.Fatalf("received %q, %v, want %q", buf[:n], err, message)
			}
		}
		name := "\x05cable\x05local\x00\x00\x01"
		exchange(asking, answering, []byte("\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00"+name+"\x00\x01"))
		exchange(answering, asking, []byte("\x00\x00\x84\x00\x00\x00\x00\x01\x00\x00\x00\x00"+name+
			"\x80\x01\x00\x00\x00\x78\x00\x04\x0a\x4d\x00\x15"))
	})
	t.Run("IGMP", func(t *testing.T) {
		group := net.IPv4(239, 1, 2, 3)
		wire := b.Wire(hostLink)
		conn := a.ListenMulticast(hostLink, group.String()+":9999")
		wire.Next(recvWait, "IGMP join", igmpRecord(4, group)) // RFC 3376, 4.2.12: CHANGE_TO_EXCLUDE_MODE
		conn.Close()
		wire.Next(recvWait, "IGMP leave", igmpRecord(3, group)) // CHANGE_TO_INCLUDE_MODE
	})
}

// igmpRecord accepts an IGMPv3 report whose first record has that type and
// group. Linux sends it with a router alert option: the IP header has 24
// bytes.
func igmpRecord(kind byte, group net.IP) func([]byte) bool {
	const igmp = 14 + 24
	return func(frame []byte) bool {
		return len(frame) >= igmp+16 && binary.BigEndian.Uint16(frame[12:]) == 0x0800 && frame[23] == 2 &&
			frame[igmp] == 0x22 && frame[igmp+8] == kind && group.Equal(net.IP(frame[igmp+12:igmp+16]))
	}
}

// A host that is carried to the other site is reached there as soon as it
// speaks, and when it comes back.
func TestHostMoves(t *testing.T) {
	s, _, _ := join(t, lab.Options{Hosts: 2})
	mac := net.HardwareAddr{0x02, 0x77, 0, 0, 0, 0x99}
	const addr = "10.77.0.99"
	watcher := s.A.Hosts[0]
	// The one that moves is a host at each site, of which one is there.
	places := []*lab.Host{s.A.Hosts[1], s.B.Hosts[1]}
	for _, h := range places {
		h.SetDown(hostLink)
		h.SetMAC(hostLink, mac)
		h.AddAddr(hostLink, addr+"/24")
	}
	for i, here := range []int{0, 1, 0, 1} {
		places[here].SetUp(hostLink)
		// It speaks. The first packet may find a bridge that has not seen the
		// cable yet, and a neighbour that is still known is not asked for again.
		ping(t, places[here].Namespace, watcher.Addr4, recvWait)
		ping(t, watcher.Namespace, addr, recvWait)
		want := "local"
		if here == 1 {
			want = s.B.Name
		}
		stations, err := s.A.Stations()
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, st := range stations {
			if st.MAC != mac.String() {
				continue
			}
			found = true
			if st.Port != want || st.Moves != uint64(i) {
				t.Errorf("move %d: station %+v, want it at %s with %d moves", i, st, want, i)
			}
		}
		if !found {
			t.Errorf("move %d: no station %s in %+v", i, mac, stations)
		}
		places[here].SetDown(hostLink)
	}
}

// A frame for an address that nobody has heard goes everywhere; one for a
// station at the same site stays there.
func TestUnknownAndLocalAddresses(t *testing.T) {
	s, _, _ := join(t, lab.Options{Hosts: 2})
	from, near, far := s.A.Hosts[0].Wire(hostLink), s.A.Hosts[1], s.B.Hosts[0].Wire(hostLink)
	frame := func(dst net.HardwareAddr, number uint32) []byte {
		return lab.Numbered{Dst: dst, Src: macA, Number: number, Length: 100}.Bytes()
	}
	unknown := net.HardwareAddr{0x02, 0x77, 0, 0, 0, 0x55}
	nearMAC := near.Link(hostLink).Attrs().HardwareAddr
	ping(t, near.Namespace, s.B.Hosts[0].Addr4, recvWait) // so that each knows where it is

	const toNear, toUnknown, toAll = 0, 1, 2
	for number, dst := range []net.HardwareAddr{toNear: nearMAC, toUnknown: unknown, toAll: broadcast} {
		if err := from.Send(frame(dst, uint32(number))); err != nil {
			t.Fatal(err)
		}
	}
	got := make(map[uint32]bool)
	for !got[toUnknown] || !got[toAll] {
		number, err := lab.ParseNumber(far.Next(recvWait, "numbered frame", lab.IsNumbered))
		if err != nil {
			t.Fatal(err)
		}
		got[number] = true
	}
	if got[toNear] {
		t.Error("a frame between two hosts of one site came to the other")
	}
}
