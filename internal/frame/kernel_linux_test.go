// SPDX-License-Identifier: Apache-2.0

package frame_test

import (
	"bytes"
	"os"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/l2bridge/l2bridge/internal/frame"
)

// TestSplitAgainstLinux lets the kernel segment the same superframes:
//
//	superframe -> TAP in (IFF_VNET_HDR) -> bridge -> TAP out (no offloads) -> plain frames
func TestSplitAgainstLinux(t *testing.T) {
	in, out := newSegmenter(t)

	// through returns the n frames that the kernel makes of b, which have their
	// checksum at csum.
	through := func(r *rapid.T, b *frame.Buf, n, csum int) (frames [][]byte) {
		if _, err := unix.Write(in, b.Raw()); err != nil {
			r.Fatalf("write to TAP: %v (header %+v)", err, b.Header())
		}
		p := make([]byte, 4096)
		for len(frames) < n {
			const patience = 5000 // ms; only a frame that is lost takes so long
			ready, err := unix.Poll([]unix.PollFd{{Fd: int32(out), Events: unix.POLLIN}}, patience)
			if err == unix.EINTR {
				continue
			}
			if err != nil || ready == 0 {
				r.Fatalf("%d of %d frames came out (poll: %v)", len(frames), n, err)
			}
			m, err := unix.Read(out, p)
			if err != nil {
				r.Fatal(err)
			}
			f := bytes.Clone(p[:m])
			if f[csum] == 0 && f[csum+1] == 0 {
				f[csum], f[csum+1] = 0xff, 0xff // what Linux does to UDP and to single frames, but not to segments of TCP
			}
			frames = append(frames, f)
		}
		return frames
	}

	rapid.Check(t, func(r *rapid.T) {
		s := drawSuper(r)
		b := s.build(t)
		defer b.Release()

		want := split(r, b)
		if diff := diffFrames(through(r, b, s.count(), s.csumField()), want); diff != "" {
			r.Fatalf("whole superframe (-Linux +Split):\n%s", diff)
		}

		h, f := b.Header(), b.Bytes()
		from := rapid.IntRange(0, s.count()-1).Draw(r, "from")
		to := rapid.IntRange(from+1, s.count()).Draw(r, "to")
		begin, end := int(h.HdrLen)+from*s.Size, min(int(h.HdrLen)+to*s.Size, len(f))
		piece := frame.Cut(h, f[:h.HdrLen], f[begin:end], from)
		defer piece.Release()
		if diff := diffFrames(through(r, piece, to-from, s.csumField()), want[from:to]); diff != "" {
			r.Fatalf("segments %d to %d (-Linux +Split):\n%s", from, to, diff)
		}
	})
}

// newSegmenter makes two TAPs on a bridge, in a network namespace of the
// calling thread's own that goes with the thread.
func newSegmenter(t *testing.T) (in, out int) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to make a network namespace")
	}
	runtime.LockOSThread() // and never unlocked: the thread ends with the test
	ns, err := netns.New()
	if err != nil {
		t.Skipf("make network namespace: %v", err)
	}
	ns.Close()

	// Nothing but what is written may come out, and nothing may be changed.
	for path, value := range map[string]string{
		"/proc/sys/net/ipv6/conf/all/disable_ipv6":      "1",
		"/proc/sys/net/ipv6/conf/default/disable_ipv6":  "1",
		"/proc/sys/net/bridge/bridge-nf-call-iptables":  "0",
		"/proc/sys/net/bridge/bridge-nf-call-ip6tables": "0",
		"/proc/sys/net/bridge/bridge-nf-call-arptables": "0",
	} {
		if err := os.WriteFile(path, []byte(value), 0o644); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
	}

	snooping := false
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}, MulticastSnooping: &snooping}
	if err := netlink.LinkAdd(bridge); err != nil {
		t.Fatalf("add bridge: %v", err)
	}
	if err := netlink.LinkSetUp(bridge); err != nil {
		t.Fatalf("set bridge up: %v", err)
	}
	tap := func(name string, flags uint16) int {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			t.Skip(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		ifr, err := unix.NewIfreq(name)
		if err != nil {
			t.Fatal(err)
		}
		ifr.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | flags)
		if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
			t.Fatalf("make TAP %s: %v", name, err)
		}
		link, err := netlink.LinkByName(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := netlink.LinkSetMaster(link, bridge); err != nil {
			t.Fatalf("add %s to bridge: %v", name, err)
		}
		if err := netlink.LinkSetUp(link); err != nil {
			t.Fatalf("set %s up: %v", name, err)
		}
		return fd
	}
	out = tap("out", 0)
	in = tap("in", unix.IFF_VNET_HDR)
	if err := unix.IoctlSetPointerInt(in, unix.TUNSETVNETLE, 1); err != nil {
		t.Fatalf("set little-endian: %v", err)
	}
	return in, out
}
