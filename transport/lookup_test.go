// SPDX-License-Identifier: Apache-2.0

package transport_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/l2bridge/l2bridge/transport"
)

// No address waits for a name that is looked up, and of what is known the order stays.
func TestLookedUp(t *testing.T) {
	lookup := func(ctx context.Context, host string) ([]netip.Addr, error) {
		after, answers := map[string]time.Duration{"fast": 100 * time.Millisecond, "slow": time.Second, "never": time.Hour}[host], map[string][]netip.Addr{
			"fast": {netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("192.0.2.1")},
			"slow": {netip.MustParseAddr("203.0.113.2")},
		}[host]
		select {
		case <-time.After(after):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if answers == nil {
			return nil, errors.New("there is no such name")
		}
		return answers, nil
	}
	for name, tt := range map[string]struct {
		addresses []string
		most      int // how many are asked for
		want      []string
		takes     time.Duration
		trouble   string
	}{
		"none":             {nil, 9, nil, 0, ""},
		"in order":         {[]string{"192.0.2.2:1", "192.0.2.1:1", "[2001:db8::1]:1"}, 9, []string{"0s 192.0.2.2:1", "150ms 192.0.2.1:1", "300ms [2001:db8::1]:1"}, 450 * time.Millisecond, ""},
		"a name first":     {[]string{"fast:1", "192.0.2.1:1"}, 9, []string{"0s 192.0.2.1:1", "150ms 203.0.113.1:1"}, 300 * time.Millisecond, ""},
		"as soon as known": {[]string{"slow:1", "fast:1", "192.0.2.9:1", "192.0.2.8:1"}, 9, []string{"0s 192.0.2.9:1", "150ms 203.0.113.1:1", "300ms 192.0.2.1:1", "450ms 192.0.2.8:1", "1s 203.0.113.2:1"}, 1150 * time.Millisecond, ""},
		"no such name":     {[]string{"nowhere:1", "fast:1"}, 9, []string{"100ms 203.0.113.1:1", "250ms 192.0.2.1:1"}, 400 * time.Millisecond, `peer "nowhere:1": there is no such name`},
		"names never end":  {[]string{"never:1", "192.0.2.1:1"}, 9, []string{"0s 192.0.2.1:1"}, 5 * time.Second, `peer "never:1": `},
		"one is enough":    {[]string{"never:1", "192.0.2.1:1"}, 1, []string{"0s 192.0.2.1:1"}, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				var trouble error
				var got []string
				for a := range transport.LookedUp(t.Context(), lookup, tt.addresses, &trouble) {
					got = append(got, fmt.Sprint(time.Since(began), " ", a))
					if len(got) == tt.most {
						break
					}
					time.Sleep(150 * time.Millisecond) // the lead of one over the next
				}
				if diff := cmp.Diff(tt.want, got); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
				if took := time.Since(began); took != tt.takes {
					t.Errorf("took %v, want %v", took, tt.takes)
				}
				if text := fmt.Sprint(trouble); trouble != nil && (tt.trouble == "" || !strings.HasPrefix(text, tt.trouble)) || trouble == nil && tt.trouble != "" {
					t.Errorf("trouble %v, want %s", trouble, tt.trouble)
				}
			})
		})
	}
}
