// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/l2bridge/l2bridge/internal/config"
	"github.com/l2bridge/l2bridge/internal/control"
	"github.com/l2bridge/l2bridge/transport/identity"
)

// errOwnCA says that the network's CA is not l2bridge's.
var errOwnCA = errors.New("here a CA of your own certifies members (ca_file): have it certify l2bridge://NETWORK/SITE, or revoke, with its own tools")

// refuseOwnCA is what commands that are about the network's CA answer where that is
// the operator's, and nil elsewhere.
func (s *site) refuseOwnCA() error {
	if s.member().External() {
		return fmt.Errorf("%w: %w", control.ErrNotAuthorised, errOwnCA)
	}
	return nil
}

// filesPause is how often the files of a membership are looked at, and whether the
// certificates of peers still hold. A change is taken when two looks have seen it.
const filesPause = 2 * time.Second

// membership returns who this site is: by files that the config names, else by the
// state directory.
func membership(dir *identity.Dir, cfg config.Config) (*identity.Member, error) {
	if cfg.CAFile == "" {
		return dir.Load()
	}
	return dir.LoadFiles(identity.Files{CA: cfg.CAFile, Cert: cfg.CertFile, Key: cfg.KeyFile, CRL: cfg.CRLFile})
}

// SiteName returns the name under which cfg's site runs, or would run: the one that
// was given, else that of its membership. Where there is none it is the host's; so it
// is, with the error, where the membership cannot be read.
func SiteName(cfg config.Config) (string, error) {
	if _, given := cfg.Places["site"]; given {
		return cfg.Site, nil
	}
	var member *identity.Member
	var err error
	if cfg.CAFile == "" {
		member, err = identity.ReadMember(cfg.StateDir)
	} else {
		member, err = membership(new(identity.Dir), cfg)
	}
	switch {
	case errors.Is(err, identity.ErrNotEnrolled):
		return cfg.Site, nil
	case err != nil:
		return cfg.Site, err
	}
	return member.Site, nil
}

// followFiles takes files that have changed, until ctx ends, and ends sessions whose
// certificate has.
func (s *site) followFiles(ctx context.Context) {
	tick := time.NewTicker(filesPause)
	defer tick.Stop()
	var told string
	for {
		switch changed, err := s.member().Reload(); {
		case err != nil:
			s.log.Error("certificate files not taken, those from before stay in force", "error", err)
		case changed:
			s.log.Info("certificate files taken", "until", s.member().Ends())
		}
		var text string
		if err := s.member().Dated(); err != nil {
			text = err.Error()
		}
		if told == "" && text != "" {
			s.log.Error("others refuse this site: its certificate is out of date", "error", text)
		}
		told = text
		s.mesh.Rejudge()
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// certificateHints says that this site's certificate has ended, or will soon.
func certificateHints(m *identity.Member, now time.Time) []string {
	if err := m.Dated(); err != nil {
		return []string{fmt.Sprintf("others refuse this site: its certificate %v", err)}
	}
	if left := m.Ends().Sub(now); !m.Ends().IsZero() && left < soon(m) {
		return []string{fmt.Sprintf("the certificate of this site ends in %v: renew it, with the same key; the new file is taken by itself", left.Round(time.Minute))}
	}
	return nil
}

// soon is how long before its end a certificate should have been renewed: a fifth of
// its life, a week at most.
func soon(m *identity.Member) time.Duration {
	leaf := m.Leaf.Leaf
	return min(leaf.NotAfter.Sub(leaf.NotBefore)/5, 7*24*time.Hour)
}
