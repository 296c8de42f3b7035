// SPDX-License-Identifier: Apache-2.0

package tap_test

import (
	"testing"

	"github.com/l2bridge/l2bridge/internal/tap"
)

func TestAddress(t *testing.T) {
	t.Parallel()
	a := tap.Address([]byte("network"), []byte("site"))
	if a[0] != 0xfe || len(a) != 6 {
		t.Errorf("Address = %s, want 6 bytes that begin with fe:", a)
	}
	if b := tap.Address([]byte("network"), []byte("site")); b.String() != a.String() {
		t.Errorf("the same seeds gave %s and %s", a, b)
	}
	if b := tap.Address([]byte("networks"), []byte("ite")); b.String() == a.String() {
		t.Errorf("two divisions of the same bytes both gave %s", a)
	}
	// Sites know each other by it: it must not change between versions.
	if got, want := tap.Address().String(), "fe:e3:b0:c4:42:98"; got != want {
		t.Errorf("Address() = %s, want %s", got, want)
	}
}
