// SPDX-License-Identifier: Apache-2.0

//go:build race

package frame_test

const raceEnabled = true
