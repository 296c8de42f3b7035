// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/l2bridge/l2bridge/internal/daemon"
)

// person returns who is at this screen while the site asks to join: somebody, if
// there is a terminal to read from and to write to.
func (a *app) person(wait bool) daemon.Person {
	p := daemon.Person{Show: a.showQuestion, Wait: wait}
	if isTerminal(os.Stdin) && isTerminal(a.stderr) {
		p.Word = askWord
	}
	return p
}

// showQuestion shows what to compare.
func (a *app) showQuestion(q daemon.Question) {
	fmt.Fprintf(a.stderr, "site %s asks to join network %s at site %s (%s)\n", clean(q.Site), clean(q.Network), clean(q.Founder), clean(q.Addr))
	printPhrases(a.stderr, q.Phrase, q.CAPhrase)
	fmt.Fprintf(a.stderr, `Run "l2bridge pending" at site %s. Both lines must be there, word for word.
Both are: "l2bridge approve %s" there. One is not: "l2bridge deny %[2]s" there,
and do not go on here; another machine is in between.
`, clean(q.Founder), clean(q.Site))
}

// askWord asks the person at this process's terminal whether both phrases are the
// same.
func askWord(ctx context.Context, q daemon.Question) error {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return fmt.Errorf("%w: no terminal to ask at whether both phrases are the same: %w", daemon.ErrFiled, err)
	}
	defer tty.Close()
	defer context.AfterFunc(ctx, func() { tty.SetReadDeadline(time.Unix(1, 0)) })()
	line := make([]byte, 4096) // as much as a terminal keeps of one
	for {
		fmt.Fprint(tty, "Are both the same there? yes or no: ")
		n, err := tty.Read(line)
		switch {
		case ctx.Err() != nil:
			fmt.Fprintln(tty)
			return ctx.Err()
		case err != nil:
			return fmt.Errorf("%w: the terminal was closed before anybody had compared the phrases", daemon.ErrFiled)
		}
		switch strings.ToLower(strings.TrimSpace(string(line[:n]))) {
		case "yes":
			fmt.Fprintf(tty, "waiting for \"l2bridge approve %s\" at site %s\n", clean(q.Site), clean(q.Founder))
			return nil
		case "no":
			return fmt.Errorf("%w: the phrases are not the same, so nothing was joined (deny the request at site %s: l2bridge deny %s)", daemon.ErrRefused, q.Founder, q.Site)
		}
	}
}
