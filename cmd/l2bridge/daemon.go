// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/l2bridge/l2bridge/internal/config"
)

// engine is what the commands that make or run a network need.
type engine interface {
	// Init founds a network: keys, CA and this site's certificate. The error
	// is errExists, and nothing has changed, where there is one.
	Init(ctx context.Context, cfg config.Config, log *slog.Logger) error
	// Join enrols this site with the token, within timeout, and saves the
	// membership. A member of the token's network is done at once, and so is
	// a member of any network when token is ""; otherwise "" is
	// errNotMember. Other errors are errOtherNetwork and errRefused.
	Join(ctx context.Context, cfg config.Config, token string, timeout time.Duration, log *slog.Logger) error
	// Run runs this site until ctx ends, and then returns nil. The error is
	// errNotMember where the site belongs to no network.
	Run(ctx context.Context, cfg config.Config, log *slog.Logger) error
}

var (
	errExists       = errors.New("a network exists")
	errNotMember    = errors.New("no member of a network")
	errOtherNetwork = errors.New("member of another network")
	errRefused      = errors.New("refused")
)

// daemonEngine is the engine of internal/daemon.
type daemonEngine struct{}

var errNoDaemon = errors.New("this build has no data plane")

func (daemonEngine) Init(context.Context, config.Config, *slog.Logger) error { return errNoDaemon }

func (daemonEngine) Join(context.Context, config.Config, string, time.Duration, *slog.Logger) error {
	return errNoDaemon
}

func (daemonEngine) Run(context.Context, config.Config, *slog.Logger) error { return errNoDaemon }
