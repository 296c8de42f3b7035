// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/l2bridge/l2bridge/internal/control"
	"github.com/l2bridge/l2bridge/internal/tap"
	"github.com/l2bridge/l2bridge/transport/udpconn"
	"github.com/l2bridge/l2bridge/transport/wire"
)

// What a kernel of this day grants.
var (
	wholeTAP    = tap.Features{VnetHeader: true, TSO: true, USO: true}
	wholeSocket = udpconn.Stats{GRO: true, GSO: true, ReceiveBufferBytes: socketBuffer, SendBufferBytes: socketBuffer}
)

const allFeatures = wire.FeatureCsum | wire.FeatureTSO | wire.FeatureUSO

// Each thing that is refused is seen in the JSON and has one line, with its
// remedy; when all is granted nothing is said.
func TestShortcomings(t *testing.T) {
	t.Parallel()
	all := control.Offloads{TAPVnet: true, TAPTSO: true, TAPUSO: true, UDPGSO: true, UDPGRO: true,
		ReceiveBuffer: 8 << 20, SendBuffer: 8 << 20}
	for _, tt := range []struct {
		name  string
		tap   func(*tap.Features)
		udp   func(*udpconn.Stats)
		takes wire.Features
		want  func(*control.Offloads)
		hints []string // parts of each
	}{
		{name: "all granted", takes: allFeatures},
		{name: "more than we know", takes: ^wire.Features(0)},
		{
			name: "no virtio-net header", takes: allFeatures,
			tap:   func(f *tap.Features) { *f = tap.Features{} },
			want:  func(o *control.Offloads) { o.TAPVnet, o.TAPTSO, o.TAPUSO = false, false, false },
			hints: []string{"TAP l2b0 no virtio-net header"},
		},
		{
			name: "no TSO", takes: allFeatures,
			tap:   func(f *tap.Features) { f.TSO, f.USO = false, false },
			want:  func(o *control.Offloads) { o.TAPTSO, o.TAPUSO = false, false },
			hints: []string{"TAP l2b0 no TCP superframes"},
		},
		{
			name: "no USO", takes: wire.FeatureCsum | wire.FeatureTSO, // the peer's would not help
			tap:   func(f *tap.Features) { f.USO = false },
			want:  func(o *control.Offloads) { o.TAPUSO = false },
			hints: []string{"TAP l2b0 no UDP superframes"},
		},
		{
			name: "no GSO", takes: allFeatures,
			udp:   func(s *udpconn.Stats) { s.GSO = false },
			want:  func(o *control.Offloads) { o.UDPGSO = false },
			hints: []string{"sends the tunnel's packets one by one"},
		},
		{
			name: "GSO refused on the way", takes: allFeatures,
			udp: func(s *udpconn.Stats) {
				for i := range 5 {
					s.GSORefused = append(s.GSORefused, netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}))
				}
			},
			want:  func(o *control.Offloads) { o.UDPGSO = false },
			hints: []string{"the way to 192.0.2.0, 192.0.2.1, 192.0.2.2 and 2 more takes packets one by one only"},
		},
		{
			name: "no GRO", takes: allFeatures,
			udp:   func(s *udpconn.Stats) { s.GRO = false },
			want:  func(o *control.Offloads) { o.UDPGRO = false },
			hints: []string{"receives the tunnel's packets one by one"},
		},
		{
			name: "receive buffer", takes: allFeatures,
			udp:   func(s *udpconn.Stats) { s.ReceiveBufferBytes = 425_984 },
			want:  func(o *control.Offloads) { o.ReceiveBuffer = 425_984 },
			hints: []string{`receive buffer is 416 kB of 8192, which costs speed when packets come in bursts: run "sysctl -w net.core.rmem_max=4194304" on the host`},
		},
		{
			name: "both buffers", takes: allFeatures,
			udp:   func(s *udpconn.Stats) { s.ReceiveBufferBytes, s.SendBufferBytes = 425_984, 212_992 },
			want:  func(o *control.Offloads) { o.ReceiveBuffer, o.SendBuffer = 425_984, 212_992 },
			hints: []string{`send buffer is 208 kB of 8192, which costs speed when packets come in bursts: run "sysctl -w net.core.rmem_max=4194304 net.core.wmem_max=4194304"`},
		},
		{name: "peer without superframes", hints: []string{"site cabin takes no superframes"}},
		{name: "peer that sums not", takes: wire.FeatureTSO, hints: []string{"site cabin takes no superframes"}},
		{
			name: "peer without USO", takes: wire.FeatureCsum | wire.FeatureTSO,
			hints: []string{"site cabin takes no UDP superframes"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			granted, udp, want := wholeTAP, wholeSocket, all
			if tt.tap != nil {
				tt.tap(&granted)
			}
			if tt.udp != nil {
				tt.udp(&udp)
			}
			if tt.want != nil {
				tt.want(&want)
			}
			if diff := cmp.Diff(want, offloads(granted, udp)); diff != "" {
				t.Errorf("offloads (-want +got):\n%s", diff)
			}
			hints := append(tapHints("l2b0", granted), socketHints(udp)...)
			hints = append(hints, peerHints("cabin", tt.takes, granted)...)
			if len(hints) != len(tt.hints) {
				t.Fatalf("hints %q, want %d", hints, len(tt.hints))
			}
			for i, hint := range hints {
				if !strings.Contains(hint, tt.hints[i]) {
					t.Errorf("hint %q, want %q", hint, tt.hints[i])
				}
				if !strings.Contains(hint, ": ") || strings.ContainsFunc(hint, func(r rune) bool { return r < ' ' || r > '~' }) {
					t.Errorf("hint %q: want a remedy after a colon, in plain ASCII", hint)
				}
			}
		})
	}
}

func TestFeatureNames(t *testing.T) {
	t.Parallel()
	for f, want := range map[wire.Features][]string{
		0:                                       nil,
		allFeatures:                             {"csum", "tso", "uso"},
		wire.FeatureCsum | wire.FeatureTSO:      {"csum", "tso"},
		wire.FeatureRelay:                       nil,
		wire.FeatureUSO | wire.FeatureStripe<<9: {"uso"},
	} {
		if diff := cmp.Diff(fmt.Sprint(want), fmt.Sprint(featureNames(f))); diff != "" {
			t.Errorf("%#x (-want +got):\n%s", f, diff)
		}
	}
}
