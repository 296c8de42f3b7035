// SPDX-License-Identifier: Apache-2.0

package transport

// Rejudge ends the sessions with peers that would be refused now: the certificate
// that they have shown has ended, the CA has revoked it, or is the CA no more. One
// that has announced another that is good stays. Where our own certificate is another
// than before it is announced. It is for networks whose CA is the operator's.
func (m *Mesh) Rejudge() {
	m.mu.Lock()
	member := m.cfg.Member
	m.restateDue = true
	all := make(map[*session]*announcement, len(m.peers))
	for id, p := range m.peers {
		if s := p.session.Load(); s != nil {
			all[s] = m.announcedLocked(id)
		}
	}
	for _, s := range m.sessions { // on their way up, too
		all[s] = m.announcedLocked(s.id)
	}
	m.mu.Unlock()
	m.stir()
	for s, a := range all {
		err := member.Rejudge(s.control.conn.ConnectionState().TLS)
		if err != nil && a != nil {
			if _, _, _, aerr := member.Judge(a.Cert); aerr == nil {
				err = nil
			}
		}
		if err != nil {
			s.end(err)
		}
	}
}
