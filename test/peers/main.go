// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Command peers measures l2bridge beside other programs that join LANs, all in
// one run and interleaved, in network namespaces of its own:
//
//	host A -- br0 [ gateway A ] -- WAN router -- [ gateway B ] br0 -- host B
//
// make bench-peers builds and runs it as root:
//
//	make bench-peers                                    # all of it, some two hours
//	make bench-peers PEERS=l2bridge,softether WHAT=tcp1,ping ROUNDS=1 TIME=3
//	make bench-peers L2BRIDGE=old/l2bridge              # another build than bin/l2bridge
//	make bench-peers PEERS=l2bridge,l2bridge-b L2BRIDGE=old L2BRIDGE_B=new \
//		L2BRIDGE_FLAGS="--lanes 1" L2BRIDGE_B_FLAGS="--lanes 4" L2BRIDGE_B_ENV="GOGC=200"
//	make bench-peers WHAT=lossy,fat BENCHFLAGS="-long-time 20s -long-rounds 2 -fat-time 20s"
//
// For each WAN and round, each program is started in namespaces of its own,
// measured and stopped; every second round goes through the programs backwards.
// What a measure does stands at its function in measure.go, how a program is set
// up in peer_NAME.go, and what is asked of l2bridge in target.go.
//
// With a tool's name as its first argument it is one of the tools that it starts
// inside namespaces: ping, udp-send, udp-receive and line.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// options is what a run is asked for.
type options struct {
	peers      []string
	what       []string
	rounds     int
	time       time.Duration // of one TCP measure on the clean WAN
	udpTime    time.Duration
	longRounds int
	longTime   time.Duration // of one TCP measure on the long WANs
	fatTime    time.Duration
	longAll    bool
	pings      int
	sameRate   float64
	gro        bool
	need       string
	json       string
	markdown   string
	cache      string
	goTool     string
	keepLogs   bool
	hold       bool
}

// tools are what the harness runs inside namespaces.
var tools = map[string]func(ctx context.Context, args []string, stdin io.Reader, stdout io.Writer) error{
	"ping":        pingTool,
	"udp-send":    udpSendTool,
	"udp-receive": udpReceiveTool,
	"line":        lineTool,
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "peers:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) > 0 {
		if tool := tools[args[0]]; tool != nil {
			return tool(ctx, args[1:], os.Stdin, os.Stdout)
		}
	}
	o, err := parse(args)
	if err != nil {
		return err
	}
	b, err := newBench(o, os.Stdout, os.Stderr)
	if err != nil {
		return err
	}
	return b.run(ctx)
}

func parse(args []string) (options, error) {
	o := options{time: 10 * time.Second}
	var peers, what string
	f := flag.NewFlagSet("peers", flag.ContinueOnError)
	f.StringVar(&peers, "peers", "all", "programs, by comma: "+strings.Join(peerNames(), ", "))
	f.StringVar(&what, "what", "all", "measures, by comma: "+strings.Join(measureNames(), ", "))
	f.IntVar(&o.rounds, "rounds", 3, "rounds over all programs")
	f.Func("time", "of one TCP measure, 10s", func(text string) (err error) {
		if _, err := strconv.Atoi(text); err == nil {
			text += "s"
		}
		o.time, err = time.ParseDuration(text)
		return err
	})
	f.DurationVar(&o.udpTime, "udp-time", 5*time.Second, "for which a UDP rate must hold")
	f.IntVar(&o.longRounds, "long-rounds", 5, "rounds of the measures on the lossy WAN")
	f.DurationVar(&o.longTime, "long-time", 60*time.Second, "of one TCP measure on the lossy WAN")
	f.DurationVar(&o.fatTime, "fat-time", 60*time.Second, "of one TCP measure on the long fat WAN")
	f.BoolVar(&o.longAll, "long-all", false, "take the measures on the long WANs of every program, not of l2bridge and VXLAN only")
	f.IntVar(&o.pings, "pings", 500, "of one measure, 5 ms apart")
	f.Float64Var(&o.sameRate, "same-rate", 0, "Mbit/s of TCP in samerate; 0: 80 % of the slowest tcp1 of this run")
	f.BoolVar(&o.gro, "wan-gro", false, "generic receive offload on the WAN's links")
	f.StringVar(&o.need, "need", "test/need.sh", "script that installs Debian packages")
	f.StringVar(&o.json, "json", "dist/bench-peers.json", "where results go")
	f.StringVar(&o.markdown, "markdown", "dist/bench-peers.md", "where the tables go")
	f.StringVar(&o.cache, "cache", "dist/peers.cache", "where programs are kept that were downloaded or built")
	f.StringVar(&o.goTool, "go", "go", "the go command")
	f.BoolVar(&o.hold, "hold", false, "lay out the first program on the WAN of the first measure, and leave it up until Ctrl-C")
	f.BoolVar(&o.keepLogs, "keep-logs", false, "leave what the programs said in the temporary directory")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	var err error
	if o.peers, err = pick("peer", peers, peerNames(), isPeer); err != nil {
		return o, err
	}
	if o.what, err = pick("measure", what, measureNames(), func(name string) bool { return findMeasure(name) != nil }); err != nil {
		return o, err
	}
	if o.rounds < 1 || o.longRounds < 1 || o.pings < 1 || o.time < time.Second || o.udpTime < time.Second {
		return o, fmt.Errorf("rounds and pings are 1 at least, times 1s")
	}
	return o, nil
}

// pick returns the names in a list by comma, which "all" stands for.
func pick(kind, list string, all []string, known func(string) bool) ([]string, error) {
	if list == "all" || list == "" {
		return all, nil
	}
	var names []string
	for name := range strings.SplitSeq(list, ",") {
		name = strings.TrimSpace(name)
		if name == "" {
			continue
		}
		if aliases[name] != nil && kind == "measure" {
			names = append(names, aliases[name]...)
			continue
		}
		if !known(name) {
			return nil, fmt.Errorf("%s %q: not one of %s", kind, name, strings.Join(all, ", "))
		}
		names = append(names, name)
	}
	return names, nil
}
