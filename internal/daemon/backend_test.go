// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"testing"
	"time"

	"github.com/l2bridge/l2bridge/internal/control"
	"github.com/l2bridge/l2bridge/transport"
)

func TestJudgePeers(t *testing.T) {
	now := time.Now()
	site := func(state string) transport.Status { return transport.Status{Site: "a", State: state, Since: now} }
	long := func(state string) transport.Status {
		return transport.Status{Site: "a", State: state, Since: now.Add(-25 * time.Hour)}
	}
	address := transport.Status{Site: "192.0.2.9:4433", Unknown: true, State: "connecting", Since: now}
	for name, tt := range map[string]struct {
		peers []transport.Status
		want  control.State
	}{
		"alone":                      {nil, control.StateConnecting},
		"up":                         {[]transport.Status{site("up"), site("relayed")}, control.StateUp},
		"one down":                   {[]transport.Status{site("up"), site("down")}, control.StateDegraded},
		"one not met":                {[]transport.Status{site("up"), site("connecting")}, control.StateDegraded},
		"one suspect":                {[]transport.Status{site("suspect")}, control.StateDegraded},
		"all down":                   {[]transport.Status{site("down"), site("connecting")}, control.StateDown},
		"one down for a day":         {[]transport.Status{site("up"), long("down")}, control.StateUp},
		"an address":                 {[]transport.Status{address}, control.StateConnecting},
		"an old address of a site":   {[]transport.Status{site("up"), address}, control.StateUp},
		"an old address, and a down": {[]transport.Status{site("down"), address}, control.StateDown},
	} {
		if got := judgePeers(tt.peers, now); got != tt.want {
			t.Errorf("%s: %s, want %s", name, got, tt.want)
		}
	}
}
