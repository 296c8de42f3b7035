// SPDX-License-Identifier: Apache-2.0

package frame_test

import (
	"net"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/l2bridge/l2bridge/internal/frame"
)

func TestStation(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		mac         string
		vlan        uint16
		want        string
		group, zero bool
	}{
		{"02:00:5e:10:00:01", 0, "02:00:5e:10:00:01", false, false},
		{"fe:ff:ff:ff:ff:ff", 4095, "fe:ff:ff:ff:ff:ff vlan 4095", false, false},
		{"ff:ff:ff:ff:ff:ff", 7, "ff:ff:ff:ff:ff:ff vlan 7", true, false},
		{"01:80:c2:00:00:00", 0, "01:80:c2:00:00:00", true, false},
		{"00:00:00:00:00:00", 0, "00:00:00:00:00:00", false, true},
		{"00:00:00:00:00:00", 7, "00:00:00:00:00:00 vlan 7", false, true},
	} {
		mac, err := net.ParseMAC(tt.mac)
		if err != nil {
			t.Fatal(err)
		}
		s := frame.NewStation(mac, tt.vlan)
		if got := s.String(); got != tt.want {
			t.Errorf("String: %q, want %q", got, tt.want)
		}
		if s.IsGroup() != tt.group || s.IsZero() != tt.zero {
			t.Errorf("%s: group %t, zero %t, want %t, %t", s, s.IsGroup(), s.IsZero(), tt.group, tt.zero)
		}
	}
}

func TestStationRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		mac := net.HardwareAddr(rapid.SliceOfN(rapid.Byte(), 6, 6).Draw(t, "mac"))
		vlan := rapid.Uint16Range(0, 4095).Draw(t, "vlan")
		s := frame.NewStation(mac, vlan)
		if diff := cmp.Diff(mac, s.MAC()); diff != "" {
			t.Fatalf("MAC (-want +got):\n%s", diff)
		}
		if s.VLAN() != vlan {
			t.Fatalf("VLAN %d, want %d", s.VLAN(), vlan)
		}
		if untagged := frame.NewStation(mac, 0); s.Address() != uint64(untagged) {
			t.Fatalf("address %#x, want %#x", s.Address(), uint64(untagged))
		}
	})
}

func TestNewStationPanicsOnShortMAC(t *testing.T) {
	t.Parallel()
	mustPanic(t, "five bytes", func() { frame.NewStation(make(net.HardwareAddr, 5), 0) })
}

func TestStationsAndTags(t *testing.T) {
	t.Parallel()
	const macs = "\x02\x00\x00\x00\x00\x02\x02\x00\x00\x00\x00\x01"
	for _, tt := range []struct {
		name string
		rest string
		vlan uint16
		tags int
	}{
		{"untagged", "\x08\x00..", 0, 0},
		{"802.1Q", "\x81\x00\x00\x64\x08\x00", 100, 4},
		{"802.1ad", "\x88\xa8\x0f\xff\x08\x00", 4095, 4},
		{"priority and drop eligible bits are not the VLAN", "\x81\x00\xf0\x64\x08\x00", 100, 4},
		{"priority tag", "\x81\x00\xe0\x00\x08\x00", 0, 4},
		{"two tags, the outer one counts", "\x88\xa8\x00\x64\x81\x00\x00\x65\x08\x00", 100, 8},
		{"three tags, two are looked through", "\x81\x00\x00\x64\x81\x00\x00\x65\x81\x00\x00\x66\x08\x00", 100, 8},
		{"tag without a VLAN", "\x81\x00", 0, 0},
		{"tag with half a VLAN", "\x81\x00\x00", 0, 0},
		{"tag without a type behind", "\x81\x00\x00\x64\x08", 100, 0},
		{"second tag without a type behind", "\x81\x00\x00\x64\x81\x00\x00\x65\x08", 100, 4},
	} {
		f := []byte(macs + tt.rest)
		dst, src := frame.Stations(f)
		want := [2]frame.Station{frame.NewStation(dstMAC, tt.vlan), frame.NewStation(srcMAC, tt.vlan)}
		if diff := cmp.Diff(want, [2]frame.Station{dst, src}); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
		if got := frame.TagBytes(f); got != tt.tags {
			t.Errorf("%s: %d bytes of tags, want %d", tt.name, got, tt.tags)
		}
	}
}
