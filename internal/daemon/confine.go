// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/l2bridge/l2bridge/internal/config"
	"github.com/l2bridge/l2bridge/internal/confine"
	"github.com/l2bridge/l2bridge/internal/control"
	"github.com/l2bridge/l2bridge/internal/tap"
	"github.com/l2bridge/l2bridge/transport/identity"
)

// controlGroup is the group whose members may use the control socket.
const controlGroup = "l2bridge"

// firstFreePort is the first one that takes no capability to listen on.
const firstFreePort = 1024

// ConfineJoin limits this process to what it takes to join a network and then to
// run. Unless it is limited already it executes the program again and returns only an
// error; last is called before that, when nothing else is in the way.
func ConfineJoin(cfg config.Config, last func() error) error {
	l := limits(cfg)
	l.Caps = append(l.Caps, confine.ToReplace(cfg.File)...) // which join writes
	return confine.Enter(l, func() error { return rehearse(cfg, false, last) })
}

// ConfineRun limits this process to what it takes to run cfg's site, in the way of
// ConfineJoin. To find the site a member is up to the caller, or an error.
func ConfineRun(cfg config.Config, last func() error) error {
	l := limits(cfg)
	if len(cfg.OnUp)+len(cfg.OnDown) == 0 {
		// What hooks write is for their owner to know.
		l.Files = []confine.Place{
			{Path: cfg.StateDir, Use: confine.Files},
			{Path: filepath.Dir(cfg.Socket), Use: confine.Sockets},
			{Path: tap.Path, Use: confine.Device},
		}
	}
	return confine.Enter(l, func() error { return rehearse(cfg, true, last) })
}

// limits are those of the capabilities. CAP_NET_ADMIN makes the TAP and its
// bridge, sets their properties, and has large buffers for sockets.
func limits(cfg config.Config) confine.Limits {
	l := confine.Limits{Caps: []int{unix.CAP_NET_ADMIN}, Group: max(0, controlGID())}
	if cfg.Listen.Port() < firstFreePort {
		l.Caps = append(l.Caps, unix.CAP_NET_BIND_SERVICE)
	}
	paths := []string{cfg.File, cfg.StateDir, cfg.Socket, cfg.CAFile, cfg.CertFile, cfg.KeyFile, cfg.CRLFile}
	for _, command := range [][]string{cfg.OnUp, cfg.OnDown} {
		paths = append(paths, command...)
	}
	for _, path := range paths {
		if filepath.IsAbs(path) {
			l.Caps = append(l.Caps, confine.ToRead(path)...)
		}
	}
	return l
}

// rehearse finds out what is in the way of a start, while we may still look into
// other processes: who else has the directory, the port or the TAP.
func rehearse(cfg config.Config, member bool, last func() error) error {
	if cfg.CAFile != "" {
		// No init or join has made it.
		if err := os.MkdirAll(cfg.StateDir, 0o700); err != nil {
			return fmt.Errorf("state directory: %w (choose another with --state-dir)", err)
		}
	}
	dir, err := identity.Open(cfg.StateDir)
	if err != nil {
		return err
	}
	defer dir.Close()
	if member {
		if _, err := membership(dir, cfg); err != nil {
			return err
		}
	}
	conn, err := listen(cfg)
	if err != nil {
		return err
	}
	conn.Close()
	if err := tap.Free(cfg.TAP); err != nil {
		return err
	}
	if err := control.MakeDir(cfg.Socket); err != nil { // only what is there can be allowed
		return err
	}
	return last()
}

// controlGID returns the number of the control socket's group, -1 when there is no
// such group.
func controlGID() int {
	group, err := user.LookupGroup(controlGroup)
	if err != nil {
		return -1
	}
	gid, err := strconv.Atoi(group.Gid)
	if err != nil {
		return -1
	}
	return gid
}

// listenControl puts the control socket in its place, for its group where there is
// one and we may.
func (s *site) listenControl() (*control.Server, error) {
	gid := controlGID()
	server, err := control.Listen(s.cfg.Socket, gid)
	if gid >= 0 && errors.Is(err, unix.EPERM) {
		s.log.Warn("control socket is not given to its group", "group", controlGroup, "error", err)
		return control.Listen(s.cfg.Socket, -1)
	}
	return server, err
}

// sayLimits says in the log what limits this process.
func (s *site) sayLimits() {
	files := "limited"
	switch {
	case s.limits.Landlock > 0:
	case len(s.cfg.OnUp)+len(s.cfg.OnDown) > 0:
		files = "not limited: there are hooks"
	default:
		files = "not limited: the kernel has no Landlock"
	}
	s.log.Info("privileges", "capabilities", s.limits.Caps, "no_new_privs", s.limits.NoNewPrivs, "files", files, "landlock", s.limits.Landlock)
}
