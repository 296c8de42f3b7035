// SPDX-License-Identifier: Apache-2.0

package tap

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/l2bridge/l2bridge/internal/frame"
)

const (
	defaultMTU = 1500
	minMTU     = 68 // include/uapi/linux/if_ether.h, ETH_MIN_MTU
)

// Config says what TAP to open.
type Config struct {
	Name            string           // of the TAP, at most 15 bytes
	Bridge          string           // to be a port of, made when absent; "" leaves the TAP bare
	MTU             int              // bytes of payload; 0 means the bridge's, else 1500
	Address         net.HardwareAddr // of the TAP, a unicast MAC; see func Address
	Superframes     bool             // read TSO and USO superframes where the kernel can
	CarrierAlwaysOn bool             // the carrier never falls; SetCarrier does nothing
	Log             *slog.Logger     // nil discards
}

// check refuses what the kernel would refuse late or, as a '%' in a name,
// would understand differently.
func (c *Config) check() error {
	const rule = "a device name is 1 to %d printable characters without space, '/', ':' and '%%'; choose another with --%s"
	if !isDeviceName(c.Name) {
		return fmt.Errorf("tap %q: "+rule, c.Name, unix.IFNAMSIZ-1, "tap")
	}
	if c.Bridge != "" && !isDeviceName(c.Bridge) {
		return fmt.Errorf("bridge %q: "+rule, c.Bridge, unix.IFNAMSIZ-1, "bridge")
	}
	if c.Name == c.Bridge {
		return fmt.Errorf("tap %s: the bridge has the same name; choose another with --tap", c.Name)
	}
	if c.MTU != 0 && (c.MTU < minMTU || c.MTU > frame.MaxMTU) {
		return fmt.Errorf("tap %s: mtu %d: an MTU is %d to %d; choose another with --mtu", c.Name, c.MTU, minMTU, frame.MaxMTU)
	}
	if len(c.Address) != 6 || c.Address[0]&1 != 0 || [6]byte(c.Address) == ([6]byte{}) {
		return fmt.Errorf("tap %s: address %q: a TAP needs a unicast MAC of 6 bytes", c.Name, c.Address)
	}
	return nil
}

// isDeviceName reports whether the kernel takes the name as it stands
// (net/core/dev.c, dev_valid_name).
func isDeviceName(s string) bool {
	bad := func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune("/:%", r) }
	return s != "" && s != "." && s != ".." && len(s) < unix.IFNAMSIZ && !strings.ContainsFunc(s, bad)
}

// Device is a TAP in its place. Its methods may be called from several
// goroutines at once, Run and Watch from one each.
type Device struct {
	*stream
	cfg      Config
	kernel   kernel
	links    *netlink.Handle // in the network namespace of Open
	index    int             // of the TAP, which a rename does not change
	mtu      int
	features Features
	found    bool // a persistent TAP that was there before us stays after us
	joined   bool // we made the TAP a port of the bridge
	ours     bool // the bridge, when Open or Watch last saw it, was made by us

	carrierOnce sync.Once // says that the kernel cannot set the carrier
}

// Open makes the TAP and, when cfg names a bridge, makes it a port of that
// bridge, which is made too when there is none. The TAP is up; its carrier is
// down until SetCarrier unless cfg says otherwise or the TAP is bare. On an
// error everything is as before. Open acts in the network namespace of the
// calling thread; Watch must be called there too.
func Open(cfg Config) (*Device, error) { return open(cfg, linux{}) }

func open(cfg Config, k kernel) (_ *Device, err error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	d := &Device{cfg: cfg, kernel: k}
	if d.links, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return nil, fmt.Errorf("tap %s: netlink: %w", cfg.Name, err)
	}
	defer func() {
		if err != nil {
			d.Close()
		}
	}()

	// Look before anything is touched.
	bridge, err := d.lookUpBridge()
	if err != nil {
		return nil, err
	}
	master, err := d.lookUpTAP()
	if err != nil {
		return nil, err
	}
	if d.mtu, err = d.chooseMTU(bridge); err != nil {
		return nil, err
	}

	fd, features, err := openTAP(k, cfg.Name, cfg.Superframes)
	if err != nil {
		return nil, err
	}
	d.features = features
	if d.stream, err = newStream(cfg.Name, os.NewFile(uintptr(fd), Path), features.VnetHeader); err != nil {
		return nil, err
	}
	d.stream.joins = features.USO
	// Only now is it known that nobody uses the TAP: one that is in use says
	// so, whatever bridge it is in.
	if master != 0 && (bridge == nil || master != bridge.Attrs().Index) {
		return nil, fmt.Errorf("tap %s: it is a port of another bridge (link %d); a TAP has one: "+
			"run \"ip link set %s nomaster\", or choose another with --tap", cfg.Name, master, cfg.Name)
	}
	if err := d.setUp(); err != nil {
		return nil, err
	}
	return d, nil
}

// lookUpTAP refuses a device of the TAP's name that is no TAP. It returns the
// index of the bridge that a TAP of that name is in, 0 for none.
func (d *Device) lookUpTAP() (master int, err error) {
	link, err := d.links.LinkByName(d.cfg.Name)
	if isNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("tap %s: %w", d.cfg.Name, err)
	}
	if t, ok := link.(*netlink.Tuntap); !ok || t.Mode != netlink.TUNTAP_MODE_TAP {
		return 0, fmt.Errorf("tap %s: there is a device of that name which is no TAP but of type %s; choose another with --tap",
			d.cfg.Name, link.Type())
	}
	d.found = true
	return link.Attrs().MasterIndex, nil
}

// setUp gives the new TAP its settings and its place, and brings it up last so
// that nothing is seen of it half done.
func (d *Device) setUp() error {
	link, err := d.links.LinkByName(d.cfg.Name)
	if err != nil {
		return fmt.Errorf("tap %s: %w", d.cfg.Name, err)
	}
	d.index = link.Attrs().Index
	if d.cfg.Bridge != "" {
		if err := d.SetCarrier(false); err != nil {
			return err
		}
		// The host's own addresses belong on the bridge. A link-local address
		// of the port would have the host speak, and be reached, twice.
		err := d.links.LinkSetIP6AddrGenMode(link, nl.IN6_ADDR_GEN_MODE_NONE)
		if err != nil && !errors.Is(err, unix.EAFNOSUPPORT) { // a kernel without IPv6
			return fmt.Errorf("tap %s: switch IPv6 addresses off: %w", d.cfg.Name, err)
		}
	}
	if err := d.links.LinkSetMTU(link, d.mtu); err != nil {
		return fmt.Errorf("tap %s: mtu %d: %w", d.cfg.Name, d.mtu, err)
	}
	if err := d.links.LinkSetHardwareAddr(link, d.cfg.Address); err != nil {
		return fmt.Errorf("tap %s: address %s: %w", d.cfg.Name, d.cfg.Address, err)
	}
	if d.cfg.Bridge != "" {
		if err := d.join(); err != nil {
			return err
		}
	}
	if err := d.links.LinkSetUp(link); err != nil {
		return fmt.Errorf("tap %s: bring up: %w", d.cfg.Name, err)
	}
	return nil
}

// Close removes the TAP, and the bridge when we made it and nothing else uses
// it. A persistent TAP that Open found stays, out of the bridge if Open put it
// there. Call it once, after Run and Watch have returned; Send may still be
// called, and drops.
func (d *Device) Close() error {
	var errs []error
	if d.found && d.joined {
		if link, err := d.links.LinkByIndex(d.index); err == nil {
			errs = append(errs, d.links.LinkSetNoMaster(link))
		}
	}
	if d.stream != nil {
		errs = append(errs, d.file.Close(), d.leave())
	}
	d.links.Close()
	return errors.Join(errs...)
}

// String returns "local", the port's name in tables, drops and logs.
func (d *Device) String() string { return "local" }

// Name returns the TAP's name.
func (d *Device) Name() string { return d.cfg.Name }

// Bridge returns the name of the bridge, "" for a bare TAP.
func (d *Device) Bridge() string { return d.cfg.Bridge }

// MTU returns the TAP's MTU, which is its bridge's when it was opened.
func (d *Device) MTU() int { return d.mtu }

// Features returns what the kernel granted.
func (d *Device) Features() Features { return d.features }

// Stats returns a snapshot of the counters. It asks the kernel for what was
// lost before it could be read. Do not call it after Close.
func (d *Device) Stats() Stats {
	if link, err := d.links.LinkByIndex(d.index); err == nil && link.Attrs().Statistics != nil {
		// What the host sends to a TAP is what we receive from it.
		d.drops[rxOverflow].Store(link.Attrs().Statistics.TxDropped)
	}
	return d.snapshot()
}

// SetCarrier says whether the far end of the cable is plugged in: the bridge
// neither sends to nor takes from a port without carrier. It does nothing when
// the carrier is always on, or on a kernel that cannot (before 5.0), which it
// logs once.
func (d *Device) SetCarrier(up bool) error {
	if d.cfg.CarrierAlwaysOn {
		return nil
	}
	value := 0
	if up {
		value = 1
	}
	var err error
	if closed := d.raw.Control(func(fd uintptr) {
		err = d.kernel.set(int(fd), unix.TUNSETCARRIER, value)
	}); closed != nil {
		err = closed
	}
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOTTY) {
		d.carrierOnce.Do(func() {
			d.cfg.Log.Warn("carrier stays on, the kernel cannot set it", "port", d.cfg.Name, "error", err)
		})
		return nil
	}
	if err != nil {
		return fmt.Errorf("tap %s: set carrier: %w", d.cfg.Name, err)
	}
	return nil
}

func isNotFound(err error) bool {
	var notFound netlink.LinkNotFoundError
	return errors.As(err, &notFound)
}
