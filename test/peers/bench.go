// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// bench is one run.
type bench struct {
	o        options
	peers    []*peer
	measures []*measure
	out      io.Writer // the tables
	log      io.Writer // how it goes
	dir      string
	began    time.Time
	report   report
}

func newBench(o options, out, log io.Writer) (*bench, error) {
	b := &bench{o: o, out: out, log: log, began: time.Now()}
	if os.Geteuid() != 0 {
		return nil, errors.New("network namespaces need root")
	}
	for _, name := range o.peers {
		p := findPeer(name)
		p.long = p.long || o.longAll && !p.straight && !p.layer3
		b.peers = append(b.peers, p)
	}
	// In their own order, whatever that of -what, each once.
	for i := range measures {
		if slices.Contains(o.what, measures[i].name) {
			b.measures = append(b.measures, &measures[i])
		}
	}
	return b, nil
}

// run installs the programs, measures them in turns and reports, also when ctx
// ends early.
func (b *bench) run(ctx context.Context) (err error) {
	if _, err := output(ctx, "", b.o.need, "ip:iproute2", "ping:iputils-ping", "iperf3:iperf3", "ethtool:ethtool", "nft:nftables", "ss:iproute2", "sysctl:procps"); err != nil {
		return err
	}
	if err := sweep(ctx); err != nil {
		return err
	}
	if b.dir, err = os.MkdirTemp("", fmt.Sprintf("%s%d-", dirPrefix, os.Getpid())); err != nil {
		return err
	}
	defer func() {
		if b.o.keepLogs {
			b.say("logs are in %s", b.dir)
		} else if removeErr := os.RemoveAll(b.dir); removeErr != nil {
			err = errors.Join(err, removeErr)
		}
	}()
	b.report = newReport(ctx, b)
	for _, p := range b.peers {
		if p.install == nil {
			continue
		}
		version, err := p.install(ctx, b)
		b.report.installed(p, version, err)
		if err != nil {
			b.say("%s: not installed: %v", p.name, err)
		}
	}
	if b.o.hold {
		return b.hold(ctx)
	}
	for _, group := range b.groups() {
		for round := range group.rounds {
			peers := slices.Clone(b.peers)
			if round%2 == 1 { // a drift of the machine then favours nobody
				slices.Reverse(peers)
			}
			for _, p := range peers {
				if ctx.Err() != nil {
					break
				}
				b.visit(ctx, p, group, round)
				if err := b.report.save(b.o); err != nil {
					return err
				}
			}
		}
	}
	b.report.finish(ctx)
	if err := b.report.save(b.o); err != nil {
		return err
	}
	fmt.Fprint(b.out, b.report.markdown())
	if ctx.Err() != nil {
		return errors.New("interrupted; what was measured until then is above")
	}
	return nil
}

const (
	dirPrefix    = "l2b-peers-"
	namespaceDir = "/run/netns" // where ip-netns(8) looks
)

// sweep removes what runs left behind that were killed.
func sweep(ctx context.Context) error {
	dead := func(word string) bool {
		pid, err := strconv.Atoi(word)
		return err == nil && errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
	}
	var errs []error
	namespaces, _ := filepath.Glob(filepath.Join(namespaceDir, "l2b-*-peers-*"))
	for _, path := range namespaces {
		name := filepath.Base(path)
		if dead(strings.Split(name, "-")[1]) {
			errs = append(errs, removeNamespace(ctx, name))
		}
	}
	dirs, _ := filepath.Glob(filepath.Join(os.TempDir(), dirPrefix+"*"))
	for _, dir := range dirs {
		if dead(strings.Split(strings.TrimPrefix(filepath.Base(dir), dirPrefix), "-")[0]) {
			errs = append(errs, os.RemoveAll(dir))
		}
	}
	return errors.Join(errs...)
}

// group is the measures of one WAN: they share a start of the programs.
type group struct {
	wan      wan
	rounds   int
	measures []*measure
}

func (b *bench) groups() []group {
	var groups []group
	for _, m := range b.measures {
		if n := len(groups); n > 0 && groups[n-1].wan.name == m.wan.name {
			groups[n-1].measures = append(groups[n-1].measures, m)
			continue
		}
		rounds := b.o.rounds
		if m.wan.name == lossyWAN.name {
			rounds = b.o.longRounds
		}
		groups = append(groups, group{wan: m.wan, rounds: rounds, measures: []*measure{m}})
	}
	return groups
}

// visit starts a program, takes the measures of a group and stops it.
func (b *bench) visit(ctx context.Context, p *peer, g group, round int) {
	var todo []*measure
	for _, m := range g.measures {
		if (m.only == nil && !p.layer3) || (m.only != nil && m.only(p)) {
			todo = append(todo, m)
		}
	}
	if len(todo) == 0 || b.report.missing(p) {
		return
	}
	dir := filepath.Join(b.dir, fmt.Sprintf("%s-%s-%d", p.name, g.wan.name, round+1))
	fail := func(err error) {
		if ctx.Err() != nil {
			return // it was not the program that failed
		}
		for _, m := range todo {
			b.report.failed(p, m, round, err)
		}
		b.say("%s, %s WAN, round %d: %v", p.name, g.wan.name, round+1, err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		fail(err)
		return
	}
	r, err := newRig(ctx, p, g.wan, dir, b.o.gro)
	defer func() {
		if err := r.close(); err != nil {
			b.say("%s: take down: %v", p.name, err)
		}
	}()
	if err == nil {
		err = r.up()
	}
	if err != nil {
		fail(err)
		return
	}
	for _, m := range todo {
		if ctx.Err() != nil {
			return
		}
		values, err := values(nil), r.ready()
		if err == nil {
			values, err = m.run(ctx, b, r)
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			b.report.failed(p, m, round, err)
			b.say("%s, %s, round %d: failed: %v", p.name, m.name, round+1, err)
			continue
		}
		var words []string
		for _, metric := range m.metrics {
			if value, ok := values[metric.name]; ok {
				b.report.add(p, metric, round, value)
				words = append(words, fmt.Sprintf("%s %.*f %s", metric.name, metric.digits, value, metric.unit))
			}
		}
		b.say("%s, round %d: %s", p.name, round+1, strings.Join(words, ", "))
	}
}

// hold leaves one program up to be looked into.
func (b *bench) hold(ctx context.Context) error {
	p, w := b.peers[0], b.measures[0].wan
	dir := filepath.Join(b.dir, p.name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	r, err := newRig(ctx, p, w, dir, b.o.gro)
	defer func() {
		if err := r.close(); err != nil {
			b.say("take down: %v", err)
		}
	}()
	if err == nil {
		err = r.up()
	}
	if err != nil {
		b.say("%v", err)
	}
	b.say("%s on the %s WAN, logs in %s; ip netns exec %s{host-a,gw-a,wan,gw-b,host-b} ...; Ctrl-C ends it", p.name, w.name, dir, r.prefix())
	<-ctx.Done()
	return nil
}

// commonRate is the rate of TCP at which all programs are pinged.
func (b *bench) commonRate() (float64, error) {
	if b.o.sameRate > 0 {
		return b.o.sameRate, nil
	}
	slowest := 0.0
	for _, p := range b.peers {
		if rate, ok := b.report.median(p, "tcp1"); ok && (slowest == 0 || rate < slowest) {
			slowest = rate
		}
	}
	if slowest == 0 {
		return 0, errors.New("no rate: this takes tcp1 in the same run, or -same-rate")
	}
	return 0.8 * slowest, nil
}

func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(b.log, "%7.1fs %s\n", time.Since(b.began).Seconds(), fmt.Sprintf(format, args...))
}
