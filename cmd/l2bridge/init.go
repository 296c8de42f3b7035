// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/l2bridge/l2bridge/internal/config"
)

func (a *app) initCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Found a network at this site: keys, network CA, config file",
		Long: `Found a network at this site: keys, network CA, config file.

The flags are written to the config file. A config file that exists already
is kept as it is: the flags must then agree with it. Where there is a network
already, nothing changes and the exit code is 1.`,
		Example: `  l2bridge init --site home
  l2bridge init --site home --bridge br-lan --advertise home.example.org:4433`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.init(cmd) },
	}
	addRunFlags(cmd)
	return cmd
}

func (a *app) init(cmd *cobra.Command) error {
	cfg, err := a.runConfig(cmd)
	if err != nil {
		return err
	}
	if err := cfg.OwnCA("no network is to be founded: l2bridge up"); err != nil {
		return err
	}
	if cfg.Site == "" {
		return errNoSite
	}
	// What the host name suggests today is this site's name for good.
	if _, given := cfg.Places["site"]; !given && !cfg.FileExists {
		cfg.Places["site"] = config.Place{}
	}
	draft, err := config.Prepare(cfg)
	if err != nil {
		return err
	}
	defer draft.Discard()
	if err := a.engine.Init(cmd.Context(), cfg, a.logger()); err != nil {
		return err
	}
	if err := draft.Commit(); err != nil {
		return fmt.Errorf("the network stands, but %w", err)
	}
	fmt.Fprintf(a.stderr, "site %s founded a network. Now: \"l2bridge up\" here, then \"l2bridge invite\" for each other site\n", cfg.Site)
	return nil
}

var errNoSite = usagef("the host name makes no name for this site: want --site NAME (such as --site home)")
