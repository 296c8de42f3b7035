// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/l2bridge/l2bridge/internal/event"
)

func (a *app) monitorCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "monitor [link|mac|loop|guard|mtu|join]...",
		Short: "Print what happens, one event a line, until interrupted",
		Long: `Print what happens from now on, one event a line, until interrupted: all, or
the kinds that are named.

  link    the way to a peer: up, down, suspect, heard, moved, relayed, twice,
          revoked
  mac     a station in the MAC table: learned, moved, aged, deleted, added
  loop    a loop between sites, or in this LAN: cut, healed, seen, gone
  guard   what harms a LAN: storm, and dhcp and router of servers at two sites
  mtu     the path to a peer takes smaller packets: narrow
  join    a site without a token: asks, approved, denied

A reader that is too slow loses the oldest events, and a line "lost" says how
many. The exit code is 3 when the daemon is not running, or ends.`,
		Example: `  l2bridge monitor
  l2bridge monitor link mtu
  l2bridge monitor -j link | jq -r 'select(.event == "down").site'`,
		ValidArgs: event.KindNames(),
		RunE: func(cmd *cobra.Command, args []string) error {
			kinds, err := parseKinds(args)
			if err != nil {
				return err
			}
			client, err := a.client()
			if err != nil {
				return err
			}
			err = client.Monitor(cmd.Context(), func(e event.Event) error {
				return a.answer(e, func(w io.Writer) { printEvent(w, e) })
			}, kinds...)
			if cmd.Context().Err() != nil {
				return nil
			}
			return err
		},
	}
}

func parseKinds(words []string) (kinds []event.Kind, err error) {
	for _, word := range words {
		k, err := event.ParseKind(word)
		if err != nil {
			return nil, usagef("unknown kind of event %.64q: %w", word, err)
		}
		kinds = append(kinds, k)
	}
	return kinds, nil
}

// printEvent prints what an event has to say, in the words of its JSON.
func printEvent(w io.Writer, e event.Event) {
	line := []string{time.UnixMilli(e.TimeMS).Format("2006-01-02 15:04:05.000"), fmt.Sprintf("%-5s", e.Kind)}
	add := func(label, word string) {
		if word != "" {
			line = append(line, strings.TrimLeft(label+" "+clean(word), " "))
		}
	}
	if e.Kind != event.Lost { // it would say it twice
		add("", e.What)
	}
	add("", e.Site)
	add("", e.MAC)
	add("vlan", known(int(e.VLAN)))
	add("port", e.Port)
	add("from", e.From)
	add("", e.Addr)
	add("via", e.Via)
	if e.Count > 0 {
		add("count", fmt.Sprint(e.Count))
	}
	text := strings.Join(line, " ")
	if e.Reason != "" {
		text += ": " + cleanLine(e.Reason)
	}
	fmt.Fprintln(w, text)
}
