// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Files are where a membership is that a CA of the operator's own has certified.
// Symbolic links are followed: tools that renew certificates put them there.
type Files struct {
	CA   string // certificates of those who may certify members, PEM
	Cert string // this site's certificate, with what is between it and the CA, PEM
	Key  string // its key, PEM
	CRL  string // what the CA has revoked, PEM or DER; "" for nothing
}

// own is the membership of a Member whose certificate comes from Files.
type own struct {
	files Files
	now   atomic.Pointer[papers]

	mu     sync.Mutex // guards what follows
	judged stamps     // the files when they were read last
	seen   stamps     // and when they were looked at last
}

// LoadFiles returns the membership that is in files, and leaves the one in the
// state directory alone. Other than with a CA of l2bridge's dates count, by the clock
// of this machine. Whether the certificate is within them is not asked here: a
// better one may come. See [Member.Reload].
func (d *Dir) LoadFiles(files Files) (*Member, error) {
	o := &own{files: files}
	o.judged = stampsOf(files)
	p, err := readPapers(files)
	if err != nil {
		return nil, err
	}
	o.now.Store(p)
	return &Member{
		Site: p.site, ID: p.id, Network: p.network,
		CA: p.issuers[0], Leaf: p.leaf,
		own: o, dir: d,
	}, nil
}

// External reports whether the CA is one of the operator's own, which neither
// invites nor revokes.
func (m *Member) External() bool { return m.own != nil }

// Ends returns until when this site's certificate holds; the zero time when it
// does for ever.
func (m *Member) Ends() time.Time {
	if m.own == nil {
		return time.Time{}
	}
	return m.own.now.Load().leaf.Leaf.NotAfter
}

// Dated returns an error when this site's certificate does not hold at present, by
// the clock of this machine: others refuse it.
func (m *Member) Dated() error {
	if m.own == nil {
		return nil
	}
	return dated(m.own.now.Load().leaf.Leaf, clock())
}

// Reload looks at the files, and reports whether others have come into force. A
// file that is still being written is left for the next time. With an error, which
// comes once for each change, those from before stay in force.
func (m *Member) Reload() (changed bool, err error) {
	o := m.own
	if o == nil {
		return false, nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	at := stampsOf(o.files)
	if at.equal(&o.judged) {
		return false, nil
	}
	if !at.equal(&o.seen) {
		o.seen = at
		return false, nil
	}
	o.judged = at
	p, err := readPapers(o.files)
	if err != nil {
		return false, err
	}
	switch {
	case p.id != m.ID:
		return false, fmt.Errorf("key file %s: another key, and so another member (start l2bridge again to be it, or renew with the same key)", o.files.Key)
	case p.site != m.Site || p.network != m.Network:
		return false, fmt.Errorf("certificate file %s: it is of site %q of network %q, this is %q of %q (start l2bridge again to be it)", o.files.Cert, p.site, p.network, m.Site, m.Network)
	}
	o.now.Store(p)
	return true, nil
}

// stamps tell whether one of the files has changed.
type stamps [4]fs.FileInfo // nil of one that is not there

func stampsOf(f Files) (s stamps) {
	for i, path := range []string{f.CA, f.Cert, f.Key, f.CRL} {
		if path != "" {
			s[i], _ = os.Stat(path) // what is wrong with it shows when it is read
		}
	}
	return s
}

func (s *stamps) equal(t *stamps) bool {
	return slices.EqualFunc(s[:], t[:], func(a, b fs.FileInfo) bool {
		if a == nil || b == nil {
			return a == b
		}
		return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
	})
}

// readPapers reads the files. What one of them breaks is said with its name.
func readPapers(f Files) (*papers, error) {
	p := new(papers)
	for _, step := range []struct {
		what, path string
		take       func([]byte) error
	}{
		{"CA file", f.CA, p.takeIssuers},
		{"certificate file", f.Cert, p.takeLeaf},
		{"key file", f.Key, p.takeKey},
		{"CRL file", f.CRL, p.takeLists},
	} {
		if step.path == "" {
			continue
		}
		data, err := readFile(step.path, step.path == f.Key)
		if err == nil {
			err = step.take(data)
		}
		if err != nil {
			return nil, fmt.Errorf("%s %s: %w", step.what, step.path, err)
		}
	}
	// Out of date it may be for now, but not another's.
	_, err := p.judge(p.chain(), clock())
	if err != nil && !errors.Is(err, ErrOutOfDate) && !errors.Is(err, ErrRevoked) {
		return nil, fmt.Errorf("certificate file %s: %w", f.Cert, err)
	}
	return p, nil
}

// readFile reads a file that an operator has named, following links. A secret one
// must be its reader's alone.
func readFile(path string, secret bool) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|nonBlock, 0) // opening a FIFO must not hang
	if err != nil {
		var detail *fs.PathError
		if errors.As(err, &detail) {
			err = detail.Err // the path is said by the caller
		}
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	if secret {
		if err := checkSecret(info); err != nil {
			return nil, err
		}
	}
	data, err := io.ReadAll(io.LimitReader(f, MaxFile+1))
	if err == nil && len(data) > MaxFile {
		err = fmt.Errorf("more than %d bytes", MaxFile)
	}
	return data, err
}

// pemBlocks returns all blocks of a type; text around them is for people.
func pemBlocks(data []byte, typ string) (all [][]byte) {
	for {
		block, rest := pem.Decode(data)
		if block == nil {
			return all
		}
		if block.Type == typ {
			all = append(all, block.Bytes)
		}
		data = rest
	}
}

// parseCertificates reads one certificate or more.
func parseCertificates(data []byte) (all []*x509.Certificate, err error) {
	for _, der := range pemBlocks(data, "CERTIFICATE") {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	if len(all) == 0 {
		return nil, errors.New("no certificate in it (want PEM, with the line -----BEGIN CERTIFICATE-----)")
	}
	if len(all) > maxCertificates {
		return nil, fmt.Errorf("%d certificates (want %d at most)", len(all), maxCertificates)
	}
	return all, nil
}

// parsePrivateKey reads a key in one of the forms that openssl writes.
func parsePrivateKey(data []byte) (crypto.Signer, error) {
	if len(pemBlocks(data, "ENCRYPTED PRIVATE KEY")) > 0 || strings.Contains(string(data), "\nProc-Type: 4,ENCRYPTED") {
		return nil, errors.New("it is encrypted (want one without a pass phrase, mode 0600)")
	}
	var key any
	err := errors.New("no key in it (want PEM, with the line -----BEGIN PRIVATE KEY-----)")
	for typ, parse := range map[string]func([]byte) (any, error){
		"PRIVATE KEY":     x509.ParsePKCS8PrivateKey,
		"EC PRIVATE KEY":  func(der []byte) (any, error) { return x509.ParseECPrivateKey(der) },
		"RSA PRIVATE KEY": func(der []byte) (any, error) { return x509.ParsePKCS1PrivateKey(der) },
	} {
		if found := pemBlocks(data, typ); len(found) > 0 {
			key, err = parse(found[0])
		}
	}
	if err != nil {
		return nil, err
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("a key of type %T cannot sign", key)
	}
	return signer, checkKey(signer.Public())
}
