// SPDX-License-Identifier: Apache-2.0

//go:build linux

package tap_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/mdlayher/packet"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/l2bridge/l2bridge/internal/frame"
	"github.com/l2bridge/l2bridge/internal/tap"
)

// etherType of the frames that tests send (IEEE 802, local experimental 1).
const etherType = 0x88b5

// listen opens a raw socket for the test frames, tagged ones too, that end at
// a device.
func listen(t *testing.T, device string) *packet.Conn {
	t.Helper()
	c, err := packet.Listen(&net.Interface{Index: link(t, device).Index, Name: device}, packet.Raw, unix.ETH_P_ALL, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// testFrames returns frames of every length from 14 to 1514, and some with one
// tag and with two up to 1518 and 1522. The kernel drops a tagged frame without
// two bytes behind the inner EtherType (net/core/skbuff.c, skb_vlan_untag).
func testFrames() (frames [][]byte) {
	random := rand.New(rand.NewPCG(1, 2))
	for tags := range 3 {
		header := append(mac("02:00:00:00:00:0b"), mac("02:00:00:00:00:0a")...)
		for i := range tags {
			header = append(header, 0x81, 0, 0x60, byte(10+i))
		}
		header = append(header, etherType>>8, etherType&0xff)
		for n := range 1501 {
			if tags > 0 && n%100 != 2 && n != 1500 {
				continue
			}
			f := bytes.Clone(header)
			for range n {
				f = append(f, byte(random.Uint32()))
			}
			frames = append(frames, f)
		}
	}
	return frames
}

// TestThroughBridge has a host behind a bridge, and another gateway's TAP:
//
//	veth1 -- veth0 | br0 | l2b0 -- Device
//	                     | l2b1 -- Device
func TestThroughBridge(t *testing.T) {
	for _, vnet := range []bool{true, false} {
		newNamespace(t)
		ip(t, "link", "add", "br0", "up", "type", "bridge", "mcast_snooping", "0")
		ip(t, "link", "add", "veth0", "up", "type", "veth", "peer", "veth1")
		ip(t, "link", "set", "veth1", "up")
		ip(t, "link", "set", "veth0", "master", "br0")
		join := func(name string) *tap.Device {
			t.Helper()
			cfg := tap.Config{Name: name, Bridge: "br0", CarrierAlwaysOn: true, Superframes: true}
			d, err := tap.OpenWith(withDefaults(cfg), func(request uint, flags int) error {
				if request == unix.TUNSETIFF && flags&unix.IFF_VNET_HDR != 0 && !vnet {
					return unix.EINVAL
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			return d
		}

		// A raw socket takes one tag beyond the MTU.
		fits := slices.DeleteFunc(testFrames(), func(f []byte) bool { return len(f) > 1518 })
		host := listen(t, "veth1")
		d := join("l2b0")
		through(t, d, fits, func(f []byte) {
			if _, err := host.WriteTo(f, &packet.Addr{HardwareAddr: f[:6]}); err != nil {
				t.Fatalf("send %d bytes: %v", len(f), err)
			}
		})
		other := join("l2b1")
		through(t, other, testFrames(), func(f []byte) {
			b := frame.New(f)
			d.Send([]*frame.Buf{b})
			b.Release()
		})
		for _, d := range []*tap.Device{d, other} {
			if diff := cmp.Diff(map[string]uint64{}, drops(d.Stats())); diff != "" {
				t.Errorf("drops (-want +got):\n%s", diff)
			}
			d.Close()
		}
	}
}

// through sends frames one by one and compares them with what d reads.
func through(t *testing.T, d *tap.Device, all [][]byte, send func([]byte)) {
	t.Helper()
	got := make(chan read, 16)
	stop, _ := start(t, d.Run, func(frames []*frame.Buf) {
		for _, b := range frames {
			at := 12 + frame.TagBytes(b.Bytes())
			if bytes.Equal(b.Bytes()[at:at+2], []byte{etherType >> 8, etherType & 0xff}) { // not a host's chatter
				got <- read{b.Header(), bytes.Clone(b.Bytes())}
			}
		}
	})
	for i, f := range all {
		send(f)
		r := wait(t, fmt.Sprintf("frame %d of %d bytes", i, len(f)), got)
		if !bytes.Equal(r.Frame, f) || r.Header != (frame.Vnet{}) {
			t.Fatalf("frame %d: %+v % x, want % x", i, r.Header, r.Frame, f)
		}
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// TestSuperframes moves data between two hosts whose TAPs are patched together:
//
//	namespace a: TCP -- l2b0 == Device == patch == Device == l2b0 -- TCP: namespace b
func TestSuperframes(t *testing.T) {
	for _, tt := range []struct {
		name   string
		cfg    tap.Config
		refuse uint
		super  bool
	}{
		{"superframes", tap.Config{Superframes: true}, 0, true},
		{"none", tap.Config{}, 0, false},
		{"no header", tap.Config{Superframes: true}, unix.TUNSETVNETHDRSZ, false},
		{"jumbo", tap.Config{Superframes: true, MTU: 9000}, 0, true},
	} {
		var (
			devices    [2]*tap.Device
			namespaces [2]netns.NsHandle
		)
		for i, address := range []string{"192.0.2.1/24", "192.0.2.2/24"} {
			namespaces[i] = newNamespace(t)
			cfg := tt.cfg
			cfg.Address = tap.Address([]byte{byte(i)})
			d, err := tap.OpenWith(withDefaults(cfg), func(request uint, _ int) error {
				if tt.refuse != 0 && request == tt.refuse {
					return unix.EINVAL
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			ip(t, "address", "add", address, "dev", "l2b0")
			devices[i] = d
		}
		stop0, _ := start(t, devices[0].Run, devices[1].Send)
		stop1, _ := start(t, devices[1].Run, devices[0].Send)

		if err := transfer(t, namespaces[0], namespaces[1]); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		if err := errors.Join(stop0(), stop1()); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		rx, tx := devices[0].Stats(), devices[1].Stats()
		dropped := drops(tx)
		delete(dropped, "tap_overflow") // a busy machine reads late, and TCP sends again
		if got := rx.Rx.Superframes > 0; got != tt.super {
			t.Errorf("%s: superframes were read: %t, want %t", tt.name, got, tt.super)
		}
		if rx.Rx.Superframes != tx.Tx.Superframes || len(dropped) > 0 {
			t.Errorf("%s: %d superframes read, %d written, dropped %v", tt.name, rx.Rx.Superframes, tx.Tx.Superframes, dropped)
		}
		for _, d := range devices {
			d.Close()
		}
	}
}

// transfer sends 16 MB by TCP and compares them.
func transfer(t *testing.T, from, to netns.NsHandle) error {
	data := make([]byte, 16<<20)
	rand.NewChaCha8([32]byte{}).Read(data)

	listening := make(chan net.Listener, 1)
	received := make(chan [32]byte, 1)
	server := in(t, to, func() error {
		l, err := net.Listen("tcp4", "192.0.2.2:5001")
		if err != nil {
			return err
		}
		defer l.Close()
		listening <- l
		c, err := l.Accept()
		if err != nil {
			return err
		}
		defer c.Close()
		h := sha256.New()
		if _, err := io.Copy(h, c); err != nil {
			return err
		}
		received <- [32]byte(h.Sum(nil))
		return nil
	})
	wait(t, "the server", listening)
	client := in(t, from, func() error {
		c, err := net.Dial("tcp4", "192.0.2.2:5001")
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write(data)
		return err
	})
	if err := errors.Join(wait(t, "the client", client), wait(t, "the server", server)); err != nil {
		return err
	}
	if <-received != sha256.Sum256(data) {
		return errors.New("the data were changed on the way")
	}
	return nil
}

func TestSendErrors(t *testing.T) {
	newNamespace(t)
	d := openTAP(t, tap.Config{Superframes: true})
	defer d.Close()
	b := frame.New(testFrames()[100])
	defer b.Release()

	b.SetHeader(frame.Vnet{GSOType: 77})
	d.Send([]*frame.Buf{b})
	b.SetHeader(frame.Vnet{})
	ip(t, "link", "set", "l2b0", "down")
	d.Send([]*frame.Buf{b, b})
	ip(t, "link", "del", "l2b0")
	d.Send([]*frame.Buf{b, b, b})
	if diff := cmp.Diff(map[string]uint64{"tap_refused": 1, "tap_down": 2, "tap_gone": 3}, drops(d.Stats())); diff != "" {
		t.Errorf("drops (-want +got):\n%s", diff)
	}
}

// TestOverflow sends more than the kernel keeps for a reader that is not there.
func TestOverflow(t *testing.T) {
	newNamespace(t)
	d := openTAP(t, tap.Config{})
	defer d.Close()
	ip(t, "link", "set", "l2b0", "txqueuelen", "100")
	host := listen(t, "l2b0")
	f := testFrames()[100]
	for range 300 {
		if _, err := host.WriteTo(f, &packet.Addr{HardwareAddr: f[:6]}); err != nil && !errors.Is(err, unix.ENOBUFS) {
			t.Fatal(err)
		}
	}
	if got := drops(d.Stats())["tap_overflow"]; got < 200 {
		t.Errorf("tap_overflow = %d, want at least 200", got)
	}
}

func TestRunSaysDeleted(t *testing.T) {
	newNamespace(t)
	d := openTAP(t, tap.Config{})
	defer d.Close()
	host := listen(t, "l2b0")
	running := make(chan struct{}, 100)
	_, result := start(t, d.Run, func([]*frame.Buf) { running <- struct{}{} })
	f := testFrames()[100]
	host.WriteTo(f, &packet.Addr{HardwareAddr: f[:6]})
	wait(t, "a frame", running)
	ip(t, "link", "del", "l2b0")
	if err := wait(t, "Run", result); err == nil || !strings.Contains(err.Error(), "tap l2b0: file descriptor in bad state: the device was deleted") {
		t.Errorf("Run: %v, want that the device was deleted", err)
	}
}
