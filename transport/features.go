// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"github.com/l2bridge/l2bridge/transport/identity"
	"github.com/l2bridge/l2bridge/transport/wire"
)

// Features returns which frames beside plain ones each connected peer takes.
func (m *Mesh) Features() map[identity.ID]wire.Features {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := make(map[identity.ID]wire.Features)
	for id, p := range m.peers {
		if s := p.session.Load(); s != nil {
			all[id] = s.control.hello.Features & superframes
		}
	}
	return all
}
