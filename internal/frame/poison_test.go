// SPDX-License-Identifier: Apache-2.0

//go:build poison || race

package frame_test

import (
	"bytes"
	"testing"

	"github.com/l2bridge/l2bridge/internal/frame"
)

// Not parallel: the memory may be another test's as soon as it is released.
func TestReleasePoisons(t *testing.T) {
	b := frame.New(make([]byte, 60))
	borrowed := b.Bytes()
	b.Retain()
	b.Release()
	if borrowed[0] != 0 {
		t.Error("poisoned before the last reference went")
	}
	b.Release()
	if want := bytes.Repeat([]byte{0xdb}, 60); !bytes.Equal(borrowed, want) {
		t.Errorf("released frame reads % x", borrowed)
	}
}
