// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// report is what a run found. Its JSON form only grows.
type report struct {
	Began   time.Time         `json:"began"`
	Ended   time.Time         `json:"ended,omitzero"`
	Command []string          `json:"command"`
	Machine map[string]string `json:"machine"`
	Peers   []*peerReport     `json:"peers"`
	Targets []verdict         `json:"targets,omitempty"`
}

type peerReport struct {
	Name    string                   `json:"name"`
	Title   string                   `json:"title"`
	Version string                   `json:"version"`
	Missing string                   `json:"missing,omitempty"` // why it was not measured
	Metrics map[string]*metricReport `json:"metrics"`
	Failed  []failure                `json:"failed,omitempty"`
}

type metricReport struct {
	Unit   string    `json:"unit"`
	Median float64   `json:"median"`
	Min    float64   `json:"min"`
	Max    float64   `json:"max"`
	Values []float64 `json:"values"`
	Rounds []int     `json:"rounds"` // of each value, from 1
}

type failure struct {
	Measure string `json:"measure"`
	Round   int    `json:"round"`
	Error   string `json:"error"`
}

func newReport(ctx context.Context, b *bench) report {
	r := report{Began: b.began, Command: os.Args, Machine: machine(ctx)}
	for _, p := range b.peers {
		r.Peers = append(r.Peers, &peerReport{Name: p.name, Title: p.title, Metrics: make(map[string]*metricReport)})
	}
	return r
}

// machine gathers what figures depend on.
func machine(ctx context.Context) map[string]string {
	facts := map[string]string{
		"cores": fmt.Sprint(runtime.NumCPU()),
		"go":    runtime.Version(),
		"arch":  runtime.GOARCH,
	}
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
				facts["cpu"] = strings.TrimSpace(value)
			}
		}
	}
	for key, path := range map[string]string{
		"kernel": "/proc/sys/kernel/osrelease", "rmem_max": "/proc/sys/net/core/rmem_max", "wmem_max": "/proc/sys/net/core/wmem_max", "load": "/proc/loadavg",
	} {
		if text, err := os.ReadFile(path); err == nil {
			facts[key] = strings.TrimSpace(string(text))
		}
	}
	if text, err := output(ctx, "", "git", "describe", "--tags", "--always", "--dirty"); err == nil {
		facts["commit"] = strings.TrimSpace(text)
	}
	if text, err := output(ctx, "", "iperf3", "--version"); err == nil {
		facts["iperf3"] = strings.TrimPrefix(firstLine(text), "iperf ")
	}
	return facts
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	return line
}

func (r *report) of(name string) *peerReport {
	i := slices.IndexFunc(r.Peers, func(p *peerReport) bool { return p.Name == name })
	if i < 0 {
		return nil
	}
	return r.Peers[i]
}

func (r *report) installed(p *peer, version string, err error) {
	of := r.of(p.name)
	of.Version = version
	if err != nil {
		of.Missing = err.Error()
	}
}

func (r *report) missing(p *peer) bool { return r.of(p.name).Missing != "" }

func (r *report) failed(p *peer, m *measure, round int, err error) {
	of := r.of(p.name)
	of.Failed = append(of.Failed, failure{Measure: m.name, Round: round + 1, Error: err.Error()})
}

func (r *report) add(p *peer, m metric, round int, value float64) {
	of := r.of(p.name)
	found := of.Metrics[m.name]
	if found == nil {
		found = &metricReport{Unit: m.unit}
		of.Metrics[m.name] = found
	}
	found.Values = append(found.Values, value)
	found.Rounds = append(found.Rounds, round+1)
	found.Median, found.Min, found.Max = median(found.Values), slices.Min(found.Values), slices.Max(found.Values)
}

func (r *report) median(p *peer, name string) (float64, bool) {
	of := r.of(p.name)
	if of == nil || of.Metrics[name] == nil {
		return 0, false
	}
	return of.Metrics[name].Median, true
}

func (r *report) finish(context.Context) { r.Ended = time.Now() }

// save writes both files.
func (r *report) save(o options) error {
	r.Targets = r.judge()
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	for path, content := range map[string]string{o.json: string(text) + "\n", o.markdown: r.markdown()} {
		if path == "" {
			continue
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// markdown is the tables: a row for each figure, a column for each program.
func (r *report) markdown() string {
	var b strings.Builder
	var facts []string
	for _, key := range []string{"cores", "cpu", "kernel", "go", "iperf3", "commit", "load", "rmem_max"} {
		if value := r.Machine[key]; value != "" {
			facts = append(facts, key+" "+value)
		}
	}
	fmt.Fprintf(&b, "%s; %s\n\n", r.Began.UTC().Format("2006-01-02 15:04 UTC"), strings.Join(facts, ", "))
	for _, p := range r.Peers {
		fmt.Fprintf(&b, "- %s: %s, version %s\n", p.Name, p.Title, or(p.Version, "unknown"))
		if p.Missing != "" {
			fmt.Fprintf(&b, "  - not measured: %s\n", p.Missing)
		}
	}
	b.WriteString("\nMedians, and the least and the greatest in brackets.\n\n| |")
	for _, p := range r.Peers {
		fmt.Fprintf(&b, " %s |", p.Name)
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(r.Peers)) + "\n")
	for _, m := range measures {
		for i, metric := range m.metrics {
			var cells []string
			any := false
			for _, p := range r.Peers {
				cell := p.cell(m, metric, i == 0)
				any = any || cell != ""
				cells = append(cells, or(cell, "-"))
			}
			if any {
				fmt.Fprintf(&b, "| %s, %s | %s |\n", metric.title, metric.unit, strings.Join(cells, " | "))
			}
		}
	}
	for _, p := range r.Peers {
		for i, f := range p.Failed {
			if i == 0 || p.Failed[i-1].Round != f.Round || p.Failed[i-1].Error != f.Error {
				fmt.Fprintf(&b, "\n- %s, round %d failed: %s: %s", p.Name, f.Round, strings.ReplaceAll(f.Error, "\n", "; "), f.Measure)
			} else {
				fmt.Fprintf(&b, ", %s", f.Measure)
			}
		}
	}
	b.WriteString("\n")
	b.WriteString(markdownTargets(r.judge()))
	return b.String()
}

// cell is a figure with its spread. The first figure of a measure also says
// how often the measure failed.
func (p *peerReport) cell(m measure, of metric, first bool) string {
	failed := 0
	for _, f := range p.Failed {
		if f.Measure == m.name {
			failed++
		}
	}
	found := p.Metrics[of.name]
	switch {
	case found == nil && failed > 0 && first:
		return "failed"
	case found == nil && p.Missing != "" && first:
		return "not installed"
	case found == nil:
		return ""
	}
	text := fmt.Sprintf("%.*f", of.digits, found.Median)
	if len(found.Values) > 1 {
		text += fmt.Sprintf(" (%.*f..%.*f)", of.digits, found.Min, of.digits, found.Max)
	}
	if failed > 0 && first {
		text += fmt.Sprintf(", %d failed", failed)
	}
	return text
}

func or(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}
