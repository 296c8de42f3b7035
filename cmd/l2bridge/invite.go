// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/l2bridge/l2bridge/internal/config"
)

// maxInviteTTL bounds how long a lost token is of use to its finder.
const maxInviteTTL = 30 * 24 * time.Hour

func (a *app) inviteCommand() *cobra.Command {
	var ttl time.Duration
	cmd := &cobra.Command{
		Use:   "invite [SITE]",
		Short: "Print one single-use token that a site can join with",
		Long: `Print one single-use token that a site can join with, one line on stdout.

With SITE the joiner gets that name; without, the one it asks for. The network
CA's key is at the founder's site: anywhere else the exit code is 4.`,
		Example: `  l2bridge invite
  l2bridge invite office --ttl 10m`,
		Args: between(0, 1, "one SITE at most"),
		RunE: func(cmd *cobra.Command, args []string) error {
			site := ""
			if len(args) == 1 {
				site = args[0]
				if err := config.CheckSite(site); err != nil {
					return usagef("site %.64q: %w", site, err)
				}
			}
			if ttl < time.Second || ttl > maxInviteTTL {
				return usagef("--ttl %v: want 1s to 720h (such as 1h)", ttl)
			}
			client, err := a.client()
			if err != nil {
				return err
			}
			token, err := client.Invite(cmd.Context(), site, ttl)
			if err != nil {
				return err
			}
			return a.answer(map[string]string{"token": token}, func(w io.Writer) {
				fmt.Fprintln(w, cleanLine(token))
			})
		},
	}
	cmd.Flags().DurationVar(&ttl, "ttl", time.Hour, "end the token's life after `TIME`")
	return cmd
}
