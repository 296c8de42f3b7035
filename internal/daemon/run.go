// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sync/errgroup"

	"github.com/l2bridge/l2bridge/bridge"
	"github.com/l2bridge/l2bridge/bridge/guard"
	"github.com/l2bridge/l2bridge/fdb"
	"github.com/l2bridge/l2bridge/internal/config"
	"github.com/l2bridge/l2bridge/internal/confine"
	"github.com/l2bridge/l2bridge/internal/control"
	"github.com/l2bridge/l2bridge/internal/event"
	"github.com/l2bridge/l2bridge/internal/frame"
	"github.com/l2bridge/l2bridge/internal/hook"
	"github.com/l2bridge/l2bridge/internal/portmap"
	"github.com/l2bridge/l2bridge/internal/tap"
	"github.com/l2bridge/l2bridge/transport"
	"github.com/l2bridge/l2bridge/transport/identity"
	"github.com/l2bridge/l2bridge/transport/udpconn"
	"github.com/l2bridge/l2bridge/transport/wire"
)

const (
	// carrierHold is how long the TAP keeps its carrier without any peer: a
	// bridge with STP needs 30 s to forward again (2 x forward delay,
	// IEEE 802.1D-2004, 17.14), which a peer that restarts must not cost.
	carrierHold = 30 * time.Second
	// reopen is the pause before a TAP that was lost is opened again.
	reopen = 500 * time.Millisecond
	// tapLines is how many lines about the TAP the log gets in a minute, and
	// reasonPause what is at least between two reasons for which there is no TAP:
	// another program may take it away as often as we put it back.
	tapLines    = 8
	reasonPause = 10 * time.Second
)

// site is a running gateway.
type site struct {
	cfg     config.Config
	log     *slog.Logger
	dir     *identity.Dir
	now     atomic.Pointer[identity.Member] // as whom this site runs
	stop    context.CancelCauseFunc         // ends Run
	left    atomic.Bool                     // this site has left its network
	conn    *udpconn.Conn
	sockets sockets // beside it
	table   *fdb.Table
	sw      *bridge.Switch
	outer   guard.Outer
	mesh    *transport.Mesh
	changed chan struct{} // a peer has come or gone
	events  event.Bus
	hooks   *hook.Runner
	ports   *portmap.Mapper

	tapUse sync.RWMutex // read-held while the TAP is used, against its closing
	tap    *tap.Device  // nil while it is lost
	before []tap.Drop   // what TAPs that were lost had dropped
	tapLog *slog.Logger // with tapLines

	statics sync.Mutex // held while the static entries are stored

	changing sync.Mutex // held while a key of this site is changed: see change

	safety    *safety
	peerLines peerLines // in the log
	limits    confine.State

	mu    sync.Mutex // guards what follows
	state control.State
	since time.Time
}

// Run runs this site until ctx ends; then it returns nil. It prints one line
// when the TAP and the socket stand. Everything that can be wrong from the
// start is an error before anything in the system has been changed for good.
func Run(ctx context.Context, cfg config.Config, log *slog.Logger) (err error) {
	if err := checkDescriptors(); err != nil {
		return err
	}
	dir, err := identity.Open(cfg.StateDir)
	if err != nil {
		return err
	}
	defer dir.Close()
	member, err := membership(dir, cfg)
	if err != nil {
		return err
	}
	if place, given := cfg.Places["site"]; given && cfg.Site != member.Site && cfg.Site == member.Was {
		log.Warn("site is named as it was before rekey", "setting", cfg.Site, "site", member.Site)
	} else if given && cfg.Site != member.Site {
		return &config.Error{Place: place, Key: "site", Value: cfg.Site,
			Rule: fmt.Sprintf("this site is a member under the name %q (take the setting out)", member.Site)}
	}
	founder, err := loadMembers(dir)
	if err != nil {
		return err
	}

	s := &site{
		cfg: cfg, log: log, dir: dir,
		tapLog:  newLimited(log, tapLines),
		changed: make(chan struct{}, 1),
		state:   control.StateConnecting,
		since:   time.Now(),
		safety:  newSafety(member),
		limits:  confine.Now(),
	}
	s.now.Store(member)
	s.sayLimits()
	s.table = fdb.New(fdb.Config{Max: cfg.FDBMax, Ageing: cfg.Ageing, Changed: s.stationChanged})
	s.sw = bridge.New(bridge.Config{Table: s.table, Outer: &s.outer, Loop: s.safety.loop, Servers: &s.safety.servers, ForwardReserved: cfg.ForwardReserved})
	if err := loadStatics(dir, s.sw); err != nil {
		return err
	}
	// That the socket did not get its buffers is a hint in `status`; quic-go
	// would print a line of its own.
	os.Setenv("QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING", "true")
	if s.conn, err = listen(cfg); err != nil {
		return err
	}
	defer s.conn.Close()
	server, err := s.listenControl()
	if err != nil {
		return err
	}
	dev, err := s.openTAP()
	if err != nil {
		server.Close()
		return err
	}
	s.hooks = s.newHooks()
	s.ports = portmap.New(portmap.Config{Port: s.port(), Way: s.wayOut, Changed: func() { s.mesh.Readdress() }, Log: log})
	s.mesh = transport.New(transport.Config{
		Member: member, Conn: s.conn, Dial: targets(cfg.Peers), Founder: founder, MTU: dev.MTU(),
		Features: s.features(dev), Rate: cfg.Rate, Lanes: cfg.Lanes,
		Listen: s.listenMore,
		Serve: func(ctx context.Context, p *transport.Peer) error {
			return s.sw.Serve(ctx, p, bridge.Mesh, cfg.FDBMaxPerPeer)
		},
		Through:   s.through,
		Outer:     s.setOuter,
		Addresses: s.advertised,
		Known:     s.loadLearned(),
		Learned:   s.keepLearned,
		Event:     s.peerEvent,
		Log:       log,
	})

	ctx, s.stop = context.WithCancelCause(ctx)
	defer s.stop(nil)
	life := ctx
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.table.Run(ctx) })
	g.Go(func() error { return s.serveTAP(ctx, dev) })
	g.Go(func() error { return s.mesh.Run(ctx) })
	g.Go(func() error { return server.Serve(ctx, backend{s}) })
	g.Go(func() error { followRoaming(ctx, log, func() { s.mesh.Moved(); s.ports.Moved() }); return nil })
	if cfg.PortMapping {
		g.Go(func() error { return s.ports.Run(ctx) })
	}
	g.Go(func() error { s.followState(ctx); return nil })
	g.Go(func() error { followLoad(ctx, log); return nil })
	g.Go(func() error { s.keepSafe(ctx); return nil })
	if member.External() {
		g.Go(func() error { s.followFiles(ctx); return nil })
	}

	log.Info("ready", "site", member.Site, "network", member.Network, "tap", dev.Name(), "bridge", dev.Bridge(),
		"mtu", dev.MTU(), "listen", s.conn.LocalAddr(), "socket", cfg.Socket)
	notify(sd.SdNotifyReady)
	err = g.Wait()
	notify(sd.SdNotifyStopping)
	s.hooks.Close(hookStop)
	if err == nil && errors.Is(context.Cause(life), errLeft) {
		return errLeft
	}
	return err
}

// member returns as whom this site runs.
func (s *site) member() *identity.Member { return s.now.Load() }

// become has the site run as m from now on. The TAP, its stations and the static
// entries stay; the peers are met again.
func (s *site) become(m *identity.Member) {
	s.now.Store(m)
	s.safety.loop.SetSelf(guard.ID(m.ID))
	s.mesh.Become(m)
}

// notify tells systemd, if it runs us.
func notify(state string) {
	// Nobody to tell, or somebody who does not listen: we run all the same.
	_, _ = sd.SdNotify(false, state)
}

// targets returns whom to dial of those given by hand: each may be another.
func targets(peers []string) (dial [][]string) {
	for _, p := range peers {
		dial = append(dial, []string{p})
	}
	return dial
}

// openTAP opens the TAP under the address that this site always has.
func (s *site) openTAP() (*tap.Device, error) {
	address := tap.Address(s.member().ID[:], []byte(s.cfg.Name))
	dev, err := tap.Open(tap.Config{
		Name: s.cfg.TAP, Bridge: s.cfg.Bridge, MTU: s.cfg.MTU, Address: address,
		Superframes: s.cfg.Superframes, CarrierAlwaysOn: s.cfg.CarrierOn, Log: s.tapLog,
	})
	if err != nil {
		return nil, err
	}
	s.sw.SetOwn(frame.NewStation(address, 0))
	s.tapUse.Lock()
	s.tap = dev
	s.tapUse.Unlock()
	return dev, nil
}

// closeTAP closes the TAP when nobody uses it any more.
func (s *site) closeTAP(dev *tap.Device) error {
	s.tapUse.Lock()
	s.tap = nil
	s.before = sumDrops(append(s.before, dev.Stats().Drops...))
	s.tapUse.Unlock()
	return dev.Close()
}

// tapDrops returns what was dropped at the TAP since we run.
func (s *site) tapDrops() []tap.Drop {
	s.tapUse.RLock()
	defer s.tapUse.RUnlock()
	all := slices.Clone(s.before)
	if s.tap != nil {
		all = append(all, s.tap.Stats().Drops...)
	}
	return sumDrops(all)
}

// sumDrops adds up the counters of each reason.
func sumDrops(all []tap.Drop) (sums []tap.Drop) {
	for _, d := range all {
		if i := slices.IndexFunc(sums, func(s tap.Drop) bool { return s.Reason == d.Reason }); i >= 0 {
			sums[i].Count += d.Count
		} else if d.Count > 0 {
			sums = append(sums, d)
		}
	}
	return sums
}

// withTAP calls f with the TAP, and reports whether there is one.
func (s *site) withTAP(f func(*tap.Device)) bool {
	s.tapUse.RLock()
	defer s.tapUse.RUnlock()
	if s.tap == nil {
		return false
	}
	f(s.tap)
	return true
}

// features returns what our TAP takes beyond plain frames.
func (s *site) features(dev *tap.Device) wire.Features {
	f := dev.Features()
	if !s.cfg.Superframes || !f.VnetHeader {
		return 0
	}
	if !f.USO {
		return wire.FeatureCsum | wire.FeatureTSO
	}
	return wire.FeatureCsum | wire.FeatureTSO | wire.FeatureUSO
}

// serveTAP keeps the TAP attached to the switch, and opens it again when it is
// lost: somebody deleted it, or changed its bridge.
func (s *site) serveTAP(ctx context.Context, dev *tap.Device) error {
	var told time.Time // the last reason
	for {
		g, devCtx := errgroup.WithContext(ctx)
		g.Go(func() error { return s.sw.Serve(devCtx, dev, bridge.Local, max(1, s.cfg.FDBMax/4)) })
		g.Go(func() error { return dev.Watch(devCtx) })
		err := g.Wait()
		if cerr := s.closeTAP(dev); cerr != nil {
			s.tapLog.Warn("tap not removed cleanly", "error", cerr)
		}
		if ctx.Err() != nil {
			return nil
		}
		s.tapLog.Warn("tap lost, opening it again", "tap", s.cfg.TAP, "error", err)
		var last string
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(reopen):
			}
			if dev, err = s.openTAP(); err == nil {
				break
			}
			if text := err.Error(); text != last && time.Since(told) >= reasonPause {
				last, told = text, time.Now()
				s.log.Error("tap not opened, trying again", "error", err)
			}
		}
		s.tapLog.Info("tap is back", "tap", dev.Name(), "bridge", dev.Bridge(), "mtu", dev.MTU())
		s.mesh.SetLAN(dev.MTU(), s.features(dev))
		s.peersChanged() // its carrier starts down
	}
}

func (s *site) peersChanged() {
	s.safety.peersChanged()
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// followState keeps the TAP's carrier as the peers are, and notes since when
// the site is in its state.
func (s *site) followState(ctx context.Context) {
	fall := time.NewTimer(carrierHold)
	defer fall.Stop()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	held := false // the timer runs down
	for {
		up := s.mesh.Up() > 0
		switch {
		case up:
			held = false
			s.setCarrier(true)
		case !held:
			held = true
			fall.Reset(carrierHold)
		}
		s.noteState()
		select {
		case <-s.changed:
		case <-tick.C:
		case <-fall.C:
			if held && s.mesh.Up() == 0 {
				s.setCarrier(false)
			}
		case <-ctx.Done():
			return
		}
	}
}

func (s *site) setCarrier(up bool) {
	s.withTAP(func(dev *tap.Device) {
		if err := dev.SetCarrier(up); err != nil {
			s.tapLog.Warn("carrier not set", "tap", dev.Name(), "up", up, "error", err)
		}
	})
}
