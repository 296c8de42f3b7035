// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/l2bridge/l2bridge/transport/identity"
	"github.com/l2bridge/l2bridge/transport/wire"
)

// Members tell each other of members, so that to name one joins a site to all.
// Each announces itself, signed with its own key: its certificate, its addresses,
// what it takes. An announcement goes to every peer that has not got it; who
// receives one that is newer than the one it has passes it on. When a session
// begins each side says which ones it has (HAVE), so that only what is missing is
// sent.

const (
	// tendPause is how long what has changed is left to gather.
	tendPause = 20 * time.Millisecond

	// linksPause is how often at most a peer is told whom we have sessions with.
	linksPause = 100 * time.Millisecond

	// What was learned is stored soonPause after, and once in learnedPause at most.
	soonPause    = 2 * time.Second
	learnedPause = time.Minute

	// maxNews bounds an announcement that is kept, in bytes.
	maxNews = 8 << 10

	// bumpPause is how often at most we say anew what somebody with our key has
	// said: two machines with one key would not end.
	bumpPause = 10 * time.Second

	// newsPause is how often at most what is new of a member is passed on.
	newsPause = time.Second

	// A peer may say so much at once, of an announcement as many as there can be
	// twice over, and then so many messages a second, in all its sessions. An
	// announcement counts for ten, since to judge one costs time.
	messagesAtOnce = 2 * MaxPeers * memberCost
	messagesEach   = 200
	memberCost     = 10

	// maxBad is how many announcements that are not good a peer may send.
	maxBad = 64

	// mailedAtOnce is how many announcements are taken at once to be sent: a peer
	// that does not read costs the memory of these.
	mailedAtOnce = 16

	// maxSeen bounds the addresses of ours that we know from peers only.
	maxSeen = 4

	// punchPause is how often at most a member asks another for a dial.
	punchPause = 500 * time.Millisecond
)

// announcement is what a member says of itself, as it was signed.
type announcement struct {
	wire.Member
	signed, signature []byte
}

func (a *announcement) message() []byte {
	if a == nil {
		return nil
	}
	return wire.AppendMember(nil, a.signed, a.signature)
}

// short returns the name of a member where many are named.
func short(id identity.ID) wire.ShortID { return wire.ShortID(id[:]) }

// stir has tend look at what has changed.
func (m *Mesh) stir() { poke(m.stirred) }

// tend keeps what the mesh knows of itself together until ctx ends: our own
// announcement, whom peers think we have sessions with, and the ways to members
// by way of others.
func (m *Mesh) tend(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-m.stirred:
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		now := time.Now()
		again := m.restate(now)
		m.reroute()
		m.tellLinks()
		again = min(again, m.passOn(now))
		timer.Reset(again)
		if !sleep(ctx, tendPause) {
			return
		}
	}
}

// restate makes a new announcement of our own when what it says has changed, once a
// second at most, and returns when to look again.
func (m *Mesh) restate(at time.Time) (again time.Duration) {
	const idle = time.Hour
	m.mu.Lock()
	due, wait := m.restateDue && !m.leaving, newsPause-at.Sub(m.restated)
	if due && wait <= 0 {
		m.restateDue, m.restated = false, at
	}
	m.mu.Unlock()
	switch {
	case !due:
		return idle
	case wait > 0:
		return wait
	}
	var addrs []string
	if m.cfg.Addresses != nil {
		addrs = m.cfg.Addresses() // asks the kernel
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	now := wire.Member{
		Version:   m.version,
		Features:  m.lan.features | always,
		MTU:       uint16(m.lan.mtu),
		Cert:      m.cfg.Member.Certificate(),
		Addresses: m.withSeenLocked(addrs),
	}
	if old := m.own; old != nil {
		if old.Version == now.Version && old.Features == now.Features && old.MTU == now.MTU && slices.Equal(old.Addresses, now.Addresses) && bytes.Equal(old.Cert, now.Cert) {
			return idle
		}
		now.Version = max(now.Version, old.Version+1)
	}
	signed, err := now.Signed()
	if err != nil {
		m.cfg.Log.Warn("own addresses not announced", "error", err)
		return idle
	}
	signature, err := m.cfg.Member.Sign(signed)
	if err != nil {
		m.cfg.Log.Warn("own addresses not announced", "error", err)
		return idle
	}
	m.version = now.Version
	m.own = &announcement{now, signed, signature}
	m.tellLocked(m.cfg.Member.ID, nil)
	return idle
}

// withSeenLocked returns our addresses, and those that peers see us at: a NAT
// gives us those. Of more than are announced those count that most peers name, so
// that one who lies does not displace what others see.
func (m *Mesh) withSeenLocked(addrs []string) (all []string) {
	votes := make(map[string]int)
	for _, p := range m.peers {
		if p.sees.IsValid() && !slices.Contains(addrs, p.sees.String()) {
			votes[p.sees.String()]++
		}
	}
	seen := slices.SortedFunc(maps.Keys(votes), func(a, b string) int {
		return cmp.Or(cmp.Compare(votes[b], votes[a]), strings.Compare(a, b))
	})
	seen = seen[:min(len(seen), maxSeen)]
	for _, a := range addrs {
		if wire.ValidAddress(a) && len(all) < wire.MaxAddresses-len(seen) {
			all = append(all, a)
		}
	}
	return append(all, seen...)
}

// tellLocked sends a member's announcement to all peers but one. The member itself
// may be among them: it learns that it said more before its clock was set back.
func (m *Mesh) tellLocked(id identity.ID, but *session) {
	for _, p := range m.peers {
		if s := p.session.Load(); s != nil && s != but {
			s.mail.member(id)
		}
	}
}

// announcedLocked returns what a member says of itself, nil when nothing is
// known.
func (m *Mesh) announcedLocked(id identity.ID) *announcement {
	if id == m.cfg.Member.ID {
		return m.own
	}
	if p := m.peers[id]; p != nil {
		return p.news
	}
	return nil
}

// haveLocked lists the announcements that we have.
func (m *Mesh) haveLocked() (all wire.Have) {
	add := func(id identity.ID, a *announcement) {
		if a != nil {
			all = append(all, wire.Announced{Member: short(id), Version: a.Version})
		}
	}
	add(m.cfg.Member.ID, m.own)
	for id, p := range m.peers {
		add(id, p.news)
	}
	return all
}

// has takes a peer's list of announcements, the first of its session, and leaves
// for it what it has not got.
func (s *session) has(list wire.Have) {
	theirs := make(map[wire.ShortID]uint64, len(list))
	for _, a := range list {
		theirs[a.Member] = a.Version
	}
	m := s.mesh
	m.mu.Lock()
	defer m.mu.Unlock()
	offer := func(id identity.ID, a *announcement) {
		if a == nil {
			return
		}
		if v, ok := theirs[short(id)]; !ok || v < a.Version {
			s.mail.member(id)
		}
	}
	offer(m.cfg.Member.ID, m.own)
	for id, p := range m.peers {
		offer(id, p.news)
	}
}

// hears takes an announcement from a peer. One that is not good has no effect, but
// judging costs time.
func (s *session) hears(body []byte) error {
	err := s.mesh.learn(body, s)
	if err == nil || errors.Is(err, wire.ErrProtocol) {
		return err
	}
	if s.bad++; s.bad > maxBad {
		return fmt.Errorf("%w: more than %d announcements that are not good: %w", wire.ErrProtocol, maxBad, err)
	}
	return nil
}

// learn takes an announcement that came from a peer, or nil from storage. Whom it
// does not know it gets to know; what is news it passes on. One that is not what
// its member signed is an error.
func (m *Mesh) learn(body []byte, from *session) error {
	member, signed, signature, err := wire.ParseMember(body)
	if err != nil {
		return err
	}
	if len(body) > maxNews {
		return fmt.Errorf("announcement of %d bytes, at most %d are kept", len(body), maxNews)
	}
	site, id, key, err := m.cfg.Member.Judge(member.Cert)
	if errors.Is(err, identity.ErrRevoked) || errors.Is(err, identity.ErrOutOfDate) {
		return nil // the peer does not know yet, or has another time
	}
	if err != nil {
		return fmt.Errorf("announcement: %w", err)
	}
	m.mu.Lock()
	known := m.announcedLocked(id)
	m.mu.Unlock()
	if known != nil && known.Version >= member.Version {
		return nil
	}
	if !identity.Verify(key, signed, signature) {
		return fmt.Errorf("announcement of %s is not signed by it", site)
	}
	if id == m.cfg.Member.ID {
		// We said it before our clock was set back.
		m.mu.Lock()
		if now := time.Now(); now.Sub(m.bumped) > bumpPause && member.Version < math.MaxUint64 {
			m.version, m.bumped, m.restateDue = max(m.version, member.Version+1), now, true
		}
		m.mu.Unlock()
		m.stir()
		return nil
	}
	p, err := m.meet(id, site)
	if err != nil {
		return nil // there are too many; nobody is to blame
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if p.news != nil && p.news.Version >= member.Version {
		return nil
	}
	p.news = &announcement{member, signed, signature}
	p.takes.Store(uint32(member.Features))
	p.untold, p.newsFrom = true, from
	m.unstored = true
	poke(m.learned)
	poke(m.arrived)
	p.wake()
	m.stir()
	if member.Version == finalVersion {
		m.group.Go(func() error { m.goes(p); return nil })
	}
	return nil
}

// passOn tells peers what is new of members, of each once a second at most, and
// returns when to look again.
func (m *Mesh) passOn(now time.Time) (again time.Duration) {
	again = time.Hour
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, p := range m.peers {
		if !p.untold {
			continue
		}
		if wait := newsPause - now.Sub(p.toldAt); wait > 0 {
			again = min(again, wait)
			continue
		}
		m.tellLocked(id, p.newsFrom)
		p.untold, p.newsFrom, p.toldAt = false, nil, now
	}
	return again
}

// keepStored stores what is learned until ctx ends, and then what is left. Storing
// may take its time.
func (m *Mesh) keepStored(ctx context.Context) {
	defer m.store()
	for {
		select {
		case <-m.learned:
		case <-ctx.Done():
			return
		}
		if !sleep(ctx, soonPause) {
			return
		}
		m.store()
		if !sleep(ctx, learnedPause) {
			return
		}
	}
}

// store hands what we know of others to whoever keeps it.
func (m *Mesh) store() {
	m.mu.Lock()
	if !m.unstored {
		m.mu.Unlock()
		return
	}
	m.unstored = false
	all := m.newsLocked()
	m.mu.Unlock()
	slices.SortFunc(all, bytes.Compare)
	m.cfg.Learned(all)
}

// newsLocked returns all that others have announced.
func (m *Mesh) newsLocked() (all [][]byte) {
	for _, p := range m.peers {
		if p.news != nil {
			all = append(all, p.news.message()[messageHeader:])
		}
	}
	return all
}

// messageHeader is the length of what stands before a control message's body.
const messageHeader = 3

// linksLocked lists the members that we have a session with: those that answer, and
// those of which we doubt whether they are there.
func (m *Mesh) linksLocked() (links wire.Links, doubts wire.Doubts) {
	for id, p := range m.peers {
		switch {
		case p.answers():
			links = append(links, short(id))
		case p.session.Load() != nil:
			doubts = append(doubts, short(id))
		}
	}
	order := func(a, b wire.ShortID) int { return bytes.Compare(a[:], b[:]) }
	slices.SortFunc(links, order)
	slices.SortFunc(doubts, order)
	return links, doubts
}

// tellLinks tells all peers whom we have sessions with, if that has changed.
func (m *Mesh) tellLinks() {
	m.mu.Lock()
	defer m.mu.Unlock()
	links, doubts := m.linksLocked()
	if slices.Equal(links, m.linksTold) && slices.Equal(doubts, m.doubtsTold) {
		return
	}
	m.linksTold, m.doubtsTold = links, doubts
	for _, p := range m.peers {
		if s := p.session.Load(); s != nil {
			s.mail.put(func(o *mail) { o.links = true })
		}
	}
}

// isLinked takes a peer's list of the members that it has sessions with.
func (s *session) isLinked(list wire.Links) {
	now := make(links, len(list))
	for _, id := range list {
		now[id] = time.Time{}
	}
	if before := s.peer.links.Load(); before != nil {
		for id, until := range *before {
			if until.IsZero() {
				until = time.Now()
			}
			if _, ok := now[id]; !ok && time.Since(until) < silence && s.mesh.byShort(id) != nil {
				now[id] = until
			}
		}
	}
	s.peer.links.Store(&now)
	s.mesh.stir()
}

// isDoubted takes a peer's list of the members that it has sessions with and that do
// not answer it. It is followed by what has one look at it.
func (s *session) isDoubted(list wire.Doubts) { s.peer.doubts.Store(&list) }

// links are the members that a peer says it has sessions with, and, with the time
// when it last did, those of which it has said so a moment ago.
type links map[wire.ShortID]time.Time

// linksTo reports whether the peer says that it has a session with a member.
func (p *Peer) linksTo(id wire.ShortID) bool { return p.linkedTo(id, 0) }

// doubtsOf reports whether the peer says that it has a session with a member, which does
// not answer it.
func (p *Peer) doubtsOf(id wire.ShortID) bool {
	doubts := p.doubts.Load()
	return doubts != nil && slices.Contains(*doubts, id)
}

// linkedTo reports whether it says so, or did so lately.
func (p *Peer) linkedTo(id wire.ShortID, lately time.Duration) bool {
	all := p.links.Load()
	if all == nil {
		return false
	}
	until, ok := (*all)[id]
	return ok && (until.IsZero() || time.Since(until) < lately)
}

// seen takes where a peer sees us.
func (s *session) seen(at netip.AddrPort) {
	m := s.mesh
	m.mu.Lock()
	defer m.mu.Unlock()
	if mayDial(at.Addr()) && s.peer.sees != at {
		s.peer.sees, m.restateDue = at, true
		m.stir()
	}
}

// mayDial reports whether an address that somebody else names may be dialled: on
// this machine and its own links nobody else knows what is where.
func mayDial(a netip.Addr) bool {
	return a.IsGlobalUnicast() && !a.IsLoopback() && !a.IsLinkLocalUnicast()
}

// ask asks a member, by way of those that may reach it, to dial us now: where
// each of two NATs lets in only what answers something, both must begin.
func (m *Mesh) ask(p *Peer) {
	m.mu.Lock()
	defer m.mu.Unlock()
	u := wire.Punch{Destination: short(p.id), Source: short(m.cfg.Member.ID)}
	for _, by := range m.peers {
		if s := by.answering(); s != nil && by.linksTo(u.Destination) {
			s.mail.put(func(o *mail) { o.punch(u) })
		}
	}
}

// punch takes a member's wish to be dialled, which a peer has passed on, or is to
// be passed on by us.
func (s *session) punch(u wire.Punch, now time.Time) {
	m := s.mesh
	to := m.byShort(u.Destination)
	if u.Destination == short(m.cfg.Member.ID) {
		p := m.byShort(u.Source)
		if p == nil || p.answers() || p != s.peer && !s.peer.linksTo(u.Source) {
			return
		}
		m.mu.Lock()
		often := now.Sub(p.punched) < 2*punchPause
		if !often {
			p.punched = now
		}
		m.mu.Unlock()
		if !often {
			p.hurry()
		}
		return
	}
	if to == nil || u.Source != short(s.id) {
		return
	}
	if now.Sub(s.punches[u.Destination]) < punchPause {
		return
	}
	s.punches[u.Destination] = now // of a known member: bounded
	if other := to.session.Load(); other != nil {
		other.mail.put(func(o *mail) { o.punch(u) })
	}
}

// byShort returns the known member of that name, or nil.
func (m *Mesh) byShort(id wire.ShortID) *Peer {
	if all := m.shorts.Load(); all != nil {
		return (*all)[id]
	}
	return nil
}

// mail is what waits to be said on a control lane: the newest of each, so that a
// peer that does not read holds nothing up and costs no memory.
type mail struct {
	ready chan struct{}

	mu      sync.Mutex // guards what follows
	list    bool       // of revoked keys
	have    bool
	links   bool
	seen    bool
	members map[identity.ID]struct{} // whose announcement is to be sent
	punches []wire.Punch
}

// put makes a change to what waits.
func (o *mail) put(change func(*mail)) {
	o.mu.Lock()
	change(o)
	o.mu.Unlock()
	poke(o.ready)
}

// member leaves an announcement to be sent.
func (o *mail) member(id identity.ID) {
	o.put(func(o *mail) {
		if o.members == nil {
			o.members = make(map[identity.ID]struct{})
		}
		o.members[id] = struct{}{}
	})
}

// punch leaves a wish to be passed on; while many wait they are as good as none.
func (o *mail) punch(u wire.Punch) {
	const most = 64
	if len(o.punches) < most && !slices.Contains(o.punches, u) {
		o.punches = append(o.punches, u)
	}
}

// openMail takes all that waits, as messages. LINKS is left for later when the last
// one was sent a moment ago: then it returns when to ask again.
func (s *session) openMail(now time.Time, linksAt *time.Time) (messages [][]byte, again time.Duration) {
	o := &s.mail
	m := s.mesh
	o.mu.Lock()
	list, have, seen, links := o.list, o.have, o.seen, o.links
	punches := o.punches
	o.list, o.have, o.seen, o.punches = false, false, false, nil
	var members []identity.ID
	for id := range o.members {
		if len(members) == mailedAtOnce {
			poke(o.ready) // the rest when these have gone
			break
		}
		members = append(members, id)
		delete(o.members, id)
	}
	if links {
		if again = linksPause - now.Sub(*linksAt); again > 0 {
			links = false
		} else {
			o.links, *linksAt, again = false, now, 0
		}
	}
	o.mu.Unlock()

	m.mu.Lock()
	defer m.mu.Unlock()
	if list {
		messages = s.listLocked()
	}
	if have {
		messages = append(messages, m.haveLocked().Append(nil))
	}
	if links {
		links, doubts := m.linksLocked()
		if s.doubtsTold || len(doubts) > 0 {
			messages = append(messages, doubts.Append(nil))
			s.doubtsTold = len(doubts) > 0
		}
		messages = append(messages, links.Append(nil))
	}
	if seen {
		messages = append(messages, wire.Seen{Addr: s.control.remote()}.Append(nil))
	}
	for _, u := range punches {
		messages = append(messages, u.Append(nil))
	}
	for _, id := range members {
		if message := m.announcedLocked(id).message(); message != nil {
			messages = append(messages, message)
		}
	}
	return messages, again
}
