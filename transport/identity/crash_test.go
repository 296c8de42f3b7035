// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// memory is a directory that keeps apart what is seen and what is on disk: a
// file's content is on disk when it was synced, its name when the directory
// was. It fails at a chosen step, once or, as if the power had gone, for good.
type memory struct {
	seen, onDisk map[string]*inode

	step   int
	failAt int // 0: never
	dead   bool
	crash  bool // the first failure is the last thing that happens
}

type inode struct{ data, synced []byte }

var errInjected = &fs.PathError{Op: "write", Path: "memory", Err: syscall.ENOSPC}

func newMemory() *memory {
	return &memory{seen: map[string]*inode{}, onDisk: map[string]*inode{}}
}

// fails counts a step that changes something, and reports whether it fails.
func (m *memory) fails() bool {
	m.step++
	if m.step == m.failAt {
		m.dead = m.crash
		return true
	}
	return m.dead
}

func (m *memory) read(name string) ([]byte, error) {
	n, ok := m.seen[name]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return bytes.Clone(n.data), nil
}

func (m *memory) create(name string) (file, error) {
	if m.fails() {
		return nil, errInjected
	}
	n := new(inode)
	m.seen[name] = n
	return &memoryFile{m, n}, nil
}

func (m *memory) rename(from, to string) error {
	if m.fails() {
		return errInjected
	}
	m.seen[to] = m.seen[from]
	delete(m.seen, from)
	return nil
}

func (m *memory) remove(name string) error {
	if m.fails() {
		return errInjected
	}
	delete(m.seen, name)
	return nil
}

func (m *memory) sync() error {
	if m.fails() {
		return errInjected
	}
	m.onDisk = maps.Clone(m.seen)
	return nil
}

func (m *memory) close() error { return nil }

type memoryFile struct {
	m *memory
	n *inode
}

// Write stores half of b when it fails, as a disk that runs full does.
func (f *memoryFile) Write(b []byte) (int, error) {
	if f.m.fails() {
		f.n.data = append(f.n.data, b[:len(b)/2]...)
		return len(b) / 2, errInjected
	}
	f.n.data = append(f.n.data, b...)
	return len(b), nil
}

func (f *memoryFile) Sync() error {
	if f.m.fails() {
		return errInjected
	}
	f.n.synced = bytes.Clone(f.n.data)
	return nil
}

func (f *memoryFile) Close() error {
	if f.m.fails() {
		return errInjected
	}
	return nil
}

// restart returns the directory after the power came back. What was not synced
// is gone; names that were not synced have reached the disk all the same when
// namesKept, and only if not so.
func (m *memory) restart(namesKept bool) *memory {
	names := m.onDisk
	if namesKept {
		names = m.seen
	}
	after := newMemory()
	for name, n := range names {
		after.seen[name] = &inode{data: bytes.Clone(n.synced), synced: bytes.Clone(n.synced)}
	}
	after.onDisk = maps.Clone(after.seen)
	return after
}

// copy returns a directory with the same content, all of it on disk.
func (m *memory) copy() *memory {
	after := newMemory()
	for name, n := range m.seen {
		after.seen[name] = &inode{data: bytes.Clone(n.data), synced: bytes.Clone(n.data)}
	}
	after.onDisk = maps.Clone(after.seen)
	return after
}

func (m *memory) dir() *Dir { return &Dir{path: "memory", files: m} }

// everyFault runs op on copies of start, each with a fault one step later,
// until there is none left to hit. After each it hands check the directory as
// the next start finds it.
func everyFault(t *testing.T, start *memory, op func(d *Dir) error, check func(t *testing.T, after *memory)) {
	t.Helper()
	for _, how := range []string{"error", "crash, names lost", "crash, names kept"} {
		for step := 1; ; step++ {
			m := start.copy()
			m.failAt, m.crash = step, how != "error"
			err := op(m.dir())
			if m.step < step {
				if step < 6 {
					t.Fatalf("only %d steps: the faults are not where they should be", m.step)
				}
				wantDurable(t, m, err)
				break
			}
			if !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("%s at step %d: %v, want the fault", how, step, err)
			}
			if err != nil && !strings.Contains(err.Error(), "free some space") {
				t.Errorf("%s at step %d: no remedy in: %v", how, step, err)
			}
			after := m
			if how == "error" {
				after.failAt = 0
			} else {
				after = m.restart(how == "crash, names kept")
			}
			t.Run(fmt.Sprintf("%s at step %d", how, step), func(t *testing.T) { check(t, after) })
		}
	}
}

// wantDurable expects what a call that returned nil has done to outlive a
// crash right after it.
func wantDurable(t *testing.T, m *memory, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("without a fault: %v", err)
	}
	after := m.restart(false)
	for name, want := range m.seen {
		if got := after.seen[name]; got == nil || !bytes.Equal(got.data, want.data) {
			t.Errorf("%s is not on disk", name)
		}
	}
	if len(after.seen) != len(m.seen) {
		t.Errorf("on disk are %d files, %d were seen", len(after.seen), len(m.seen))
	}
}

func TestFoundSurvivesFaults(t *testing.T) {
	t.Parallel()
	found := func(d *Dir) error {
		_, err := d.Found("home")
		return err
	}
	everyFault(t, newMemory(), found, func(t *testing.T, after *memory) {
		d := after.dir()
		m, err := d.Load()
		if errors.Is(err, ErrNotEnrolled) {
			m, err = d.Found("home") // as the user will
		}
		if err != nil || !m.Founder() {
			t.Fatalf("Load, then Found: %v", err)
		}
		if _, err := m.Invite("", minTTL, []string{"192.0.2.1:1"}); err != nil {
			t.Error(err)
		}
		if left := slices.Sorted(maps.Keys(after.seen)); !slices.Equal(left, []string{"ca.key", "membership.json", "site.key"}) {
			t.Errorf("left behind: %q", left)
		}
	})
}

func TestInviteSurvivesFaults(t *testing.T) {
	t.Parallel()
	start := newMemory()
	if _, err := start.dir().Found("home"); err != nil {
		t.Fatal(err)
	}
	invite := func(d *Dir) error {
		m, err := d.Load()
		if err != nil {
			return err
		}
		_, err = m.Invite("", minTTL, []string{"192.0.2.1:1"})
		return err
	}
	everyFault(t, start, invite, func(t *testing.T, after *memory) {
		st, err := after.dir().readStateLocked()
		if err != nil || len(st.Ledger.Tokens) > 1 || len(st.Ledger.Issued) != 1 {
			t.Fatalf("%+v, %v", st, err)
		}
		if err := invite(after.dir()); err != nil {
			t.Error(err)
		}
	})
}

// A token is used exactly when the certificate for it is written.
func TestEnrolSurvivesFaults(t *testing.T) {
	t.Parallel()
	start := newMemory()
	home, err := start.dir().Found("home")
	if err != nil {
		t.Fatal(err)
	}
	tok, err := home.Invite("", maxTTL, []string{"192.0.2.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	joiner := newMemory().dir()
	key, err := joiner.SiteKey()
	if err != nil {
		t.Fatal(err)
	}
	id, err := keyID(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	enrol := func(d *Dir) error {
		m, err := d.Load()
		if err != nil {
			return err
		}
		req, cs, err := Ask(joiner, m, tok, "cabin")
		if err != nil {
			return err
		}
		reply, err := m.Enrol(req, cs, nil)
		if err != nil {
			if _, _, jerr := joiner.Join(tok, "cabin", reply); !errors.Is(jerr, ErrUnavailable) {
				t.Errorf("joiner: %v, want ErrUnavailable", jerr)
			}
		}
		return err
	}
	everyFault(t, start, enrol, func(t *testing.T, after *memory) {
		consistent := func() (members int) {
			st, err := after.dir().readStateLocked()
			if err != nil {
				t.Fatal(err)
			}
			used := st.Ledger.Tokens[0].UsedBy
			if members = len(st.Ledger.Issued); (members == 2) != (used != nil && *used == id) {
				t.Errorf("%d members, token used by %v", members, used)
			}
			return members
		}
		consistent()
		if err := enrol(after.dir()); err != nil {
			t.Error(err)
		}
		if consistent() != 2 {
			t.Error("the joiner is not in the book")
		}
	})
}

// Whom a person lets in is in the book with its certificate, or is not.
func TestApproveSurvivesFaults(t *testing.T) {
	t.Parallel()
	start := newMemory()
	home, err := start.dir().Found("home")
	if err != nil {
		t.Fatal(err)
	}
	key, err := newMemory().dir().SiteKey()
	if err != nil {
		t.Fatal(err)
	}
	p := Handshake(AskTLSConfig(key, "cabin", nil), home.AskedTLSConfig())
	asker, err := ReadAsk([]byte("\x05cabin"), p.Server)
	if err != nil {
		t.Fatal(err)
	}
	approve := func(d *Dir) error {
		m, err := d.Load()
		if err != nil {
			return err
		}
		_, err = m.Approve(asker)
		return err
	}
	everyFault(t, start, approve, func(t *testing.T, after *memory) {
		m, err := after.dir().Load()
		if err != nil {
			t.Fatal(err)
		}
		had, err := m.Consider(asker)
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := m.Approve(asker)
		if err != nil || had != nil && !bytes.Equal(had, leaf) || len(m.Issued(t)) != 2 {
			t.Errorf("approved again: not the same certificate, or %v; issued %v", err, m.Issued(t))
		}
	})
}

func TestJoinSurvivesFaults(t *testing.T) {
	t.Parallel()
	home := MustFound(t, "home")
	tok, err := home.Invite("", maxTTL, []string{"192.0.2.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	join := func(d *Dir) error {
		_, _, err := JoinAt(d, home, tok, "cabin")
		return err
	}
	start := newMemory()
	if _, err := start.dir().SiteKey(); err != nil {
		t.Fatal(err)
	}
	everyFault(t, start, join, func(t *testing.T, after *memory) {
		d := after.dir()
		m, err := d.Load()
		if errors.Is(err, ErrNotEnrolled) {
			err = join(d) // the same key, the same token
			if err == nil {
				m, err = d.Load()
			}
		}
		if err != nil || m.Site != "cabin" {
			t.Errorf("Load, then Join: %v", err)
		}
	})
}

// Whom the founder has put out is out, or is not; never is the list gone.
func TestRevokeSurvivesFaults(t *testing.T) {
	t.Parallel()
	start := newMemory()
	home, err := start.dir().Found("home")
	if err != nil {
		t.Fatal(err)
	}
	for _, site := range []string{"cabin", "attic"} {
		MustJoin(t, home, site)
	}
	if _, err := home.Revoke("attic"); err != nil {
		t.Fatal(err)
	}
	if _, err := home.Invite("cabin", maxTTL, []string{"192.0.2.1:1"}); err != nil {
		t.Fatal(err)
	}
	revoke := func(d *Dir) error {
		m, err := d.Load()
		if err != nil {
			return err
		}
		news, err := m.Revoke("cabin")
		if before := len(m.Revocations().Keys); (before == 2) != (err == nil) || (len(news) == 1) != (err == nil) {
			t.Errorf("%d keys are out, %d by this, with error %v", before, len(news), err)
		}
		return err
	}
	everyFault(t, start, revoke, func(t *testing.T, after *memory) {
		m, err := after.dir().Load()
		if err != nil {
			t.Fatal(err)
		}
		if r := m.Revocations(); int(r.Version) != len(r.Keys) || len(r.Keys) < 1 {
			t.Errorf("version %d with %d keys", r.Version, len(r.Keys))
		}
		if _, err := m.Revoke("cabin"); err != nil || len(m.Revocations().Keys) != 2 {
			t.Errorf("again: %v, %d keys", err, len(m.Revocations().Keys))
		}
		st, err := after.dir().readStateLocked()
		if err != nil || len(slices.DeleteFunc(st.Ledger.Tokens, func(t invited) bool { return t.Site != "cabin" || t.UsedBy != nil })) > 0 {
			t.Errorf("%v, or an invitation for cabin is left", err)
		}
	})
}

// A member that cannot store a list goes by it all the same until it stops.
func TestTakeRevocationsSurvivesFaults(t *testing.T) {
	t.Parallel()
	home := MustFound(t, "home")
	cabin, barn := MustJoin(t, home, "cabin"), MustJoin(t, home, "barn")
	tok, err := home.Invite("", maxTTL, []string{"192.0.2.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	start := newMemory()
	attic, _, err := JoinAt(start.dir(), home, tok, "attic")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := home.Revoke("barn"); err != nil {
		t.Fatal(err)
	}
	if _, err := attic.TakeRevocations(home.Revocations().Bytes()); err != nil {
		t.Fatal(err)
	}
	if _, err := home.Revoke("cabin"); err != nil {
		t.Fatal(err)
	}
	list := home.Revocations().Bytes()
	take := func(d *Dir) error {
		m, err := d.Load()
		if err != nil {
			return err
		}
		news, err := m.TakeRevocations(list)
		if len(news) != 1 || !m.Revoked(cabin.ID) || !m.Revoked(barn.ID) {
			t.Errorf("news %v with error %v", news, err)
		}
		return err
	}
	everyFault(t, start, take, func(t *testing.T, after *memory) {
		m, err := after.dir().Load()
		if err != nil {
			t.Fatal(err)
		}
		if v := m.Revocations().Version; !m.Revoked(barn.ID) || m.Revoked(cabin.ID) != (v == 2) {
			t.Errorf("version %d, barn out: %v, cabin out: %v", v, m.Revoked(barn.ID), m.Revoked(cabin.ID))
		}
		if _, err := m.TakeRevocations(list); err != nil || !m.Revoked(cabin.ID) {
			t.Errorf("again: %v", err)
		}
	})
}

// Whatever happens, leaving can be ended later, and until then nothing passes for
// a site that could join.
func TestLeaveSurvivesFaults(t *testing.T) {
	t.Parallel()
	alone := newMemory()
	if _, err := alone.dir().Found("home"); err != nil {
		t.Fatal(err)
	}
	home := MustFound(t, "home")
	tok, err := home.Invite("", maxTTL, []string{"192.0.2.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	member := newMemory()
	if _, _, err := JoinAt(member.dir(), home, tok, "attic"); err != nil {
		t.Fatal(err)
	}
	leave := func(d *Dir) error {
		err := d.Leave("learned.json")
		if err != nil {
			err = fmt.Errorf("free some space: %w", err) // there is none to free
		}
		return err
	}
	for name, start := range map[string]*memory{"a member": member, "a founder": alone} {
		t.Run(name, func(t *testing.T) {
			everyFault(t, start, leave, func(t *testing.T, after *memory) {
				_, key := after.seen[siteKeyFile]
				_, member := after.seen[stateFile]
				if key && !member {
					t.Error("a key is left, and no membership")
				}
				if err := after.dir().Leave("learned.json"); err != nil {
					t.Error(err)
				}
				if len(after.seen) > 0 {
					t.Errorf("left behind: %q", slices.Sorted(maps.Keys(after.seen)))
				}
			})
		})
	}
}
