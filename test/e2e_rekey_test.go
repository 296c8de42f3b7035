// SPDX-License-Identifier: Apache-2.0

//go:build linux

package test_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/l2bridge/l2bridge/test/lab"
)

// idOf returns the key of a site.
func idOf(t *testing.T, site *lab.Site) string {
	t.Helper()
	st, err := site.Status()
	if err != nil {
		t.Fatal(err)
	}
	return st.ID
}

// waitPeer waits until a site has exactly one peer of that name, which is up and
// has the key id, and no other peer beside count of them.
func waitPeer(t *testing.T, at *lab.Site, name, id string, count int) {
	t.Helper()
	lab.Wait(t, meshWait, fmt.Sprintf("site %s has %s with its new key", at.Name, name), func() error {
		peers, err := at.Peers()
		if err != nil {
			return err
		}
		up := 0
		for _, p := range peers {
			if p.Site == name && p.ID == id && p.State == "up" {
				up++
			}
		}
		if up != 1 || len(peers) != count {
			return fmt.Errorf("peers %+v", peers)
		}
		return nil
	})
}

// A site changes its key, and then its name too, and so does the founder, while
// frames pass; what had the former key is let in no more.
func TestRekey(t *testing.T) {
	t.Parallel()
	s, up := mesh(t, 2, lab.Options{Hosts: 1})
	a, b := s.A, s.B
	way := newRow(t, b.Hosts[0], a.Hosts[0])
	state := func() (sent uint32, got int) {
		way.mu.Lock()
		defer way.mu.Unlock()
		return way.sent, way.got.Received
	}
	passes := func() {
		t.Helper()
		_, had := state()
		lab.Wait(t, recvWait, "frames pass", func() error {
			if _, got := state(); got < had+100 {
				return fmt.Errorf("%d, had %d", got, had)
			}
			return nil
		})
	}
	passes()
	stolen := filepath.Join(t.TempDir(), "stolen")
	if out, err := exec.Command("cp", "-a", b.StateDir(), stolen).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	was := idOf(t, b)
	if out, err := b.CLI("fdb", "add", "02:77:00:00:00:01", "a"); err != nil {
		t.Fatal(out, err)
	}
	for _, change := range []struct {
		site  *lab.Site
		name  string
		other *lab.Site
		flags []string
	}{
		{b, "b", a, nil},
		{a, "a", b, nil},
		{b, "chalet", a, []string{"--site", "chalet"}},
	} {
		sent, got := state()
		change.site.MustCLI(append([]string{"rekey"}, change.flags...)...)
		id := idOf(t, change.site)
		waitPeer(t, change.other, change.name, id, 1)
		passes()
		sent2, got2 := state()
		t.Logf("rekey %v at site %s: %v lost", change.flags, change.site.Name, time.Duration(int(sent2-sent)-(got2-got))*flowPause)
	}
	if now := idOf(t, b); now == was {
		t.Error("site b has its former key")
	}
	stations, err := b.Stations()
	if err != nil {
		t.Fatal(err)
	}
	if !hasStatic(stations, "02:77:00:00:00:01", "a") {
		t.Errorf("the static entry is gone: %+v", stations)
	}
	if way.end(); way.got.Duplicates != 0 || way.got.Altered != 0 {
		t.Errorf("%s, want no duplicates and none altered", way)
	}
	if _, err := b.CLI("rekey", "--site", "a"); lab.ExitCode(err) != 4 {
		t.Errorf("a name that is taken: %v, want exit code 4", err)
	}

	// After a restart it is who it was made; its config has the former name.
	up[b].Stop()
	up[b] = b.Up()
	up[b].WaitOutput(meshWait, "site is named as it was before rekey")
	waitPeer(t, a, "chalet", idOf(t, b), 1)

	// A copy of what it was has no way in.
	up[b].Stop()
	thief := b.Start("up", "--state-dir", stolen)
	lab.Wait(t, meshWait, "the founder refuses the former key", func() error {
		if !strings.Contains(up[a].Output(), "membership is revoked") {
			return errors.New("no line of its log says so")
		}
		return nil
	})
	if peers, err := a.Peers(); err != nil || len(peers) != 1 || peers[0].State == "up" {
		t.Errorf("peers %+v, %v", peers, err)
	}
	thief.Stop()
	if _, err := b.CLI("rekey"); lab.ExitCode(err) != 3 {
		t.Errorf("without a daemon: %v, want exit code 3", err)
	}
}

func hasStatic(all []lab.Station, mac, port string) bool {
	for _, s := range all {
		if s.Static && s.MAC == mac && s.Port == port {
			return true
		}
	}
	return false
}

// The founder moves to another site while all run, a new site joins there, and
// when the new founder's machine is lost a backup brings it back on another one.
func TestMoveAndRecoverFounder(t *testing.T) {
	t.Parallel()
	s := lab.Around(t, 3, lab.Options{})
	a, b, c := s.All[0], s.All[1], s.All[2]
	dir := t.TempDir()
	phrase := filepath.Join(dir, "phrase")
	if err := os.WriteFile(phrase, []byte("correct horse battery\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	upA, upB := lab.Link(a, b, bare(), bare())
	if _, err := b.CLI("ca", "export", "--passphrase-file", phrase, filepath.Join(dir, "no.age")); lab.ExitCode(err) != 4 || !strings.Contains(err.Error(), `"a"`) {
		t.Errorf("export at a member: %v, want exit code 4 and the founder", err)
	}

	moved := filepath.Join(dir, "moved.age")
	a.MustCLI("ca", "export", "--move", "--passphrase-file", phrase, moved)
	if info, err := os.Stat(moved); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if text, err := os.ReadFile(moved); err != nil || !strings.HasPrefix(string(text), "-----BEGIN AGE ENCRYPTED FILE-----\n") {
		t.Errorf("%.40q, %v", text, err)
	}
	b.MustCLI("ca", "import", "--passphrase-file", phrase, moved)
	upC := c.Join(b.Invite("c"), bare()...)
	for _, site := range s.All {
		site.WaitUp(2)
	}
	for _, site := range []*lab.Site{a, c} {
		if _, err := site.CLI("invite"); lab.ExitCode(err) != 4 || !strings.Contains(err.Error(), `"b"`) {
			t.Errorf("invite at site %s: %v, want exit code 4 and the new founder", site.Name, err)
		}
	}

	backup := filepath.Join(dir, "backup.age")
	b.MustCLI("ca", "export", "--passphrase-file", phrase, backup)
	lost := idOf(t, b)
	upB.Kill()
	if err := os.RemoveAll(b.StateDir()); err != nil {
		t.Fatal(err)
	}
	b.Move() // another machine, at another address
	b.MustCLI("ca", "import", "--passphrase-file", phrase, backup)
	upB = b.Up(bare()...)
	id := idOf(t, b)
	if id == lost {
		t.Error("the new machine has the lost one's key")
	}
	for _, site := range []*lab.Site{a, c} {
		waitPeer(t, site, "b", id, 2)
	}
	if token := b.Invite("d"); !strings.HasPrefix(token, "l2b1_") {
		t.Errorf("token %q", token)
	}
	for _, p := range []*lab.Process{upA, upB, upC} {
		alive(t, p)
	}
}
