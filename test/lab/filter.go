// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lab

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Filter is a packet filter of a namespace, of IPv4 and IPv6.
type Filter struct{ ns *Namespace }

// Filter has nftables give a verdict, as "drop", on what matches at a hook, as
// "output". A namespace has one filter; another takes its place.
func (n *Namespace) Filter(hook, verdict string, matches ...string) *Filter {
	n.t.Helper()
	var rules strings.Builder
	for _, match := range matches {
		fmt.Fprintf(&rules, "\t\t%s counter name hits %s\n", match, verdict)
	}
	n.nft(noFilter + fmt.Sprintf(`table inet lab {
	counter hits { }
	chain lab {
		type filter hook %s priority 0;
%s	}
}
`, hook, &rules))
	return &Filter{n}
}

// noFilter takes a filter away if there is one.
const noFilter = "table inet lab\ndelete table inet lab\n"

// nft has nftables carry out a script.
func (n *Namespace) nft(script string) {
	n.t.Helper()
	path := filepath.Join(n.t.TempDir(), "script.nft")
	n.must("write rules", os.WriteFile(path, []byte(script), 0o644))
	n.MustRun("nft", "-f", path)
}

// Hits returns how many packets have met the verdict.
func (f *Filter) Hits() (packets int) {
	f.ns.t.Helper()
	var list struct {
		NFTables []struct{ Counter struct{ Packets int } }
	}
	out := f.ns.MustRun("nft", "-j", "list", "counter", "inet", "lab", "hits")
	f.ns.must("read counter", json.Unmarshal([]byte(out), &list))
	for _, object := range list.NFTables {
		packets += object.Counter.Packets
	}
	return packets
}

// Remove takes the filter away.
func (f *Filter) Remove() {
	f.ns.t.Helper()
	f.ns.Unfilter()
}

// Unfilter takes the namespace's filter away, if it has one.
func (n *Namespace) Unfilter() {
	n.t.Helper()
	n.nft(noFilter)
}
