// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// Where the kernel tells of no changes it is asked again and again, with one line in
// the log.
func TestRoamingNotSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		var log bytes.Buffer
		tries := 0
		keepListening(ctx, slog.New(slog.NewTextHandler(&log, nil)), func() error {
			tries++
			return errors.New("operation not permitted")
		})
		if n := strings.Count(log.String(), "not seen"); n != 1 || tries < 100 {
			t.Errorf("%d lines for %d tries, want one", n, tries)
		}
	})
}
