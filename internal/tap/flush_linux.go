// SPDX-License-Identifier: Apache-2.0

package tap

import (
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// FlushBridge has the bridge forget behind which of its ports the LAN's stations
// are; static entries stay. It learns them anew from the next frame of each, and
// floods meanwhile. Without a bridge it does nothing. Like Watch it must be
// called in the network namespace of Open.
func (d *Device) FlushBridge() error {
	bridge, err := d.lookUpBridge()
	if err != nil || bridge == nil {
		return err
	}
	// "ip link set br0 type bridge fdb_flush", which package netlink has no call
	// for. Nothing in /sys is written: the systemd unit makes that read-only.
	req := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_ACK)
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(bridge.Attrs().Index)
	req.AddData(msg)
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("bridge"))
	info.AddRtAttr(nl.IFLA_INFO_DATA, nil).AddRtAttr(nl.IFLA_BR_FDB_FLUSH, nil)
	req.AddData(info)
	if _, err := req.Execute(unix.NETLINK_ROUTE, 0); err != nil {
		return fmt.Errorf("bridge %s: flush its MAC table: %w", d.cfg.Bridge, err)
	}
	return nil
}
