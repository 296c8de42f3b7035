// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// roamPause is how long changes of addresses and routes are left to gather: a
// link that goes up brings several.
const roamPause = 50 * time.Millisecond

// followRoaming tells the mesh whenever addresses or routes of this machine
// change, until ctx ends: whether peers are still reached is then found out at
// once, and not by their silence. Of what has changed nothing is read; most of it
// has nothing to do with us, and to ask costs a ping.
func followRoaming(ctx context.Context, moved func()) error {
	events, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR,
		unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE)
	if err != nil {
		return fmt.Errorf("watch addresses and routes: %w", err)
	}
	defer events.Close()
	defer context.AfterFunc(ctx, events.Close)()
	for {
		_, _, err := events.Receive()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN):
			continue
		case err != nil && !errors.Is(err, unix.ENOBUFS): // the kernel had more to say than we read
			return fmt.Errorf("watch addresses and routes: %w", err)
		}
		select {
		case <-time.After(roamPause):
		case <-ctx.Done():
			return nil
		}
		moved()
	}
}
