// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"bytes"
	"time"
)

// endedKept is how long a member is remembered whose certificate is not good any
// more, from its last session on: who looks for it sees why it is gone, and when it
// gets another one in time it is dialled at once.
const endedKept = time.Hour

// Rejudge ends the sessions with peers that would be refused now: the certificate
// that they have shown has ended, the CA has revoked it, or is the CA no more. One
// that has announced another that is good stays; of the others none is remembered
// for long. Where our own certificate is another than before it is announced, and shown
// at once to those who refused the former one. It is for networks whose CA is the
// operator's.
func (m *Mesh) Rejudge() {
	m.mu.Lock()
	member := m.cfg.Member
	if m.own != nil && !bytes.Equal(m.own.Cert, member.Certificate()) {
		m.restateDue = true
		m.stir()
		m.tryAgainLocked()
	}
	all := make(map[*session]*announcement, len(m.peers))
	away := make(map[*Peer]*announcement) // without a session
	for id, p := range m.peers {
		if s := p.session.Load(); s != nil {
			all[s] = m.announcedLocked(id)
		} else if p.news != nil && p.isStaleLocked(time.Now()) {
			away[p] = p.news
		}
	}
	for _, s := range m.sessions { // on their way up, too
		all[s] = m.announcedLocked(s.id)
	}
	m.mu.Unlock()
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
	ended := make(map[*Peer]error)
	for p, a := range away {
		if _, _, _, err := member.Judge(a.Cert); err != nil {
			ended[p] = err
		}
	}
	m.forgetEnded(ended, away)
}

// tryAgainLocked has those dialled at once who have refused us.
func (m *Mesh) tryAgainLocked() {
	for _, p := range m.peers {
		if p.refused {
			p.refused, p.backOff = false, time.Time{}
			p.hurry()
		}
	}
	for _, s := range m.seeds {
		poke(s.again)
	}
}

// isStaleLocked reports whether a peer is to be forgotten if its certificate is not
// good any more: one that was named by address is not, since that would not be
// dialled then. One that is relayed is at once.
func (p *Peer) isStaleLocked(now time.Time) bool {
	if p.session.Load() != nil || p.isGivenLocked() {
		return false
	}
	since := p.knownAt
	if l := p.lost.Load(); l != nil {
		since = l.at
	}
	return p.relay.Load() != nil || now.Sub(since) >= endedKept
}

// forgetEnded forgets peers by what they had announced when that was judged.
func (m *Mesh) forgetEnded(ended map[*Peer]error, judged map[*Peer]*announcement) {
	var out []*Peer
	m.mu.Lock()
	for p := range ended {
		if m.peers[p.id] == p && p.news == judged[p] && p.isStaleLocked(time.Now()) {
			out = append(out, p)
		}
	}
	m.dropLocked(out)
	m.mu.Unlock()
	for _, p := range out {
		p.dismiss(ended[p])
	}
	if len(out) > 0 {
		m.stir()
		m.refreshOuter()
	}
}
