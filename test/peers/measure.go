// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// metric is one figure of a measure.
type metric struct {
	name   string
	title  string
	unit   string
	digits int // after the point, in tables
}

// measure is one way to look at a program, for each name in -what.
type measure struct {
	name    string
	wan     wan
	metrics []metric
	run     func(ctx context.Context, b *bench, r *rig) (map[string]float64, error)
	only    func(p *peer) bool // nil: all programs
}

// measures in the order in which they are taken, by WAN.
var measures = []measure{
	{name: "start", wan: cleanWAN, run: measureStart, metrics: []metric{
		{"start", "start to first ping", "ms", 0}}},
	{name: "ping", wan: cleanWAN, run: measurePing, metrics: []metric{
		{"ping", "ping idle, median", "us", 0}, {"ping_p99", "ping idle, p99", "us", 0}}},
	{name: "tcp1", wan: cleanWAN, run: measureTCP1, metrics: []metric{
		{"tcp1", "one TCP stream", "Mbit/s", 0}, {"retransmits", "one TCP stream: retransmits", "/GB", 1},
		{"cpu", "daemons' CPU", "s/GB", 2}, {"allcpu", "machine's CPU", "s/GB", 2}}},
	{name: "tcp1r", wan: cleanWAN, run: measureTCP("tcp1r", "--reverse"), metrics: []metric{
		{"tcp1r", "one TCP stream back", "Mbit/s", 0}, {"tcp1r_retransmits", "one TCP stream back: retransmits", "/GB", 1}}},
	{name: "tcp4", wan: cleanWAN, run: measureTCP("tcp4", "--parallel", "4"), metrics: []metric{
		{"tcp4", "four TCP streams", "Mbit/s", 0}, {"tcp4_retransmits", "four TCP streams: retransmits", "/GB", 1}}},
	{name: "tcpbidir", wan: cleanWAN, run: measureTCP("tcpbidir", "--bidir"), metrics: []metric{
		{"tcpbidir", "TCP both ways, sum", "Mbit/s", 0}, {"tcpbidir_retransmits", "TCP both ways: retransmits", "/GB", 1}}},
	{name: "cpu", wan: cleanWAN, run: measureCPU, metrics: []metric{
		{"cpu200", "daemons' CPU at 200 Mbit/s", "s/GB", 2}, {"allcpu200", "machine's CPU at 200 Mbit/s", "s/GB", 2}}},
	{name: "loaded", wan: cleanWAN, run: measureLoaded, metrics: []metric{
		{"loaded", "ping under TCP, median", "ms", 2}, {"loaded_p99", "ping under TCP, p99", "ms", 2}}},
	{name: "mem", wan: cleanWAN, run: measureMemory, only: hasDaemons, metrics: []metric{
		{"hwm", "memory, peak", "MB", 1}, {"rss", "memory", "MB", 1}}},
	{name: "udp64", wan: cleanWAN, run: measureUDP("udp64", 64), metrics: []metric{
		{"udp64", "UDP 64 B", "kpps", 1}}},
	{name: "udp1400", wan: cleanWAN, run: measureUDP("udp1400", 1400), metrics: []metric{
		{"udp1400", "UDP 1400 B", "Mbit/s", 0}}},
	{name: "samerate", wan: sameWAN, run: measureSameRate, metrics: []metric{
		{"same_p99", "ping under TCP at one rate for all, p99", "ms", 2}, {"same_rate", "ping under TCP at one rate for all: the rate", "Mbit/s", 0}}},
	{name: "offload", wan: offloadWAN, run: measureTCP("offload"), only: inOffload, metrics: []metric{
		{"offload", "one TCP stream, WAN with offloads", "Mbit/s", 0}, {"offload_retransmits", "one TCP stream, WAN with offloads: retransmits", "/GB", 1}}},
	{name: "shaped", wan: shapedWAN, run: measureShaped, metrics: []metric{
		{"shaped", "WAN of 20 Mbit/s: upload", "Mbit/s", 1}, {"shaped_idle", "WAN of 20 Mbit/s: ping idle, median", "ms", 1},
		{"shaped_p99", "WAN of 20 Mbit/s: ping during upload, p99", "ms", 1}}},
	{name: "line", wan: lineWAN, run: measureLine, only: func(p *peer) bool { return p.name == "vxlan" }, metrics: []metric{
		{"line", "the harness's delay line, 20 ms: eight TCP streams", "Mbit/s", 0}, {"line_rtt", "ping over it, median", "ms", 2},
		{"line_p99", "ping over it, p99", "ms", 2}, {"line_loaded_p99", "ping over it beside TCP of 350 Mbit/s, p99", "ms", 2}}},
	{name: "lossy8", wan: lossyWAN, run: measureLong("lossy8", "--parallel", "8"), only: onLongPaths, metrics: []metric{
		{"lossy8", "20 ms, 0.1 % loss: eight TCP streams", "Mbit/s", 1}, {"lossy8_retransmits", "20 ms, 0.1 % loss: eight TCP streams: retransmits", "/GB", 0}}},
	{name: "lossy1", wan: lossyWAN, run: measureLong("lossy1"), only: onLongPaths, metrics: []metric{
		{"lossy1", "20 ms, 0.1 % loss: one TCP stream", "Mbit/s", 1}, {"lossy1_retransmits", "20 ms, 0.1 % loss: one TCP stream: retransmits", "/GB", 0}}},
	{name: "fat", wan: fatWAN, run: measureFat, only: onLongPaths, metrics: []metric{
		{"fat", "100 ms, 200 Mbit/s: one TCP stream", "Mbit/s", 1}, {"fat_rtt", "100 ms, 200 Mbit/s: ping idle, median", "ms", 2}}},
}

// sameWAN is the clean one, taken after all programs' full rates are known.
var sameWAN = wan{name: "same"}

// aliases are names for several measures.
var aliases = map[string][]string{"lossy": {"lossy8", "lossy1"}}

func measureNames() []string {
	var names []string
	for _, m := range measures {
		names = append(names, m.name)
	}
	return names
}

func findMeasure(name string) *measure {
	for i := range measures {
		if measures[i].name == name {
			return &measures[i]
		}
	}
	return nil
}

func hasDaemons(p *peer) bool { return !p.kernel && !p.layer3 }

// values is what a measure returns, by metric.
type values = map[string]float64

func measureStart(_ context.Context, _ *bench, r *rig) (values, error) {
	if r.peer.kernel {
		return nil, nil
	}
	return values{"start": r.startMS}, nil
}

func measurePing(ctx context.Context, b *bench, r *rig) (values, error) {
	if _, err := r.ping(ctx, 20); err != nil { // warm
		return nil, err
	}
	p, err := r.ping(ctx, b.o.pings)
	if err != nil {
		return nil, err
	}
	return values{"ping": p.quantile(0.5), "ping_p99": p.quantile(0.99)}, nil
}

func measureTCP1(ctx context.Context, b *bench, r *rig) (values, error) {
	t, err := r.iperf(ctx, b.o.time)
	if err != nil {
		return nil, err
	}
	v := values{"tcp1": t.Mbps, "retransmits": t.retransmitsPerGB(), "allcpu": t.allPerGB()}
	if !r.peer.kernel {
		v["cpu"] = t.cpuPerGB()
	}
	return v, nil
}

func measureTCP(name string, flags ...string) func(context.Context, *bench, *rig) (values, error) {
	return func(ctx context.Context, b *bench, r *rig) (values, error) {
		t, err := r.iperf(ctx, b.o.time, flags...)
		if err != nil {
			return nil, err
		}
		return values{name: t.Mbps, name + "_retransmits": t.retransmitsPerGB()}, nil
	}
}

func measureLong(name string, flags ...string) func(context.Context, *bench, *rig) (values, error) {
	return func(ctx context.Context, b *bench, r *rig) (values, error) {
		t, err := r.iperf(ctx, b.o.longTime, flags...)
		if err != nil {
			return nil, err
		}
		return values{name: t.Mbps, name + "_retransmits": t.retransmitsPerGB()}, nil
	}
}

func measureFat(ctx context.Context, b *bench, r *rig) (values, error) {
	p, err := r.ping(ctx, 50)
	if err != nil {
		return nil, err
	}
	t, err := r.iperf(ctx, b.o.fatTime)
	if err != nil {
		return nil, err
	}
	return values{"fat": t.Mbps, "fat_rtt": p.quantile(0.5) / 1000}, nil
}

// measureLine shows that the long WANs are what they are said to be: as long,
// and no bottleneck.
func measureLine(ctx context.Context, b *bench, r *rig) (values, error) {
	idle, err := r.ping(ctx, b.o.pings)
	if err != nil {
		return nil, err
	}
	full, err := r.iperf(ctx, b.o.time, "--parallel", "8")
	if err != nil {
		return nil, err
	}
	loaded, _, err := r.pingUnder(ctx, b.o.pings, 2*time.Second, "--parallel", "8", "--bitrate", "44M", "--length", "16K")
	if err != nil {
		return nil, err
	}
	return values{"line": full.Mbps, "line_rtt": idle.quantile(0.5) / 1000, "line_p99": idle.quantile(0.99) / 1000,
		"line_loaded_p99": loaded.quantile(0.99) / 1000}, nil
}

func measureCPU(ctx context.Context, b *bench, r *rig) (values, error) {
	t, err := r.iperf(ctx, b.o.time, "--bitrate", "200M", "--length", "32K")
	if err != nil {
		return nil, err
	}
	if t.Mbps < 190 {
		return nil, fmt.Errorf("only %.0f of 200 Mbit/s", t.Mbps)
	}
	v := values{"allcpu200": t.allPerGB()}
	if !r.peer.kernel {
		v["cpu200"] = t.cpuPerGB()
	}
	return v, nil
}

func measureMemory(_ context.Context, _ *bench, r *rig) (values, error) {
	u := r.used()
	return values{"hwm": u.hwm, "rss": u.rss}, nil
}

func measureUDP(name string, size int) func(context.Context, *bench, *rig) (values, error) {
	return func(_ context.Context, b *bench, r *rig) (values, error) {
		t, err := r.udpRate(size, b.o.udpTime)
		if err != nil {
			return nil, err
		}
		if size >= 1000 {
			return values{name: t.Received * float64(size) * 8 / 1e6}, nil
		}
		return values{name: t.Received / 1000}, nil
	}
}

// loadSettle is how long TCP runs before pings are counted.
const loadSettle = 700 * time.Millisecond

// pingUnder pings while iperf3 runs with flags.
func (r *rig) pingUnder(ctx context.Context, count int, settle time.Duration, flags ...string) (pings, tcp, error) {
	length := settle + time.Duration(count)*5*time.Millisecond + 2500*time.Millisecond
	length = length.Truncate(time.Second)
	type loaded struct {
		tcp
		error
	}
	done := make(chan loaded, 1)
	go func() {
		t, err := r.iperf(ctx, length, flags...)
		done <- loaded{t, err}
	}()
	var early *loaded
	select {
	case l := <-done:
		early = &l
	case <-time.After(settle):
	}
	var p pings
	var err error
	if early == nil {
		p, err = r.ping(ctx, count)
		l := <-done
		early = &l
	} else if early.error == nil {
		err = errors.New("iperf3 ended before the pings began")
	}
	return p, early.tcp, errors.Join(early.error, err)
}

func measureLoaded(ctx context.Context, b *bench, r *rig) (values, error) {
	p, _, err := r.pingUnder(ctx, b.o.pings, loadSettle)
	if err != nil {
		return nil, err
	}
	return values{"loaded": p.quantile(0.5) / 1000, "loaded_p99": p.quantile(0.99) / 1000}, nil
}

func measureSameRate(ctx context.Context, b *bench, r *rig) (values, error) {
	rate, err := b.commonRate()
	if err != nil {
		return nil, err
	}
	p, t, err := r.pingUnder(ctx, b.o.pings, loadSettle, "--bitrate", fmt.Sprintf("%.0fK", rate*1000), "--length", "32K")
	if err != nil {
		return nil, err
	}
	if t.Mbps < 0.9*rate {
		return nil, fmt.Errorf("only %.0f of %.0f Mbit/s", t.Mbps, rate)
	}
	return values{"same_p99": p.quantile(0.99) / 1000, "same_rate": rate}, nil
}

func measureShaped(ctx context.Context, b *bench, r *rig) (values, error) {
	idle, err := r.ping(ctx, b.o.pings)
	if err != nil {
		return nil, err
	}
	// The buffer of 1 MB takes 0.4 s to fill, and slow start some more.
	p, t, err := r.pingUnder(ctx, b.o.pings, 3*time.Second)
	if err != nil {
		return nil, err
	}
	return values{"shaped": t.Mbps, "shaped_idle": idle.quantile(0.5) / 1000, "shaped_p99": p.quantile(0.99) / 1000}, nil
}
