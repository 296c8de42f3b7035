// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"runtime"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/l2bridge/l2bridge/transport/wire"
)

const (
	// steerEvery is how often a session with traffic is looked at; one without
	// has its turn once a heartbeat.
	steerEvery = 200 * time.Millisecond

	// pieceTime is how long a superframe may take to send, and so to arrive: a
	// longer one is sent in pieces.
	pieceTime = 2 * time.Millisecond
	minPiece  = 2 * 1514

	// longPath is the round trip from which on congestion control, and not a
	// processor, is what bounds a lane.
	longPath = 4 * time.Millisecond

	// laneIdle is how long a lane must not have been wanted, and have carried
	// nothing, until it is given up; dialPause how long after a failure the next
	// one is dialled.
	laneIdle  = 10 * time.Second
	dialPause = 5 * time.Second
)

// steering is what a session's steer knows.
type steering struct {
	told    int       // lanes that the dialler was told we want
	surplus time.Time // since when there are more lanes than wanted; zero when not
	failed  time.Time // when a lane could not be dialled
	sent    uint64    // bytes, by all lanes

	packets, lost      uint64  // by all lanes
	ofPackets, areLost float64 // of late: each sample counts less with time
}

// steer fits the session to its path until it ends: how long pieces of
// superframes are, what delay CoDel allows, and how many data lanes there are.
//
// Every lane has its own congestion control, NewReno. On a long path that loses
// a packet now and then one such carries less than the flows in it would by
// themselves. So there are as many lanes as flows that have to wait: then the
// tunnel takes as much of the path as its flows would without it, and no more.
// On a short path it is the processor that bounds a lane, and there is one for
// every two processors in use.
func (s *session) steer() error {
	var st steering
	st.told = 1
	timer := time.NewTimer(steerEvery)
	defer timer.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return nil
		case <-s.followed:
			return nil
		case <-timer.C:
		}
		if s.adjust(&st, time.Now()) {
			timer.Reset(steerEvery)
		} else {
			timer.Reset(heartbeat)
		}
	}
}

// adjust is one look at the session; it reports whether there is traffic.
func (s *session) adjust(st *steering, now time.Time) bool {
	q, rate := s.peer.queue, s.mesh.cfg.Rate
	var least time.Duration // round trip
	var sent, packets, lost uint64
	lanes := s.dataLanes()
	for _, l := range lanes {
		stats := l.conn.ConnectionStats()
		sent += stats.BytesSent
		lost += stats.PacketsLost
		packets += stats.PacketsSent
		if least == 0 || stats.MinRTT < least {
			least = stats.MinRTT
		}
		l.out.Load().Limit(piece(stats, rate))
		if n := l.carried.Load(); n != l.seen || l.active.IsZero() {
			l.seen, l.active = n, now
		}
	}
	busy := sent-st.sent > 16<<10 // more than heartbeats
	st.sent = sent
	q.SetPath(least)
	covers := st.covers(packets, lost)
	if least < longPath || s.control.hello.Features&wire.FeatureParity == 0 {
		covers = 0
	}
	for _, l := range lanes {
		l.parity.Store(int32(covers))
	}
	if len(lanes) > 1 {
		q.Fade()
		q.Balance()
		for _, l := range lanes {
			l.out.Load().Poke()
		}
	}

	want := s.mesh.cfg.Lanes
	if want == 0 {
		want = wanted(q.Busy(), least, rate != 0)
	}
	q.SetActive(want)
	if !s.dialled {
		if want != st.told {
			select {
			case s.wants <- wire.Lanes{Want: uint8(want)}:
				st.told = want
			default:
			}
		}
		return busy || want > 1
	}
	want = min(max(want, int(s.peerWants.Load())), MaxLanes)
	switch {
	case len(lanes) < want:
		st.surplus = time.Time{}
		if now.Sub(st.failed) >= dialPause {
			if err := s.more(want); err != nil {
				st.failed = now
			}
		}
	case len(lanes) == want:
		st.surplus = time.Time{}
	case st.surplus.IsZero():
		st.surplus = now
	case now.Sub(st.surplus) >= laneIdle:
		s.fewer(lanes[len(lanes)-1], now)
	}
	return busy || want > 1 || len(lanes) > 1
}

// covers returns how many datagrams a PARITY should cover, 0 for none: fewer, the
// more packets are lost. They are told as sums over all lanes since they came.
func (st *steering) covers(packets, lost uint64) int {
	const (
		fade        = 0.98   // a sample counts half after 7 s
		enough      = 1000   // packets to judge by
		worthwhile  = 0.0002 // lost of those sent
		least, most = 4, 28
	)
	if packets < st.packets || lost < st.lost {
		st.packets, st.lost = packets, lost // a lane has gone
	}
	st.ofPackets = fade*st.ofPackets + float64(packets-st.packets)
	st.areLost = fade*st.areLost + float64(lost-st.lost)
	st.packets, st.lost = packets, lost
	share := st.areLost / max(st.ofPackets, enough)
	if share < worthwhile {
		return 0
	}
	return int(min(max(0.08/share, least), most))
}

// wanted returns how many data lanes to use for that many flows that have to
// wait. shaped says that the rate is bounded: then it is for that bound that they
// do.
func wanted(busy int, roundTrip time.Duration, shaped bool) int {
	most := MaxLanes
	switch {
	case shaped:
		most = 1
	case roundTrip < longPath:
		most = min(runtime.GOMAXPROCS(0)/2, MaxLanes)
	}
	return max(1, min(busy, most))
}

// piece returns how many bytes of a superframe go at once on a lane with these
// figures, and at this rate unless it is 0.
func piece(stats quic.ConnectionStats, rate uint64) int {
	const most = 1 << 16
	n := most
	if stats.SmoothedRTT > 0 {
		n = int(min(most, float64(stats.CongestionWindow)*float64(pieceTime)/float64(stats.SmoothedRTT)))
	}
	if rate != 0 {
		n = int(min(uint64(n), rate/8*uint64(pieceTime)/uint64(time.Second)))
	}
	return max(n, minPiece)
}

// more dials a lane that is missing of the first ones.
func (s *session) more(want int) error {
	s.mu.Lock()
	number := 0
	for n := 2; n <= want && number == 0; n++ {
		if s.lanes[n] == nil {
			number = n
		}
	}
	s.mu.Unlock()
	if number == 0 {
		return nil // one is on its way out
	}
	l, err := s.mesh.dialMore(s, uint8(number))
	if err != nil {
		s.mesh.cfg.Log.Debug("lane not connected", "peer", s.site, "lane", number, "error", err)
		return err
	}
	if err := s.add(l); err != nil {
		closeFor(l.conn, err)
		l.closeOwn()
		return err
	}
	s.mesh.refreshOuter()
	return nil
}

// fewer gives a lane up that nothing goes by in either direction any more.
func (s *session) fewer(l *lane, now time.Time) {
	if l.out.Load().Idle() && now.Sub(l.active) >= laneIdle {
		select {
		case <-l.retired:
		default:
			close(l.retired)
		}
	}
}
