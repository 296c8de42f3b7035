// SPDX-License-Identifier: Apache-2.0

package main

import "github.com/spf13/cobra"

func (a *app) upCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Run this site in the foreground from its config",
		Long: `Run this site in the foreground from its config; it is what systemd runs.

Flags override the config file for this run. One line "ready ..." on stderr
says that TAP and socket stand. SIGINT, SIGTERM
and SIGHUP end it within 2 s.`,
		Example: `  l2bridge up
  l2bridge up -n lab2 --mtu 1400 --peer site-b:4433`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := a.fileConfig(cmd)
			if err != nil {
				return err
			}
			return member(a.engine.Run(cmd.Context(), cfg, a.logger()))
		},
	}
	addRunFlags(cmd)
	return cmd
}
