// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/spf13/cobra"

	"github.com/l2bridge/l2bridge/internal/config"
)

// textFlag is a flag of addRunFlags: text, for config to judge.
type textFlag struct {
	setting *config.Setting
	texts   []string
}

func (f *textFlag) Set(text string) error {
	if !f.setting.IsList() {
		f.texts = nil // the last one counts
	}
	f.texts = append(f.texts, text)
	return nil
}

// String is empty, so that --help shows no default beside the one in Help.
func (f *textFlag) String() string { return "" }

// Type is what --help calls the argument.
func (f *textFlag) Type() string { return f.setting.Arg }

// addRunFlags gives cmd the flags that say how a site runs, one for each setting
// but those of the file alone.
func addRunFlags(cmd *cobra.Command) {
	cmd.Flags().SortFlags = false
	settings := config.Settings()
	for i := range settings {
		s := &settings[i]
		if s.Flag == "" {
			continue
		}
		cmd.Flags().Var(&textFlag{setting: s}, s.Flag, s.Help)
	}
}

// runConfig reads the file and lays the flags of cmd over it.
func (a *app) runConfig(cmd *cobra.Command) (config.Config, error) {
	p, err := config.Locate(a.paths)
	if err != nil {
		return config.Config{}, err
	}
	var given []config.Given
	for _, s := range config.Settings() {
		if s.Flag == "" {
			continue
		}
		if f := cmd.Flags().Lookup(s.Flag); f != nil && f.Changed {
			given = append(given, config.Given{Key: s.Key, Texts: f.Value.(*textFlag).texts})
		}
	}
	return config.Load(p, given)
}

// fileConfig is runConfig for commands that make no config file: one that was
// named must be there, as its owner did not mean the defaults.
func (a *app) fileConfig(cmd *cobra.Command) (config.Config, error) {
	c, err := a.runConfig(cmd)
	if err == nil && a.paths.File != "" && !c.FileExists {
		err = usagef("--config %s: no such file (init and join make one)", c.File)
	}
	return c, err
}
