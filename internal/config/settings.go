// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Setting is one thing that can be set, by a flag or by a key.
type Setting struct {
	Key  string // the config key
	Flag string // the flag, without dashes; "" for a command, which the file alone can say
	Arg  string // what the flag's argument is called in a usage line
	Help string // one line, no full stop

	form form
	set  func(c *Config, text string) error                 // of one value; nil for a list
	get  func(c *Config) any                                // string, int, uint64 or mask; nil for a list
	list func(c *Config) *[]string                          // of a list; else nil
	item func(list []string, text string) ([]string, error) // of a list: adds one text
}

// IsList reports whether the setting takes any number of texts.
func (s *Setting) IsList() bool { return s.list != nil }

// form is how a value is written in TOML.
type form int

const (
	word         form = iota // "a string"
	number                   // 42, 0x2a
	wordOrNumber             // either
	words                    // ["a string", "another"]
	command                  // the same: a program and its arguments
)

func (f form) String() string {
	switch f {
	case word:
		return `a string in quotes`
	case number:
		return `a whole number without quotes`
	case wordOrNumber:
		return `a whole number or a string in quotes`
	case words:
		return `a list of strings, such as ["site-b:4433"]`
	case command:
		return `a list of strings: the path of a program, and its arguments`
	}
	panic("config: unknown form")
}

// mask is a number that people read in hexadecimal.
type mask uint16

// Settings returns every setting, in the order of the reference file. The
// slice is shared and must not be changed.
func Settings() []Setting { return settings }

var settings = []Setting{
	{
		Key: "site", Flag: "site", Arg: "NAME", form: word,
		Help: "name of this site (default: first label of the host name)",
		set: func(c *Config, v string) error {
			c.Site = v
			return CheckSite(v)
		},
		get: func(c *Config) any { return c.Site },
	},
	{
		Key: "bridge", Flag: "bridge", Arg: "BR", form: word,
		Help: "Linux bridge to attach to, made when absent; '' for none (default br0)",
		set: func(c *Config, v string) error {
			c.Bridge = v
			if v == "" {
				return nil
			}
			return checkDevice(v)
		},
		get: func(c *Config) any { return c.Bridge },
	},
	{
		Key: "tap", Flag: "tap", Arg: "NAME", form: word,
		Help: "name of the TAP device (default l2b0, with -n NAME l2b-NAME)",
		set: func(c *Config, v string) error {
			c.TAP = v
			return checkDevice(v)
		},
		get: func(c *Config) any { return c.TAP },
	},
	{
		Key: "listen", Flag: "listen", Arg: "ADDR:PORT", form: word,
		Help: "UDP address to listen at (default [::]:4433, which takes IPv4 too)",
		set: func(c *Config, v string) (err error) {
			c.Listen, err = parseListen(v)
			return err
		},
		get: func(c *Config) any { return c.Listen.String() },
	},
	{
		Key: "advertise", Flag: "advertise", Arg: "HOST:PORT", form: words,
		Help: "address that invitations and other members are told; repeatable",
		list: func(c *Config) *[]string { return &c.Advertise },
		item: addAdvertised,
	},
	{
		Key: "port_mapping", Flag: "port-mapping", Arg: "auto|off", form: word,
		Help: "have the router forward our port, if it will (default auto)",
		set: func(c *Config, v string) (err error) {
			c.PortMapping, err = parseEither(v, "auto", "off")
			return err
		},
		get: func(c *Config) any { return either(c.PortMapping, "auto", "off") },
	},
	{
		Key: "peers", Flag: "peer", Arg: "HOST:PORT", form: words,
		Help: "peer to connect to; repeatable",
		list: func(c *Config) *[]string { return &c.Peers },
		item: addEndpoint,
	},
	{
		Key: "mtu", Flag: "mtu", Arg: "N", form: number,
		Help: "MTU of the TAP; 0 for that of the bridge, else 1500 (default 0)",
		set: func(c *Config, v string) error {
			n, ok := parseUint(v, 9000)
			if !ok || n != 0 && n < 576 { // 576: the least every IPv4 host takes, RFC 791
				return errors.New("want 576 to 9000 (or 0: that of the bridge, else 1500)")
			}
			c.MTU = int(n)
			return nil
		},
		get: func(c *Config) any { return c.MTU },
	},
	{
		Key: "carrier", Flag: "carrier", Arg: "auto|on", form: word,
		Help: "link of the TAP: up while there is a peer, or always (default auto)",
		set: func(c *Config, v string) (err error) {
			c.CarrierOn, err = parseEither(v, "on", "auto")
			return err
		},
		get: func(c *Config) any { return either(c.CarrierOn, "on", "auto") },
	},
	{
		Key: "ageing", Flag: "ageing", Arg: "TIME", form: word,
		Help: "how long a silent station is remembered (default 300s)",
		set: func(c *Config, v string) error {
			d, err := time.ParseDuration(v)
			// The upper end is that of IEEE 802.1Q, table 8-6.
			if err != nil || d < time.Second || d > 1e6*time.Second {
				return errors.New("want a time from 1s to 1000000s, with its unit (such as 300s)")
			}
			c.Ageing = d
			return nil
		},
		get: func(c *Config) any { return durationText(c.Ageing) },
	},
	{
		Key: "fdb_max", Flag: "fdb-max", Arg: "N", form: number,
		Help: "stations in the MAC table at most (default 262144)",
		set: func(c *Config, v string) (err error) {
			c.FDBMax, err = parseStations(v)
			return err
		},
		get: func(c *Config) any { return c.FDBMax },
	},
	{
		Key: "fdb_max_per_peer", Flag: "fdb-max-per-peer", Arg: "N", form: number,
		Help: "stations learned from one peer at most (default 4096)",
		set: func(c *Config, v string) (err error) {
			c.FDBMaxPerPeer, err = parseStations(v)
			return err
		},
		get: func(c *Config) any { return c.FDBMaxPerPeer },
	},
	{
		Key: "forward_reserved", Flag: "forward-reserved", Arg: "MASK", form: wordOrNumber,
		Help: "bit X lets 01:80:c2:00:00:0X pass, as group_fwd_mask (default 0)",
		set: func(c *Config, v string) error {
			n, err := strconv.ParseUint(v, 0, 16)
			if err != nil {
				return errors.New("want a mask of 16 bits (such as 0x4000, which lets LLDP pass)")
			}
			// As net/bridge does: BR_GROUPFWD_MACPAUSE in br_private.h. A
			// PAUSE frame halts whole links and means only the next hop.
			if n&2 != 0 {
				return fmt.Errorf("bit 1 is PAUSE, which never crosses a bridge (want %#x)", n&^2)
			}
			c.ForwardReserved = uint16(n)
			return nil
		},
		get: func(c *Config) any { return mask(c.ForwardReserved) },
	},
	{
		Key: "superframes", Flag: "superframes", Arg: "on|off", form: word,
		Help: "carry TSO and USO frames whole (default on)",
		set: func(c *Config, v string) (err error) {
			c.Superframes, err = parseEither(v, "on", "off")
			return err
		},
		get: func(c *Config) any { return either(c.Superframes, "on", "off") },
	},
	{
		Key: "lanes", Flag: "lanes", Arg: "auto|N", form: wordOrNumber,
		Help: "connections to each peer: as needed, or 1 to 16 (default auto)",
		set: func(c *Config, v string) error {
			n, ok := parseUint(v, 16)
			if v != "auto" && (!ok || n == 0) {
				return errors.New(`want "auto" or 1 to 16 (auto suits nearly all)`)
			}
			c.Lanes = int(n)
			return nil
		},
		get: func(c *Config) any {
			if c.Lanes == 0 {
				return "auto"
			}
			return strconv.Itoa(c.Lanes)
		},
	},
	{
		Key: "rate", Flag: "rate", Arg: "BITS", form: wordOrNumber,
		Help: "bits a second to each peer, with k, m or g; 0 for no bound (default 0)",
		set: func(c *Config, v string) error {
			n, ok := parseRate(v)
			if !ok || n != 0 && (n < 64e3 || n > 1e12) {
				return errors.New("want bits a second from 64k to 1000g (such as 100m; 0 for no bound)")
			}
			c.Rate = n
			return nil
		},
		get: func(c *Config) any { return c.Rate },
	},
	fileSetting("ca_file", "certificate of your own CA, in place of init and join", func(c *Config) *string { return &c.CAFile }),
	fileSetting("cert_file", "certificate of this site, by your own CA", func(c *Config) *string { return &c.CertFile }),
	fileSetting("key_file", "the key of that certificate, mode 0600", func(c *Config) *string { return &c.KeyFile }),
	fileSetting("crl_file", "certificates that your own CA has revoked", func(c *Config) *string { return &c.CRLFile }),
	{
		Key: "on_up", form: command,
		list: func(c *Config) *[]string { return &c.OnUp },
		item: addToCommand,
	},
	{
		Key: "on_down", form: command,
		list: func(c *Config) *[]string { return &c.OnDown },
		item: addToCommand,
	},
}

// fileSetting returns the setting that is the path of a file, "" for none.
func fileSetting(key, help string, path func(c *Config) *string) Setting {
	return Setting{
		Key: key, Flag: strings.ReplaceAll(key, "_", "-"), Arg: "FILE", form: word, Help: help,
		set: func(c *Config, v string) error {
			*path(c) = v
			return checkFile(v)
		},
		get: func(c *Config) any { return *path(c) },
	}
}

// settingOf returns the setting of that key, or nil.
func settingOf(key string) *Setting {
	i := slices.IndexFunc(settings, func(s Setting) bool { return s.Key == key })
	if i < 0 {
		return nil
	}
	return &settings[i]
}

// add gives s one text, which a list appends.
func (s *Setting) add(c *Config, text string) error {
	if s.list == nil {
		return s.set(c, text)
	}
	list, err := s.item(*s.list(c), text)
	*s.list(c) = list
	return err
}

// value is what s stands at: string, int, uint64, mask or []string.
func (s *Setting) value(c *Config) any {
	if s.list == nil {
		return s.get(c)
	}
	return append([]string{}, *s.list(c)...)
}

// maxEndpoints bounds a list. Each is dialled for ever, so no
// site ever needs to name them all.
const maxEndpoints = 64

var validSite = regexp.MustCompile(`^[a-z0-9-]{1,63}$`)

// CheckSite says what is wrong with name as the name of a site: the rule and
// the remedy, without place and value.
func CheckSite(name string) error {
	switch {
	case !validSite.MatchString(name):
		return errors.New("want 1 to 63 of a-z, 0-9 and - (such as home)")
	case name == "local" || name == "all":
		return errors.New("a reserved word (choose another name)")
	}
	return nil
}

var validDevice = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,15}$`)

// checkDevice is stricter than the kernel (dev_valid_name in net/core/dev.c),
// which lets through what breaks scripts, and takes % for a template.
func checkDevice(name string) error {
	if !validDevice.MatchString(name) || strings.Trim(name, ".") == "" || name[0] == '-' {
		return errors.New("want a device name: 1 to 15 of letters, digits, _, . and - (such as br0)")
	}
	return nil
}

// checkFile checks the path of a file that is read when the site runs; "" is none.
func checkFile(path string) error {
	switch {
	case path != "" && !filepath.IsAbs(path):
		return errors.New("want the absolute path of a file (such as /etc/l2bridge/ca.pem)")
	case !utf8.ValidString(path) || strings.ContainsFunc(path, unicode.IsControl):
		return errors.New("a control character (give the file another name)")
	}
	return nil
}

func parseListen(v string) (netip.AddrPort, error) {
	if strings.HasPrefix(v, ":") {
		v = "[::]" + v
	}
	ap, err := netip.ParseAddrPort(v)
	switch {
	case err != nil:
		return ap, errors.New("want IP:PORT (such as [::]:4433 or 192.0.2.1:4433)")
	case ap.Port() == 0:
		return ap, errors.New("port 0 changes at every start (want 1 to 65535, such as 4433)")
	case ap.Addr().IsMulticast():
		return ap, errors.New("a multicast address (want one of this host, or [::]:4433 for all)")
	case !validZone(ap.Addr()):
		return ap, errZone
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), nil
}

// addEndpoint adds HOST:PORT to a list, once.
func addEndpoint(list []string, text string) ([]string, error) {
	switch {
	case slices.Contains(list, text):
		return list, nil
	case len(list) == maxEndpoints:
		return list, fmt.Errorf("more than %d (leave some out)", maxEndpoints)
	}
	return append(list, text), checkEndpoint(text)
}

// addAdvertised is addEndpoint for an address that other machines are told.
func addAdvertised(list []string, text string) ([]string, error) {
	list, err := addEndpoint(list, text)
	if err == nil && strings.Contains(text, "%") {
		err = errors.New("what stands behind % is good on this machine alone (name an address that others can dial)")
	}
	return list, err
}

// errZone says that an address does not pass validZone.
var errZone = errors.New("want the name of a device behind % (such as [fe80::1%eth0]:4433)")

// validZone reports whether the zone of an address can be one; netip takes any text.
func validZone(ip netip.Addr) bool { return ip.Zone() == "" || checkDevice(ip.Zone()) == nil }

var validHostLabel = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?$`)

// checkEndpoint checks HOST:PORT, where HOST is an address or a DNS name.
func checkEndpoint(v string) error {
	host, port, err := net.SplitHostPort(v)
	if err != nil {
		var detail *net.AddrError
		if errors.As(err, &detail) && detail.Err == "missing port in address" {
			return errors.New("missing port (want HOST:PORT, such as site-b:4433)")
		}
		return errors.New("want HOST:PORT (such as site-b:4433 or [2001:db8::1]:4433)")
	}
	if n, ok := parseUint(port, math.MaxUint16); !ok || n == 0 {
		return errors.New("want a port from 1 to 65535 (such as site-b:4433)")
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		if ip.IsUnspecified() || ip.IsMulticast() {
			return errors.New("not the address of one host (name the host that peers can reach)")
		}
		if !validZone(ip) {
			return errZone
		}
		return nil
	}
	labels := strings.Split(strings.TrimSuffix(host, "."), ".")
	if len(host) > 253 || !slices.ContainsFunc([]byte(host), isLetter) ||
		slices.ContainsFunc(labels, func(l string) bool { return !validHostLabel.MatchString(l) }) {
		return errors.New("neither an address nor a host name (want HOST:PORT, such as site-b:4433)")
	}
	return nil
}

// isLetter tells a host name from a mistyped address such as 192.0.2.300.
func isLetter(b byte) bool { return 'a' <= b|0x20 && b|0x20 <= 'z' }

// parseUint reads plain decimal digits, nothing else, up to most.
func parseUint(v string, most uint64) (uint64, bool) {
	n, err := strconv.ParseUint(v, 10, 64)
	return n, err == nil && n <= most
}

func parseStations(v string) (int, error) {
	n, ok := parseUint(v, 1<<22) // about 400 MB of table
	if !ok || n < 1 {
		return 0, errors.New("want 1 to 4194304 stations")
	}
	return int(n), nil
}

// parseRate reads decimal digits and a suffix of powers of 1000.
func parseRate(v string) (uint64, bool) {
	unit := uint64(1)
	if v != "" {
		switch v[len(v)-1] | 0x20 {
		case 'k':
			unit = 1e3
		case 'm':
			unit = 1e6
		case 'g':
			unit = 1e9
		}
	}
	if unit > 1 {
		v = v[:len(v)-1]
	}
	n, ok := parseUint(v, math.MaxUint64/unit)
	return n * unit, ok
}

// durationText writes whole seconds as seconds, as people set ageing.
func durationText(d time.Duration) string {
	if d%time.Second == 0 {
		return fmt.Sprintf("%ds", d/time.Second)
	}
	return d.String()
}

func parseEither(v, yes, no string) (bool, error) {
	if v != yes && v != no {
		return false, fmt.Errorf("want %q or %q", yes, no)
	}
	return v == yes, nil
}

func either(b bool, yes, no string) string {
	if b {
		return yes
	}
	return no
}
