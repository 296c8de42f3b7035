// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import "slices"

// median returns the middle of the values, the mean of two where there are
// two.
func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	v := slices.Sorted(slices.Values(values))
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}
