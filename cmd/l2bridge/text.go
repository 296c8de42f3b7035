// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
)

// clean makes a string from outside fit for a terminal and a table's cell:
// printable ASCII, at most 64 characters, and something even when empty.
func clean(s string) string {
	const most = 64
	if s == "" {
		return "-"
	}
	if len(s) > most {
		s = s[:most-3] + "..."
	}
	return printable(s)
}

// cleanLine is clean for a whole message or hint.
func cleanLine(s string) string {
	const most = 1024
	if len(s) > most {
		s = s[:most-3] + "..."
	}
	return printable(s)
}

// printable puts a space for each line end and ? for each other byte that
// might steer a terminal.
func printable(s string) string {
	b := []byte(s)
	for i, c := range b {
		switch {
		case c == '\n', c == '\t':
			b[i] = ' '
		case c < ' ', c > '~':
			b[i] = '?'
		}
	}
	return string(b)
}

// table prints rows, the first its head, in aligned columns. Each cell is
// cleaned.
func table(w io.Writer, rows [][]string) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		cells := make([]string, len(row))
		for i, cell := range row {
			cells[i] = clean(cell)
		}
		fmt.Fprintln(t, strings.Join(cells, "\t"))
	}
	t.Flush()
}

// ago writes a duration in milliseconds by its two greatest units.
func ago(ms int64) string {
	s := max(ms, 0) / 1000
	m, h := s/60, s/3600
	switch {
	case m == 0:
		return fmt.Sprintf("%ds", s)
	case h == 0:
		return fmt.Sprintf("%dm%ds", m, s%60)
	case h < 24:
		return fmt.Sprintf("%dh%dm", h, m%60)
	}
	return fmt.Sprintf("%dd%dh", h/24, h%24)
}

// size writes bytes with a decimal unit, as ip -h does.
func size(n uint64) string {
	if n < 1000 {
		return fmt.Sprintf("%dB", n)
	}
	f, unit := float64(n), -1
	for f >= 999.95 && unit < 5 {
		f /= 1000
		unit++
	}
	return fmt.Sprintf("%.1f%cB", f, "kMGTPE"[unit])
}

// roundTrip writes microseconds as milliseconds; "" when not known.
func roundTrip(us int64) string {
	if us <= 0 {
		return ""
	}
	return fmt.Sprintf("%.1fms", float64(us)/1000)
}

// known writes a number that is 0 when there is none.
func known(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}
