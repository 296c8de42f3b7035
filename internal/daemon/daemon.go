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

	"golang.org/x/sys/unix"

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
// a member of the token's network already is done, and so is any member when
// text is "". It gives up after timeout.
func Join(ctx context.Context, cfg config.Config, text string, timeout time.Duration, log *slog.Logger) error {
	var token identity.Token
	if text != "" {
		var err error
		if token, err = identity.ParseToken(text); err != nil {
			return err
		}
	}
	dir, err := identity.Open(cfg.StateDir)
	if err != nil {
		return err
	}
	defer dir.Close()
	if text == "" {
		_, err := dir.Load()
		return err
	}
	switch m, err := dir.Load(); {
	case err == nil && m.Network == token.Network:
		return completeJoin(dir, m, token)
	case err == nil:
		return fmt.Errorf("%w: this site is a member of network %s, the token is for %s (use another instance: -n NAME)", ErrOtherNetwork, m.Network, token.Network)
	case !errors.Is(err, identity.ErrNotEnrolled):
		return err
	}
	site, err := joinAs(cfg, token)
	if err != nil {
		return err
	}
	// The peers given by hand come first: whoever gave them knows the way.
	token.Addrs = append(append([]string(nil), cfg.Peers...), token.Addrs...)
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	log.Info("joining", "site", site, "network", token.Network, "addrs", token.Addrs)
	m, addrs, err := transport.Enrol(ctx, func() (net.PacketConn, error) {
		return listen(cfg)
	}, dir, token, site)
	if err != nil {
		return judged(err)
	}
	if err := saveMembers(dir, addrs); err != nil {
		return err
	}
	log.Info("joined", "site", m.Site, "network", m.Network, "id", m.ID)
	return nil
}

// judged makes ErrRefused of an error that says so: not of the founder's own
// trouble, after which the same token may do.
func judged(err error) error {
	var refusal *identity.Refusal
	if errors.As(err, &refusal) && !errors.Is(err, identity.ErrUnavailable) || errors.Is(err, identity.ErrNotMember) {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	return err
}

// completeJoin stores where members are if a join, ended between its two
// writes, has not: with the membership alone this site would dial nobody.
func completeJoin(dir *identity.Dir, m *identity.Member, token identity.Token) error {
	known, err := loadMembers(dir)
	if err != nil || len(known) > 0 || m.Founder() {
		return err
	}
	return saveMembers(dir, token.Addrs)
}

// joinAs returns the name to join under: the one that was given, else the
// token's, else the host's.
func joinAs(cfg config.Config, token identity.Token) (string, error) {
	place, given := cfg.Places["site"]
	switch {
	case token.Site == "" || given && cfg.Site == token.Site:
		return cfg.Site, identity.ValidSite(cfg.Site)
	case given:
		return "", &config.Error{Place: place, Key: "site", Value: cfg.Site,
			Rule: fmt.Sprintf("the token is for site %q (leave the setting out, or ask for a token for %s)", token.Site, cfg.Site)}
	}
	return token.Site, nil
}

// listen opens the tunnel's socket.
func listen(cfg config.Config) (*udpconn.Conn, error) {
	conn, err := udpconn.Listen(cfg.Listen, udpconn.Options{})
	switch {
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return nil, fmt.Errorf("%w (no device of this machine has that address: choose another with --listen, or [::]:%d for all)", err, cfg.Listen.Port())
	case errors.Is(err, unix.EACCES):
		return nil, fmt.Errorf("%w (run as root, or choose a port from 1024 on with --listen)", err)
	}
	return conn, err
}
