// SPDX-License-Identifier: Apache-2.0

//go:build !race

package egress_test

const raceEnabled = false
