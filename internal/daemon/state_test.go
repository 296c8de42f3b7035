// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/l2bridge/l2bridge/internal/config"
	"github.com/l2bridge/l2bridge/transport"
	"github.com/l2bridge/l2bridge/transport/identity"
)

// However much members say of themselves, what is stored of it is read again, and
// keeps nobody from backing the CA key up. What is short stays.
func TestLearnedFits(t *testing.T) {
	dir, err := identity.Open(filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	m, err := dir.Found("home")
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	s := &site{dir: dir, log: log, mesh: transport.New(transport.Config{Member: m, Log: log})}
	var all [][]byte
	const short = 10
	for i := range transport.MaxPeers - 1 {
		n := 8 << 10
		if i%100 == 99 {
			n = 900
		}
		all = append(all, bytes.Repeat([]byte{byte(i)}, n))
	}
	s.keepLearned(all)
	kept := s.loadLearned()
	if len(kept) < 300 {
		t.Fatalf("%d announcements are read again", len(kept))
	}
	for i, a := range kept[:short] {
		if len(a) != 900 {
			t.Errorf("announcement %d has %d bytes: the short ones did not stay", i, len(a))
		}
	}
	s.keepLearned(all[:5])
	if kept := s.loadLearned(); len(kept) != 5 {
		t.Errorf("%d of 5 announcements are read again", len(kept))
	}
	s.keepLearned(all)
	if _, err := ReadCA(dir.Path()); err != nil {
		t.Error(err)
	}
}

// The name of a site whose membership cannot be read is a guess, and said to be one.
func TestSiteName(t *testing.T) {
	cfg := config.Config{Site: "host"}
	cfg.StateDir = filepath.Join(t.TempDir(), "none")
	if name, err := SiteName(cfg); name != "host" || err != nil {
		t.Errorf("no membership: %q, %v", name, err)
	}
	cfg.StateDir = t.TempDir()
	if err := os.WriteFile(filepath.Join(cfg.StateDir, "membership.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if name, err := SiteName(cfg); name != "host" || err == nil {
		t.Errorf("unreadable: %q, %v", name, err)
	}
	cfg.Places = map[string]config.Place{"site": {}}
	if name, err := SiteName(cfg); name != "host" || err != nil {
		t.Errorf("given: %q, %v", name, err)
	}
}
