// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lab

import (
	"testing"
	"time"
)

// pollEvery is how often Wait looks. Only how soon success is seen hangs on
// it.
const pollEvery = 20 * time.Millisecond

// Wait calls check until it returns nil, and ends the test with its last error
// when it has not within limit. what completes "timed out waiting until".
func Wait(t testing.TB, limit time.Duration, what string, check func() error) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("timed out after %v waiting until %s; last: %v", limit, what, err)
		}
		time.Sleep(pollEvery)
	}
}
