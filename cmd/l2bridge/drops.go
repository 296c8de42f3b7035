// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/l2bridge/l2bridge/internal/control"
)

func (a *app) dropsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "drops",
		Short: "Show every drop reason with its count",
		Example: `  l2bridge drops
  l2bridge drops -j | jq 'map({(.reason + " " + .port): .count}) | add'`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			drops, err := client.Drops(cmd.Context())
			if err != nil {
				return err
			}
			return a.answer(drops, func(w io.Writer) { printDrops(w, drops) })
		},
	}
}

func printDrops(w io.Writer, drops []control.Drop) {
	if len(drops) == 0 {
		fmt.Fprintln(w, "no drops")
		return
	}
	rows := [][]string{{"DROPPED", "PORT", "COUNT"}}
	for _, d := range drops {
		rows = append(rows, []string{d.Reason, d.Port, strconv.FormatUint(d.Count, 10)})
	}
	table(w, rows)
}

// nonZero returns the drops that happened.
func nonZero(drops []control.Drop) []control.Drop {
	return slices.DeleteFunc(slices.Clone(drops), func(d control.Drop) bool { return d.Count == 0 })
}
