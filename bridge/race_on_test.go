// SPDX-License-Identifier: Apache-2.0

//go:build race

package bridge_test

const raceEnabled = true
