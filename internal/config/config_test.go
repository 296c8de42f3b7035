// SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/l2bridge/l2bridge/internal/config"
	"github.com/l2bridge/l2bridge/transport/identity"
)

// paths returns those of an instance whose file holds text; "-" is no file.
func paths(t *testing.T, text string) config.Paths {
	t.Helper()
	p := config.Paths{File: filepath.Join(t.TempDir(), "l2.toml")}
	if text != "-" {
		if err := os.WriteFile(p.File, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	p, err := config.Locate(p)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func equal(t *testing.T, what string, want, got config.Config) {
	t.Helper()
	diff := cmp.Diff(want, got, cmpopts.EquateEmpty(), cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
		cmpopts.IgnoreFields(config.Config{}, "FileExists", "Places"))
	if diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func TestDefaults(t *testing.T) {
	p, err := config.Locate(config.Paths{})
	if err != nil {
		t.Fatal(err)
	}
	want := config.Paths{Name: "default", File: "/etc/l2bridge/default.toml",
		StateDir: "/var/lib/l2bridge/default", Socket: "/run/l2bridge/default.sock"}
	if diff := cmp.Diff(want, p); diff != "" {
		t.Errorf("paths (-want +got):\n%s", diff)
	}
	for name, tap := range map[string]string{"": "l2b0", "default": "l2b0", "lab-2": "l2b-lab-2", "abcdefghijk": "l2b-abcdefghijk"} {
		p, err := config.Locate(config.Paths{Name: name, File: filepath.Join(t.TempDir(), "none")})
		if err != nil {
			t.Fatal(err)
		}
		c, err := config.Load(p, []config.Given{{Key: "site", Texts: []string{"home"}}})
		if err != nil {
			t.Fatal(err)
		}
		equal(t, name, config.Config{
			Paths: p, Site: "home", Bridge: "br0", TAP: tap,
			Listen: netip.MustParseAddrPort("[::]:4433"),
			Ageing: 5 * time.Minute, FDBMax: 262144, FDBMaxPerPeer: 4096, Superframes: true, PortMapping: true,
		}, c)
	}
}

func TestFlagsOverFile(t *testing.T) {
	p := paths(t, "mtu = 1400\npeers = [\"a:1\", \"b:2\"]\n\nbridge = \"\"\nrate=\"100m\"\nforward_reserved = 0x4000\nlanes = 2\n")
	c, err := config.Load(p, []config.Given{{"peers", []string{"c:3", "c:3"}}, {"mtu", []string{"9000"}}})
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprint(c.MTU, c.Peers, c.Bridge == "", c.Rate, c.ForwardReserved, c.Lanes, c.FileExists)
	if want := "9000 [c:3] true 100000000 16384 2 true"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	places := map[string]config.Place{
		"peers": {Flag: "--peer"}, "mtu": {Flag: "--mtu"},
		"bridge": {File: p.File, Line: 4}, "rate": {File: p.File, Line: 5},
		"forward_reserved": {File: p.File, Line: 6}, "lanes": {File: p.File, Line: 7},
	}
	if diff := cmp.Diff(places, c.Places); diff != "" {
		t.Errorf("places (-want +got):\n%s", diff)
	}
}

// Each refused value, once as a flag and once as a key where both can say it.
func TestRefused(t *testing.T) {
	long := strings.Repeat("a", 64)
	tests := []struct {
		key, text string
		want      string // part of the message after place and value
	}{
		{"site", "", "1 to 63 of a-z"},
		{"site", "Home", "1 to 63 of a-z"},
		{"site", "two words", "1 to 63 of a-z"},
		{"site", "zürich", "1 to 63 of a-z"},
		{"site", long, "1 to 63 of a-z"},
		{"site", "local", "reserved word"},
		{"site", "all", "reserved word"},
		{"bridge", "br/0", "device name"},
		{"bridge", "br 0", "device name"},
		{"bridge", "bridge-too-long-", "device name"},
		{"bridge", ".", "device name"},
		{"bridge", "..", "device name"},
		{"bridge", "-x", "device name"},
		{"tap", "", "device name"},
		{"tap", "l2b%d", "device name"},
		{"tap", "br0", "same name"},
		{"listen", "", "IP:PORT"},
		{"listen", "4433", "IP:PORT"},
		{"listen", "host:4433", "IP:PORT"},
		{"listen", "::1:4433x", "IP:PORT"},
		{"listen", "0.0.0.0:0", "port 0"},
		{"listen", "0.0.0.0:65536", "IP:PORT"},
		{"listen", "224.0.0.1:4433", "multicast"},
		{"listen", "[fe80::1%\a]:4433", "name of a device"},
		{"listen", "[fe80::1%\x00]:4433", "name of a device"},
		{"mtu", "575", "576 to 9000"},
		{"mtu", "9001", "576 to 9000"},
		{"mtu", "-1", "576 to 9000"},
		{"mtu", "99999999999999999999", "576 to 9000"},
		{"carrier", "off", `"on" or "auto"`},
		{"ageing", "300", "with its unit"},
		{"ageing", "0s", "from 1s"},
		{"ageing", "-5s", "from 1s"},
		{"ageing", "1000001s", "from 1s"},
		{"fdb_max", "0", "1 to 4194304"},
		{"fdb_max", "4194305", "1 to 4194304"},
		{"fdb_max_per_peer", "0", "1 to 4194304"},
		{"fdb_max_per_peer", "262145", "more than fdb_max"},
		{"forward_reserved", "0x10000", "16 bits"},
		{"forward_reserved", "-1", "16 bits"},
		{"forward_reserved", "stp", "16 bits"},
		{"forward_reserved", "2", "PAUSE"},
		{"forward_reserved", "0xffff", "want 0xfffd"},
		{"superframes", "yes", `"on" or "off"`},
		{"port_mapping", "on", `"auto" or "off"`},
		{"lanes", "0", "1 to 16"},
		{"lanes", "17", "1 to 16"},
		{"lanes", "many", "1 to 16"},
		{"rate", "100mbit", "64k to 1000g"},
		{"ca_file", "ca.pem", "absolute path"},
		{"crl_file", "/etc/a\nb", "control character"},
		{"crl_file", "/etc/crl.pem", "belong together"},
		{"rate", "63k", "64k to 1000g"},
		{"rate", "1001g", "64k to 1000g"},
		{"rate", "99999999999999999g", "64k to 1000g"},
		{"rate", "m", "64k to 1000g"},
		{"rate", "-1k", "64k to 1000g"},
		{"rate", "", "64k to 1000g"},
		{"peers", "site-b", "missing port"},
		{"peers", "", "missing port"},
		{"peers", "2001:db8::1:4433", "HOST:PORT"},
		{"peers", ":4433", "neither an address nor a host name"},
		{"peers", "site-b:0", "port from 1 to 65535"},
		{"peers", "site-b:65536", "port from 1 to 65535"},
		{"peers", "site-b:quic", "port from 1 to 65535"},
		{"peers", "0.0.0.0:4433", "address of one host"},
		{"peers", "[::]:4433", "address of one host"},
		{"peers", "[ff02::1]:4433", "address of one host"},
		{"peers", "192.0.2.300:4433", "neither an address nor a host name"},
		{"peers", "a..b:4433", "neither an address nor a host name"},
		{"peers", "-a:4433", "neither an address nor a host name"},
		{"peers", "a b:4433", "neither an address nor a host name"},
		{"peers", "a\x1b:4433", "neither an address nor a host name"},
		{"peers", "a\x1b[31m:4433", "want HOST:PORT"},
		{"peers", "[fe80::1%\a]:4433", "name of a device"},
		{"peers", "[fe80::1%é]:4433", "name of a device"},
		{"peers", strings.Repeat(long[:50]+".", 6) + "a:1", "neither an address nor a host name"},
		{"advertise", "home.example.org", "missing port"},
		{"advertise", "[fe80::1%eth0]:4433", "this machine alone"},
	}
	for i, tt := range tests {
		t.Run(fmt.Sprint(tt.key, i), func(t *testing.T) {
			t.Parallel()
			_, err := config.Load(paths(t, "-"), []config.Given{{tt.key, []string{tt.text}}})
			e := refusal(t, err, tt.want)
			if e.Place.Flag == "" || !strings.HasPrefix(err.Error(), e.Place.Flag+" ") {
				t.Errorf("%v: does not begin with the flag", err)
			}

			value := tomlString(tt.text)
			if regexp.MustCompile(`^-?\d{1,18}$`).MatchString(tt.text) && tt.key != "ageing" && tt.key != "listen" {
				value = tt.text
			} else if strings.Contains("mtu fdb_max fdb_max_per_peer", tt.key) {
				return // a TOML integer cannot say it
			}
			if tt.key == "peers" || tt.key == "advertise" {
				value = "[" + value + "]"
			}
			p := paths(t, "\n# a comment\n"+tt.key+" = "+value+"\n")
			_, err = config.Load(p, nil)
			refusal(t, err, tt.want)
			if want := p.File + ":3: " + tt.key + " "; !strings.HasPrefix(err.Error(), want) {
				t.Errorf("%v: does not begin with %s", err, want)
			}
			if strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' || r > '~' }) {
				t.Errorf("%+q: not printable ASCII", err.Error())
			}
		})
	}
}

func refusal(t *testing.T, err error, want string) *config.Error {
	t.Helper()
	var e *config.Error
	if !errors.As(err, &e) {
		t.Fatalf("got %v, want a *config.Error", err)
	}
	if !strings.Contains(e.Rule, want) {
		t.Errorf("%v: does not say %q", err, want)
	}
	if len(err.Error()) > 600 {
		t.Errorf("message of %d bytes", len(err.Error()))
	}
	return e
}

func tomlString(s string) string {
	var b strings.Builder
	for _, r := range s {
		fmt.Fprintf(&b, `\U%08X`, r)
	}
	return `"` + b.String() + `"`
}

func TestFileRefused(t *testing.T) {
	tests := map[string]struct{ text, want string }{
		"misspelt":        {"mtu = 1400\nbrigde = \"br0\"\n", `:2: brigde "br0": unknown key (did you mean bridge?)`},
		"flag for key":    {"peer = []\n", `:1: peer "[]": unknown key (did you mean peers?)`},
		"dashes":          {"fdb-max = 5\n", `unknown key (did you mean fdb_max?)`},
		"capitals":        {"MTU = 1400\n", `unknown key (did you mean mtu?)`},
		"nothing near":    {"colour = 1\n", `unknown key (the keys are site, bridge,`},
		"foreign table":   {"\n[server]\nx = 1\n", `:2: server "[table]": unknown key`},
		"site table":      {"[site.office]\nmtu = 1400\n", `reserved for a later version`},
		"empty site":      {"[site.office]\n", `reserved for a later version`},
		"guard table":     {"mtu = 1400\n\n[guard]\n", `:3: guard "[table]": reserved for a later version`},
		"guard key":       {"[guard]\ndhcp = \"on\"\n", `reserved for a later version`},
		"guard dotted":    {"guard.dhcp = \"on\"\n", `reserved for a later version`},
		"tables of guard": {"[[guard]]\n", `reserved for a later version`},
		"wrong type":      {"mtu = \"1400\"\n", `:1: mtu "1400": want a whole number without quotes`},
		"bool":            {"superframes = true\n", `want a string in quotes`},
		"float":           {"lanes = 1.5\n", `want a whole number or a string`},
		"word for list":   {"peers = \"a:1\"\n", `want a list of strings`},
		"list for word":   {"site = [\"home\"]\n", `want a string in quotes`},
		"numbers":         {"peers = [1, 2]\n", `want a list of strings`},
		"table for key":   {"[mtu]\n", `:1: mtu "[table]": want a whole number`},
		"hostile key":     {"\"\\u001b[2J\" = 1\n", `:1: "\x1b[2J" "1": unknown key`},
		"hostile syntax":  {"\u009b = 1\n", `:1:1: invalid character`},
		"syntax":          {"mtu = 1400\nbridge = br0\n", `:2:10: `},
		"twice":           {"mtu = 1400\nmtu = 1500\n", `:2:1: key mtu is already defined`},
		"byte order mark": {"\ufeffmtu = 1400\n", `:1:1: a byte order mark (save the file as UTF-8 without one)`},
		"not text":        {"\x00\x01", `:1:1: `},
		"big":             {strings.Repeat("#\n", 40000), `more than 65536 bytes`},
		"many peers":      {"peers = [" + manyPeers(65) + "]", `more than 64`},
		"both":            {"fdb_max = 100\nfdb_max_per_peer = 200\n", `:2: fdb_max_per_peer "200": more than fdb_max, which is 100`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := paths(t, tt.text)
			_, err := config.Load(p, nil)
			if err == nil || !strings.HasPrefix(err.Error(), p.File) || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v\nwant %s ... %s", err, p.File, tt.want)
			}
			if strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' || r > '~' }) {
				t.Errorf("%+q: not printable ASCII", err.Error())
			}
		})
	}
	if _, err := config.Load(paths(t, "peers = ["+manyPeers(64)+"]"), nil); err != nil {
		t.Errorf("64 peers: %v", err)
	}
	if c, err := config.Load(paths(t, "fdb_max = 100\n"), nil); err != nil || c.FDBMaxPerPeer != 100 {
		t.Errorf("fdb_max alone: per peer %d, %v; want 100", c.FDBMaxPerPeer, err)
	}
	dir := paths(t, "-")
	dir.File = filepath.Dir(dir.File)
	if _, err := config.Load(dir, nil); err == nil {
		t.Error("a directory was read as a file")
	}
}

func manyPeers(n int) string {
	var list []string
	for i := range n {
		list = append(list, fmt.Sprintf(`"h%d:1"`, i))
	}
	return strings.Join(list, ", ")
}

func TestLocateRefused(t *testing.T) {
	for _, tt := range []struct {
		paths config.Paths
		want  string
	}{
		{config.Paths{Name: "Lab"}, `--name "Lab": want 1 to 11`},
		{config.Paths{Name: "twelve-chars"}, `--name "twelve-chars"`},
		{config.Paths{Name: "../etc"}, `--name`},
		{config.Paths{Socket: "/" + strings.Repeat("s", 107)}, `--socket`},
		{config.Paths{File: "a\x00b"}, `--config "a\x00b"`},
	} {
		if _, err := config.Locate(tt.paths); err == nil || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%+v: got %v, want %s", tt.paths, err, tt.want)
		}
	}
	p, err := config.Locate(config.Paths{File: "l2.toml", Socket: "/" + strings.Repeat("s", 106)})
	if err != nil || !filepath.IsAbs(p.File) {
		t.Errorf("got %+v, %v", p, err)
	}
}

// The reference documents each key, and what it shows is the default.
func TestReference(t *testing.T) {
	uncommented := regexp.MustCompile(`(?m)^#([a-z_]+ = )`).ReplaceAllString(config.Reference, "$1")
	c, err := config.Load(paths(t, uncommented), nil)
	if err != nil {
		t.Fatal(err)
	}
	want, err := config.Load(c.Paths, []config.Given{{Key: "site", Texts: []string{"home"}}})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "reference", want, c)
	for _, s := range config.Settings() {
		if _, said := c.Places[s.Key]; !said {
			t.Errorf("%s is not in the reference", s.Key)
		}
		if s.Flag != strings.ReplaceAll(s.Key, "_", "-") && s.Key != "peers" && (s.Flag != "" || !strings.HasPrefix(s.Key, "on_")) {
			t.Errorf("flag %s for key %s", s.Flag, s.Key)
		}
	}
	for i, line := range strings.Split(config.Reference, "\n") {
		if len(line) > 80 || strings.ContainsFunc(line, func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Errorf("line %d: longer than 80 or not ASCII", i+1)
		}
	}
	if bare, err := config.Load(paths(t, config.Reference), nil); err != nil || len(bare.Places) != 0 {
		t.Errorf("as it stands it sets %v, %v", bare.Places, err)
	}
}

// The network CA judges a name by the same rule.
func TestCheckSiteAgreesWithTheCA(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.OneOf(
			rapid.SampledFrom([]string{"", "local", "all", "-", strings.Repeat("a", 63), strings.Repeat("a", 64)}),
			rapid.StringMatching(`[a-z0-9-]{1,70}`),
			rapid.StringMatching(`[a-zA-Z0-9_. -]{1,4}`),
			rapid.String(),
		).Draw(t, "name")
		if ours, theirs := config.CheckSite(name), identity.ValidSite(name); (ours == nil) != (theirs == nil) {
			t.Errorf("%q: config says %v, identity %v", name, ours, theirs)
		}
	})
}

// drawFlags draws any Config, as flags.
func drawFlags(t *rapid.T) []config.Given {
	endpoint := func(addrs ...string) *rapid.Generator[string] {
		return rapid.Custom(func(t *rapid.T) string {
			host := rapid.OneOf(
				rapid.StringMatching(`[a-z0-9]{1,9}[a-z](\.[a-z]{2,4})?`),
				rapid.SampledFrom(addrs)).Draw(t, "host")
			return fmt.Sprintf("%s:%d", host, rapid.IntRange(1, 65535).Draw(t, "port"))
		})
	}
	one := func(g *rapid.Generator[string]) *rapid.Generator[[]string] {
		return rapid.SliceOfN(g, 1, 1)
	}
	word := rapid.String().Filter(func(s string) bool { return utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl) })
	fdbMax := rapid.IntRange(1, 1<<22)
	texts := map[string]*rapid.Generator[[]string]{
		"site":             one(rapid.StringMatching(`[a-z0-9-]{5,63}`).Filter(func(s string) bool { return s != "local" })),
		"bridge":           one(rapid.StringMatching(`(br[A-Za-z0-9_.-]{0,13})?`)),
		"tap":              one(rapid.StringMatching(`tap[A-Za-z0-9_.-]{0,12}`)),
		"listen":           one(rapid.SampledFrom([]string{":1", "[::]:4433", "0.0.0.0:65535", "[::ffff:192.0.2.1]:7", "[fe80::1%eth0]:9"})),
		"advertise":        rapid.SliceOfN(endpoint("192.0.2.1", "[2001:db8::1]"), 0, 5),
		"peers":            rapid.SliceOfN(endpoint("192.0.2.1", "[2001:db8::1]", "[fe80::1%eth0]"), 0, 5),
		"mtu":              one(rapid.Map(rapid.OneOf(rapid.Just(0), rapid.IntRange(576, 9000)), text[int])),
		"carrier":          one(rapid.SampledFrom([]string{"auto", "on"})),
		"ca_file":          one(rapid.Just("/etc/l2bridge/ca \"1\".pem")),
		"cert_file":        one(rapid.Just("/c")),
		"key_file":         one(rapid.Just("/k")),
		"crl_file":         one(rapid.Just("")),
		"ageing":           one(rapid.Map(rapid.Int64Range(1e9, 1e15), func(n int64) string { return time.Duration(n).String() })),
		"fdb_max":          one(rapid.Map(fdbMax, text[int])),
		"forward_reserved": one(rapid.Map(rapid.Uint16(), func(n uint16) string { return fmt.Sprintf("%#x", n&^2) })),
		"port_mapping":     one(rapid.SampledFrom([]string{"auto", "off"})),
		"superframes":      one(rapid.SampledFrom([]string{"on", "off"})),
		"lanes":            one(rapid.OneOf(rapid.Just("auto"), rapid.Map(rapid.IntRange(1, 16), text[int]))),
		"on_up":            rapid.Map(rapid.SliceOfN(word, 0, 5), func(words []string) []string { return append([]string{"/bin/sh"}, words...) }),
		"rate": one(rapid.OneOf(rapid.Just("0"), rapid.Map(rapid.IntRange(64, 1e9), func(n int) string { return fmt.Sprint(n, "k") }),
			rapid.Map(rapid.IntRange(1, 1000), func(n int) string { return fmt.Sprint(n) + "G" }))),
	}
	var flags []config.Given
	ownCA := rapid.Bool().Draw(t, "files of a CA given")
	for _, s := range config.Settings() {
		if strings.HasSuffix(s.Key, "_file") && !ownCA {
			continue
		}
		if g := texts[s.Key]; g != nil && (strings.HasSuffix(s.Key, "_file") || rapid.Bool().Draw(t, s.Key+" given")) {
			flags = append(flags, config.Given{Key: s.Key, Texts: g.Draw(t, s.Key)})
		}
	}
	return flags
}

func text[T any](v T) string { return fmt.Sprint(v) }

func TestRoundTrip(t *testing.T) {
	p := paths(t, "-")
	rapid.Check(t, func(rt *rapid.T) {
		want, err := config.Load(config.Paths{Name: "default", File: p.File + ".none"}, drawFlags(rt))
		if err != nil {
			rt.Fatal(err)
		}
		if err := os.WriteFile(p.File, []byte(want.TOML()), 0o644); err != nil {
			rt.Fatal(err)
		}
		got, err := config.Load(config.Paths{Name: "default", File: p.File}, nil)
		if err != nil {
			rt.Fatalf("%v in\n%s", err, want.TOML())
		}
		want.Paths = got.Paths
		want.Places, want.FileExists = got.Places, true
		if want.TOML() != got.TOML() {
			rt.Fatalf("second text differs:\n%s\n%s", want.TOML(), got.TOML())
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty(),
			cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
			rt.Fatalf("(-want +got):\n%s", diff)
		}
	})
}

// A host name that makes no name of a site makes no line either: the file parses.
func TestNoSite(t *testing.T) {
	c, err := config.Load(paths(t, "-"), nil)
	if err != nil {
		t.Fatal(err)
	}
	c.Site = ""
	again, err := config.Load(paths(t, c.TOML()), nil)
	if err != nil {
		t.Fatalf("%v in\n%s", err, c.TOML())
	}
	if _, given := again.Places["site"]; given {
		t.Errorf("a site is given in\n%s", c.TOML())
	}
}

func TestJSON(t *testing.T) {
	c, err := config.Load(paths(t, "site = \"home\"\n"), nil)
	if err != nil {
		t.Fatal(err)
	}
	c.Paths = config.Paths{Name: "n", File: "f", StateDir: "d", Socket: "s"}
	got, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"advertise":[],"ageing":"300s","bridge":"br0","ca_file":"","carrier":"auto","cert_file":"","config":"f","crl_file":"","fdb_max":262144,` +
		`"fdb_max_per_peer":4096,"forward_reserved":0,"key_file":"","lanes":"auto","listen":"[::]:4433","mtu":0,"name":"n","on_down":[],"on_up":[],"peers":[],"port_mapping":"auto",` +
		`"rate":0,"site":"home","socket":"s","state_dir":"d","superframes":"on","tap":"l2b0"}`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestErrorText(t *testing.T) {
	for want, e := range map[string]*config.Error{
		`--mtu "9": rule`:     {Place: config.Place{Flag: "--mtu"}, Key: "mtu", Value: "9", Rule: "rule"},
		`/f:7: mtu "9": rule`: {Place: config.Place{File: "/f", Line: 7}, Key: "mtu", Value: "9", Rule: "rule"},
		`site "all": rule`:    {Key: "site", Value: "all", Rule: "rule"},
		`--peer "` + strings.Repeat("a", 64) + `"...: rule`: {Place: config.Place{Flag: "--peer"}, Value: strings.Repeat("a", 99), Rule: "rule"},
	} {
		if got := e.Error(); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

// Any text is read without a panic, and what passes is printed so that it
// parses back to the same.
func FuzzLoad(f *testing.F) {
	f.Add([]byte(config.Reference))
	f.Add([]byte("site = 'a'\nmtu = 1400\npeers = ['a:1', '[::1]:2']\nrate = '10m'\n"))
	f.Add([]byte("on_up = [\"/bin/sh\", \"\\u200b \\\\\"]\non_down = ['/bin/true']\n"))
	f.Add([]byte("[site.x]\n[guard]\na.b = {c = 1}\n"))
	f.Add([]byte("\"mtu\" = 0x500\nlanes = 2\n\"a.b\" = 1\n"))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, text []byte) {
		p := config.Paths{Name: "default", File: filepath.Join(dir, "l2.toml")}
		if err := os.WriteFile(p.File, text, 0o644); err != nil {
			t.Fatal(err)
		}
		c, err := config.Load(p, nil)
		if err != nil {
			return
		}
		if err := os.WriteFile(p.File, []byte(c.TOML()), 0o644); err != nil {
			t.Fatal(err)
		}
		again, err := config.Load(p, nil)
		if err != nil {
			t.Fatalf("%v in\n%s", err, c.TOML())
		}
		again.Places, again.FileExists = c.Places, c.FileExists
		if len(c.Peers)+len(c.Advertise) == 0 {
			again.Peers, again.Advertise = c.Peers, c.Advertise
		}
		if !reflect.DeepEqual(c.TOML(), again.TOML()) {
			t.Fatalf("got\n%s\nwant\n%s", again.TOML(), c.TOML())
		}
	})
}
