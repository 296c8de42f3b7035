// SPDX-License-Identifier: Apache-2.0

//go:build !race

package tap_test

// raceEnabled: under the race detector sync.Pool drops at random.
const raceEnabled = false
