// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/l2bridge/l2bridge/internal/control"
)

func (a *app) statusCommand() *cobra.Command {
	var check, watch bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show this site on one screen",
		Long: `Show this site on one screen. Its first word says all:

  UP          every peer is reached, directly or by way of a third site
  DEGRADED    some peers are reached, or one does not answer just now
  LOOP        a loop was found and cut
  CONNECTING  no peer has been reached yet
  DOWN        the TAP is lost, or no peer is reached any more`,
		Example: `  l2bridge status
  l2bridge status --check || echo "exit code $?: 3 not running, 5 not UP"
  l2bridge status -j | jq -r .state`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if check && watch {
				return usagef("--check and --watch: want one of them")
			}
			client, err := a.client()
			if err != nil {
				return err
			}
			if watch {
				ticker := time.NewTicker(time.Second)
				defer ticker.Stop()
				return a.watch(cmd.Context(), client, ticker.C)
			}
			status, err := client.Status(cmd.Context())
			if err != nil {
				return err
			}
			if err := a.answer(status, func(w io.Writer) { printStatus(w, status) }); err != nil {
				return err
			}
			if check && status.State != control.StateUp {
				return errDegraded
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&check, "check", false, "exit with 5 unless UP")
	cmd.Flags().BoolVar(&watch, "watch", false, "show it anew each second until interrupted")
	return cmd
}

// watch shows the status at once and at each tick, until ctx ends. A daemon
// that has gone may come back; only at first must it be there.
func (a *app) watch(ctx context.Context, client *control.Client, ticks <-chan time.Time) error {
	for first := true; ; first = false {
		status, err := client.Status(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			a.newScreen(first)
			err = a.answer(status, func(w io.Writer) { printStatus(w, status) })
			if err != nil {
				return err
			}
		case first || !errors.Is(err, control.ErrNotRunning):
			return err
		default:
			a.newScreen(first)
			fmt.Fprintln(a.stderr, "l2bridge:", cleanLine(err.Error()))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticks:
		}
	}
}

// newScreen clears a terminal; elsewhere a line stands between two answers.
func (a *app) newScreen(first bool) {
	if a.json {
		return
	}
	if f, ok := a.stdout.(*os.File); ok {
		if _, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS); err == nil {
			io.WriteString(f, "\x1b[H\x1b[2J") // ECMA-48: cursor home, erase display
			return
		}
	}
	if !first {
		fmt.Fprintln(a.stdout)
	}
}

func printStatus(w io.Writer, s control.Status) {
	founder := ""
	if s.Founder {
		founder = " (founder)"
	}
	fmt.Fprintf(w, "%s for %s, site %s of network %s%s\n",
		strings.ToUpper(clean(string(s.State))), ago(s.SinceMS), clean(s.Site), clean(s.Network), founder)
	lan := "no bridge"
	if s.Bridge != "" {
		var ports []string
		for _, p := range s.BridgePorts {
			ports = append(ports, clean(p))
		}
		lan = fmt.Sprintf("bridge %s (%s)", clean(s.Bridge), strings.Join(ports, " "))
	}
	fmt.Fprintf(w, "tap %s, %s, mtu %d, listen %s\n", clean(s.TAP), lan, s.MTU, clean(s.Listen))
	if s.PortMapping != "" {
		fmt.Fprintf(w, "port mapping %s\n", cleanLine(s.PortMapping))
	}
	if limits := limitsText(s.Limits); limits != "" {
		fmt.Fprintf(w, "limits %s\n", limits)
	}
	fmt.Fprintf(w, "id %s, version %s\n\n", clean(s.ID), clean(s.Version))
	printPeers(w, s.Peers)
	if dropped := nonZero(s.Drops); len(dropped) > 0 {
		fmt.Fprintln(w)
		printDrops(w, dropped)
	}
	if len(s.Hints) > 0 {
		fmt.Fprintln(w)
	}
	for _, hint := range s.Hints {
		fmt.Fprintln(w, "hint:", cleanLine(hint))
	}
}

// limitsText says what limits the daemon; "" of one that does not say.
func limitsText(l control.Limits) string {
	if !l.NoNewPrivs {
		return ""
	}
	text := cleanLine(strings.Join(append(l.Capabilities, "no new privileges"), ", "))
	if l.Landlock == 0 {
		return text + ", files not limited"
	}
	return fmt.Sprintf("%s, files by landlock %d", text, l.Landlock)
}
