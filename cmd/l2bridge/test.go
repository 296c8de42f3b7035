// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/l2bridge/l2bridge/internal/control"
)

func (a *app) testCommand() *cobra.Command {
	each := 3 * time.Second
	cmd := &cobra.Command{
		Use:   "test SITE",
		Short: "Measure what the way to a site gives",
		Long: `Measure what the way to a site gives: round trips, throughput both ways with
round trips meanwhile, and whether frames of every size pass. The site runs as
always; its traffic and the test share the way fairly.

The exit code is 5 when frames of some size do not pass.`,
		Example: `  l2bridge test cabin
  l2bridge test cabin --time 10s
  l2bridge test cabin -j | jq .up.mbits`,
		Args: between(1, 1, "the name of a site (l2bridge peers shows them)"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if each < control.LeastTest || each > control.MostTest {
				return usagef("--time %v: want %v to %v", each, control.LeastTest, control.MostTest)
			}
			client, err := a.client()
			if err != nil {
				return err
			}
			report, err := client.Test(cmd.Context(), args[0], each, a.showProgress)
			a.showProgress(control.TestProgress{})
			if err != nil {
				return err
			}
			if err := a.answer(report, func(w io.Writer) { printTest(w, report) }); err != nil {
				return err
			}
			if len(report.Sizes.Failed) > 0 {
				return errDegraded
			}
			return nil
		},
	}
	cmd.Flags().DurationVar(&each, "time", each, "load each direction for `TIME`, 1s to 30s")
	return cmd
}

// showProgress keeps one line of a terminal up to date; of no phase it clears it.
func (a *app) showProgress(p control.TestProgress) {
	f, ok := a.stderr.(*os.File)
	if !ok || a.json {
		return
	}
	if _, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS); err != nil {
		return
	}
	text := ""
	if p.Phase != "" {
		text = "testing: " + clean(p.Phase)
	}
	if p.BitsPS > 0 {
		text += " " + bits(p.BitsPS)
	}
	fmt.Fprintf(f, "\r\x1b[K%s", text) // ECMA-48: erase to the end of the line
}

func printTest(w io.Writer, r control.TestReport) {
	superframes := ""
	if r.Superframes {
		superframes = ", superframes"
	}
	fmt.Fprintf(w, "%s at %s, path %d bytes, %d %s%s\n\n", clean(r.Site), clean(r.Addr), r.PathMTU, r.Lanes, plural(r.Lanes, "lane"), superframes)
	rows := [][]string{{"WAY", "RATE", "LOSS", "RTT", "P99", "MAX", "RTT LOSS"}}
	row := func(name, rate, loss string, t control.TestRTT) {
		rows = append(rows, []string{name, rate, loss, micros(t.AvgUS), micros(t.P99US), micros(t.MaxUS), percent(t.LossPPM)})
	}
	row("idle", "", "", r.Idle)
	row("up", bits(r.Up.BitsPS), percent(r.Up.LossPPM), r.Up.RTT)
	row("down", bits(r.Down.BitsPS), percent(r.Down.LossPPM), r.Down.RTT)
	table(w, rows)
	fmt.Fprintf(w, "\nframes of %d to %d bytes: %d sizes tried, %d pass\n", r.Sizes.Least, r.Sizes.Most, r.Sizes.Sent, r.Sizes.Received)
	if len(r.Sizes.Failed) > 0 {
		fmt.Fprintf(w, "do not pass: %s bytes\n", ranges(r.Sizes.Failed))
	}
}

// ranges writes sizes, the first few of them.
func ranges(all []control.TestRange) string {
	const few = 8
	var words []string
	for i, r := range all {
		switch {
		case i == few:
			return strings.Join(words, ", ") + " and more"
		case r.From == r.To:
			words = append(words, fmt.Sprint(r.From))
		default:
			words = append(words, fmt.Sprintf("%d to %d", r.From, r.To))
		}
	}
	return strings.Join(words, ", ")
}

func plural(n int, word string) string {
	if n == 1 {
		return word
	}
	return word + "s"
}

// bits writes a rate.
func bits(n uint64) string {
	switch f := float64(n); {
	case f < 999_500:
		return fmt.Sprintf("%.0f kbit/s", f/1e3)
	case f < 9_995_000:
		return fmt.Sprintf("%.2f Mbit/s", f/1e6)
	default:
		return fmt.Sprintf("%.0f Mbit/s", f/1e6)
	}
}

// micros writes microseconds as milliseconds; "" when not known.
func micros(us int64) string {
	if us <= 0 {
		return ""
	}
	return fmt.Sprintf("%.2fms", float64(us)/1000)
}

// percent writes parts of a million.
func percent(ppm int64) string {
	switch {
	case ppm == 0:
		return "0%"
	case ppm < 100:
		return "<0.01%"
	}
	return fmt.Sprintf("%.2f%%", float64(ppm)/10_000)
}
