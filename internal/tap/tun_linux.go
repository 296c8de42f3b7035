// SPDX-License-Identifier: Apache-2.0

package tap

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/l2bridge/l2bridge/internal/frame"
)

// Features says what the kernel grants a TAP.
type Features struct {
	// VnetHeader: frames carry a virtio-net header, so superframes and frames
	// with a checksum still to be done can be written.
	VnetHeader bool
	// TSO: TCP superframes are read.
	TSO bool
	// USO: UDP superframes are read (Linux 6.2).
	USO bool
}

// kernel is the part of drivers/net/tun.c that negotiates features. A test has
// one that refuses what older kernels do.
type kernel interface {
	open() (fd int, err error)
	attach(fd int, name string, flags uint16) error // TUNSETIFF
	offload(fd, flags int) error                    // TUNSETOFFLOAD, by value
	set(fd int, req uint, value int) error          // the others, by pointer
}

// Path is the device that TAPs are made with.
const Path = "/dev/net/tun"

type linux struct{}

// open returns a descriptor that is not in the runtime poller yet: epoll on
// /dev/net/tun works only after TUNSETIFF (golang.org/issue/30426).
func (linux) open() (int, error) {
	return unix.Open(Path, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
}

func (linux) attach(fd int, name string, flags uint16) error {
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	ifr.SetUint16(flags)
	return unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
}

func (linux) offload(fd, flags int) error { return unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, flags) }

func (linux) set(fd int, req uint, value int) error {
	return unix.IoctlSetPointerInt(fd, req, value)
}

// openTAP makes the TAP, or takes a persistent one that nobody holds, with all
// the features that the kernel grants. The caller closes the descriptor.
func openTAP(k kernel, name string, superframes bool) (int, Features, error) {
	fd, err := attachTAP(k, name, true)
	vnet := err == nil
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOTTY) {
		fd, err = attachTAP(k, name, false)
	}
	if err != nil {
		return -1, Features{}, err
	}
	f := Features{VnetHeader: vnet}
	if vnet && superframes {
		const (
			tso = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_TSO_ECN
			uso = unix.TUN_F_USO4 | unix.TUN_F_USO6 // the kernel takes both or none
		)
		f.TSO = k.offload(fd, tso) == nil
		f.USO = f.TSO && k.offload(fd, tso|uso) == nil
	}
	if vnet && !f.TSO {
		// A persistent TAP keeps the offloads of its last user.
		if err := k.offload(fd, 0); err != nil {
			unix.Close(fd)
			return -1, Features{}, fmt.Errorf("tap %s: offloads off: %w", name, err)
		}
	}
	return fd, f, nil
}

// attachTAP opens the device with or without a virtio-net header, whose layout
// is that of package frame: 10 bytes, little-endian.
func attachTAP(k kernel, name string, vnet bool) (int, error) {
	fd, err := k.open()
	if err != nil {
		return -1, explainOpen(name, err)
	}
	flags := uint16(unix.IFF_TAP | unix.IFF_NO_PI)
	if vnet {
		flags |= unix.IFF_VNET_HDR
	}
	err = k.attach(fd, name, flags)
	if err != nil {
		err = explainAttach(name, err)
	} else if vnet {
		if err = k.set(fd, unix.TUNSETVNETHDRSZ, frame.VnetLen); err == nil {
			err = k.set(fd, unix.TUNSETVNETLE, 1)
		}
		if err != nil {
			err = fmt.Errorf("tap %s: lay out virtio-net header: %w", name, err)
		}
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func explainOpen(name string, err error) error {
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return fmt.Errorf("tap %s: %s: %w: the kernel's tun driver is needed; "+
			"run \"modprobe tun\", in a container give it --device %s", name, Path, err, Path)
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return fmt.Errorf("tap %s: %s: %w: read and write access is needed; "+
			"run as root, in a container give it --device %s", name, Path, err, Path)
	}
	return fmt.Errorf("tap %s: %s: %w", name, Path, err)
}

func explainAttach(name string, err error) error {
	switch {
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("tap %s: %w: CAP_NET_ADMIN is needed to make a network device; "+
			"run as root, in a container give it --cap-add NET_ADMIN", name, err)
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("tap %s: %w: held by %s; a TAP has one user: stop it, or choose another name with --tap",
			name, err, owner(name))
	case errors.Is(err, unix.EINVAL):
		return fmt.Errorf("tap %s: %w: the kernel refuses it as a TAP with one queue; "+
			"remove the device of that name (ip link del %s), or choose another with --tap", name, err, name)
	}
	return fmt.Errorf("tap %s: make device: %w", name, err)
}
