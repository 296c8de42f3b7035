// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/sha256"
	"log/slog"
	"time"

	"github.com/l2bridge/l2bridge/internal/config"
	"github.com/l2bridge/l2bridge/internal/control"
	"github.com/l2bridge/l2bridge/internal/daemon"
	"github.com/l2bridge/l2bridge/internal/sealed"
)

// engine is what the commands that make or run a network need; its errors are
// those of package daemon.
type engine interface {
	// ConfineJoin and ConfineRun give up the privileges that Join and Run, or Run
	// alone, do not need. They may start the program again, with the same arguments: nothing
	// that is to be kept may be open or half done.
	ConfineJoin(ctx context.Context, cfg config.Config) error
	ConfineRun(ctx context.Context, cfg config.Config) error
	// Init founds a network: keys, CA and this site's certificate. The error
	// is ErrExists, and nothing has changed, where there is one.
	Init(ctx context.Context, cfg config.Config, log *slog.Logger) error
	// Join enrols this site with the token, within timeout, and saves the
	// membership. A member of the token's network is done at once, and so is
	// a member of any network when token is ""; otherwise "" is
	// ErrNotMember. Other errors are ErrOtherNetwork and ErrRefused.
	Join(ctx context.Context, cfg config.Config, token string, timeout time.Duration, log *slog.Logger) error
	// Ask asks cfg's peers to let this site in without a token, and saves the
	// membership when persons at both ends have said so. It gives up when nobody
	// answers within timeout. Errors are ErrRefused, and ErrFiled where nobody is
	// here.
	Ask(ctx context.Context, cfg config.Config, timeout time.Duration, person daemon.Person, log *slog.Logger) error
	// Run runs this site until ctx ends, and then returns nil. The error is
	// ErrNotMember where the site belongs to no network.
	Run(ctx context.Context, cfg config.Config, log *slog.Logger) error
	// SiteName returns the name under which the site runs, or would run, with an error
	// where that is a guess.
	SiteName(cfg config.Config) (string, error)
	// Leave takes away what makes this site a member. No daemon may run, and nobody
	// is told.
	Leave(stateDir string) (control.Left, error)
	// ReadCA reads the network's CA key out of a state directory, DropCA takes it
	// away, and ImportCA brings one there and returns the site's name. The error
	// is ErrNotFounder where there is none. But for ReadCA no daemon may run.
	ReadCA(stateDir string) (daemon.CA, error)
	DropCA(stateDir string, sum [sha256.Size]byte) error
	ImportCA(stateDir string, data []byte, site string) (string, error)
	// Seal and Open are those of package sealed: tests need not take as long.
	Seal(passphrase string, secret []byte) ([]byte, error)
	Open(passphrase string, text []byte) ([]byte, error)
}

// daemonEngine is package daemon itself; tests have another.
type daemonEngine struct{}

func (daemonEngine) ConfineJoin(ctx context.Context, cfg config.Config) error {
	return daemon.ConfineJoin(cfg, func() error { return releaseSignals(ctx) })
}

func (daemonEngine) Init(ctx context.Context, cfg config.Config, log *slog.Logger) error {
	return daemon.Init(ctx, cfg, log)
}

func (daemonEngine) Join(ctx context.Context, cfg config.Config, token string, timeout time.Duration, log *slog.Logger) error {
	return daemon.Join(ctx, cfg, token, timeout, log)
}

func (daemonEngine) Ask(ctx context.Context, cfg config.Config, timeout time.Duration, person daemon.Person, log *slog.Logger) error {
	return daemon.Ask(ctx, cfg, timeout, person, log)
}

func (daemonEngine) Run(ctx context.Context, cfg config.Config, log *slog.Logger) error {
	return daemon.Run(ctx, cfg, log)
}

func (daemonEngine) SiteName(cfg config.Config) (string, error) { return daemon.SiteName(cfg) }

func (daemonEngine) Leave(stateDir string) (control.Left, error) { return daemon.Leave(stateDir) }

func (daemonEngine) ReadCA(stateDir string) (daemon.CA, error) { return daemon.ReadCA(stateDir) }

func (daemonEngine) DropCA(stateDir string, sum [sha256.Size]byte) error {
	return daemon.DropCA(stateDir, sum)
}

func (daemonEngine) ImportCA(stateDir string, data []byte, site string) (string, error) {
	return daemon.ImportCA(stateDir, data, site)
}

func (daemonEngine) Seal(passphrase string, secret []byte) ([]byte, error) {
	return sealed.Seal(passphrase, secret)
}

func (daemonEngine) Open(passphrase string, text []byte) ([]byte, error) {
	return sealed.Open(passphrase, text)
}
