// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"time"

	"github.com/l2bridge/l2bridge/internal/config"
	"github.com/l2bridge/l2bridge/transport"
	"github.com/l2bridge/l2bridge/transport/identity"
)

// ErrFiled says that a request to join waits at the founder's site for a person
// there, and none is here to say that both phrases are the same.
var ErrFiled = errors.New("approval is awaited")

// Question is what a person compares with the founder's screen.
type Question struct {
	Site     string // this site
	Network  string
	Founder  string // the site to go to
	Addr     string // its address
	Phrase   string // of this site's key
	CAPhrase string // of the network's CA's key
}

// Person is who is at this site while it asks to join.
type Person struct {
	// Show shows the question.
	Show func(Question)
	// Word returns nil when the person says that both phrases are the same at both
	// ends, and an error when they are not. Nil when nobody is here.
	Word func(ctx context.Context, q Question) error
	// Wait has the founder's person alone decide where nobody is here.
	Wait bool
}

// Ask asks the peers of cfg to let this site into their network, and stores its
// membership when a person at each end has said so. It gives up when nobody answers
// within timeout, ErrRefused where it is not let in. Where nobody is here and Wait
// is not set it ends with ErrFiled: to ask again then is this end's word. Once a
// network's phrase was shown no other network is heard, by later calls either.
func Ask(ctx context.Context, cfg config.Config, timeout time.Duration, person Person, log *slog.Logger) error {
	if err := identity.ValidSite(cfg.Site); err != nil {
		return err
	}
	dir, err := identity.Open(cfg.StateDir)
	if err != nil {
		return err
	}
	defer dir.Close()
	key, err := dir.SiteID()
	if err != nil {
		return err
	}
	shown, err := loadAsked(dir)
	if err != nil {
		return err
	}
	var ca *identity.ID
	if shown != (identity.ID{}) {
		ca = &shown
	}
	asking := transport.Asking{
		Dir: dir, Site: cfg.Site, Peers: cfg.Peers, CA: ca, Patience: timeout,
		Listen: func() (net.PacketConn, error) { return listen(cfg) },
		Heed: func(ctx context.Context, to transport.Heard) error {
			q := Question{
				Site: cfg.Site, Network: to.Network, Founder: to.Site, Addr: to.Addr.String(),
				Phrase: key.Phrase(), CAPhrase: to.CA.Phrase(),
			}
			person.Show(q)
			if err := saveAsked(dir, to.CA); err != nil {
				return err
			}
			return person.word(ctx, q, to.Member && ca != nil)
		},
	}
	log.Info("asking to join", "site", cfg.Site, "addrs", cfg.Peers)
	m, addrs, err := asking.Ask(ctx)
	switch {
	case errors.Is(err, transport.ErrElsewhere):
		return fmt.Errorf("%w: %w", ErrRefused, err)
	case errors.Is(err, identity.ErrNotMember) && ca != nil:
		return fmt.Errorf("%w: %w (to ask another network than before: rm %s)", ErrRefused, err, filepath.Join(dir.Path(), askedFile))
	case err != nil:
		return judged(err)
	}
	if err := errors.Join(saveMembers(dir, addrs), saveAsked(dir, identity.ID{})); err != nil {
		return err
	}
	log.Info("joined", "site", m.Site, "network", m.Network, "id", m.ID)
	return nil
}

// word is this end's word that both phrases are the same. again says that they were
// shown before, and that the site was let in since: who runs the same command again
// then has compared them.
func (p Person) word(ctx context.Context, q Question, again bool) error {
	switch {
	case p.Word != nil:
		return p.Word(ctx, q)
	case p.Wait, again:
		return nil
	}
	return fmt.Errorf("%w at site %s, for ten minutes: if both phrases are the same there, run \"l2bridge approve %s\" there and then this command again", ErrFiled, q.Founder, q.Site)
}
