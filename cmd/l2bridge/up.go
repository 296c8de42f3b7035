// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/spf13/cobra"

	"github.com/l2bridge/l2bridge/internal/config"
)

func (a *app) upCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Run this site in the foreground from its config",
		Long: `Run this site in the foreground from its config; it is what systemd runs.

Flags override the config file for this run. One line "ready ..." on stderr
says that TAP and socket stand. SIGINT, SIGTERM and SIGHUP end it within 2 s;
under nohup SIGHUP does not.`,
		Example: `  l2bridge up
  l2bridge up -n lab2 --mtu 1400 --peer site-b:4433`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := a.fileConfig(cmd)
			if err != nil {
				return err
			}
			return a.serve(cmd, cfg)
		},
	}
	addRunFlags(cmd)
	return cmd
}

// serve runs this site with the privileges that this takes.
func (a *app) serve(cmd *cobra.Command, cfg config.Config) error {
	if err := a.engine.ConfineRun(cmd.Context(), cfg); cmd.Context().Err() != nil {
		return nil // stopped before it ran, as when it does
	} else if err != nil {
		return member(err)
	}
	return member(a.engine.Run(cmd.Context(), cfg, a.logger()))
}
