// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package control

import (
	"errors"
	"net"
)

// callerOf asks the kernel who connected.
func callerOf(*net.UnixConn) caller { return caller{err: errors.ErrUnsupported} }
