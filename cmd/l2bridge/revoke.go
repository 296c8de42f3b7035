// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/l2bridge/l2bridge/internal/config"
	"github.com/l2bridge/l2bridge/internal/control"
)

func (a *app) revokeCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "revoke SITE",
		Short: "Put a site out of the network",
		Long: `Put a site out of the network, for good: its key is a member no more. Every
site that is connected cuts it off at once, and one that is not before it lets
anybody in again. Open invitations for that name end too; the name is free.

The network CA's key is at the founder's site: anywhere else the exit code is
4. To take the site that you are at out of the network, run "l2bridge leave".`,
		Example: `  l2bridge revoke cabin
  l2bridge revoke cabin -j`,
		Args: between(1, 1, "one SITE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			site := args[0]
			if err := config.CheckSite(site); err != nil {
				return usagef("site %.64q: %w", site, err)
			}
			client, err := a.client()
			if err != nil {
				return err
			}
			r, err := client.Revoke(cmd.Context(), site)
			if err != nil {
				return err
			}
			return a.answer(r, func(w io.Writer) {
				if len(r.IDs) == 0 {
					fmt.Fprintf(w, "site %s was out of the network before\n", clean(r.Site))
				}
				for _, id := range r.IDs {
					fmt.Fprintf(w, "site %s is out of the network, key %s\n", clean(r.Site), clean(id))
				}
			})
		},
	}
}

func (a *app) leaveCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "leave",
		Short: "Take this site out of its network",
		Long: `Take this site out of its network, for good: the other sites are told, so that
they forget it and the founder revokes its key; then keys, membership and what
was learned are taken away, and the daemon ends. The config file stays.

Where no daemon runs, nobody is told. The site that holds the network CA's key
can leave when it is alone, or has moved the key: see "l2bridge ca".`,
		Example: `  l2bridge leave
  l2bridge leave -n lab`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			p, err := config.Locate(a.paths)
			if err != nil {
				return err
			}
			left, err := control.Dial(p.Socket).Leave(cmd.Context())
			if errors.Is(err, control.ErrNotRunning) {
				left, err = a.engine.Leave(p.StateDir)
			}
			if err != nil {
				return err
			}
			return a.answer(left, func(w io.Writer) { describeLeft(w, left) })
		},
	}
}

func describeLeft(w io.Writer, left control.Left) {
	site, founder := clean(left.Site), clean(left.Founder)
	switch {
	case left.Network == "":
		fmt.Fprintln(w, "this site is a member of no network")
		return
	case left.Told > 0:
		fmt.Fprintf(w, "left network %s; %d of %d sites have heard it, and tell the others\n", clean(left.Network), left.Told, left.Peers)
	case left.Site == left.Founder:
		fmt.Fprintf(w, "left network %s, of which nobody is left\n", clean(left.Network))
	default:
		fmt.Fprintf(w, "left network %s; no other site has heard it: run \"l2bridge revoke %s\" at site %s\n", clean(left.Network), site, founder)
	}
}
