// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"

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
	return &cobra.Command{
		Use:   "show [MAC] [port SITE] [vlan V]",
		Short: "Show the entries, all or those that match",
		Example: `  l2bridge fdb show
  l2bridge fdb show port office vlan 20`,
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := parseFilter(args)
			if err != nil {
				return err
			}
			stations, err := a.stations(cmd, f)
			if err != nil {
				return err
			}
			return a.printStations(stations)
		},
	}
}

func (a *app) fdbGetCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "get MAC [vlan V]",
		Short: "Show where a station is; exit code 1 when it is not known",
		Example: `  l2bridge fdb get 52:54:00:12:34:56
  l2bridge fdb get 52:54:00:12:34:56 vlan 20`,
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := parseFilter(args)
			if err == nil {
				err = f.want("MAC [vlan V]", f.mac != nil && f.port == "")
			}
			if err != nil {
				return err
			}
			stations, err := a.stations(cmd, f)
			if err != nil {
				return err
			}
			if len(stations) == 0 {
				err = fmt.Errorf("station %v: %w: it has been silent, or is at no site", f.mac, control.ErrNotFound)
			}
			if err == nil || a.json {
				if printErr := a.printStations(stations); printErr != nil {
					return printErr
				}
			}
			return err
		},
	}
}

func (a *app) fdbAddCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "add MAC local|SITE [vlan V]",
		Short: "Add a static entry, which survives restarts",
		Example: `  l2bridge fdb add 52:54:00:12:34:56 office
  l2bridge fdb add 52:54:00:12:34:56 local vlan 20`,
		RunE: func(cmd *cobra.Command, args []string) error {
			const usage = "MAC local|SITE [vlan V]"
			if len(args) < 2 {
				return usagef("too few arguments: want %s", usage)
			}
			// The port has no keyword here: give it one.
			words := append([]string{args[0], "port"}, args[1:]...)
			f, err := parseFilter(words)
			if err == nil {
				err = f.want(usage, f.mac != nil)
			}
			if err != nil {
				return err
			}
			client, err := a.client()
			if err != nil {
				return err
			}
			return client.AddStation(cmd.Context(), f.mac, f.vlan, f.port)
		},
	}
}

func (a *app) fdbDelCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "del MAC [vlan V]",
		Short: "Delete an entry, static or learned",
		Example: `  l2bridge fdb del 52:54:00:12:34:56
  l2bridge fdb del 52:54:00:12:34:56 vlan 20`,
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := parseFilter(args)
			if err == nil {
				err = f.want("MAC [vlan V]", f.mac != nil && f.port == "")
			}
			if err != nil {
				return err
			}
			client, err := a.client()
			if err != nil {
				return err
			}
			return client.DelStation(cmd.Context(), f.mac, f.vlan)
		},
	}
}

func (a *app) fdbFlushCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "flush [port SITE]",
		Short: "Forget the learned entries, all or those of a port",
		Example: `  l2bridge fdb flush
  l2bridge fdb flush port office`,
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := parseFilter(args)
			if err == nil {
				err = f.want("[port SITE]", f.mac == nil && !f.hasVLAN)
			}
			if err != nil {
				return err
			}
			client, err := a.client()
			if err != nil {
				return err
			}
			n, err := client.FlushStations(cmd.Context(), f.port)
			if err != nil {
				return err
			}
			return a.answer(map[string]int{"flushed": n}, func(w io.Writer) { fmt.Fprintln(w, "flushed", n) })
		},
	}
}

// filter says which entries are meant; what is not given matches all.
type filter struct {
	mac     net.HardwareAddr
	port    string
	vlan    uint16 // 0, untagged, unless hasVLAN
	hasVLAN bool
}

// parseFilter reads MAC, port SITE and vlan V, in any order and each once.
// dev is for fingers that know "bridge fdb".
func parseFilter(words []string) (filter, error) {
	var f filter
	for len(words) > 0 {
		word := words[0]
		words = words[1:]
		isPort, isVLAN := word == "port" || word == "dev", word == "vlan"
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

// want refuses a filter that is not of the form of usage.
func (f filter) want(usage string, ok bool) error {
	if !ok {
		return usagef("want %s", usage)
	}
	return nil
}

func (f filter) matches(s control.Station) bool {
	return (f.mac == nil || f.mac.String() == s.MAC) &&
		(f.port == "" || f.port == s.Port) &&
		(!f.hasVLAN || f.vlan == s.VLAN)
}

// stations returns the entries that f matches, by VLAN and MAC.
func (a *app) stations(cmd *cobra.Command, f filter) ([]control.Station, error) {
	client, err := a.client()
	if err != nil {
		return nil, err
	}
	all, err := client.Stations(cmd.Context())
	if err != nil {
		return nil, err
	}
	some := slices.DeleteFunc(all, func(s control.Station) bool { return !f.matches(s) })
	slices.SortFunc(some, func(a, b control.Station) int {
		return cmp.Or(cmp.Compare(a.VLAN, b.VLAN), cmp.Compare(a.MAC, b.MAC))
	})
	return some, nil
}

func (a *app) printStations(stations []control.Station) error {
	return a.answer(stations, func(w io.Writer) {
		if len(stations) == 0 {
			fmt.Fprintln(w, "no entries")
			return
		}
		rows := [][]string{{"MAC", "VLAN", "PORT", "AGE", "MOVES"}}
		for _, s := range stations {
			vlan, age := "", ago(s.AgeMS)
			if s.VLAN != 0 {
				vlan = strconv.Itoa(int(s.VLAN))
			}
			if s.Static {
				age = "static"
			}
			rows = append(rows, []string{s.MAC, vlan, s.Port, age, strconv.FormatUint(s.Moves, 10)})
		}
		table(w, rows)
	})
}
