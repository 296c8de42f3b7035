// SPDX-License-Identifier: Apache-2.0

//go:build race

package tap_test

const raceEnabled = true
