// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

func (a *app) configCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "config",
		Short: "Check the config file and print what is in force",
		Long: `Check the config file and print what is in force, defaults included, as a
config file that says the same.`,
		Example: `  l2bridge config
  l2bridge config --config ./new.toml && sudo cp new.toml /etc/l2bridge/default.toml`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := a.fileConfig(cmd)
			if err != nil {
				return err
			}
			if cfg.Site, err = a.engine.SiteName(cfg); err != nil {
				fmt.Fprintf(a.stderr, "l2bridge: site %q is this host's name, as the member's is not known: %s\n", cfg.Site, cleanLine(err.Error()))
			}
			return a.answer(cfg, func(w io.Writer) { fmt.Fprint(w, cfg.TOML()) })
		},
	}
}
