// SPDX-License-Identifier: Apache-2.0

//go:build poison || race

package frame

// poison overwrites released memory, so that a test sees who used a borrowed
// frame for too long.
func poison(p []byte) {
	p[0] = 0xdb
	for n := 1; n < len(p); n *= 2 { // the race detector makes a byte loop slow
		copy(p[n:], p[:n])
	}
}
