// SPDX-License-Identifier: Apache-2.0

//go:build profile

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/pprof"
	"syscall"

	"github.com/l2bridge/l2bridge/internal/config"
	"github.com/l2bridge/l2bridge/internal/daemon"
)

// ConfineRun lets profiles be written anywhere.
func (daemonEngine) ConfineRun(ctx context.Context, cfg config.Config) error {
	return daemon.ConfineJoin(cfg, func() error { return releaseSignals(ctx) })
}

// With the build tag "profile" (make profile) the time between two SIGUSR2 is
// profiled: $L2BRIDGE_PROFILE.PID.cpu and, at the second one, .PID.heap. A file
// has its name when it is whole.
func init() {
	path := os.Getenv("L2BRIDGE_PROFILE")
	if path == "" {
		return
	}
	path = fmt.Sprintf("%s.%d", path, os.Getpid())
	usr2 := make(chan os.Signal, 1)
	signal.Notify(usr2, syscall.SIGUSR2)
	go func() {
		for range usr2 {
			err := writeProfile(path+".cpu", func(w io.Writer) error {
				if err := pprof.StartCPUProfile(w); err != nil {
					return err
				}
				<-usr2
				pprof.StopCPUProfile()
				return nil
			})
			if err == nil {
				err = writeProfile(path+".heap", func(w io.Writer) error {
					runtime.GC() // the heap profile is as old as the last one
					return pprof.Lookup("heap").WriteTo(w, 0)
				})
			}
			if err != nil {
				fmt.Fprintln(os.Stderr, "l2bridge: profile:", err)
			}
		}
	}()
}

// writeProfile has write fill a file that then gets its name.
func writeProfile(path string, write func(io.Writer) error) error {
	const unfinished = ".part"
	f, err := os.Create(path + unfinished)
	if err != nil {
		return err
	}
	if err := errors.Join(write(f), f.Close()); err != nil {
		return err
	}
	return os.Rename(path+unfinished, path)
}
