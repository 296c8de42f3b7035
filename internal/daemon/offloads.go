// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/l2bridge/l2bridge/internal/control"
	"github.com/l2bridge/l2bridge/internal/tap"
	"github.com/l2bridge/l2bridge/transport/udpconn"
	"github.com/l2bridge/l2bridge/transport/wire"
)

// socketBuffer is what the socket asks for each way, as the kernel accounts
// it: double.
const socketBuffer = 2 * udpconn.DefaultBufferBytes

// offloads says what the kernel does for us. Of a TAP that is lost nothing is
// known: granted is zero.
func offloads(granted tap.Features, udp udpconn.Stats) control.Offloads {
	return control.Offloads{
		TAPVnet: granted.VnetHeader, TAPTSO: granted.TSO, TAPUSO: granted.USO,
		UDPGSO: udp.GSO && len(udp.GSORefused) == 0, UDPGRO: udp.GRO,
		ReceiveBuffer: udp.ReceiveBufferBytes, SendBuffer: udp.SendBufferBytes,
	}
}

// tapHints says what the kernel refuses to a TAP that is to read superframes.
func tapHints(name string, granted tap.Features) []string {
	switch {
	case !granted.VnetHeader:
		return []string{fmt.Sprintf("the kernel gives TAP %s no virtio-net header: all traffic goes frame by frame, and TCP is several times slower: run Linux 5.0 or newer", name)}
	case !granted.TSO:
		return []string{fmt.Sprintf("the kernel gives TAP %s no TCP superframes: TCP from this LAN goes frame by frame, several times slower: run Linux 5.0 or newer", name)}
	case !granted.USO:
		return []string{fmt.Sprintf("the kernel gives TAP %s no UDP superframes: UDP from this LAN goes frame by frame; TCP is not slower: run Linux 6.2 or newer", name)}
	}
	return nil
}

// socketHints says what the kernel refuses to the UDP socket.
func socketHints(udp udpconn.Stats) (hints []string) {
	hints = append(hints, bufferHints(udp)...)
	if !udp.GSO {
		hints = append(hints, "the kernel sends the tunnel's packets one by one (no UDP_SEGMENT), which costs speed: run Linux 4.18 or newer")
	}
	if len(udp.GSORefused) > 0 {
		hints = append(hints, fmt.Sprintf("the way to %s takes packets one by one only (UDP_SEGMENT is refused), which costs speed: "+
			"turn on the NIC's checksum offload, \"ethtool -K NIC tx on\", unless IPsec is what refuses", addresses(udp.GSORefused)))
	}
	if !udp.GRO {
		hints = append(hints, "the kernel receives the tunnel's packets one by one (no UDP_GRO), which costs speed: run Linux 5.0 or newer")
	}
	return hints
}

// bufferHints says which socket buffers are smaller than asked for. One that
// may not be raised holds less than a burst.
func bufferHints(udp udpconn.Stats) []string {
	var short, sysctls []string
	for _, b := range []struct {
		name, sysctl string
		bytes        int
	}{
		{"receive", "net.core.rmem_max", udp.ReceiveBufferBytes},
		{"send", "net.core.wmem_max", udp.SendBufferBytes},
	} {
		if b.bytes < socketBuffer {
			short = append(short, fmt.Sprintf("%s buffer is %d kB of %d", b.name, b.bytes>>10, socketBuffer>>10))
			sysctls = append(sysctls, fmt.Sprintf("%s=%d", b.sysctl, udpconn.DefaultBufferBytes))
		}
	}
	if short == nil {
		return nil
	}
	return []string{fmt.Sprintf("the UDP socket's %s, which costs speed when packets come in bursts: run \"sysctl -w %s\" on the host, then restart l2bridge",
		strings.Join(short, ", its "), strings.Join(sysctls, " "))}
}

// peerHints says what a peer does not take, of what we have to give.
func peerHints(site string, takes wire.Features, granted tap.Features) []string {
	switch {
	case granted.TSO && takes&(wire.FeatureCsum|wire.FeatureTSO) != wire.FeatureCsum|wire.FeatureTSO:
		return []string{fmt.Sprintf("site %s takes no superframes: they are cut here, and traffic to it is several times slower: "+
			"unless --superframes off is meant there, see the hints of \"l2bridge status\" at %s", site, site)}
	case granted.USO && takes&wire.FeatureUSO == 0:
		return []string{fmt.Sprintf("site %s takes no UDP superframes: they are cut here; TCP is not slower: run Linux 6.2 or newer at %s", site, site)}
	}
	return nil
}

// featureNames lists what a peer takes, for JSON.
func featureNames(f wire.Features) (names []string) {
	for _, n := range []struct {
		bit  wire.Features
		name string
	}{
		{wire.FeatureCsum, control.FeatureCsum},
		{wire.FeatureTSO, control.FeatureTSO},
		{wire.FeatureUSO, control.FeatureUSO},
	} {
		if f&n.bit != 0 {
			names = append(names, n.name)
		}
	}
	return names
}

// addresses lists a few of many.
func addresses(all []netip.Addr) string {
	const few = 3
	var names []string
	for i, a := range all {
		if i == few {
			return fmt.Sprintf("%s and %d more", strings.Join(names, ", "), len(all)-few)
		}
		names = append(names, a.String())
	}
	return strings.Join(names, ", ")
}
