// SPDX-License-Identifier: Apache-2.0

package tap

import (
	"errors"
	"net"

	"golang.org/x/sys/unix"
)

// Free returns an error, which names who holds it, if a TAP of that name is in use.
// It takes more rights to look into other processes than to open a TAP: call it
// before they are given up. What else is in the way Open says.
func Free(name string) error {
	if _, err := net.InterfaceByName(name); err != nil {
		return nil // attaching would make it
	}
	fd, err := attachTAP(linux{}, name, false)
	if errors.Is(err, unix.EBUSY) {
		return err
	}
	if err == nil {
		unix.Close(fd)
	}
	return nil
}
