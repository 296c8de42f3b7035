// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"net/netip"
	"testing"

	"github.com/l2bridge/l2bridge/internal/config"
)

// An address with a zone is of no use to anybody else, and must not keep a founder
// from inviting by the addresses that it was given.
func TestOwnAddresses(t *testing.T) {
	for listen, want := range map[string]int{
		"192.0.2.1:4433":         1,
		"[2001:db8::1]:4433":     1,
		"[fe80::1%eth0]:4433":    0,
		"[2001:db8::1%lo0]:4433": 0,
	} {
		s := &site{cfg: config.Config{Listen: netip.MustParseAddrPort(listen)}}
		if got := s.ownAddresses(); len(got) != want {
			t.Errorf("listen %s: %v, want %d", listen, got, want)
		}
	}
}
