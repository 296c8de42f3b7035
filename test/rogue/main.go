// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Command rogue is a member of a network, with a key that is good, which does to
// another member what it likes. What it says on the wire is made by test/wirepeer,
// from docs/wire.md alone; of the product it has the key.
package main

import (
	"context"
	"encoding/hex"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"time"

	"github.com/l2bridge/l2bridge/test/wirepeer"
	"github.com/l2bridge/l2bridge/transport/identity"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "rogue:", err)
		os.Exit(1)
	}
}

// rogue is a member that attacks another.
type rogue struct {
	member  *identity.Member
	socket  *socket
	victim  *net.UDPAddr
	station net.HardwareAddr // of the victim's LAN
	third   wirepeer.Member  // has a session with the victim
	kinds   []string
	lanes   int
	rate    int
	rng     *rand.Rand
	boot    uint64
	noise   [][]byte
	count   int // datagrams made
	macs    uint64
}

func run(args []string) error {
	flags := flag.NewFlagSet("rogue", flag.ContinueOnError)
	var (
		state   = flags.String("state", "", "state `directory` of a member that does not run")
		victim  = flags.String("victim", "", "`address` of the member to attack")
		station = flags.String("station", "02:00:00:00:00:01", "`MAC` of a station behind it")
		third   = flags.String("third", "", "`id` of another member")
		what    = flags.String("what", "noise", "comma-separated `kinds` of attack, in turn: "+strings.Join(kinds(), " "))
		rate    = flags.Int("rate", 20_000, "datagrams a second")
		lanes   = flags.Int("lanes", 1, "data lanes")
		lasts   = flags.Duration("time", 50*time.Second, "how long to go on")
		seed    = flags.Uint64("seed", 1, "of all that is random")
	)
	if err := flags.Parse(args); err != nil {
		return err
	}
	dir, err := identity.Open(*state)
	if err != nil {
		return err
	}
	defer dir.Close()
	r := &rogue{kinds: strings.Split(*what, ","), rate: *rate, lanes: *lanes, rng: rand.New(rand.NewPCG(*seed, 0))}
	r.boot = r.rng.Uint64()
	if r.member, err = dir.Load(); err != nil {
		return err
	}
	if r.victim, err = net.ResolveUDPAddr("udp", *victim); err != nil {
		return err
	}
	if r.station, err = net.ParseMAC(*station); err != nil {
		return err
	}
	id, err := hex.DecodeString(*third)
	if err != nil {
		return err
	}
	copy(r.third[:], id)
	for _, kind := range r.kinds {
		if datagrams[kind] == nil && besides[kind] == nil {
			return fmt.Errorf("no attack %q", kind)
		}
	}
	for _, d := range wirepeer.Generate(r.rng, 50_000) {
		if len(d) <= room {
			r.noise = append(r.noise, d)
		}
	}
	os.Setenv("QUIC_GO_DISABLE_ECN", "true") // it is not to be told to go slower
	if r.socket, err = listen(); err != nil {
		return err
	}
	defer r.socket.close()
	ctx, cancel := context.WithTimeout(context.Background(), *lasts)
	defer cancel()
	fmt.Println("begins")
	sent, refused := 0, 0
	for ctx.Err() == nil {
		s, err := r.begin(ctx)
		if err != nil {
			// Straight back is what it is to be kept from; but that is no flood.
			if refused++; refused < 4 || refused%100 == 0 {
				fmt.Println("refused:", err)
			}
			pause(ctx, 50*time.Millisecond)
			continue
		}
		n, err := s.attack(ctx)
		sent += n
		s.close()
		if ctx.Err() == nil {
			fmt.Println("closed:", err)
		}
	}
	fmt.Printf("ends: %d datagrams sent, %d times refused\n", sent, refused)
	return nil
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
