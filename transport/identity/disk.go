// SPDX-License-Identifier: Apache-2.0

//go:build unix

package identity

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// files is the little that a Dir does with its directory. disk is the real
// one; tests put in its place one that fails, or forgets what was not synced,
// at a chosen step.
type files interface {
	// read returns a file's content, at most MaxFile bytes. The error is
	// fs.ErrNotExist when there is none of that name.
	read(name string) ([]byte, error)
	// create makes an empty file that only its owner may read. What a crash
	// left under that name is thrown away.
	create(name string) (file, error)
	rename(from, to string) error
	remove(name string) error
	// sync returns when all creates, renames and removes are durable.
	sync() error
	close() error
}

// file is one that is being written.
type file interface {
	io.WriteCloser
	Sync() error
}

// MaxFile bounds what is read of a state file, in bytes: a full ledger has 1.5 MB.
const MaxFile = 4 << 20

// newSuffix marks a file that replace has not finished.
const newSuffix = ".new"

// replace gives name the content data, or leaves it as it was: whenever the
// power goes, the next start finds all of the old or all of the new.
func replace(fs files, name string, data []byte) error {
	temp := name + newSuffix
	f, err := fs.create(temp)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		// Without this some file systems make the rename durable before
		// the data, and a crash leaves an empty file under the real name.
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = fs.rename(temp, name)
	}
	if err != nil {
		_ = fs.remove(temp) // the first error is the one that says why
		return err
	}
	return fs.sync()
}

// disk is a directory held open and locked. Everything goes through its
// descriptor, so that putting something else in the directory's place later
// changes nothing.
type disk struct {
	path string
	dir  *os.File
	made bool // by openDisk
}

// pidFile tells a second process who holds the lock. It is no part of the
// lock, which is on the directory itself.
const pidFile = "pid"

// openDisk opens and locks path, making it when it is not there.
func openDisk(path string) (*disk, error) {
	// Cleaned of a trailing slash, which would make O_NOFOLLOW follow.
	path = filepath.Clean(path)
	made, err := makeDir(path)
	if err != nil {
		return nil, explainDir(path, err)
	}
	d, err := openUnlocked(path)
	if err != nil {
		return nil, err
	}
	d.made = made
	if err := d.claim(); err != nil {
		d.dir.Close()
		return nil, err
	}
	return d, nil
}

// openUnlocked opens a directory that is there, if nobody else can write in it.
func openUnlocked(path string) (*disk, error) {
	path = filepath.Clean(path)
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		if info, lerr := os.Lstat(path); lerr == nil && info.Mode()&os.ModeSymlink != 0 {
			return nil, fmt.Errorf("state directory %s is a symbolic link (give the directory itself)", path)
		}
		return nil, explainDir(path, err)
	}
	d := &disk{path: path, dir: os.NewFile(uintptr(fd), path)}
	if err := d.check(); err != nil {
		d.dir.Close()
		return nil, err
	}
	return d, nil
}

// explainDir says what to do when the directory cannot be made or opened.
func explainDir(path string, err error) error {
	remedy := "choose another --state-dir"
	switch {
	case errors.Is(err, os.ErrPermission):
		remedy = "run as root, or as the user that it belongs to"
	case errors.Is(err, unix.EROFS):
		remedy = "make " + filepath.Dir(path) + " writable, or " + remedy
	case errors.Is(err, unix.ENOSPC):
		remedy = "free some space, or " + remedy
	}
	return fmt.Errorf("state directory %s: %w (%s)", path, err, remedy)
}

// makeDir makes path and what is missing above it, each durable before the
// next, so that a network founded in it cannot vanish with its directory. It
// reports whether path was missing.
func makeDir(path string) (made bool, err error) {
	err = os.Mkdir(path, 0o700)
	parent := filepath.Dir(path)
	if errors.Is(err, os.ErrNotExist) && parent != path {
		if _, err := makeDir(parent); err != nil {
			return false, err
		}
		err = os.Mkdir(path, 0o700)
	}
	if errors.Is(err, os.ErrExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	f, err := os.Open(parent)
	if err != nil {
		return true, err
	}
	defer f.Close()
	return true, f.Sync()
}

// check refuses a directory in which somebody else can write.
func (d *disk) check() error {
	var st unix.Stat_t
	if err := unix.Fstat(int(d.dir.Fd()), &st); err != nil {
		return &os.PathError{Op: "stat", Path: d.path, Err: err}
	}
	if err := checkOwner(d.path, &st); err != nil {
		return err
	}
	if st.Mode&0o022 != 0 {
		return fmt.Errorf("state directory %s has mode %04o: others may write in it (chmod 700 %s)", d.path, st.Mode&0o7777, d.path)
	}
	return nil
}

// claim locks the directory.
func (d *disk) claim() error {
	err := unix.Flock(int(d.dir.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return fmt.Errorf("state directory %s is in use by %s (stop it first, or pick another network with -n)", d.path, d.holder())
	}
	if err != nil {
		return &os.PathError{Op: "lock", Path: d.path, Err: err}
	}
	d.leavePID()
	return nil
}

// leavePID writes down who holds the lock. A full disk or one that cannot be
// written must not keep a member from coming up, hence no error: without the
// number the message to a second process is only less exact.
func (d *disk) leavePID() {
	f, err := d.create(pidFile)
	if err != nil {
		return
	}
	_, _ = f.Write(strconv.AppendInt(nil, int64(os.Getpid()), 10))
	_ = f.Close()
}

// holder names the process that holds the lock, as far as it is known.
func (d *disk) holder() string {
	data, err := d.read(pidFile)
	if err != nil {
		return "another process"
	}
	pid, err := strconv.ParseUint(string(data), 10, 31)
	if err != nil {
		return "another process"
	}
	name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil {
		return fmt.Sprintf("process %d", pid)
	}
	return fmt.Sprintf("%+q (pid %d)", bytes.TrimSpace(name), pid)
}

func (d *disk) read(name string) ([]byte, error) {
	// O_NONBLOCK: opening a FIFO that somebody put here must not hang.
	f, err := d.open(name, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	path := f.Name()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, fmt.Errorf("%s is not a regular file (move it away)", path)
	}
	if err := checkOwner(path, &st); err != nil {
		return nil, err
	}
	if st.Mode&0o077 != 0 {
		return nil, fmt.Errorf("%s has mode %04o: others may read or change what must be secret (chmod 600 %s)", path, st.Mode&0o7777, path)
	}
	data, err := io.ReadAll(io.LimitReader(f, MaxFile+1))
	if err != nil {
		return nil, err
	}
	if len(data) > MaxFile {
		return nil, fmt.Errorf("%s has more than %d bytes: it is not what was written (restore it from a backup)", path, MaxFile)
	}
	return data, nil
}

func (d *disk) create(name string) (file, error) {
	if err := d.remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	return d.open(name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL)
}

// open opens a file of the directory, never through a symbolic link.
func (d *disk) open(name string, flags int) (*os.File, error) {
	path := filepath.Join(d.path, name)
	fd, err := unix.Openat(int(d.dir.Fd()), name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if errors.Is(err, unix.ELOOP) {
		return nil, fmt.Errorf("%s is a symbolic link (put the file itself there)", path)
	}
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

func (d *disk) rename(from, to string) error {
	fd := int(d.dir.Fd())
	if err := unix.Renameat(fd, from, fd, to); err != nil {
		return &os.LinkError{Op: "rename", Old: filepath.Join(d.path, from), New: filepath.Join(d.path, to), Err: err}
	}
	return nil
}

func (d *disk) remove(name string) error {
	if err := unix.Unlinkat(int(d.dir.Fd()), name, 0); err != nil {
		return &os.PathError{Op: "remove", Path: filepath.Join(d.path, name), Err: err}
	}
	return nil
}

func (d *disk) sync() error { return d.dir.Sync() }

// close gives the lock back, after the name of its holder. A directory that we
// made for nothing goes too.
func (d *disk) close() error {
	_ = d.remove(pidFile) // it may not be there: see leavePID
	if d.made {
		_ = unix.Rmdir(d.path) // refused when there is something in it
	}
	return d.dir.Close()
}

// nonBlock keeps os.OpenFile from waiting for a FIFO's other end.
const nonBlock = unix.O_NONBLOCK

// checkSecret refuses a file that others may read or change.
func checkSecret(info fs.FileInfo) error {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return errors.ErrUnsupported
	}
	if euid := os.Geteuid(); int(st.Uid) != euid {
		return fmt.Errorf("it belongs to user %d, not to user %d who runs this (chown it)", st.Uid, euid)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return fmt.Errorf("mode %04o: others may read or change what must be secret (chmod 600 it)", mode)
	}
	return nil
}

func checkOwner(path string, st *unix.Stat_t) error {
	if euid := os.Geteuid(); int(st.Uid) != euid {
		return fmt.Errorf("%s belongs to user %d, not to user %d who runs this (chown %d %s)", path, st.Uid, euid, euid, path)
	}
	return nil
}
