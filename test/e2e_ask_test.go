// SPDX-License-Identifier: Apache-2.0

//go:build linux

package test_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/l2bridge/l2bridge/test/lab"
)

// aRequest is a row of "l2bridge pending -j".
type aRequest struct {
	Site     string
	ID       string
	Addr     string
	AgeMS    int64  `json:"age_ms"`
	LeftMS   int64  `json:"left_ms"`
	Phrase   string `json:"phrase"`
	CAPhrase string `json:"ca_phrase"`
}

// pending waits until one site asks to join, and returns its request.
func pending(t *testing.T, at *lab.Site) (r aRequest) {
	t.Helper()
	lab.Wait(t, backWait, "somebody asks to join at "+at.Name, func() error {
		var all []aRequest
		if err := json.Unmarshal([]byte(at.MustCLI("pending", "-j")), &all); err != nil {
			return err
		}
		if len(all) != 1 {
			return fmt.Errorf("%d requests: %+v", len(all), all)
		}
		r = all[0]
		return nil
	})
	return r
}

// shown returns the phrases that an asker has shown.
func shown(t *testing.T, text string) (own, network string) {
	t.Helper()
	m := regexp.MustCompile(`(?s)\n  its key:      ((?:[a-z]+ ){5}[a-z]+)\r?\n  the network:  ((?:[a-z]+ ){5}[a-z]+)\r?\n`).FindStringSubmatch(text)
	if m == nil {
		t.Fatalf("shows no two phrases of six words:\n%s", text)
	}
	return m[1], m[2]
}

// isMember reports whether a membership is stored at a site.
func isMember(site *lab.Site) bool {
	_, err := os.Stat(filepath.Join(filepath.Dir(site.Socket()), "state", "membership.json"))
	return err == nil
}

// exited waits until a process has ended, and expects its exit status.
func exited(t *testing.T, p *lab.Process, code int) {
	t.Helper()
	lab.Wait(t, backWait, "it ends", func() error {
		if p.Running() {
			return errors.New(p.Output())
		}
		return nil
	})
	if got := lab.ExitCode(p.Err()); got != code {
		t.Fatalf("exit code %d, want %d:\n%s", got, code, p.Output())
	}
}

// Sites without a token ask to be let in, and get in by the word of a person at each
// end alone.
func TestAskToJoin(t *testing.T) {
	t.Parallel()
	s := lab.Around(t, 4, lab.Options{})
	a, b, c, d := s.All[0], s.All[1], s.All[2], s.All[3]
	a.Init(bare("--advertise", a.Addr4+":4433")...)
	a.Up()
	ask := func(at *lab.Site, as string, flags ...string) []string {
		return append(bare("join", "--peer", at.Addr4+":4433", "--site", as), flags...)
	}

	// In a terminal: two screens, two words.
	events := monitor(t, a, "-j")
	up, person := b.StartInTerminal(ask(a, "b")...)
	up.WaitOutput(backWait, "yes or no: ")
	r := pending(t, a)
	own, network := shown(t, up.Output())
	if r.Site != "b" || r.Phrase != own || r.CAPhrase != network || !strings.HasPrefix(r.Addr, b.Addr4+":") || r.LeftMS <= 0 {
		t.Errorf("pending %+v, and the asker shows %q and %q", r, own, network)
	}
	waitEvent(t, events, backWait, "b asks", func(e anEvent) bool { return e.Kind == "join" && e.Event == "asks" && e.Site == "b" && e.ID == r.ID })
	if text := a.MustCLI("pending"); !strings.Contains(text, own) || !strings.Contains(text, network) {
		t.Errorf("pending shows:\n%s", text)
	}
	if status, err := a.Status(); err != nil || !strings.Contains(strings.Join(status.Hints, "\n"), "site b at "+r.Addr+" asks to join") {
		t.Errorf("status has no hint of it: %v, %v", status.Hints, err)
	}
	if err := person.Type("perhaps"); err != nil {
		t.Fatal(err)
	}
	a.MustCLI("approve", "b")
	waitEvent(t, events, backWait, "b is approved", func(e anEvent) bool { return e.Kind == "join" && e.Event == "approved" && e.Site == "b" })
	if isMember(b) {
		t.Error("b is a member before the person there has said so")
	}
	if err := person.Type("yes"); err != nil {
		t.Fatal(err)
	}
	up.WaitOutput(backWait, "\nready ")
	a.WaitUp(1)

	// Without a terminal: filed, by way of a member that is not the founder.
	_, err := c.CLI(ask(b, "c")...)
	if lab.ExitCode(err) != 4 || !strings.Contains(err.Error(), `run "l2bridge approve c" there and then this command again`) {
		t.Fatalf("without a terminal: %v", err)
	}
	own, network = shown(t, err.Error())
	if r = pending(t, a); r.Phrase != own || r.CAPhrase != network {
		t.Errorf("pending %+v, and the asker shows %q and %q", r, own, network)
	}
	for _, command := range [][]string{{"pending"}, {"approve", "c"}, {"deny", "c"}} {
		if _, err := b.CLI(command...); lab.ExitCode(err) != 4 || !strings.Contains(err.Error(), `site "a"`) {
			t.Errorf("%v at a member: %v", command, err)
		}
	}
	if _, err := c.CLI(ask(b, "c")...); lab.ExitCode(err) != 4 {
		t.Errorf("again, before it is approved: %v", err)
	}
	a.MustCLI("approve", r.ID[:16])
	c.Start(ask(b, "c")...).WaitOutput(backWait, "\nready ")
	a.WaitUp(2)

	// Denied, while it waits.
	waits := d.Start(ask(a, "d", "--wait")...)
	if r = pending(t, a); r.Site != "d" {
		t.Errorf("pending %+v", r)
	}
	a.MustCLI("deny", "d")
	exited(t, waits, 4)
	if _, err := d.CLI(ask(a, "d")...); lab.ExitCode(err) != 4 || !strings.Contains(err.Error(), "denied") {
		t.Errorf("asked again: %v", err)
	}
	if isMember(d) {
		t.Error("d is a member")
	}
}

// A machine in between has a network of its own, lets the asker into that at once,
// and asks at the founder in its name. Persons who compare see it at both ends; and
// what they approve at the founder all the same lets the asker in nowhere.
func TestAskMachineInBetween(t *testing.T) {
	t.Parallel()
	s := lab.Around(t, 3, lab.Options{})
	home, cabin, evil := s.All[0], s.All[1], s.All[2]
	home.Init(bare()...)
	home.Up()
	evil.Init(bare()...)
	evil.Up()

	asker, person := cabin.StartInTerminal(bare("join", "--peer", evil.Addr4+":4433", "--site", "cabin")...)
	asker.WaitOutput(backWait, "yes or no: ")
	own, network := shown(t, asker.Output())
	double := evil.Instance("double")
	if _, err := double.CLI(bare("join", "--peer", home.Addr4+":4433", "--site", "cabin", "--listen", "[::]:4434")...); lab.ExitCode(err) != 4 {
		t.Fatal(err)
	}
	r := pending(t, home)
	if r.Phrase == own || r.CAPhrase == network {
		t.Errorf("pending %+v, and the asker shows %q and %q", r, own, network)
	}
	evil.MustCLI("approve", "cabin")
	home.MustCLI("approve", "cabin")
	if isMember(cabin) || !asker.Running() {
		t.Fatalf("let in without a word of the person there:\n%s", asker.Output())
	}
	if err := person.Type("no"); err != nil {
		t.Fatal(err)
	}
	exited(t, asker, 4)
	if isMember(cabin) {
		t.Error("the cabin is a member of some network")
	}
	// Nor does another network get it on a later try, without a terminal, when it
	// has shown this one's phrase.
	if _, err := cabin.CLI(bare("join", "--peer", home.Addr4+":4433", "--site", "cabin")...); lab.ExitCode(err) != 4 || !strings.Contains(err.Error(), "of another network than the one that was asked first") {
		t.Errorf("another network than before: %v", err)
	}
	if peers, err := home.Peers(); err != nil || len(peers) != 0 {
		t.Errorf("peers of home: %+v, %v", peers, err)
	}
}
