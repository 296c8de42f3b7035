// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/l2bridge/l2bridge/internal/control"
)

// versions is the answer of version.
type versions struct {
	Version string `json:"version"`
	Go      string `json:"go"`
	QUICGo  string `json:"quic_go"`
	OS      string `json:"os"`
	Arch    string `json:"arch"`
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version of l2bridge, and of what it is made of",
		Example: `  l2bridge version
  l2bridge version -j | jq -r .version`,
		Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			v := versions{control.Version(), runtime.Version(), quicVersion(), runtime.GOOS, runtime.GOARCH}
			return a.answer(v, func(w io.Writer) {
				fmt.Fprintf(w, "l2bridge %s (%s, quic-go %s, %s/%s)\n", v.Version, v.Go, v.QUICGo, v.OS, v.Arch)
			})
		},
	}
}

func quicVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if m.Path == "github.com/quic-go/quic-go" {
				return m.Version
			}
		}
	}
	return "(unknown)"
}
