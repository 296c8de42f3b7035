// SPDX-License-Identifier: Apache-2.0

// Package daemon joins the parts of a gateway: it founds and joins networks,
// and runs a site from its TAP to its peers.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/l2bridge/l2bridge/internal/config"
	"github.com/l2bridge/l2bridge/transport"
	"github.com/l2bridge/l2bridge/transport/identity"
	"github.com/l2bridge/l2bridge/transport/udpconn"
)

// What commands tell apart.
var (
	// ErrExists says that there is a network here already; nothing changed.
	ErrExists = identity.ErrExists
	// ErrNotMember says that this site must be enrolled first.
	ErrNotMember = identity.ErrNotEnrolled
	// ErrOtherNetwork says that the site is a member of another network than
	// the token's.
	ErrOtherNetwork = errors.New("member of another network")
	// ErrRefused says that the founder, or a peer, does not let this site in.
	ErrRefused = errors.New("refused")
)

// Init founds a network with this site as its first member.
func Init(_ context.Context, cfg config.Config, log *slog.Logger) error {
	dir, err := identity.Open(cfg.StateDir)
	if err != nil {
		return err
	}
	defer dir.Close()
	m, err := dir.Found(cfg.Site)
	if err != nil {
		return err
	}
	log.Info("network founded", "site", m.Site, "network", m.Network, "id", m.ID)
	return nil
}

// Join enrols this site with a token and stores its membership. A site that is
// a member of the token's network already is left as it is, and so is any
// member when text is "". It gives up after timeout.
func Join(ctx context.Context, cfg config.Config, text string, timeout time.Duration, log *slog.Logger) error {
	dir, err := identity.Open(cfg.StateDir)
	if err != nil {
		return err
	}
	defer dir.Close()
	if text == "" {
		_, err := dir.Load()
		return err
	}
	token, err := identity.ParseToken(text)
	if err != nil {
		return err
	}
	switch m, err := dir.Load(); {
	case err == nil && m.Network == token.Network:
		return nil
	case err == nil:
		return fmt.Errorf("%w: this site is a member of network %s, the token is for %s (use another instance: -n NAME)", ErrOtherNetwork, m.Network, token.Network)
	case !errors.Is(err, identity.ErrNotEnrolled):
		return err
	}
	site := cfg.Site
	if _, given := cfg.Places["site"]; token.Site != "" && !given {
		site = token.Site
	}
	if err := identity.ValidSite(site); err != nil {
		return err
	}
	// The peers given by hand come first: whoever gave them knows the way.
	token.Addrs = append(append([]string(nil), cfg.Peers...), token.Addrs...)
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	log.Info("joining", "site", site, "network", token.Network, "addrs", token.Addrs)
	m, addrs, err := transport.Enrol(ctx, func() (net.PacketConn, error) {
		return udpconn.Listen(cfg.Listen, udpconn.Options{})
	}, dir, token, site)
	if err != nil {
		var refusal *identity.Refusal
		if errors.As(err, &refusal) || errors.Is(err, identity.ErrNotMember) {
			return fmt.Errorf("%w: %w", ErrRefused, err)
		}
		return err
	}
	if err := saveMembers(dir, addrs); err != nil {
		return err
	}
	log.Info("joined", "site", m.Site, "network", m.Network, "id", m.ID)
	return nil
}
