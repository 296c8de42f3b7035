// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// A link that goes up changes addresses and routes one after the other: what
// comes within roamPause of the last change is the same, for roamMost at the most.
const (
	roamPause = 50 * time.Millisecond
	roamMost  = 500 * time.Millisecond
	roamAgain = 5 * time.Second // to the next try to listen
)

// followRoaming tells the mesh whenever addresses or routes of this machine
// change, until ctx ends: whether peers are still reached is then found out at
// once, and not by their silence. Of what has changed nothing is read; most of it
// has nothing to do with us, and to ask costs a ping.
func followRoaming(ctx context.Context, log *slog.Logger, moved func()) {
	keepListening(ctx, log, func() error { return listenRoaming(ctx, moved) })
}

// keepListening listens until ctx ends. What is in the way is told once.
func keepListening(ctx context.Context, log *slog.Logger, listen func() error) {
	var told string
	for ctx.Err() == nil {
		if err := listen(); err != nil {
			if text := err.Error(); text != told {
				told = text
				log.Warn("changes of addresses and routes are not seen, trying again", "error", err)
			}
			select {
			case <-time.After(roamAgain):
			case <-ctx.Done():
			}
		}
	}
}

func listenRoaming(ctx context.Context, moved func()) error {
	events, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR,
		unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE)
	if err != nil {
		return err
	}
	defer events.Close()
	defer context.AfterFunc(ctx, events.Close)()
	var first time.Time // of what has come and was not told; zero for nothing
	for {
		_, _, err := events.Receive()
		now := time.Now()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN): // no more for the time that was set
		case err != nil && !errors.Is(err, unix.ENOBUFS): // the kernel had more to say than we read
			return err
		case first.IsZero():
			first = now
			if err := setTimeout(events, roamPause); err != nil {
				return err
			}
			continue
		case now.Sub(first) < roamMost:
			continue
		}
		if err := setTimeout(events, 0); err != nil {
			return err
		}
		if !first.IsZero() {
			first = time.Time{}
			moved()
		}
	}
}

// setTimeout bounds what the next Receive waits; 0 is no bound.
func setTimeout(s *nl.NetlinkSocket, d time.Duration) error {
	t := unix.NsecToTimeval(d.Nanoseconds())
	return s.SetReceiveTimeout(&t)
}
