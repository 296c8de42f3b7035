// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/l2bridge/l2bridge/transport/identity"
)

// Who has no token may ask to be let in. The request waits here, in memory, until
// a person says yes or no, or its time is over:
//
//	asker                        here                           a person
//	  | -- request ------------> | filed: one a key, one an      |
//	  | <- wait ---------------- | address, 16 in all            |
//	  |                          | -- pending: both phrases ---> | compares them with
//	  |                          |                               | the asker's screen
//	  | <- member, or refused -- | <- approve, or deny --------- |
//
// An asker that has lost its connection asks again: the same key's request is the
// same one. One that was approved meanwhile is a member by the founder's book.

const (
	// maxRequests bounds the requests that wait, each at most requestLife.
	maxRequests = 16
	requestLife = 10 * time.Minute

	// Who was denied is refused for restLife, without a line in the list.
	restLife   = 10 * time.Minute
	maxResting = 64

	// minRef is how many digits of an id name a request at least.
	minRef = 8
)

// Request is a request to join that waits for a person.
type Request struct {
	Site  string // the name that it would have
	ID    identity.ID
	Addr  netip.AddrPort // that asked first
	Since time.Time
	Until time.Time
}

// ErrNoRequest says that no request is the one that was named.
var ErrNoRequest = errors.New("no such request")

// request is one that waits. All but what is said otherwise is set when it is
// filed.
type request struct {
	Request
	asker identity.Asker
	from  netip.Prefix
	conn  *quic.Conn // where the answer is awaited, the newest; guarded by requests.mu

	decided chan struct{}   // closed when answer is set
	answer  identity.Answer // what became of it
}

// requests are those that wait, oldest first, and who was denied of late.
type requests struct {
	lines   pace    // of the log, about requests that are filed
	refused notices // and about those that are not

	// deciding is held while a person's word is carried out, the disk included:
	// of yes and no at once, one counts.
	deciding sync.Mutex

	mu      sync.Mutex // guards what follows
	waiting []*request
	resting []resting
	shown   []Request // what a person has seen last
}

func newRequests() *requests {
	return &requests{lines: pace{burst: 8, rate: 8.0 / 60}}
}

// resting is who was denied.
type resting struct {
	id    identity.ID
	from  netip.Prefix
	until time.Time
}

// file has an asker's request wait, on conn for an answer, and reports whether it
// is news. The error is a *identity.Refusal when it may not wait.
func (q *requests) file(asker identity.Asker, addr net.Addr, conn *quic.Conn) (r *request, news bool, err error) {
	q.mu.Lock()
	r, old, news, err := q.fileLocked(asker, addr, conn)
	q.mu.Unlock()
	if old != nil {
		closeFor(old, errReplaced)
	}
	return r, news, err
}

// fileLocked returns also the connection that conn is in place of, to be closed.
func (q *requests) fileLocked(asker identity.Asker, addr net.Addr, conn *quic.Conn) (r *request, old *quic.Conn, news bool, err error) {
	now, from := time.Now(), network(addr)
	q.pruneLocked(now)
	if slices.ContainsFunc(q.resting, func(d resting) bool { return d.id == asker.ID || d.from == from }) {
		return nil, nil, false, identity.ErrAskDenied
	}
	if slices.ContainsFunc(q.waiting, func(r *request) bool { return r.ID != asker.ID && r.from == from }) {
		return nil, nil, false, fmt.Errorf("%w: one from %s waits already", identity.ErrAskBusy, from)
	}
	if i := slices.IndexFunc(q.waiting, func(r *request) bool { return r.ID == asker.ID }); i >= 0 {
		r, old = q.waiting[i], q.waiting[i].conn
		if r.Site == asker.Site {
			r.conn = conn
			return r, old, false, nil
		}
		// Another name is another request: what a person saw of the old one
		// says nothing of this.
		q.waiting = slices.Delete(q.waiting, i, i+1)
	}
	if len(q.waiting) >= maxRequests {
		return nil, old, false, identity.ErrAskBusy
	}
	r = &request{
		Request: Request{Site: asker.Site, ID: asker.ID, Addr: addrPort(addr), Since: now, Until: now.Add(requestLife)},
		asker:   asker, from: from, conn: conn, decided: make(chan struct{}),
	}
	q.waiting = append(q.waiting, r)
	return r, old, true, nil
}

// pruneLocked forgets what is over.
func (q *requests) pruneLocked(now time.Time) {
	q.waiting = slices.DeleteFunc(q.waiting, func(r *request) bool {
		if now.Before(r.Until) {
			return false
		}
		r.decideLocked(refusing(identity.ErrAskEnded))
		return true
	})
	q.resting = slices.DeleteFunc(q.resting, func(d resting) bool { return !now.Before(d.until) })
}

// end answers requests whose time is over, so that nobody awaits them for longer.
func (q *requests) end() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.pruneLocked(time.Now())
}

// decideLocked gives the request its answer.
func (r *request) decideLocked(a identity.Answer) {
	r.answer = a
	close(r.decided)
}

// list returns what waits, as a person is going to see it.
func (q *requests) list() []Request {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.pruneLocked(time.Now())
	all := make([]Request, 0, len(q.waiting))
	for _, r := range q.waiting {
		all = append(all, r.Request)
	}
	return all
}

// show is list, and remembers what was shown: a person's word is about that.
func (q *requests) show() []Request {
	all := q.list()
	q.mu.Lock()
	q.shown = all
	q.mu.Unlock()
	return all
}

// find returns the one request that ref names: its site, or the first digits of
// its id. Whoever asks under another's name, or under the digits of its id, makes
// that ambiguous at most; all 64 digits are longer than any name.
func (q *requests) find(ref string) (*request, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.pruneLocked(time.Now())
	var found []*request
	for _, r := range q.waiting {
		if r.Site == ref || len(ref) >= minRef && strings.HasPrefix(r.ID.String(), ref) {
			found = append(found, r)
		}
	}
	switch len(found) {
	case 0:
		return nil, fmt.Errorf("%w: nobody asks to join as %q (l2bridge pending shows who does)", ErrNoRequest, identity.Clean(ref))
	case 1:
		return found[0], nil
	}
	slices.SortFunc(found, func(a, b *request) int { return cmp.Compare(a.ID.String(), b.ID.String()) })
	var ids []string
	for _, r := range found {
		ids = append(ids, r.ID.String())
	}
	return nil, fmt.Errorf("%w: %d requests are %q; say which by its id, or the first digits of it: %s", ErrNoRequest, len(found), ref, strings.Join(ids, " "))
}

// unseenLocked reports whether a request has come in place of another one that a
// person has seen under its name or key.
func (q *requests) unseenLocked(r *request) bool {
	same := func(s Request) bool { return s.ID == r.ID && s.Site == r.Site }
	like := func(s Request) bool { return s.ID == r.ID || s.Site == r.Site }
	return slices.ContainsFunc(q.shown, like) && !slices.ContainsFunc(q.shown, same)
}

// settle takes a request from the list with its answer, unless its time was over.
func (q *requests) settle(r *request, a identity.Answer) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if i := slices.Index(q.waiting, r); i >= 0 {
		q.waiting = slices.Delete(q.waiting, i, i+1)
		r.decideLocked(a)
	}
}

// rest keeps who was denied from asking at once again.
func (q *requests) rest(r *request) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.resting) == maxResting {
		q.resting = slices.Delete(q.resting, 0, 1)
	}
	q.resting = append(q.resting, resting{r.ID, r.from, time.Now().Add(restLife)})
}

// Requests returns the requests to join that wait for a person, oldest first, to be
// shown to one. The error is identity.ErrNotFounder (errors.Is) at a site that
// cannot let anybody in, and names the one that can.
func (m *Mesh) Requests() ([]Request, error) {
	if err := m.self().MayEnrol(); err != nil {
		return nil, err
	}
	return m.requests.show(), nil
}

// Asking returns how many requests to join wait for a person, and the oldest.
func (m *Mesh) Asking() (n int, oldest Request) {
	all := m.requests.list()
	if len(all) > 0 {
		oldest = all[0]
	}
	return len(all), oldest
}

// Approve lets the asker of a request in: a person has compared the phrases. ref is
// its site, or the first digits of its id. It is a member when Approve returns, and
// stored as one, whether it hears of it now or when it asks again. Errors are
// ErrNoRequest, and those of Requests and of identity.Member.Approve.
func (m *Mesh) Approve(ref string) (Request, error) {
	q := m.requests
	q.deciding.Lock()
	defer q.deciding.Unlock()
	r, err := m.findRequest(ref)
	if err != nil {
		return Request{}, err
	}
	q.mu.Lock()
	unseen := q.unseenLocked(r)
	q.mu.Unlock()
	if unseen {
		return Request{}, fmt.Errorf("%w: the one of %q is another now than l2bridge pending has shown (look again, and compare its phrase)", ErrNoRequest, r.Site)
	}
	leaf, err := m.self().Approve(r.asker)
	if err != nil {
		return Request{}, err
	}
	q.settle(r, m.welcome(leaf))
	m.cfg.Log.Info("request to join approved", "site", r.Site, "id", r.ID, "addr", r.Addr)
	m.event(r.event(EventApproved))
	return r.Request, nil
}

// Deny refuses the asker of a request, and for a while whatever else comes from its
// key or its address. Errors are as those of Approve.
func (m *Mesh) Deny(ref string) (Request, error) {
	q := m.requests
	q.deciding.Lock()
	defer q.deciding.Unlock()
	r, err := m.findRequest(ref)
	if err != nil {
		return Request{}, err
	}
	q.rest(r)
	q.settle(r, refusing(identity.ErrAskDenied))
	m.cfg.Log.Info("request to join denied", "site", r.Site, "id", r.ID, "addr", r.Addr)
	m.event(r.event(EventDenied))
	return r.Request, nil
}

func (m *Mesh) findRequest(ref string) (*request, error) {
	if err := m.self().MayEnrol(); err != nil {
		return nil, err
	}
	return m.requests.find(ref)
}

// self returns who this site is, which may change while it runs.
func (m *Mesh) self() *identity.Member {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.cfg.Member
}

// welcome is the answer to who is a member.
func (m *Mesh) welcome(leaf []byte) identity.Answer {
	a := identity.Answer{Kind: identity.AnswerMember, CA: m.self().CA.Raw, Leaf: leaf}
	if m.cfg.Addresses != nil {
		a.Addrs = m.cfg.Addresses()
	}
	return a
}

// refusing is the answer to who does not become one.
func refusing(why *identity.Refusal) identity.Answer {
	return identity.Answer{Kind: identity.AnswerRefused, Refusal: why}
}

func (r *request) event(kind EventKind) Event {
	return Event{Kind: kind, Site: r.Site, ID: r.ID, Addr: r.Addr}
}
