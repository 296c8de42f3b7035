// SPDX-License-Identifier: Apache-2.0

//go:build man

package main

import (
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

func init() { hiddenCommands = append(hiddenCommands, manCommand) }

func manCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "man DIR",
		Short:  "Write the manual pages to a directory",
		Hidden: true,
		Example: `  go run -tags man ./cmd/l2bridge man man1
  SOURCE_DATE_EPOCH=0 l2bridge man man1`,
		Args: between(1, 1, "DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return err
			}
			root := cmd.Root()
			root.DisableAutoGenTag = true
			header := &doc.GenManHeader{Section: "1", Source: "l2bridge", Manual: "l2bridge manual"}
			return doc.GenManTree(root, header, args[0])
		},
	}
}
