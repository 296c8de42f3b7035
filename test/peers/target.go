// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"fmt"
	"strings"
)

// rival says whose figure a target compares with.
type rival int

const (
	none      rival = iota // a bound by itself
	softEther              // the better of its two ways
	others                 // the best user-space bridge but SoftEther
	userSpace              // the best user-space bridge
	vxlanOnly
	wireguardOnly
	idle // our own idle ping on the same WAN
)

func (r rival) String() string {
	return [...]string{"", "SoftEther", "best other", "best user-space peer", "kernel VXLAN", "wireguard-go at layer 3", "idle"}[r]
}

// target is a line of the table: ours must be at least, or at most, a
// multiple of a rival's figure, or a figure.
type target struct {
	metric  string
	rival   rival
	atMost  bool
	must    float64 // a factor, where there is a rival; for idle what may be added; else the metric's unit
	stretch float64 // 0: none
}

var targets = speedTargets([]target{
	{"offload", softEther, false, 3, 0},
	{"offload", wireguardOnly, false, 0.95, 1.1},
	{"retransmits", none, true, 20, 0},
	{"tcp1r_retransmits", none, true, 20, 0},
	{"udp64", userSpace, false, 1.1, 0},
	{"udp64", vxlanOnly, false, 0, 1},
	{"udp1400", userSpace, false, 1.1, 0},
	{"udp1400", vxlanOnly, false, 0, 1},
	{"cpu", softEther, true, 0.6, 0.4},
	{"cpu200", softEther, true, 0.6, 0.4},
	{"ping", userSpace, true, 1.1, 1},
	{"ping_p99", userSpace, true, 1.1, 1},
	{"same_p99", userSpace, true, 1, 0},
	{"loaded_p99", userSpace, true, 1, 0},
	{"loaded_p99", none, true, 3, 1},
	{"shaped_p99", idle, true, 10, 5},
	{"start", none, true, 300, 100},
	{"lossy8", vxlanOnly, false, 0.9, 1},
	{"lossy1", vxlanOnly, false, 0.8, 1},
	{"fat", vxlanOnly, false, 0.9, 1},
	{"hwm", none, true, 80, 40},
})

// speedTargets puts those of TCP before the rest: the same for each measure.
func speedTargets(rest []target) []target {
	var all []target
	for _, metric := range []string{"tcp1", "tcp1r", "tcp4", "tcpbidir"} {
		all = append(all,
			target{metric, softEther, false, 1.8, 2.5},
			target{metric, others, false, 3.5, 5},
			target{metric, vxlanOnly, false, 0.5, 0.65})
	}
	return append(all, rest...)
}

// verdict is what became of a target.
type verdict struct {
	What    string  `json:"what"`
	Peer    string  `json:"peer"` // which l2bridge
	Ours    float64 `json:"ours"`
	Against string  `json:"against,omitempty"` // whose figure
	Theirs  float64 `json:"theirs,omitempty"`
	Ratio   float64 `json:"ratio,omitempty"`
	Must    string  `json:"must,omitempty"`
	Stretch string  `json:"stretch,omitempty"`
	Met     string  `json:"met"` // "missed", "met" or "stretch"; "" where only a stretch is asked and missed
	unit    string
	digits  int
}

// belongs reports whether a program's figures are those of a rival.
func (r rival) belongs(p *peer) bool {
	bridge := !p.kernel && !p.plain && !p.layer3 && !isL2bridge(p.name)
	soft := strings.HasPrefix(p.name, "softether")
	switch r {
	case softEther:
		return soft
	case others:
		return bridge && !soft
	case userSpace:
		return bridge
	case vxlanOnly:
		return p.name == "vxlan"
	case wireguardOnly:
		return p.name == "wireguard"
	default:
		return false
	}
}

// best returns a rival's best median of a metric, and whose it is.
func (r *report) best(of rival, metric string, lowest bool) (name string, value float64) {
	for _, p := range r.Peers {
		found := p.Metrics[metric]
		if found == nil || !of.belongs(findPeer(p.Name)) {
			continue
		}
		if name == "" || (found.Median < value) == lowest && found.Median != value {
			name, value = p.Name, found.Median
		}
	}
	return name, value
}

// judge compares each l2bridge's figures with the targets. What was not
// measured, or has nothing to be compared with, is left out.
func (r *report) judge() []verdict {
	var all []verdict
	for _, p := range r.Peers {
		if !isL2bridge(p.Name) {
			continue
		}
		for _, t := range targets {
			if v, ok := r.verdict(p, t); ok {
				all = append(all, v)
			}
		}
	}
	return all
}

func (r *report) verdict(p *peerReport, t target) (verdict, bool) {
	ours := p.Metrics[t.metric]
	if ours == nil {
		return verdict{}, false
	}
	m := findMetric(t.metric)
	v := verdict{What: m.title, Peer: p.Name, Ours: ours.Median, unit: m.unit, digits: m.digits}
	sign, holds := ">=", func(bound float64) bool { return ours.Median >= bound }
	if t.atMost {
		sign, holds = "<=", func(bound float64) bool { return ours.Median <= bound }
	}
	// bound turns what the target asks into a figure of ours.
	var bound func(float64) float64
	switch t.rival {
	case none:
		bound = func(asked float64) float64 { return asked }
		v.Must, v.Stretch = fmt.Sprintf("%s %g %s", sign, t.must, m.unit), fmt.Sprintf("%s %g %s", sign, t.stretch, m.unit)
	case idle:
		base := p.Metrics["shaped_idle"]
		if base == nil {
			return v, false
		}
		v.Against, v.Theirs = "idle", base.Median
		bound = func(asked float64) float64 { return base.Median + asked }
		v.Must, v.Stretch = fmt.Sprintf("%s idle + %g %s", sign, t.must, m.unit), fmt.Sprintf("%s idle + %g %s", sign, t.stretch, m.unit)
	default:
		if v.Against, v.Theirs = r.best(t.rival, t.metric, t.atMost); v.Against == "" {
			return v, false
		}
		if v.Theirs != 0 {
			v.Ratio = v.Ours / v.Theirs
		}
		bound = func(asked float64) float64 { return asked * v.Theirs }
		v.Must, v.Stretch = fmt.Sprintf("%s %g x %v", sign, t.must, t.rival), fmt.Sprintf("%s %g x", sign, t.stretch)
	}
	if t.must == 0 {
		v.Must = ""
	} else if holds(bound(t.must)) {
		v.Met = "met"
	} else {
		v.Met = "missed"
	}
	if t.stretch == 0 {
		v.Stretch = ""
	} else if v.Met != "missed" && holds(bound(t.stretch)) {
		v.Met = "stretch"
	}
	return v, true
}

func findMetric(name string) metric {
	for _, m := range measures {
		for _, metric := range m.metrics {
			if metric.name == name {
				return metric
			}
		}
	}
	panic("target: no metric " + name)
}

// markdownTargets is the table of targets.
func markdownTargets(verdicts []verdict) string {
	var b strings.Builder
	for i, v := range verdicts {
		if i == 0 || v.Peer != verdicts[i-1].Peer {
			fmt.Fprintf(&b, "\nTargets of %s\n\n| what | ours | against | ratio | must | stretch | |\n|---|---|---|---|---|---|---|\n", v.Peer)
		}
		against, ratio := "-", "-"
		if v.Against != "" {
			against = fmt.Sprintf("%s %.*f", v.Against, v.digits, v.Theirs)
		}
		if v.Ratio != 0 {
			ratio = fmt.Sprintf("%.2f", v.Ratio)
		}
		met := v.Met
		switch {
		case met == "stretch":
			met = "met, and the stretch"
		case met == "":
			met = "stretch missed"
		}
		fmt.Fprintf(&b, "| %s | %.*f %s | %s | %s | %s | %s | %s |\n", v.What, v.digits, v.Ours, v.unit, against, ratio,
			or(v.Must, "-"), or(v.Stretch, "-"), met)
	}
	return b.String()
}
