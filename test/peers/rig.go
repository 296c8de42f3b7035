// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	hostAddrA = "10.99.0.1"
	hostAddrB = "10.99.0.2"
	wanAddrA  = "198.18.1.2"
	wanAddrB  = "198.18.2.2"
	routerA   = "198.18.1.1"
	routerB   = "198.18.2.1"
	hostMACA  = "02:99:00:00:00:01"
	hostMACB  = "02:99:00:00:00:02"

	linkMTU     = 1500
	upLimit     = 40 * time.Second // from start to the first ping answered
	readyLimit  = 30 * time.Second // for a program to recover after an overload
	iperfLimit  = 20 * time.Second // beyond its own time
	bigTCP      = "4096 131072 67108864"
	carrierWait = 5 * time.Second
)

// wan is what the WAN is like.
type wan struct {
	name     string
	offloads bool          // its links keep their segmentation offloads
	delay    time.Duration // each way
	loss     int           // each so many packets one is lost, each way; 0: none
	rate     string        // tc's words, each way; "": as fast as it goes
	buffer   int           // bytes that wait for rate
	bigTCP   bool          // hosts may have windows up to 64 MB
}

var (
	cleanWAN   = wan{name: "clean"}
	offloadWAN = wan{name: "offload", offloads: true}
	shapedWAN  = wan{name: "shaped", rate: "20mbit", buffer: 1 << 20}
	lineWAN    = wan{name: "line", delay: 10 * time.Millisecond, bigTCP: true}
	lossyWAN   = wan{name: "lossy", delay: 10 * time.Millisecond, loss: 1000, bigTCP: true}
	fatWAN     = wan{name: "fat", delay: 50 * time.Millisecond, rate: "200mbit", buffer: 2_500_000, bigTCP: true}
)

// rig is a set of namespaces with one program in its gateways.
//
//	host-a eth0 -- lan [ gw-a br0 ] wan0 -- [ line ] -- a [ wan ] b -- wan0 [ gw-b br0 ] lan -- eth0 host-b
//
// The line is there on a WAN with a delay only.
type rig struct {
	ctx  context.Context
	peer *peer
	wan  wan
	dir  string // of this rig; logs
	self string // this program

	hostA, gwA, router, line, gwB, hostB string

	namespaces []string
	daemons    []*process
	helpers    []*process
	startMS    float64
	trials     int // of UDP
}

// newRig lays out the namespaces. close takes all down, also after an error.
func newRig(ctx context.Context, p *peer, w wan, dir string, gro bool) (*rig, error) {
	r := &rig{ctx: ctx, peer: p, wan: w, dir: dir}
	var err error
	if r.self, err = os.Executable(); err != nil {
		return r, err
	}
	for _, ns := range []struct {
		name *string
		what string
	}{{&r.hostA, "host-a"}, {&r.gwA, "gw-a"}, {&r.router, "wan"}, {&r.gwB, "gw-b"}, {&r.hostB, "host-b"}, {&r.line, "line"}} {
		// test/lab sweeps what a killed process of this name left behind.
		*ns.name = fmt.Sprintf("l2b-%d-peers-%s", os.Getpid(), ns.what)
	}
	return r, r.layOut(gro)
}

func (r *rig) layOut(gro bool) error {
	for _, ns := range []string{r.hostA, r.gwA, r.router, r.gwB, r.hostB, r.line} {
		if _, err := output(r.ctx, "", "ip", "netns", "add", ns); err != nil {
			return err
		}
		r.namespaces = append(r.namespaces, ns)
		r.ip(ns, "link", "set", "lo", "up")
		r.sysctl(ns, "net/ipv6/conf/all/disable_ipv6", "1")
		r.sysctl(ns, "net/ipv6/conf/default/disable_ipv6", "1")
	}
	mtu := r.peer.mtu
	steps := []error{
		r.veth(r.hostA, "eth0", r.gwA, "lan"),
		r.veth(r.hostB, "eth0", r.gwB, "lan"),
		r.ip(r.hostA, "link", "set", "eth0", "address", hostMACA, "mtu", strconv.Itoa(mtu)),
		r.ip(r.hostB, "link", "set", "eth0", "address", hostMACB, "mtu", strconv.Itoa(mtu)),
	}
	if r.wan.delay > 0 {
		steps = append(steps, r.veth(r.gwA, "wan0", r.line, "near"), r.veth(r.line, "far", r.router, "a"))
	} else {
		steps = append(steps, r.veth(r.gwA, "wan0", r.router, "a"))
	}
	steps = append(steps,
		r.veth(r.gwB, "wan0", r.router, "b"),
		r.ip(r.router, "addr", "add", routerA+"/24", "dev", "a"),
		r.ip(r.router, "addr", "add", routerB+"/24", "dev", "b"),
		r.sysctl(r.router, "net/ipv4/ip_forward", "1"),
		r.ip(r.gwA, "addr", "add", wanAddrA+"/24", "dev", "wan0"),
		r.ip(r.gwB, "addr", "add", wanAddrB+"/24", "dev", "wan0"),
		r.ip(r.gwA, "route", "add", "default", "via", routerA),
		r.ip(r.gwB, "route", "add", "default", "via", routerB),
	)
	for _, gw := range []string{r.gwA, r.gwB} {
		steps = append(steps,
			r.ip(gw, "link", "add", "br0", "type", "bridge"),
			r.ip(gw, "link", "set", "lan", "master", "br0"),
			r.ip(gw, "link", "set", "br0", "up"))
		for _, table := range []string{"iptables", "ip6tables", "arptables"} {
			r.sysctl(gw, "net/bridge/bridge-nf-call-"+table, "0") // not there where br_netfilter is not loaded
		}
	}
	for _, host := range []string{r.hostA, r.hostB} {
		addr := hostAddrA
		if host == r.hostB {
			addr = hostAddrB
		}
		steps = append(steps,
			r.ip(host, "addr", "add", addr+"/24", "dev", "eth0"),
			// A second between ARP requests would be all that start measures.
			r.sysctl(host, "net/ipv4/neigh/eth0/retrans_time_ms", "10"))
		if r.wan.bigTCP {
			steps = append(steps, r.sysctl(host, "net/ipv4/tcp_rmem", bigTCP), r.sysctl(host, "net/ipv4/tcp_wmem", bigTCP))
		}
	}
	if !r.wan.offloads {
		for _, link := range [][2]string{{r.gwA, "wan0"}, {r.router, "a"}, {r.router, "b"}, {r.gwB, "wan0"}, {r.line, "near"}, {r.line, "far"}} {
			if link[0] == r.line && r.wan.delay == 0 {
				continue
			}
			steps = append(steps, r.withoutOffloads(link[0], link[1], gro))
		}
	}
	if err := errors.Join(steps...); err != nil {
		return err
	}
	return r.impair()
}

// impair makes the WAN slow, long and lossy.
func (r *rig) impair() error {
	for _, link := range []string{"a", "b"} {
		if r.wan.rate == "" {
			break
		}
		if _, err := output(r.ctx, r.router, "tc", "qdisc", "add", "dev", link, "root", "tbf",
			"rate", r.wan.rate, "burst", "16kb", "limit", strconv.Itoa(r.wan.buffer)); err != nil {
			return err
		}
	}
	if r.wan.loss > 0 {
		rules := filepath.Join(r.dir, "loss.nft")
		text := fmt.Sprintf("table ip loss {\n chain forward {\n  type filter hook forward priority 0;\n"+
			"  iifname \"a\" numgen inc mod %[1]d 0 counter drop\n  iifname \"b\" numgen inc mod %[1]d 0 counter drop\n }\n}\n", r.wan.loss)
		if err := os.WriteFile(rules, []byte(text), 0o600); err != nil {
			return err
		}
		if _, err := output(r.ctx, r.router, "nft", "-f", rules); err != nil {
			return err
		}
	}
	if r.wan.delay > 0 {
		p, err := r.helper(r.line, "line", r.self, "line", "-delay", r.wan.delay.String(), "near", "far")
		if err != nil {
			return err
		}
		return r.wait(carrierWait, "the delay line", func() error {
			if err := p.running(); err != nil {
				return err
			}
			_, err := output(r.ctx, r.gwA, "ping", "-c", "1", "-W", "1", wanAddrB)
			return err
		})
	}
	return r.wait(carrierWait, "the WAN", func() error {
		_, err := output(r.ctx, r.gwA, "ping", "-c", "1", "-W", "1", wanAddrB)
		return err
	})
}

func (r *rig) ip(ns string, args ...string) error {
	_, err := output(r.ctx, "", "ip", append([]string{"-n", ns}, args...)...)
	return err
}

func (r *rig) veth(nsA, a, nsB, b string) error {
	return errors.Join(
		r.ip(nsA, "link", "add", a, "mtu", strconv.Itoa(linkMTU), "type", "veth", "peer", "name", b, "netns", nsB, "mtu", strconv.Itoa(linkMTU)),
		r.ip(nsA, "link", "set", "dev", a, "up"),
		r.ip(nsB, "link", "set", "dev", b, "up"))
}

// withoutOffloads makes a link one that takes and gives single packets only,
// their checksums still done for it: an ordinary NIC without segmentation.
func (r *rig) withoutOffloads(ns, link string, gro bool) error {
	joins := "off" // as veth is made
	if gro {
		joins = "on"
	}
	args := []string{"-K", link, "tso", "off", "gso", "off", "tx-udp-segmentation", "off", "gro", joins, "lro", "off"}
	if _, err := output(r.ctx, ns, "ethtool", args...); err != nil {
		// lro is not there to be switched on veth; older ethtools say so with an error.
		args = strings.Fields(strings.Replace(strings.Join(args, " "), " lro off", "", 1))
		if _, err := output(r.ctx, ns, "ethtool", args...); err != nil {
			return err
		}
	}
	return nil
}

// sysctl sets a key below /proc/sys in a namespace.
func (r *rig) sysctl(ns, key, value string) error {
	_, err := output(r.ctx, ns, "sysctl", "-q", "-w", key+"="+value)
	return err
}

// daemon starts one of the two programs under measure.
func (r *rig) daemon(ns, name string, args ...string) (*process, error) {
	p, err := start(r.ctx, filepath.Join(r.dir, fmt.Sprintf("%s-%d.log", strings.TrimPrefix(ns, r.prefix()), len(r.daemons))), ns, name, r.peer.env, args...)
	if err == nil {
		r.daemons = append(r.daemons, p)
	}
	return p, err
}

func (r *rig) prefix() string { return fmt.Sprintf("l2b-%d-peers-", os.Getpid()) }

// helper starts a program that is not under measure.
func (r *rig) helper(ns, log, name string, args ...string) (*process, error) {
	p, err := start(r.ctx, filepath.Join(r.dir, log+".log"), ns, name, nil, args...)
	if err == nil {
		r.helpers = append(r.helpers, p)
	}
	return p, err
}

// wait repeats check until it returns nil or the time is up.
func (r *rig) wait(limit time.Duration, what string, check func() error) error {
	deadline := time.Now().Add(limit)
	for {
		err := check()
		if err == nil {
			return nil
		}
		if r.ctx.Err() != nil {
			return context.Cause(r.ctx)
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("waited %v for %s: %w", limit, what, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// up starts the program at both ends and waits for the first ping through it.
func (r *rig) up() error {
	if r.peer.prepare != nil {
		if err := r.peer.prepare(r); err != nil {
			return fmt.Errorf("prepare: %w", err)
		}
	}
	ctx, cancel := context.WithTimeout(r.ctx, upLimit)
	defer cancel()
	pinger := command(ctx, r.hostA, r.self, "ping", "-to", hostAddrB, "-first", "-interval", "10ms", "-timeout", upLimit.String())
	out, err := pinger.StdoutPipe()
	if err != nil {
		return err
	}
	if err := pinger.Start(); err != nil {
		return err
	}
	defer pinger.Wait()
	defer cancel()
	lines := bufio.NewScanner(out)
	if !lines.Scan() { // "ready"
		return errors.New("the pinger did not start")
	}
	began := time.Now()
	if r.peer.start != nil {
		if err := r.peer.start(r); err != nil {
			return fmt.Errorf("start: %w", err)
		}
	}
	// A program that ended will answer no ping.
	var watching sync.WaitGroup
	watching.Go(func() {
		for ctx.Err() == nil && r.alive() == nil {
			time.Sleep(100 * time.Millisecond)
		}
		cancel()
	})
	defer func() {
		cancel()
		watching.Wait()
	}()
	var first struct{ Sent, Received int64 }
	if !lines.Scan() {
		return errors.Join(fmt.Errorf("no ping was answered within %v", time.Since(began).Truncate(time.Second)), r.alive())
	}
	if err := json.Unmarshal(lines.Bytes(), &first); err != nil {
		return err
	}
	r.startMS = float64(first.Received-began.UnixNano()) / 1e6
	// From here on no ARP disturbs, and no overload expires a neighbour. At layer
	// 3 it is the gateways that are the hosts' neighbours.
	if !r.peer.layer3 {
		if err := errors.Join(
			r.ip(r.hostA, "neigh", "replace", hostAddrB, "lladdr", hostMACB, "dev", "eth0", "nud", "permanent"),
			r.ip(r.hostB, "neigh", "replace", hostAddrA, "lladdr", hostMACA, "dev", "eth0", "nud", "permanent"),
		); err != nil {
			return err
		}
	}
	// Full frames must pass before anything is measured.
	if _, err := output(r.ctx, r.hostA, "ping", "-c", "3", "-i", "0.05", "-W", "2", "-M", "do",
		"-s", strconv.Itoa(r.peer.mtu-28), hostAddrB); err != nil {
		return fmt.Errorf("full-size ping: %w; %s", err, r.said())
	}
	if _, err := r.helper(r.hostB, "iperf3", "iperf3", "--server", "--forceflush"); err != nil {
		return err
	}
	return r.listening(r.hostB, 5201)
}

// listening waits until something listens at a TCP port of a namespace.
func (r *rig) listening(ns string, port int) error {
	return r.wait(carrierWait, fmt.Sprintf("TCP port %d", port), func() error {
		text, err := output(r.ctx, ns, "ss", "-Hltn", fmt.Sprintf("sport = :%d", port))
		if err == nil && text == "" {
			err = errors.New("nothing listens")
		}
		return err
	})
}

// ready waits until a ping passes: a program may take a while to recover from
// what it was sent before.
func (r *rig) ready() error {
	return r.wait(readyLimit, "a ping to pass", func() error {
		if err := r.alive(); err != nil {
			return err
		}
		_, err := output(r.ctx, r.hostA, "ping", "-c", "1", "-W", "1", hostAddrB)
		return err
	})
}

// alive returns an error if one of the daemons has ended.
func (r *rig) alive() error {
	for _, p := range r.daemons {
		if err := p.running(); err != nil {
			return err
		}
	}
	return nil
}

func (r *rig) said() string {
	var words []string
	for _, p := range r.daemons {
		words = append(words, p.name+" said: "+p.said())
	}
	return strings.Join(words, "; ")
}

// wanBytes returns what gateway A has sent to and received from the WAN.
func (r *rig) wanBytes() (tx, rx float64, err error) {
	text, err := output(r.ctx, r.gwA, "cat", "/sys/class/net/wan0/statistics/tx_bytes", "/sys/class/net/wan0/statistics/rx_bytes")
	if err != nil {
		return 0, 0, err
	}
	_, err = fmt.Sscan(text, &tx, &rx)
	return tx, rx, err
}

// used adds up the daemons' processor time; memory is the larger one's.
func (r *rig) used() usage {
	var sum usage
	for _, p := range r.daemons {
		u := p.measured()
		sum.cpu += u.cpu
		sum.hwm = max(sum.hwm, u.hwm)
		sum.rss = max(sum.rss, u.rss)
	}
	return sum
}

// close ends all processes in the namespaces and removes these.
func (r *rig) close() error {
	var stopping sync.WaitGroup
	for _, p := range slices.Concat(r.daemons, r.helpers) {
		stopping.Go(p.stop)
	}
	stopping.Wait()
	var errs []error
	for _, ns := range r.namespaces {
		errs = append(errs, removeNamespace(context.Background(), ns))
	}
	return errors.Join(errs...)
}

// removeNamespace ends what still runs in a namespace of ours, which only we
// and our daemons' children can have started, and deletes it.
func removeNamespace(ctx context.Context, ns string) error {
	pids, _ := output(ctx, "", "ip", "netns", "pids", ns)
	for word := range strings.FieldsSeq(pids) {
		if pid, err := strconv.Atoi(word); err == nil {
			syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	_, err := output(ctx, "", "ip", "netns", "delete", ns)
	return err
}
