// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/l2bridge/l2bridge/internal/control"
)

func (a *app) peersCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "peers",
		Short: "Show who is connected, and how",
		Long: `Show who is connected, and how. A peer is

  up          reached directly
  relayed     reached by way of the site behind "via", which can read it
  suspect     not answering just now; it is dialled anew
  connecting  not reached since the daemon was started
  down        not reached any more; it is dialled for ever`,
		Example: `  l2bridge peers
  l2bridge peers -j | jq '.[] | select(.state != "up")'`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			peers, err := client.Peers(cmd.Context())
			if err != nil {
				return err
			}
			return a.answer(peers, func(w io.Writer) { printPeers(w, peers) })
		},
	}
}

func printPeers(w io.Writer, peers []control.Peer) {
	if len(peers) == 0 {
		fmt.Fprintln(w, "no peers")
		return
	}
	rows := [][]string{{"PEER", "STATE", "FOR", "ADDRESS", "RTT", "PATH", "LANES", "RX", "TX", "MACS", "KEX"}}
	for _, p := range peers {
		address := p.Addr
		if p.Via != "" {
			address = "via " + p.Via
		}
		rows = append(rows, []string{
			p.Site, string(p.State), ago(p.SinceMS), address, roundTrip(p.RTTUS), known(p.PathMTU),
			known(p.Lanes), size(p.RxBytes), size(p.TxBytes), strconv.Itoa(p.MACs), p.Kex,
		})
	}
	table(w, rows)
}
