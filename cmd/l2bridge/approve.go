// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/l2bridge/l2bridge/internal/control"
)

func (a *app) approveCommand() *cobra.Command {
	return a.decideCommand(&cobra.Command{
		Use:   "approve SITE|ID",
		Short: "Let a site in that asks to join",
		Long: `Let a site in that asks to join, by its name, or by the first 8 digits of its id or
more. Compare the words first: see "l2bridge pending". It is a member from then on,
whether it still waits or asks again later.

The network CA's key is at the founder's site: anywhere else the exit code is 4.`,
		Example: `  l2bridge approve cabin
  l2bridge approve 9f86d081884c7d65`,
	}, (*control.Client).Approve, "is a member now")
}

func (a *app) denyCommand() *cobra.Command {
	return a.decideCommand(&cobra.Command{
		Use:   "deny SITE|ID",
		Short: "Refuse a site that asks to join",
		Long: `Refuse a site that asks to join, by its name, or by the first 8 digits of its id or
more. Whatever else its key or its address asks is refused for ten minutes, unseen.

The network CA's key is at the founder's site: anywhere else the exit code is 4.`,
		Example: `  l2bridge deny cabin
  l2bridge deny 9f86d081884c7d65`,
	}, (*control.Client).Deny, "was refused")
}

// decideCommand completes a command that carries a person's word.
func (a *app) decideCommand(cmd *cobra.Command, decide func(*control.Client, context.Context, string) (control.Pending, error), done string) *cobra.Command {
	cmd.Args = between(1, 1, "one SITE or ID (l2bridge pending shows them)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := control.CheckAsker(args[0]); err != nil {
			return usageError{err}
		}
		client, err := a.client()
		if err != nil {
			return err
		}
		p, err := decide(client, cmd.Context(), args[0])
		if err != nil {
			return err
		}
		return a.answer(p, func(w io.Writer) {
			fmt.Fprintf(w, "site %s %s: %s\n", clean(p.Site), done, cleanLine(p.Phrase))
		})
	}
	return cmd
}
