// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/l2bridge/l2bridge/internal/control"
)

func (a *app) pendingCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "pending",
		Short: "Show which sites ask to join, with the words to compare",
		Long: `Show which sites ask to join, with the words to compare.

A site without a token asks with "l2bridge join --peer". Its screen and this one
show two phrases of six words: of its own key, and of the network's. Compare both,
word for word, by a way that you trust: stand at that screen, or telephone who does.
Both the same: "l2bridge approve SITE". One is not: "l2bridge deny SITE"; another
machine is in between, or asks in the other's name.

A request waits for ten minutes. The network CA's key is at the founder's site:
anywhere else the exit code is 4.`,
		Example: `  l2bridge pending
  l2bridge pending -j | jq -r '.[].site'`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			all, err := client.Pending(cmd.Context())
			if err != nil {
				return err
			}
			return a.answer(all, func(w io.Writer) { printPending(w, all) })
		},
	}
}

func printPending(w io.Writer, all []control.Pending) {
	if len(all) == 0 {
		fmt.Fprintln(w, "nobody asks to join")
		return
	}
	for _, p := range all {
		fmt.Fprintf(w, "site %s at %s asks to join, %s ago, id %s\n", clean(p.Site), clean(p.Addr), ago(p.AgeMS), shortID(p.ID))
		printPhrases(w, p.Phrase, p.CAPhrase)
	}
	fmt.Fprint(w, `
Each must read the same on that site's own screen, word for word. Both do: l2bridge
approve SITE. One does not: l2bridge deny SITE. Of two with one name say the id.
`)
}

// printPhrases prints what to compare, as both ends show it.
func printPhrases(w io.Writer, own, network string) {
	fmt.Fprintf(w, "  its key:      %s\n  the network:  %s\n", cleanLine(own), cleanLine(network))
}

// shortID is as much of an id as nobody finds another key for.
func shortID(id string) string {
	const most = 16
	return clean(id[:min(most, len(id))])
}
