// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/l2bridge/l2bridge/internal/config"
	"github.com/l2bridge/l2bridge/internal/control"
)

func (a *app) fdbCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "fdb",
		Short: "Show or change the MAC table",
		Long: `Show or change the MAC table, in the words of "bridge fdb". A port is "local"
or a site; VLAN 0 is untagged.`,
		Example: `  l2bridge fdb show port office
  l2bridge fdb add 52:54:00:12:34:56 office vlan 20`,
	}
	group(cmd)
	cmd.AddCommand(a.fdbShowCommand(), a.fdbGetCommand(), a.fdbAddCommand(), a.fdbDelCommand(), a.fdbFlushCommand())
	return cmd
}

func (a *app) fdbShowCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "show [MAC] [port SITE] [vlan V] [static|dynamic]",
		Short: "Show the entries, all or those that match",
		Example: `  l2bridge fdb show
  l2bridge fdb show port office vlan 20
  l2bridge fdb show static`,
	}
	return a.filtered(cmd, func(filter) bool { return true },
		func(ctx context.Context, client *control.Client, f filter) error {
			stations, err := matching(ctx, client, f)
			if err != nil {
				return err
			}
			return a.answer(stations, func(w io.Writer) { printStations(w, stations) })
		})
}

func (a *app) fdbGetCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "get MAC [vlan V]",
		Short: "Show where a station is; exit code 1 when it is not known",
		Example: `  l2bridge fdb get 52:54:00:12:34:56
  l2bridge fdb get 52:54:00:12:34:56 vlan 20`,
	}
	return a.filtered(cmd, func(f filter) bool { return f.mac != nil && f.port == "" && f.kind == "" },
		func(ctx context.Context, client *control.Client, f filter) error {
			stations, err := matching(ctx, client, f)
			if err != nil {
				return err
			}
			var missing error
			if len(stations) == 0 {
				missing = fmt.Errorf("station %v: %w: it has been silent, or is at no site", f.mac, control.ErrNotFound)
			}
			err = a.answer(stations, func(w io.Writer) {
				if missing == nil {
					printStations(w, stations)
				}
			})
			return cmp.Or(err, missing)
		})
}

func (a *app) fdbAddCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "add MAC local|SITE [vlan V]",
		Short: "Add a static entry, which survives restarts",
		Example: `  l2bridge fdb add 52:54:00:12:34:56 office
  l2bridge fdb add 52:54:00:12:34:56 local vlan 20`,
	}
	a.filtered(cmd, func(f filter) bool { return f.mac != nil && f.port != "" && f.kind == "" },
		func(ctx context.Context, client *control.Client, f filter) error {
			if err := client.AddStation(ctx, f.mac, f.vlan, f.port); err != nil {
				return err
			}
			peers, err := client.Peers(ctx)
			if err == nil && f.port != control.LocalPort && !slices.ContainsFunc(peers, func(p control.Peer) bool { return p.Site == f.port }) {
				fmt.Fprintf(a.stderr, "no site %s is known yet (l2bridge peers shows those that are): the entry leads nowhere until there is one\n", f.port)
			}
			return nil
		})
	run := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 1 { // here alone the port has no keyword
			args = slices.Insert(args, 1, "port")
		}
		return run(cmd, args)
	}
	return cmd
}

func (a *app) fdbDelCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "del MAC [vlan V]",
		Short: "Delete an entry, static or learned",
		Example: `  l2bridge fdb del 52:54:00:12:34:56
  l2bridge fdb del 52:54:00:12:34:56 vlan 20`,
	}
	return a.filtered(cmd, func(f filter) bool { return f.mac != nil && f.port == "" && f.kind == "" },
		func(ctx context.Context, client *control.Client, f filter) error {
			return client.DelStation(ctx, f.mac, f.vlan)
		})
}

func (a *app) fdbFlushCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "flush [port SITE]",
		Short: "Forget the learned entries, all or those of a port",
		Example: `  l2bridge fdb flush
  l2bridge fdb flush port office`,
	}
	return a.filtered(cmd, func(f filter) bool { return f.mac == nil && !f.hasVLAN && f.kind == "" },
		func(ctx context.Context, client *control.Client, f filter) error {
			n, err := client.FlushStations(ctx, f.port)
			if err != nil {
				return err
			}
			return a.answer(map[string]int{"flushed": n}, func(w io.Writer) { fmt.Fprintln(w, "flushed", n) })
		})
}

// filtered makes cmd read its arguments as a filter, refuse one that does not
// fit, and run with what is left.
func (a *app) filtered(cmd *cobra.Command, fits func(filter) bool,
	run func(context.Context, *control.Client, filter) error) *cobra.Command {
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		f, err := parseFilter(args)
		if err != nil {
			return err
		}
		if !fits(f) {
			_, want, _ := strings.Cut(cmd.Use, " ")
			return usagef("want %s", want)
		}
		client, err := a.client()
		if err != nil {
			return err
		}
		return run(cmd.Context(), client, f)
	}
	return cmd
}

// filter says which entries are meant; what is not given matches all.
type filter struct {
	mac     net.HardwareAddr
	port    string
	vlan    uint16 // 0, untagged, unless hasVLAN
	hasVLAN bool
	kind    string // static or dynamic
}

// parseFilter reads MAC, port SITE, vlan V and static or dynamic, in any order and
// each once. dev and brport are for fingers that know "bridge fdb".
func parseFilter(words []string) (filter, error) {
	var f filter
	for len(words) > 0 {
		word := words[0]
		words = words[1:]
		if (word == "static" || word == "dynamic") && f.kind == "" {
			f.kind = word
			continue
		}
		isPort, isVLAN := word == "port" || word == "dev" || word == "brport", word == "vlan"
		if isPort && f.port != "" || isVLAN && f.hasVLAN || !isPort && !isVLAN && f.mac != nil {
			return f, usagef("unexpected argument %.64q: each of MAC, port and vlan may stand once", word)
		}
		if !isPort && !isVLAN {
			mac, err := control.ParseMAC(word)
			if err != nil {
				return f, usagef("%.64q: %w", word, err)
			}
			f.mac = mac
			continue
		}
		if len(words) == 0 {
			return f, usagef("%s: a word is missing after it", word)
		}
		value := words[0]
		words = words[1:]
		if isPort {
			if err := config.CheckSite(value); err != nil && value != control.LocalPort {
				return f, usagef("port %.64q: want local or a site: %w", value, err)
			}
			f.port = value
			continue
		}
		n, err := strconv.ParseUint(value, 10, 16)
		if err != nil || n > control.MaxVLAN {
			return f, usagef("vlan %.64q: want 0 to %d (0 is untagged)", value, control.MaxVLAN)
		}
		f.vlan, f.hasVLAN = uint16(n), true
	}
	return f, nil
}

func (f filter) matches(s control.Station) bool {
	return (f.mac == nil || f.mac.String() == s.MAC) &&
		(f.port == "" || f.port == s.Port) &&
		(!f.hasVLAN || f.vlan == s.VLAN) &&
		(f.kind == "" || f.kind == "static" == s.Static)
}

// matching returns the entries that f matches, by VLAN and MAC.
func matching(ctx context.Context, client *control.Client, f filter) ([]control.Station, error) {
	all, err := client.Stations(ctx)
	if err != nil {
		return nil, err
	}
	some := slices.DeleteFunc(all, func(s control.Station) bool { return !f.matches(s) })
	slices.SortFunc(some, func(a, b control.Station) int {
		return cmp.Or(cmp.Compare(a.VLAN, b.VLAN), cmp.Compare(a.MAC, b.MAC))
	})
	return some, nil
}

func printStations(w io.Writer, stations []control.Station) {
	if len(stations) == 0 {
		fmt.Fprintln(w, "no entries")
		return
	}
	rows := [][]string{{"MAC", "VLAN", "PORT", "AGE", "MOVES"}}
	for _, s := range stations {
		age := ago(s.AgeMS)
		if s.Static {
			age = "static"
		}
		rows = append(rows, []string{s.MAC, known(int(s.VLAN)), s.Port, age, strconv.FormatUint(s.Moves, 10)})
	}
	table(w, rows)
}
