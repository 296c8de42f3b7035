// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// signals are those that end the program, while a context ends by them.
type signals struct {
	caught  chan os.Signal
	release chan struct{} // closed when nothing more is to be caught
	done    chan struct{} // closed when the context has ended, or will not by a signal
}

// signalsKey is under which a context has its *signals.
type signalsKey struct{}

// untilSignal returns a context that ends with the first SIGINT, SIGTERM or SIGHUP.
// The second one ends the program at once. A SIGHUP that whoever started the program
// has it ignore, as nohup does, stays ignored.
func untilSignal(parent context.Context) context.Context {
	ctx, cancel := context.WithCancel(parent)
	s := &signals{make(chan os.Signal, 1), make(chan struct{}), make(chan struct{})}
	ends := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) {
		ends = append(ends, syscall.SIGHUP)
	}
	signal.Notify(s.caught, ends...)
	go func() {
		defer close(s.done)
		select {
		case <-s.caught:
		case <-s.release:
			select {
			case <-s.caught:
			default:
				return
			}
		}
		cancel()
		signal.Stop(s.caught)
	}()
	return context.WithValue(ctx, signalsKey{}, s)
}

// releaseSignals has each signal end the program by itself from now on, for what
// executes the program again: the context would not live through that. It returns an
// error when one has come before, so that none is lost. It is called once.
func releaseSignals(ctx context.Context) error {
	if s, ok := ctx.Value(signalsKey{}).(*signals); ok {
		signal.Stop(s.caught) // after this what has come is in the channel
		close(s.release)
		<-s.done
	}
	return ctx.Err()
}

// outliveReader has a write to a pipe that nobody reads any more fail, and not end the
// program. To ignore SIGPIPE instead would have hooks do so too.
func outliveReader() { signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) }
