// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestMedian(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		values []float64
		want   float64
	}{
		{nil, 0}, {[]float64{7}, 7}, {[]float64{9, 1}, 5}, {[]float64{9, 1, 2}, 2},
	} {
		if got := median(test.values); got != test.want {
			t.Errorf("median(%v) = %v, want %v", test.values, got, test.want)
		}
	}
}

func TestQuantileCountsLostPings(t *testing.T) {
	t.Parallel()
	p := pinger{sent: make([]int64, 100), received: make([]int64, 100)}
	for i := range 98 {
		p.sent[i], p.received[i] = 1000, int64(2000+1000*i)
	}
	got := p.result(2e9)
	if got.Lost != 2 || got.quantile(0.99) != 2e6 || got.quantile(0.5) != 51 {
		t.Errorf("lost %d, median %v us, p99 %v us; want 2, 51, the time-out", got.Lost, got.quantile(0.5), got.quantile(0.99))
	}
}

func TestPick(t *testing.T) {
	t.Parallel()
	o, err := parse([]string{"-peers", "l2bridge, l2bridge-b", "-what", "lossy,ping", "-time", "3"})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"l2bridge", "l2bridge-b"}, o.peers); diff != "" {
		t.Errorf("peers (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"lossy8", "lossy1", "ping"}, o.what); diff != "" {
		t.Errorf("measures (-want +got):\n%s", diff)
	}
	if _, err := parse([]string{"-peers", "l3bridge"}); err == nil || !strings.Contains(err.Error(), `"l3bridge"`) {
		t.Errorf("an unknown peer: error %v, want one that names it", err)
	}
}

// Each metric is in one measure only, and each target's metric is in one.
func TestMetricsAreUnique(t *testing.T) {
	t.Parallel()
	var names []string
	for _, m := range measures {
		for _, metric := range m.metrics {
			if slices.Contains(names, metric.name) {
				t.Errorf("metric %s is there twice", metric.name)
			}
			names = append(names, metric.name)
		}
	}
	for _, target := range targets {
		findMetric(target.metric) // panics
	}
}

func TestJudge(t *testing.T) {
	t.Parallel()
	of := func(name string, metrics map[string]float64) *peerReport {
		p := &peerReport{Name: name, Metrics: make(map[string]*metricReport)}
		for key, value := range metrics {
			p.Metrics[key] = &metricReport{Median: value}
		}
		return p
	}
	r := report{Peers: []*peerReport{
		of("l2bridge", map[string]float64{"tcp1": 2000, "ping": 205, "cpu": 3, "start": 350, "udp64": 90, "shaped_p99": 7, "shaped_idle": 1}),
		of("vxlan", map[string]float64{"tcp1": 5000, "ping": 50, "udp64": 100}),
		of("softether", map[string]float64{"tcp1": 1000, "ping": 500, "cpu": 8, "udp64": 70}),
		of("softether-udp", map[string]float64{"tcp1": 900, "cpu": 6}),
		of("tinc", map[string]float64{"tcp1": 700, "ping": 200, "udp64": 80}),
		of("fastd", map[string]float64{"tcp1": 800, "ping": 300}),
	}}
	var got []string
	for _, v := range r.judge() {
		got = append(got, strings.Join([]string{v.What, v.Against, v.Met}, ": "))
	}
	want := []string{
		"one TCP stream: softether: met",
		"one TCP stream: fastd: missed",
		"one TCP stream: vxlan: missed",
		"UDP 64 B: tinc: met",
		"UDP 64 B: vxlan: ",
		"daemons' CPU: softether-udp: met",
		"ping idle, median: tinc: met",
		"WAN of 20 Mbit/s: ping during upload, p99: idle: met",
		"start to first ping: : missed",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("verdicts (-want +got):\n%s", diff)
	}
}

// The checksum of RFC 1071's own example.
func TestSum16(t *testing.T) {
	t.Parallel()
	if got := sum16([]byte{0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7}); got != 0xddf2 {
		t.Errorf("sum16 = %#x, want 0xddf2", got)
	}
}
