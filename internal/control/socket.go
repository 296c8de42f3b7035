// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// socketMode lets root and the socket's group in. Whoever can connect can
// invite a site into the network.
const socketMode = 0o660

// socket is a unix listener that takes its file away when it closes, but no
// other that stands there by then.
type socket struct {
	*net.UnixListener
	path  string
	made  os.FileInfo
	close sync.Once
	err   error
	freed chan struct{} // tells that a connection has closed

	mu     sync.Mutex // guards what follows
	spare  *os.File   // a descriptor for when there are no others; see acceptUnix
	closed bool
}

func listen(path string, group int) (*socket, error) {
	if err := makeDir(path); err != nil {
		return nil, err
	}
	if err := removeStale(path); err != nil {
		return nil, err
	}
	// bind(2) makes the file with the mode of the socket itself, less the
	// umask (unix_bind_bsd in net/unix/af_unix.c): nobody gets in meanwhile.
	private := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var chmod error
		if err := c.Control(func(fd uintptr) { chmod = unix.Fchmod(int(fd), 0o600) }); err != nil {
			return err
		}
		return chmod
	}}
	l, err := private.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, fmt.Errorf("%w (choose another --socket)", err)
	}
	unixListener := l.(*net.UnixListener)
	unixListener.SetUnlinkOnClose(false)
	made, err := os.Lstat(path)
	if err != nil {
		l.Close()
		return nil, err
	}
	s := &socket{UnixListener: unixListener, path: path, made: made, freed: make(chan struct{}, 1)}
	err = os.Lchown(path, -1, group)
	if err == nil {
		err = os.Chmod(path, socketMode)
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	s.keepSpare()
	return s, nil
}

// makeDir makes the directory of the socket at path. Members of the socket's group
// are to come through it, whatever the umask.
func makeDir(path string) error {
	dir := filepath.Dir(path)
	_, before := os.Stat(dir)
	err := os.MkdirAll(dir, 0o755)
	if err == nil && errors.Is(before, fs.ErrNotExist) {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		return fmt.Errorf("%w (choose another --socket)", err)
	}
	return nil
}

// removeStale takes a stale socket away, and only that.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return errors.New("exists and is no socket (take it away, or choose another --socket)")
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	switch {
	case err == nil:
		defer conn.Close()
		return fmt.Errorf("in use by %s (stop it, or choose another -n NAME)", owner(conn.(*net.UnixConn)))
	case !errors.Is(err, unix.ECONNREFUSED):
		return err // alive but busy, or not ours to ask
	}
	return os.Remove(path)
}

// Close closes the listener and removes its file. It may be called again.
func (s *socket) Close() error {
	s.close.Do(func() {
		if now, err := os.Lstat(s.path); err == nil && os.SameFile(now, s.made) {
			s.err = os.Remove(s.path)
		}
		s.err = errors.Join(s.err, s.UnixListener.Close())
		s.mu.Lock()
		s.closed = true
		s.mu.Unlock()
		s.useSpare()
		s.connClosed() // wakes Accept
	})
	return s.err
}
