// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"slices"
	"sync"
	"time"

	"github.com/l2bridge/l2bridge/internal/frame"
)

// Times of loop detection. A loop is cut when the first probe has come through
// it, half a second after it was closed, or a second if that one is lost in the
// storm.
const (
	// ProbeEvery is how often a gateway sends a probe into its LAN.
	ProbeEvery = 500 * time.Millisecond
	// HealAfter is how long no probe comes until two LANs count as parted: four
	// in a row may be lost.
	HealAfter = 2500 * time.Millisecond
)

// Loop finds loops that lead through this site's LAN. Each gateway sends probes
// out of its TAP, and only there, so that one which comes in by a TAP has taken
// a way outside of the tunnel:
//
//	      tunnel                  The probe of another member that is a peer of
//	[gw a]======[gw b]            ours: our LANs are one, and the tunnel closes a
//	  |  probe     |              ring. The site with the higher id cuts its own
//	 LAN --------> LAN            LAN off from the tunnel. Of any number of
//	      cable                   sites on one LAN the lowest forwards, like the
//	                              designated bridge of spanning tree (IEEE
//	                              802.1D-2004, 17.3), and nobody is cut off
//	                              from anybody.
//
// Our own probe: our LAN has a loop of its own, or something that reflects
// frames. What went into it would come out for ever, so it is cut off too.
//
// Its methods may be called from any goroutine.
type Loop struct {
	network string
	own     ID // that our questions are from
	changed chan struct{}

	mu      sync.Mutex // guards what follows
	self    ID
	counter uint32
	peers   map[ID]string    // sites of the current peers, by id
	seen    map[ID]time.Time // when the latest probe came, of a current peer or our own
}

// NewLoop returns a Loop of a site of a network.
func NewLoop(network string, self ID) *Loop {
	return &Loop{
		network: network[:min(len(network), 255)], own: self, self: self, changed: make(chan struct{}, 1),
		seen: make(map[ID]time.Time),
	}
}

// Frame returns the next probe of this site. The caller releases it.
func (l *Loop) Frame(kind Kind) *frame.Buf {
	l.mu.Lock()
	l.counter++
	p := Probe{Kind: kind, Counter: l.counter, ID: l.self, Network: l.network}
	l.mu.Unlock()
	return p.Frame()
}

// SetPeers says who is a peer from now on: the site's name by its id. Only
// these count. There is no loop by way of anybody else, and whoever makes up
// probes on the LAN cannot make up more of them than that.
func (l *Loop) SetPeers(peers map[ID]string) {
	l.mu.Lock()
	l.peers = peers
	l.mu.Unlock()
}

// SetSelf says under which id peers know this site from now on. The address of
// its questions stays, for the answers that are on their way.
func (l *Loop) SetSelf(self ID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.seen, l.self)
	l.self = self
}

// Own returns the address that this site's questions are from.
func (l *Loop) Own() frame.Station { return frame.NewStation(l.own.mac(), 0) }

// Changed gets a word when Judge may have something new to say, though not when
// time alone has brought it about.
func (l *Loop) Changed() <-chan struct{} { return l.changed }

// IsOurs reports whether a probe is of our network.
func (l *Loop) IsOurs(p Probe) bool { return p.Network == l.network }

// IsOthers reports whether a probe is another network's that is to be carried
// like any frame: one whose name is behind ours. A tunnel of another network
// between the same two LANs is a loop as well. Of two such networks one finds
// it in this way and is cut; if both did, neither would be left.
func (l *Loop) IsOthers(p Probe) bool { return p.Network > l.network }

// Heard takes a probe that came in from the LAN.
func (l *Loop) Heard(p Probe) {
	if p.Kind != KindLoop || !l.IsOurs(p) {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, current := l.peers[p.ID]; !current && p.ID != l.self {
		return
	}
	if _, known := l.seen[p.ID]; !known {
		select {
		case l.changed <- struct{}{}:
		default:
		}
	}
	l.seen[p.ID] = time.Now()
}

// Verdict is what is known of loops.
type Verdict struct {
	Cut    bool     // this site's LAN is to be cut off from the tunnel
	Own    bool     // a probe of our own came back
	Joined []string // sites whose LANs are joined with ours, ordered by id
	Lowest string   // the site that forwards for the joined LANs, "" for this one
}

// Equal reports whether two verdicts say the same.
func (v Verdict) Equal(w Verdict) bool {
	return v.Cut == w.Cut && v.Own == w.Own && v.Lowest == w.Lowest && slices.Equal(v.Joined, w.Joined)
}

// Judge says what is known now.
func (l *Loop) Judge() (v Verdict) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var ids []ID
	for id, at := range l.seen {
		_, current := l.peers[id]
		switch {
		case time.Since(at) > HealAfter || !current && id != l.self:
			delete(l.seen, id)
		case id == l.self:
			v.Own = true
		default:
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, ID.Compare)
	for _, id := range ids {
		v.Joined = append(v.Joined, l.peers[id])
	}
	if len(ids) > 0 && ids[0].Compare(l.self) < 0 {
		v.Lowest = v.Joined[0]
	}
	v.Cut = v.Lowest != "" || v.Own && len(l.peers) > 0
	return v
}
