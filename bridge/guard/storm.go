// SPDX-License-Identifier: Apache-2.0

package guard

import "sync/atomic"

// Class is a kind of frame that a switch sends to more places than its
// destination, or has others do so. Known unicast between stations that are known
// is none: it goes to one port, and is never policed.
type Class uint8

// The classes, named as in hints.
const (
	Broadcast Class = iota
	Multicast
	UnknownUnicast
	Unlearned // from stations that the table has no room for
	classes
)

func (c Class) String() string {
	return [classes]string{"broadcast", "multicast", "unknown unicast", "stations beyond its share"}[c]
}

// TicksPerSecond is the unit of time here: tenths of a second, which is what the
// switch's one reading of the clock for a batch gives.
const TicksPerSecond = 10

// limit bounds the frames of one class that come in by one port.
type limit struct {
	rate  int // frames a second
	burst int // frames at once, after silence
}

// The limits stand where no honest LAN comes and where a storm does no harm.
// They count frames, since that is what a storm costs the hosts of the far LAN,
// each of which has to look at every frame of it.
//
// Broadcast: an ARP scan of a /24 is 254 frames, asked twice 508, at once;
// arp-scan paces itself to 500 a second for larger networks. A LAN of a hundred
// machines at rest has some ten a second. Wake-on-LAN, DHCP and PXE are single
// frames. At the limit a storm of ARP takes 0.6 Mbit/s of the uplink with all
// headers, one of full-size frames 6.
//
// Multicast: video of 20 Mbit/s in packets of seven MPEG-TS cells (1316 bytes)
// is 1900 frames a second, and mDNS or SSDP of a hundred devices that all wake
// at once some thousand frames. At the limit small frames take 4 Mbit/s,
// full-size ones 36; no ordinary multicast of a home comes near.
//
// Unknown unicast: when the table was flushed, or a peer came back, each flow has
// some until the first answer has told where its destination is: 1 Gbit/s and
// 100 ms are 8000 frames. After that there is none, as long as the destination
// speaks once in the ageing time, and whoever answers ARP does. At the limit
// 12 Mbit/s.
//
// Unlearned: a port that makes up a source for each frame has no room for more of
// them. Here they end at that. But the Linux bridge behind the TAP has no such bound,
// and keeps each one for five minutes, in memory of the kernel. At the limit those
// are 300,000 stations, some 40 MB. A LAN that honestly has more stations than its
// share has a hint that says so.
//
// Each peer has its own copy of a flood, so an uplink carries these limits once
// for each. Beside a storm the fair queues give other flows their share, and what
// a burst leaves waiting for a second is dropped there.
var limits = [classes]limit{
	Broadcast:      {rate: 500, burst: 1000},
	Multicast:      {rate: 3000, burst: 6000},
	UnknownUnicast: {rate: 1000, burst: 10000},
	Unlearned:      {rate: 1000, burst: 10000},
}

// Policer caps the broadcast, multicast and unknown unicast that come in by one
// port: a token bucket for each class (RFC 2697 without the second colour), in
// one word, so that many goroutines take from it without a lock. The zero value
// has full buckets.
type Policer struct {
	buckets [classes]bucket
}

// bucket is a token bucket seen from its other side: it fills with frames and
// leaks at the rate, and what would make it run over is refused.
type bucket struct {
	state   atomic.Uint64 // tick of the level << 32 | level in frames
	refused atomic.Uint64 // tick of the latest refusal << 1 | 1; 0 for none
}

// maxLate is how far the now of one batch may be behind that of another one.
const maxLate = 10 * TicksPerSecond

// Pass reports whether n frames of a class may pass at now, in ticks, and counts
// them if so. Ticks may wrap.
func (p *Policer) Pass(now uint32, c Class, n int) bool {
	b, l := &p.buckets[c], limits[c]
	for {
		old := b.state.Load()
		at, level := uint32(old>>32), uint64(uint32(old))
		if level == 0 || at-now > maxLate {
			level -= min(level, uint64(now-at)*uint64(l.rate/TicksPerSecond))
			at = now
		}
		if level += uint64(n); level > uint64(l.burst) {
			// Writing the same word with each refusal would have the goroutines
			// of a storm fight for it.
			if mark := uint64(now)<<1 | 1; b.refused.Load() != mark {
				b.refused.Store(mark)
			}
			return false
		}
		if b.state.CompareAndSwap(old, uint64(at)<<32|level) {
			return true
		}
	}
}

// stormShown is for how long after its last refused frame a storm is told of.
const stormShown = 10 * TicksPerSecond

// Policed returns the classes of which frames were refused in the last ten
// seconds.
func (p *Policer) Policed(now uint32) (all []Class) {
	for c := range classes {
		mark := p.buckets[c].refused.Load()
		at := uint32(mark >> 1)
		if mark != 0 && (now-at <= stormShown || at-now <= maxLate) {
			all = append(all, c)
		}
	}
	return all
}
