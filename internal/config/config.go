// SPDX-License-Identifier: Apache-2.0

// Package config turns flags and one TOML file into a checked Config: how one
// site runs. Nothing in the system is touched before every value has passed.
//
// A flag and a key are the same thing said in two places: both are texts for
// one table of settings (settings.go), so both obey the same rules and get
// the same messages. Flags win over the file, the file over the defaults. A
// command that is to run is no such text, but a list of them in order: the file
// alone can say it, and its settings have no flag.
package config

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// DefaultName is the name of the instance that runs when none is given.
const DefaultName = "default"

// maxSocketPath is what fits in sockaddr_un.sun_path with its final zero
// (unix(7)).
const maxSocketPath = 107

// Paths says where one instance keeps its things. Every path is absolute.
type Paths struct {
	Name     string // which of several networks on this host
	File     string // the TOML file
	StateDir string // keys and membership
	Socket   string // the control socket of the running daemon
}

// Config is how one site runs, checked. Make one with Load; the zero value is
// not valid.
type Config struct {
	Paths

	// Site is this site's name. It is "" when none was given and the host
	// name yields none. Where Places has no "site", it is only the host
	// name's suggestion: a membership or a token that names a site knows better.
	Site string
	// Bridge is the Linux bridge to attach to; "" leaves the TAP bare.
	Bridge string
	// TAP is the name of the TAP device.
	TAP string
	// Listen is the UDP address of the tunnel. [::] takes IPv4 as well.
	Listen netip.AddrPort
	// Advertise are the HOST:PORT that invitations and members are told.
	Advertise []string
	// PortMapping has the router forward our port, where there is one that translates
	// addresses.
	PortMapping bool
	// Peers are the HOST:PORT to dial.
	Peers []string
	// MTU is that of the TAP in bytes; 0 means the bridge's, else 1500.
	MTU int
	// CarrierOn keeps the TAP's link up even when no peer is.
	CarrierOn bool
	// Ageing is how long a silent station is remembered.
	Ageing time.Duration
	// FDBMax bounds the stations in the MAC table.
	FDBMax int
	// FDBMaxPerPeer bounds the stations learned from one peer.
	FDBMaxPerPeer int
	// ForwardReserved lets 01:80:c2:00:00:0X pass where bit X is set, as the
	// group_fwd_mask of a Linux bridge port does.
	ForwardReserved uint16
	// Superframes lets TSO and USO frames through whole.
	Superframes bool
	// Lanes is how many connections a peer gets; 0 adds them as needed.
	Lanes int
	// Rate bounds what leaves for each peer, in outer IP bits a second; 0 is
	// no bound.
	Rate uint64
	// CAFile, CertFile and KeyFile are the membership by a CA of the operator's own,
	// and CRLFile what that has revoked; "" for none. The first three belong together.
	CAFile, CertFile, KeyFile, CRLFile string
	// OnUp and OnDown are the commands that run when a peer comes or goes, each
	// a program and its arguments; empty for none.
	OnUp, OnDown []string

	// FileExists reports whether Paths.File was there to be read.
	FileExists bool
	// Places says where each key was given. A key at its default is absent.
	Places map[string]Place
}

// Given is one setting as a person wrote it: a flag, or a key of the file.
type Given struct {
	Key   string   // the config key, such as fdb_max
	Texts []string // one text, or any number for a list
}

// Place is where a setting was given: a flag, a line of a file, or, as the
// zero value, nowhere.
type Place struct {
	Flag string // with its dashes
	File string
	Line int
}

// Error is a value that breaks a rule.
type Error struct {
	Place Place
	Key   string
	Value string
	Rule  string // what is wanted and, in brackets, what to do
}

// Error says place, value, rule and remedy.
func (e *Error) Error() string {
	name := e.Key
	if !plainKey.MatchString(name) {
		name = quote(name)
	}
	switch {
	case e.Place.Flag != "":
		name = e.Place.Flag
	case e.Place.File != "":
		name = fmt.Sprintf("%s:%d: %s", e.Place.File, e.Place.Line, name)
	}
	return fmt.Sprintf("%s %s: %s", name, quote(e.Value), e.Rule)
}

// quote bounds a value before a terminal or a log sees it.
func quote(v string) string {
	const most = 64
	if len(v) > most {
		return fmt.Sprintf("%+q...", v[:most])
	}
	return fmt.Sprintf("%+q", v)
}

var (
	plainKey  = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,64}$`)
	validName = regexp.MustCompile(`^[a-z0-9-]{1,11}$`)
	notInSite = regexp.MustCompile(`[^a-z0-9-]`)
)

// Locate fills the gaps in p with the paths that belong to p.Name ("" is
// DefaultName) and makes all of them absolute.
func Locate(p Paths) (Paths, error) {
	if p.Name == "" {
		p.Name = DefaultName
	}
	if !validName.MatchString(p.Name) {
		return p, &Error{Place: Place{Flag: "--name"}, Value: p.Name, Rule: "want 1 to 11 of a-z, 0-9 and - (such as lab2)"}
	}
	for _, x := range []struct {
		flag, standard string
		path           *string
	}{
		{"--config", "/etc/l2bridge/" + p.Name + ".toml", &p.File},
		{"--state-dir", "/var/lib/l2bridge/" + p.Name, &p.StateDir},
		{"--socket", "/run/l2bridge/" + p.Name + ".sock", &p.Socket},
	} {
		if *x.path == "" {
			*x.path = x.standard
		}
		if strings.ContainsRune(*x.path, 0) {
			return p, &Error{Place: Place{Flag: x.flag}, Value: *x.path, Rule: "a path has no zero byte in it"}
		}
		absolute, err := filepath.Abs(*x.path)
		if err != nil {
			return p, fmt.Errorf("%s: %w", x.flag, err)
		}
		*x.path = absolute
	}
	if len(p.Socket) > maxSocketPath {
		return p, &Error{Place: Place{Flag: "--socket"}, Value: p.Socket,
			Rule: fmt.Sprintf("%d bytes, and a socket's path has at most %d (choose a shorter one)", len(p.Socket), maxSocketPath)}
	}
	return p, nil
}

// Load reads p.File, if there is one, lays flags over it and checks the
// whole. p comes from Locate. A value that breaks a rule gives an *Error.
func Load(p Paths, flags []Given) (Config, error) {
	c := defaults(p)
	doc, err := read(p.File)
	if err != nil {
		return Config{}, err
	}
	c.FileExists = doc != nil
	for _, k := range doc {
		e := &Error{Place: Place{File: p.File, Line: k.line}, Key: k.name, Value: k.String()}
		s, texts, err := k.texts()
		if err != nil {
			e.Rule = err.Error()
			return Config{}, e
		}
		if err := c.apply(s, texts, e); err != nil {
			return Config{}, err
		}
	}
	for _, g := range flags {
		s := settingOf(g.Key)
		if s == nil {
			panic("config: a flag for no key: " + g.Key)
		}
		if err := c.apply(s, g.Texts, &Error{Place: Place{Flag: "--" + s.Flag}, Key: s.Key}); err != nil {
			return Config{}, err
		}
	}
	if err := c.settle(); err != nil {
		return Config{}, err
	}
	return c, nil
}

// apply gives s its texts: one, or for a list any number. What breaks a rule
// is returned as e, filled in.
func (c *Config) apply(s *Setting, texts []string, e *Error) error {
	if s.list != nil {
		*s.list(c) = nil
	}
	for _, text := range texts {
		if err := s.add(c, text); err != nil {
			e.Value, e.Rule = text, err.Error()
			return e
		}
	}
	c.Places[s.Key] = e.Place
	return nil
}

// defaults is a Config with nothing given.
func defaults(p Paths) Config {
	c := Config{
		Paths:         p,
		Site:          hostSite(),
		Bridge:        "br0",
		TAP:           "l2b-" + p.Name,
		Listen:        netip.MustParseAddrPort("[::]:4433"),
		Ageing:        300 * time.Second, // as a Linux bridge: br_device.c, br_dev_setup
		FDBMax:        262144,
		FDBMaxPerPeer: 4096,
		Superframes:   true,
		PortMapping:   true,
		Places:        map[string]Place{},
	}
	if p.Name == DefaultName {
		c.TAP = "l2b0"
	}
	return c
}

// hostSite makes a site name of the first label of the host name, or "".
func hostSite() string {
	host, err := os.Hostname()
	if err != nil {
		return ""
	}
	return siteFromHost(host)
}

func siteFromHost(host string) string {
	label, _, _ := strings.Cut(strings.ToLower(host), ".")
	site := notInSite.ReplaceAllString(label, "-")
	if CheckSite(site) != nil {
		return ""
	}
	return site
}

// settle checks what no key can be checked for alone.
func (c *Config) settle() error {
	if c.TAP == c.Bridge {
		place, given := c.Places["tap"]
		if !given {
			place = c.Places["bridge"]
		}
		return &Error{Place: place, Key: "tap", Value: c.TAP,
			Rule: "TAP and bridge have the same name (the TAP is a port of the bridge: name one otherwise)"}
	}
	if err := c.settleFiles(); err != nil {
		return err
	}
	if c.FDBMaxPerPeer > c.FDBMax {
		place, given := c.Places["fdb_max_per_peer"]
		if given {
			return &Error{Place: place, Key: "fdb_max_per_peer", Value: fmt.Sprint(c.FDBMaxPerPeer),
				Rule: fmt.Sprintf("more than fdb_max, which is %d (lower it, or raise fdb_max)", c.FDBMax)}
		}
		c.FDBMaxPerPeer = c.FDBMax
	}
	return nil
}

// settleFiles checks that the files of a CA of the operator's own are complete.
func (c *Config) settleFiles() error {
	type file struct{ key, path string }
	together := []file{{"ca_file", c.CAFile}, {"cert_file", c.CertFile}, {"key_file", c.KeyFile}}
	for _, given := range append(together, file{"crl_file", c.CRLFile}) {
		for _, missing := range together {
			if given.path != "" && missing.path == "" {
				return &Error{Place: c.Places[given.key], Key: given.key, Value: given.path,
					Rule: fmt.Sprintf("ca_file, cert_file and key_file belong together (give %s too)", missing.key)}
			}
		}
	}
	return nil
}

// OwnCA returns an error where a CA of the operator's own certifies members: what
// a network does that has a CA of l2bridge's is not for it.
func (c *Config) OwnCA(instead string) error {
	if c.CAFile == "" {
		return nil
	}
	return &Error{Place: c.Places["ca_file"], Key: "ca_file", Value: c.CAFile,
		Rule: fmt.Sprintf("here a CA of your own certifies members (%s, or leave the setting out)", instead)}
}

// MarshalJSON gives every key with its value, and the paths.
func (c Config) MarshalJSON() ([]byte, error) {
	all := map[string]any{"name": c.Name, "config": c.File, "state_dir": c.StateDir, "socket": c.Socket}
	maps.Copy(all, c.values())
	return json.Marshal(all)
}

func (c *Config) values() map[string]any {
	values := make(map[string]any, len(settings))
	for i := range settings {
		values[settings[i].Key] = settings[i].value(c)
	}
	return values
}
