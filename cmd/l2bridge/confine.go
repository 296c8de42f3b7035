// SPDX-License-Identifier: Apache-2.0

//go:build !profile

package main

import (
	"context"

	"github.com/l2bridge/l2bridge/internal/config"
	"github.com/l2bridge/l2bridge/internal/daemon"
)

func (daemonEngine) ConfineRun(ctx context.Context, cfg config.Config) error {
	return daemon.ConfineRun(cfg, func() error { return releaseSignals(ctx) })
}
