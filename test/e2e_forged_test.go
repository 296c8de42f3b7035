// SPDX-License-Identifier: Apache-2.0

//go:build linux

package test_test

import (
	"encoding/binary"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/l2bridge/l2bridge/test/lab"
)

// Whoever can see the tunnel's packets can send ICMP errors about them: that
// they are too big for a path, or that nobody is there. Nothing comes of it.
func TestForgedICMP(t *testing.T) {
	for _, outer := range []struct {
		name, peer string
		v6         bool
		remove     func(site *lab.Site) // the other family
	}{
		{"IPv4", "198.18.1.2:4433", false, func(site *lab.Site) { site.Gateway.DelAddr(lab.WANLink, site.Addr6+"/64") }},
		{"IPv6", "[2001:db8:1::2]:4433", true, func(site *lab.Site) { site.Gateway.DelAddr(lab.WANLink, site.Addr4+"/24") }},
	} {
		t.Run(outer.name, func(t *testing.T) {
			t.Parallel()
			n := newNetwork(t, networkOptions{prepare: func(n *network) func(site *lab.Site) []string {
				outer.remove(n.A)
				outer.remove(n.B)
				return func(site *lab.Site) []string {
					if site == n.A {
						return []string{"--advertise", outer.peer}
					}
					return nil
				}
			}})
			a, b := n.A.Hosts[0], n.B.Hosts[0]
			loads := []*lab.Load{lab.UDPLoad(a, b, loadTest), lab.UDPLoad(b, a, loadTest)}
			wires := make(map[*lab.Site]*lab.Wire)
			for _, site := range n.All {
				wires[site] = n.WAN[0].Wire(site.Uplink)
			}
			n.waitMeasured(t)
			before := pathMTUs(t, n)
			began := time.Now()
			sent := make([]lab.LoadCount, 2)
			for i, load := range loads {
				sent[i] = load.Count()
			}
			const (
				rounds = 30
				pause  = 100 * time.Millisecond
			)
			forgedCount := 0
			for round := range rounds {
				for _, wire := range wires {
					wire.Drain()
					seen := wire.Next(recvWait, "packet of the tunnel", isOuter)
					for _, forged := range forgeries(seen, round) {
						if err := wire.Send(forged); err != nil {
							t.Fatal(err)
						}
						forgedCount++
					}
				}
				time.Sleep(pause)
			}
			if n.believed(outer.v6) == 0 {
				t.Error("the forgeries are so bad that not even the kernel believes them")
			}
			time.Sleep(5 * time.Second) // longer than silence is borne
			for i, load := range loads {
				load.Stop()
				count := load.Count()
				all := int64(count.Sent - sent[i].Sent)
				lost := all - int64(count.Received-sent[i].Received)
				t.Logf("%d forged; %d datagrams, %d lost", forgedCount, all, lost)
				// Believed, they would cost all of them; a busy machine costs some.
				if most := all / 10; lost > most {
					t.Errorf("%d of %d datagrams lost, want %d at most", lost, all, most)
				}
			}
			o, err := n.echo.Outage(began, began, time.Second, missable())
			if err != nil || o.Gap > slack {
				t.Errorf("traffic stood still for %v, %v", o.Gap, err)
			}
			for i, after := range pathMTUs(t, n) {
				if after < before[i] {
					t.Errorf("path_mtu was %d and is %d", before[i], after)
				}
			}
			for _, site := range n.All {
				peers, err := site.Peers()
				if err != nil {
					t.Fatal(err)
				}
				if since := time.Duration(peers[0].SinceMS) * time.Millisecond; since < time.Since(began) {
					t.Errorf("site %s has a session since %v, want the one of before", site.Name, since)
				}
			}
			// Nor of a session that begins now.
			n.up[n.B].Kill()
			n.start(n.B)
			n.steady(t, time.Second)
			n.waitMeasured(t)
		})
	}
}

// believed returns how many of the two gateways' kernels take the way to the
// other for narrower than their links.
func (n *network) believed(v6 bool) (count int) {
	for i, site := range n.All {
		to := n.All[1-i].Addr4
		if v6 {
			to = n.All[1-i].Addr6
		}
		if strings.Contains(site.Gateway.MustRun("ip", "route", "get", to), " mtu ") {
			count++
		}
	}
	return count
}

// pathMTUs returns what each site says of the path.
func pathMTUs(t *testing.T, n *network) (mtus []int) {
	t.Helper()
	for _, site := range n.All {
		peers, err := site.Peers()
		if err != nil || len(peers) != 1 {
			t.Fatalf("peers of site %s: %+v, %v", site.Name, peers, err)
		}
		mtus = append(mtus, peers[0].PathMTU)
	}
	return mtus
}

// isOuter reports whether a frame is a packet of the tunnel, of some length.
func isOuter(frame []byte) bool {
	const udp, least = 17, 100
	if len(frame) < least {
		return false
	}
	switch binary.BigEndian.Uint16(frame[12:]) {
	case 0x0800:
		return frame[14+9] == udp
	case 0x86dd:
		return frame[14+6] == udp
	}
	return false
}

// forgeries returns ICMP errors about a packet that a router saw, to be sent
// back where it came from, as if by the far gateway itself.
func forgeries(seen []byte, round int) (frames [][]byte) {
	back := slices.Concat(seen[6:12], seen[:6], seen[12:14])
	packet := seen[14:]
	mtu := []uint16{0, 68, 552, 1000, 1276, 1280, 1400}[round%7]
	if packet[0]>>4 == 4 {
		const tooBig, most = 4, 548
		for _, kind := range []struct {
			kind, code byte
			word       []uint16
		}{{3, tooBig, []uint16{0, mtu}}, {3, byte(round % 4), []uint16{0, 0}}, {11, 0, []uint16{0, 0}}} {
			body := slices.Concat([]byte{kind.kind, kind.code, 0, 0}, u16(kind.word...), packet[:min(len(packet), most)])
			binary.BigEndian.PutUint16(body[2:], ^onesSum(body))
			head := slices.Concat([]byte{0x45, 0}, u16(uint16(20+len(body)), 1, 0), []byte{64, 1, 0, 0}, packet[16:20], packet[12:16])
			binary.BigEndian.PutUint16(head[10:], ^onesSum(head))
			frames = append(frames, slices.Concat(back, head, body))
		}
		return frames
	}
	const icmp, most = 58, 1232 - 8
	for _, kind := range []struct {
		kind, code byte
		word       []uint16
	}{{2, 0, []uint16{0, mtu}}, {1, byte(round % 5), []uint16{0, 0}}, {3, 0, []uint16{0, 0}}} {
		body := slices.Concat([]byte{kind.kind, kind.code, 0, 0}, u16(kind.word...), packet[:min(len(packet), most)])
		addrs := slices.Concat(packet[24:40], packet[8:24])
		binary.BigEndian.PutUint16(body[2:], ^onesSum(slices.Concat(addrs, u16(0, uint16(len(body)), 0, icmp), body)))
		frames = append(frames, slices.Concat(back, []byte{0x60, 0, 0, 0}, u16(uint16(len(body))), []byte{icmp, 64}, addrs, body))
	}
	return frames
}

// onesSum is the internet checksum's sum (RFC 1071).
func onesSum(b []byte) uint16 {
	sum := uint32(0)
	for i := range b {
		sum += uint32(b[i]) << (8 * (1 - i&1))
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return uint16(sum)
}
