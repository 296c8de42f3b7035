// SPDX-License-Identifier: Apache-2.0

//go:build race

package guard_test

const raceEnabled = true
