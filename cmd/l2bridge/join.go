// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/spf13/cobra"

	"github.com/l2bridge/l2bridge/internal/config"
	"github.com/l2bridge/l2bridge/internal/daemon"
)

func (a *app) joinCommand() *cobra.Command {
	var token string
	var timeout time.Duration
	var wait bool
	cmd := &cobra.Command{
		Use:   "join [TOKEN]",
		Short: "Enrol with a token, save, then run in the foreground",
		Long: `Enrol with a token, save, then run in the foreground. A member of the token's
network just runs, so to say it again does no harm. With --peer and no token a
member runs with that peer.

A site that is no member and has no token asks that peer to be let in. Two phrases
of six words are shown, here and by "l2bridge pending" at the founder's site.
Compare both: a person there approves, and one here says yes. Without a terminal
the request is filed and the exit code is 4; to run the same again once it was
approved says that the phrases were the same. With --wait nobody is asked here,
and whoever is at that address is believed: where nobody looks use a token.

The flags are written to the config file. A config file that exists already
is kept as it is: the flags must then agree with it, but for --peer, which
holds for this run.`,
		Example: `  l2bridge join l2b1_...
  l2bridge join --peer site-b:4433
  l2bridge join --peer site-b:4433 --site office      no token: ask, and wait
  l2bridge join --peer site-b:4433 --token l2b1_... --site office --bridge br-lan`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 { // perhaps pieces of a token: a secret
				return usagef("%d arguments: want one TOKEN at most (paste it as one word)", len(args))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			flag := cmd.Flags().Changed("token")
			switch {
			case len(args) == 1 && flag:
				return usagef("two tokens: want TOKEN or --token TOKEN")
			case len(args) == 1:
				token = args[0]
			}
			// "" is one too, of a script's variable that is not set: it must not ask.
			if len(args) == 1 || flag {
				if err := checkToken(token); err != nil {
					return err
				}
			}
			if token == "" && !cmd.Flags().Changed("peer") {
				return usagef("want a TOKEN (from \"l2bridge invite\" at the founder's site), or --peer HOST:PORT for a site that is a member")
			}
			if timeout <= 0 {
				return usagef("--timeout %v: want a positive time (such as 60s)", timeout)
			}
			return a.join(cmd, token, timeout, wait)
		},
	}
	addRunFlags(cmd)
	cmd.Flags().StringVar(&token, "token", "", "enrol with `TOKEN`, as with the argument")
	cmd.Flags().BoolVar(&wait, "wait", false, "without a token and a terminal: wait for the approval")
	cmd.Flags().DurationVar(&timeout, "timeout", time.Minute, "give up enrolling after `TIME` without an answer")
	return cmd
}

func (a *app) join(cmd *cobra.Command, token string, timeout time.Duration, wait bool) error {
	cfg, err := a.runConfig(cmd)
	if err != nil {
		return err
	}
	if err := cfg.OwnCA("there is nobody to ask: l2bridge up"); err != nil {
		return err
	}
	if cfg.Site == "" && token != "" {
		return errNoSite
	}
	if err := a.engine.ConfineJoin(cmd.Context(), cfg); err != nil {
		return err
	}
	draft, err := config.Prepare(cfg, "peers")
	if err != nil {
		return err
	}
	defer draft.Discard()
	log := a.logger()
	err = a.engine.Join(cmd.Context(), cfg, token, timeout, log)
	if token == "" && errors.Is(err, daemon.ErrNotMember) {
		if cfg.Site == "" {
			return errNoSite
		}
		err = a.engine.Ask(cmd.Context(), cfg, timeout, a.person(wait), log)
	}
	if err != nil {
		return member(err)
	}
	if err := draft.Commit(); err != nil {
		return fmt.Errorf("this site is a member, but %w", err)
	}
	return a.serve(cmd, cfg)
}

// member adds the remedy to the error of a site that is no member.
func member(err error) error {
	if errors.Is(err, daemon.ErrNotMember) {
		return fmt.Errorf("%w: run \"l2bridge invite\" at the founder's site, and here \"l2bridge join TOKEN\" (or found a network: \"l2bridge init\")", err)
	}
	return err
}

const maxTokenBytes = 512

var tokenShape = regexp.MustCompile(`^l2b1_[A-Za-z0-9_-]+$`)

// checkToken refuses what is no token at sight, so that a slip of the hand is
// a usage error, and shows none of it: it may be a token with something at its
// end. What the token holds is judged at enrolment.
func checkToken(token string) error {
	switch {
	case len(token) > maxTokenBytes:
		return usagef("token of %d bytes: want %d at most (paste it once)", len(token), maxTokenBytes)
	case !tokenShape.MatchString(token):
		return usagef("that is no token: want l2b1_ and then letters, digits, - and _ (copy the one line that \"l2bridge invite\" printed; for a peer say --peer HOST:PORT)")
	}
	return nil
}
