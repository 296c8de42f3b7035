// SPDX-License-Identifier: Apache-2.0

//go:build poison || race

package frame

// poison overwrites released memory, so that a test sees who used a borrowed
// frame for too long.
func poison(p []byte) {
	for i := range p {
		p[i] = 0xdb
	}
}
