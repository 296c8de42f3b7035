// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/l2bridge/l2bridge/internal/config"
)

func (a *app) rekeyCommand() *cobra.Command {
	var site string
	cmd := &cobra.Command{
		Use:   "rekey",
		Short: "Give this site another key, and with --site another name",
		Long: `Give this site another key, and with --site another name, while it runs: for
about a second no frames pass. The site that holds the network CA's key must be
reached directly. The former key is put on the list of revoked keys once this
site has been seen with the new one.`,
		Example: `  l2bridge rekey
  l2bridge rekey --site chalet`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkNewSite(cmd, site); err != nil {
				return err
			}
			client, err := a.client()
			if err != nil {
				return err
			}
			r, err := client.Rekey(cmd.Context(), site)
			if err != nil {
				return err
			}
			return a.answer(r, func(w io.Writer) {
				fmt.Fprintf(w, "site %s has another key: %s\n", cleanLine(r.Site), cleanLine(r.ID))
				if site != "" {
					fmt.Fprintf(w, "where its config names the site, write there: site = %q\n", site)
				}
			})
		},
	}
	cmd.Flags().StringVar(&site, "site", "", "and the name `NAME` from now on")
	return cmd
}

// checkNewSite checks the name that --site gives this site, if it is given: "" is none.
func checkNewSite(cmd *cobra.Command, site string) error {
	if cmd.Flags().Changed("site") {
		if err := config.CheckSite(site); err != nil {
			return usagef("--site %.64q: %w", site, err)
		}
	}
	return nil
}
