// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"
)

// What is in a state directory. The keys are made once and then only read;
// membership.json says what they are good for, and that in one file, so that
// every change of it is one rename.
const (
	siteKeyFile = "site.key"        // PKCS #8, PEM: this site's key
	nextKeyFile = "site.key.next"   // the same, while it is being changed
	caKeyFile   = "ca.key"          // PKCS #8, PEM: the network's CA key, at the founder only
	stateFile   = "membership.json" // certificates, and at the founder the ledger
)

var (
	// ErrNotEnrolled says that this site is no member of a network yet.
	ErrNotEnrolled = errors.New("this site is not a member of a network yet")
	// ErrExists says that this site is a member already and nothing changed.
	ErrExists = errors.New("already a member of a network")
)

// Dir is a site's state directory. It is locked against other processes from
// Open to Close. Its methods, and those of the Members it gives out, may be
// called from several goroutines at once; they wait for the disk.
type Dir struct {
	path string

	// mu lets one change at a time read, judge and write; it is held across
	// the disk on purpose. Of two joiners with one token one must lose.
	mu    sync.Mutex
	files files // nil once closed

	// revoked is the list of revoked keys, nil while there is none. It is
	// replaced under mu, and never by an older one.
	revoked atomic.Pointer[Revocations]

	// book is who is in the founder's ledger, and whether it has former keys. It
	// is replaced under mu.
	book atomic.Pointer[map[ID]bool]
}

// Open opens the state directory path and locks it, making it (mode 0700, with
// what is missing above it) when it is not there. It does not wait for the
// lock: the error names the process that holds it. It refuses a path that is a
// symbolic link, belongs to another user or is open to other users' writing.
func Open(path string) (*Dir, error) {
	disk, err := openDisk(path)
	if err != nil {
		return nil, err
	}
	return &Dir{path: disk.path, files: disk}, nil
}

// Close gives the lock back, after a change that is under way. A directory that
// Open made and that is empty still goes with it. From then on
// what needs the directory, at a Member too, returns os.ErrClosed; TLS configs
// made before go on working.
func (d *Dir) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.files == nil {
		return nil
	}
	err := d.files.close()
	d.files = nil
	return err
}

// Path returns where the directory is, for messages to people.
func (d *Dir) Path() string { return d.path }

// Load returns this site's membership as stored. The error is ErrNotEnrolled
// (errors.Is) when there is none.
func (d *Dir) Load() (*Member, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	st, err := d.readStateLocked()
	if err != nil {
		return nil, err
	}
	m, err := d.memberLocked(st)
	if err != nil {
		return nil, err
	}
	// If a change of the key was interrupted. A member comes up without, too.
	_ = d.promoteLocked(m)
	_ = m.settleLocked(st)
	return m, nil
}

// Found makes a new network with this site, named site, as its first member:
// CA key, site key and certificate. It changes nothing and returns ErrExists
// (errors.Is) when this site is a member of a network. After an error it may be
// called again; keys that were made by then are kept.
func (d *Dir) Found(site string) (*Member, error) {
	if err := ValidSite(site); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.vacantLocked(); err != nil {
		return nil, err
	}
	key, err := d.keyLocked(siteKeyFile)
	if err != nil {
		return nil, err
	}
	caKey, err := d.keyLocked(caKeyFile)
	if err != nil {
		return nil, err
	}
	network := newNetwork()
	ca, err := newCA(caKey, network, site)
	if err != nil {
		return nil, err
	}
	l := new(ledger)
	leaf, err := l.issue(ca, caKey, network, site, key.Public())
	if err != nil {
		return nil, err
	}
	return d.saveLocked(&state{CA: ca.Raw, Leaf: leaf, Ledger: l})
}

// SiteKey returns this site's key, and makes it when there is none. It is the
// same ever after, so that a join tried again shows the key that the founder
// may have signed already.
func (d *Dir) SiteKey() (crypto.Signer, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	key, err := d.keyLocked(siteKeyFile)
	if err != nil {
		return nil, err // not key, which would be a nil in an interface that is not
	}
	return key, nil
}

// SiteID returns the name of this site's key. See SiteKey.
func (d *Dir) SiteID() (ID, error) {
	key, err := d.SiteKey()
	if err != nil {
		return ID{}, err
	}
	return keyID(key.Public())
}

// SaveMembership stores what a founder signed: ca and leaf are certificates in
// DER, borrowed. It stores nothing unless leaf is a membership certificate for
// this site's own key, signed by ca. What is stored already is no error; any
// other membership is ErrExists (errors.Is).
func (d *Dir) SaveMembership(ca, leaf []byte) (*Member, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if st, err := d.readStateLocked(); err == nil && bytes.Equal(st.CA, ca) && bytes.Equal(st.Leaf, leaf) {
		return d.memberLocked(st)
	}
	if err := d.vacantLocked(); err != nil {
		return nil, err
	}
	return d.saveLocked(&state{CA: bytes.Clone(ca), Leaf: bytes.Clone(leaf)})
}

// vacantLocked returns nil when no membership is stored, ErrExists when one is.
func (d *Dir) vacantLocked() error {
	st, err := d.readStateLocked()
	if errors.Is(err, ErrNotEnrolled) {
		return nil
	}
	if err != nil {
		return err
	}
	m, err := d.memberLocked(st)
	if err != nil {
		return err
	}
	return fmt.Errorf("state directory %s: site %q is %w, %s (pick another network with -n; to leave this one, stop l2bridge and move the directory away)", d.path, m.Site, ErrExists, m.Network)
}

// saveLocked checks st as Load would, and stores it only then.
func (d *Dir) saveLocked(st *state) (*Member, error) {
	m, err := d.memberLocked(st)
	if err != nil {
		return nil, err
	}
	if err := d.writeStateLocked(st); err != nil {
		return nil, err
	}
	return m, nil
}

// update reads the state, lets change judge and change it, and stores it.
// Nothing is stored when change returns an error. When update returns one of
// its own, the old state or the new is stored.
func (d *Dir) update(change func(*state) error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	st, err := d.readStateLocked()
	if err != nil {
		return err
	}
	if err := change(st); err != nil {
		return err
	}
	return d.writeStateLocked(st)
}

// state is what membership.json holds.
type state struct {
	Schema int     `json:"schema"`
	CA     []byte  `json:"ca"`               // certificate in DER
	Leaf   []byte  `json:"leaf"`             // certificate in DER
	Was    string  `json:"was,omitempty"`    // the site's former name
	Ledger *ledger `json:"ledger,omitempty"` // at the founder only
}

// stateSchema goes up when an older program would misread what is stored.
const stateSchema = 1

// readStateLocked returns what is stored, afresh: no copy in memory can differ
// from it after a write that failed.
func (d *Dir) readStateLocked() (*state, error) {
	if d.files == nil {
		return nil, fmt.Errorf("state directory %s: %w", d.path, os.ErrClosed)
	}
	data, err := d.files.read(stateFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("state directory %s: %w", d.path, ErrNotEnrolled)
	}
	if err != nil {
		return nil, fmt.Errorf("read state: %w", err)
	}
	st, err := parseState(data)
	if err != nil {
		return nil, fmt.Errorf("state directory %s: %s: %w (restore it from a backup)", d.path, stateFile, err)
	}
	return st, nil
}

func parseState(data []byte) (*state, error) {
	// The schema first: a newer file may well have fields unknown here.
	var head struct {
		Schema int `json:"schema"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return nil, err
	}
	if head.Schema != stateSchema {
		return nil, fmt.Errorf("schema %d is not the %d that this version knows", head.Schema, stateSchema)
	}
	st := new(state)
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(st); err != nil {
		return nil, err
	}
	return st, nil
}

func (d *Dir) writeStateLocked(st *state) error {
	st.Schema = stateSchema
	data, err := json.MarshalIndent(st, "", "  ")
	if err != nil {
		return err
	}
	if err := d.replaceLocked(stateFile, append(data, '\n')); err != nil {
		return err
	}
	d.noteLocked(st)
	return nil
}

// noteLocked keeps what is asked of the ledger too often to read it.
func (d *Dir) noteLocked(st *state) {
	if st.Ledger == nil {
		d.book.Store(nil)
		return
	}
	book := make(map[ID]bool, len(st.Ledger.Issued))
	for _, c := range st.Ledger.Issued {
		book[c.ID] = len(c.Was) > 0
	}
	d.book.Store(&book)
}

// keyLocked reads the key in the file name, and makes it when there is none.
// A key that cannot be read is never made anew: it may be all that is left of
// a network.
func (d *Dir) keyLocked(name string) (ed25519.PrivateKey, error) {
	key, err := d.readKeyLocked(name)
	if errors.Is(err, fs.ErrNotExist) {
		return d.makeKeyLocked(name)
	}
	return key, err
}

// readKeyLocked reads the key in the file name. The error is fs.ErrNotExist
// when there is none.
func (d *Dir) readKeyLocked(name string) (ed25519.PrivateKey, error) {
	if d.files == nil {
		return nil, fmt.Errorf("state directory %s: %w", d.path, os.ErrClosed)
	}
	data, err := d.files.read(name)
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	key, err := parseKey(data)
	if err != nil {
		return nil, fmt.Errorf("state directory %s: %s: %w (restore it from a backup)", d.path, name, err)
	}
	return key, nil
}

func (d *Dir) makeKeyLocked(name string) (ed25519.PrivateKey, error) {
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	if err := d.replaceLocked(name, encodeKey(der)); err != nil {
		return nil, err
	}
	return key, nil
}

const keyBlock = "PRIVATE KEY" // RFC 7468, section 10

// encodeKey writes a key, PKCS #8 in DER, as it is on disk.
func encodeKey(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: keyBlock, Bytes: der})
}

func parseKey(data []byte) (ed25519.PrivateKey, error) {
	block, rest := pem.Decode(data)
	if block == nil || block.Type != keyBlock || len(bytes.TrimSpace(rest)) > 0 {
		return nil, errors.New("not one PEM block " + keyBlock)
	}
	return parsePKCS8(block.Bytes)
}

func parsePKCS8(der []byte) (ed25519.PrivateKey, error) {
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, err
	}
	private, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, errors.New("not an Ed25519 key")
	}
	return private, nil
}

func (d *Dir) replaceLocked(name string, data []byte) error {
	if err := replace(d.files, name, data); err != nil {
		return fmt.Errorf("save %s: %w (free some space or make %s writable, then try again)", name, err, d.path)
	}
	return nil
}
