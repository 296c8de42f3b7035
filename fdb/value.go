// SPDX-License-Identifier: Apache-2.0

package fdb

// value is what the table knows about a station, in one word, so that it is
// read and changed whole:
//
//	63       48 47      33 32     31               0
//	+----------+----------+--------+----------------+
//	|   port   |  moves   | static | last seen,Tick |
//	+----------+----------+--------+----------------+
//
// A station is behind a port, so no value but that of an unused entry is 0.
type value uint64

const (
	staticBit = 1 << 32
	oneMove   = 1 << 33
	maxMoves  = 1<<15 - 1
)

func newValue(p Port, now Tick) value { return value(p)<<48 | value(now) }

func (v value) port() Port    { return Port(v >> 48) }
func (v value) moves() int    { return int(v >> 33 & maxMoves) }
func (v value) static() bool  { return v&staticBit != 0 }
func (v value) dynamic() bool { return v != 0 && !v.static() }

// age returns how many ticks before now the station was last seen. Goroutines
// read the clock apart: one that was seen after now is 0 ticks old.
func (v value) age(now Tick) Tick {
	return Tick(max(0, int32(now-Tick(v))))
}

// seen returns v as of a frame at now.
func (v value) seen(now Tick) value {
	return v&^(1<<32-1) | value(now)
}

// moved returns v behind another port. The count of moves stops at its greatest.
func (v value) moved(p Port) value {
	if v.moves() < maxMoves {
		v += oneMove
	}
	return v&^(0xffff<<48) | value(p)<<48
}
