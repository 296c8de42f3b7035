// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"bytes"
	"crypto/ed25519"
	"crypto/tls"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// What the external tests need of the inside, and a handshake for both kinds.

const (
	MaxTokens     = maxTokens
	MaxReplyAddrs = maxReplyAddrs
)

// SetClock has the clock be another until what is returned is called, or the test ends.
func SetClock(t *testing.T, to func() time.Time) (right func()) {
	before := clock
	clock = to
	right = func() { clock = before }
	t.Cleanup(right)
	return right
}

// RenewOften changes m's key until the founder holds that it has done so often.
func RenewOften(t *testing.T, m, founder *Member) *Member {
	t.Helper()
	for range freeRenewals {
		m = RenewOnce(t, m, founder)
	}
	if _, err := askRenewal(m, founder, m.Site); !errors.Is(err, ErrUnavailable) {
		t.Fatalf("too often: %v, want ErrUnavailable", err)
	}
	return m
}

// RenewOnce changes m's key, and has the founder meet it.
func RenewOnce(t *testing.T, m, founder *Member) *Member {
	t.Helper()
	m = mustRenew(t, m, founder, m.Site)
	mustMeet(t, founder, m)
	return m
}

// Pair is a connection after its handshake, seen from both ends.
type Pair struct {
	Client, Server       tls.ConnectionState
	ClientErr, ServerErr error
}

// Err returns what went wrong at either end.
func (p Pair) Err() error { return errors.Join(p.ClientErr, p.ServerErr) }

// Handshake connects client and server in memory. A byte goes each way after
// the handshake, so that the client hears of a refusal too.
func Handshake(client, server *tls.Config) Pair {
	up, down := newHalf(), newHalf()
	a, b := &pipe{in: down, out: up}, &pipe{in: up, out: down}
	var p Pair
	done := make(chan struct{})
	go func() {
		defer close(done)
		c := tls.Server(b, server)
		p.ServerErr = exchange(c)
		p.Server = c.ConnectionState()
		b.Close()
	}()
	c := tls.Client(a, client)
	p.ClientErr = exchange(c)
	p.Client = c.ConnectionState()
	a.Close()
	<-done
	return p
}

func exchange(c *tls.Conn) error {
	if err := c.Handshake(); err != nil {
		return err
	}
	if _, err := c.Write([]byte{1}); err != nil {
		return err
	}
	_, err := c.Read(make([]byte, 1))
	return err
}

// pipe is one end of a connection in memory. Writing never blocks, unlike on a
// net.Pipe, where two alerts that cross each other would hang.
type pipe struct {
	net.Conn // nil: no deadlines, no addresses
	in, out  *half
}

func (p *pipe) Read(b []byte) (int, error)  { return p.in.read(b) }
func (p *pipe) Write(b []byte) (int, error) { return p.out.write(b) }
func (p *pipe) Close() error                { return p.out.close() }

// half is one direction.
type half struct {
	mu     sync.Mutex
	change *sync.Cond
	buf    bytes.Buffer
	closed bool
}

func newHalf() *half {
	h := new(half)
	h.change = sync.NewCond(&h.mu)
	return h
}

func (h *half) read(b []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for h.buf.Len() == 0 && !h.closed {
		h.change.Wait()
	}
	return h.buf.Read(b) // io.EOF when there is no more
}

func (h *half) write(b []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.change.Broadcast()
	return h.buf.Write(b)
}

func (h *half) close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.change.Broadcast()
	h.closed = true
	return nil
}

// MustFound founds a network in a new directory that is closed with the test.
func MustFound(t testing.TB, site string) *Member {
	t.Helper()
	m, err := MustOpen(t, filepath.Join(t.TempDir(), "state")).Found(site)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// MustOpen opens path until the test ends.
func MustOpen(t testing.TB, path string) *Dir {
	t.Helper()
	d, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// Ask connects d to founder for an enrolment and returns the request and the
// founder's end of the connection.
func Ask(d *Dir, founder *Member, tok Token, site string) ([]byte, tls.ConnectionState, error) {
	key, err := d.SiteKey()
	if err != nil {
		return nil, tls.ConnectionState{}, err
	}
	p := Handshake(JoinTLSConfig(key, site, tok.CA), founder.EnrolTLSConfig())
	if err := p.Err(); err != nil {
		return nil, tls.ConnectionState{}, err
	}
	req, err := NewJoinRequest(tok, site, p.Client)
	return req, p.Server, err
}

// JoinAt goes through a whole enrolment of d at founder.
func JoinAt(d *Dir, founder *Member, tok Token, site string) (*Member, []string, error) {
	req, cs, err := Ask(d, founder, tok, site)
	if err != nil {
		return nil, nil, err
	}
	reply, _ := founder.Enrol(req, cs, []string{"192.0.2.1:4433"})
	return d.Join(tok, site, reply)
}

// MustJoin makes a new directory a member of founder's network.
func MustJoin(t testing.TB, founder *Member, site string) *Member {
	t.Helper()
	tok, err := founder.Invite("", maxTTL, []string{"192.0.2.1:4433"})
	if err != nil {
		t.Fatal(err)
	}
	m, _, err := JoinAt(MustOpen(t, filepath.Join(t.TempDir(), "state")), founder, tok, site)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// WithSecret returns t with the secret b, as one who guesses has it.
func (t Token) WithSecret(b byte) Token {
	t.secret = [16]byte(bytes.Repeat([]byte{b}, 16))
	return t
}

// Secret returns the token's secret.
func (t Token) Secret() []byte { return t.secret[:] }

// EditState changes the state file of m's directory behind its back.
func (m *Member) EditState(t testing.TB, edit func(state map[string]any)) {
	t.Helper()
	path := filepath.Join(m.dir.path, stateFile)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var st map[string]any
	if err := json.Unmarshal(data, &st); err != nil {
		t.Fatal(err)
	}
	edit(st)
	if data, err = json.Marshal(st); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// Dir returns the directory of m.
func (m *Member) Dir() *Dir { return m.dir }

// Issued returns the founder's list as "site key" lines, in order.
func (m *Member) Issued(t testing.TB) []string {
	t.Helper()
	m.dir.mu.Lock()
	defer m.dir.mu.Unlock()
	st, err := m.dir.readStateLocked()
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, c := range st.Ledger.Issued {
		list = append(list, c.Site+" "+c.ID.String())
	}
	return list
}

// AppendRequest and ParseRequest give the codec of a join request.
func AppendRequest(token [8]byte, proof [32]byte, site string) []byte {
	return joinRequest{token: token, proof: proof, site: site}.append(nil)
}

func ParseRequest(b []byte) (token [8]byte, proof [32]byte, site string, err error) {
	q, err := parseJoinRequest(b)
	return q.token, q.proof, q.site, err
}

// AppendReply and ParseReply give the codec of a join reply.
func AppendReply(ca, leaf []byte, addrs []string) []byte {
	return joinReply{ca: ca, leaf: leaf, addrs: addrs}.append(nil)
}

func AppendRefusal(r *Refusal) []byte { return appendRefusal(nil, r) }

func ParseReply(b []byte) (ca, leaf []byte, addrs []string, err error) {
	p, err := parseJoinReply(b)
	return p.ca, p.leaf, p.addrs, err
}

// ParseState checks the state file's parser.
func ParseState(b []byte) error {
	_, err := parseState(b)
	return err
}

// ParseKey checks the key file's parser.
func ParseKey(b []byte) error {
	_, err := parseKey(b)
	return err
}

// SignRevocations and ParseRevocations give the codec of a list of revoked keys,
// of network "net".
func SignRevocations(key ed25519.PrivateKey, r Revocations) []byte {
	r.network = "net"
	if err := r.sign(key); err != nil {
		panic(err)
	}
	return r.signed
}

func ParseRevocations(b []byte, key ed25519.PrivateKey) (*Revocations, error) {
	return parseRevocations(b, key.Public().(ed25519.PublicKey), "net")
}

// ReadAnything reads each content as each of the files.
func ReadAnything(certs, key, list []byte) {
	p := new(papers)
	_ = p.takeIssuers(certs)
	if p.takeLeaf(certs) == nil {
		_ = p.takeKey(key)
		_, _ = p.judge(p.chain(), time.Now())
	}
	_, _ = parsePrivateKey(key)
	_ = p.takeLists(list)
}
