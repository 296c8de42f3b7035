// SPDX-License-Identifier: Apache-2.0

package wirepeer

import (
	"encoding/binary"
	"math/rand/v2"
)

// GenerateMTU is the LAN whose limits the frames of [Generate] are drawn
// around; a receiver with another MTU may be given them as well.
const GenerateMTU = 1500

// GenerateMembers are the destinations and sources of the relayed objects that
// [Generate] draws; a receiver may be one of them or none. Half of the objects go
// from the second to the third, as by the peer to another, or from the fourth to
// the first, as by a relay to the receiver.
var GenerateMembers = [4]Member{{1}, {2}, {3}, {4}}

// Generate returns n datagrams of one lane in the order of their arrival:
// bursts of honest traffic, some of them lost, repeated and out of order, and
// between them bursts and changes that no honest sender makes. The same state
// of rng makes the same datagrams.
func Generate(rng *rand.Rand, n int) [][]byte {
	g := &generator{rng: rng}
	// Begin at once before the wraps, often.
	g.Size = g.pick(600, 1200, 1350, 1452, 9000)
	g.ID = uint16(g.pick(0, 0xfff0, rng.IntN(1<<16)))
	g.Sequence = uint16(g.pick(0, 0xfff0, rng.IntN(1<<16)))

	var out [][]byte
	for len(out) < n {
		var burst [][]byte
		switch g.rng.IntN(4) {
		case 0:
			burst = g.honest()
		case 1:
			burst = g.path(g.honest())
		case 2:
			burst = g.mutate(g.path(g.honest()))
		case 3:
			burst = g.attack()
		}
		out = append(out, burst...)
		g.follow(burst)
	}
	return out[:n:n]
}

type generator struct {
	rng *rand.Rand
	Sender
	shadow window // of who receives what was generated, or nearly so
}

// follow moves the sender on, in most cases, when a lie about an id has moved
// the window away from it: else all that it cuts would be late from then on.
func (g *generator) follow(burst [][]byte) {
	for _, b := range burst {
		for _, at := range recordOffsets(b) {
			kind, flags, body := b[at]&0x0f, Flags(b[at]&0xf0), b[at+recordHeader:]
			body = body[:min(len(body), u16(b[at+1:]))]
			if p, ok := parsePart(kind, flags, body); ok && (kind == kindSlice || kind == kindHead) {
				g.shadow.admit(p.id, func(string) {})
			}
		}
	}
	w := &g.shadow
	if w.begun && int16(g.ID-w.newest) <= -windowIDs && !g.one(4) {
		g.ID = w.newest + 1
	}
}

func (g *generator) pick(choices ...int) int { return choices[g.rng.IntN(len(choices))] }

// one reports true once in n times.
func (g *generator) one(n int) bool { return g.rng.IntN(n) == 0 }

// near returns v or one of its neighbours, not below 0.
func (g *generator) near(v int) int { return max(0, v+g.rng.IntN(5)-2) }

func (g *generator) fill(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(g.rng.Uint32())
	}
	return b
}

// honest returns what an honest sender would send when a few frames wait.
func (g *generator) honest() [][]byte {
	if g.one(6) {
		return [][]byte{g.Heartbeat(Heartbeat{byte(g.rng.IntN(4)), g.rng.Uint64()})}
	}
	objects := make([]Object, 1+g.rng.IntN(8))
	for i := range objects {
		objects[i] = g.object()
	}
	return g.Datagrams(objects)
}

// path does to datagrams what a path may: it loses, repeats and overtakes.
func (g *generator) path(in [][]byte) [][]byte {
	lose, repeat, overtake := g.pick(4, 20, 1000), g.pick(20, 1000), g.pick(3, 10, 1000)
	var out [][]byte
	for _, b := range in {
		if g.one(lose) {
			continue
		}
		out = append(out, b)
		if g.one(repeat) {
			out = append(out, b)
		}
	}
	for i := range out {
		if g.one(overtake) {
			j := min(len(out)-1, i+g.rng.IntN(6))
			out[i], out[j] = out[j], out[i]
		}
	}
	return out
}

// object returns a frame that a LAN of GenerateMTU takes, in most cases.
func (g *generator) object() Object {
	var o Object
	switch g.rng.IntN(4) {
	case 0:
		o = g.superframe()
	case 1:
		o = g.checksumFrame()
	default:
		o = Object{Frame: g.plainFrame()}
	}
	if g.one(4) {
		o.Flags |= Striped
		o.Stripe, o.Position = uint16(g.rng.IntN(3)), g.rng.Uint32()
	}
	if g.one(4) {
		o = g.relayed(o)
	}
	return o
}

// relayed returns o on its way from one member to another, or to the same.
func (g *generator) relayed(o Object) Object {
	o.Flags |= Relayed
	to, from := g.rng.IntN(len(GenerateMembers)), g.rng.IntN(len(GenerateMembers))
	switch g.rng.IntN(4) {
	case 0:
		to, from = 2, 1
	case 1:
		to, from = 0, 3
	}
	o.Destination, o.Source = GenerateMembers[to], GenerateMembers[from]
	return o
}

// plainFrame is a complete frame of any length up to the MTU, now and then
// just beyond it.
func (g *generator) plainFrame() []byte {
	b := g.ethernet(g.rng.IntN(4), g.rng.IntN(1<<16))
	limit := minFrame + GenerateMTU
	if n := len(b) - minFrame; n <= 8 {
		limit += n // the tags
	}
	switch g.rng.IntN(4) {
	case 0:
		return b
	case 1:
		return append(b, g.fill(g.near(limit)-len(b))...)
	default:
		return append(b, g.fill(g.rng.IntN(limit-len(b)))...)
	}
}

// checksumFrame has a virtio-net header without GSO: that of a frame of TCP or
// UDP, or of one that is not IP, or one that asks for nothing.
func (g *generator) checksumFrame() Object {
	if g.one(2) {
		o := g.smallSuperframe()
		v := parseVNET(o.Header)
		v.gsoType, v.gsoSize = gsoNone, g.pick(0, 1000)
		headers := v.csumStart + udpLen
		if v.csumOffset == checksumInTCP {
			headers = v.csumStart + int(o.Frame[v.csumStart+12]>>4)*4
		}
		o.Frame = o.Frame[:min(len(o.Frame), headers+g.rng.IntN(1000))]
		writeLengths(o.Frame)
		o.Header = v.bytes()
		return o
	}
	o := Object{Flags: VNET, Frame: g.plainFrame()}
	var v vnet
	ether, tags := etherType(o.Frame)
	least := minFrame + tags + 20
	if ether != etherTypeIPv4 && ether != etherTypeIPv6 && len(o.Frame) >= least+2 && !g.one(4) {
		v.flags = needsCSUM
		v.csumStart = least + g.rng.IntN(len(o.Frame)-least-1)
		v.csumOffset = g.rng.IntN(len(o.Frame) - v.csumStart - 1)
	}
	o.Header = v.bytes()
	return o
}

// superframe is TCP or UDP over IPv4 or IPv6 with up to two tags, options or
// extension headers, and a payload of one byte to as much as a receiver takes.
func (g *generator) superframe() Object {
	v := vnet{flags: needsCSUM, gsoType: gsoUDP, csumOffset: checksumInUDP}
	udp, six := g.one(3), g.one(2)
	ether, protocol, segments := etherTypeIPv4, byte(protocolUDP), maxSegmentsUDP
	if six {
		ether = etherTypeIPv6
	}
	if !udp {
		protocol, segments = protocolTCP, maxSegmentsTCP
		v.csumOffset = checksumInTCP
		v.gsoType = gsoTCP4
		if six {
			v.gsoType = gsoTCP6
		}
		if g.one(3) {
			v.gsoType |= gsoECN
		}
	}
	b := g.ethernet(g.rng.IntN(3), ether)
	tags := len(b) - minFrame
	ip := len(b)
	if six {
		b = append(b, g.fill(minIPv6)...)
		b[ip] = 6 << 4
		next := ip + 6
		for range g.pick(0, 0, 0, 1, 2, 4) {
			b[next] = byte(g.pick(protocolHopByHop, protocolRouting, protocolDestination))
			next = len(b)
			words := g.pick(0, 0, 1, 5)
			b = append(b, g.fill(8+8*words)...)
			b[next+1] = byte(words)
		}
		b[next] = protocol
	} else {
		words := g.pick(5, 5, 5, 6, 15)
		b = append(b, g.fill(4*words)...)
		b[ip], b[ip+6], b[ip+7], b[ip+9] = 4<<4|byte(words), 0x40, 0, protocol
	}
	v.csumStart = len(b)
	header := g.fill(udpLen)
	if !udp {
		words := g.pick(5, 8, 15)
		header = g.fill(4 * words)
		header[12] = byte(words) << 4
	}
	b = append(b, header...)
	v.headerBytes = g.pick(0, len(b))

	room := minFrame + tags + GenerateMTU - len(b)
	v.gsoSize = room - g.rng.IntN(room)
	if g.one(6) {
		v.gsoSize = max(1, g.near(room))
	}
	greatest := ip + 65535 - len(b) // what the length field of IP can say
	if six {
		greatest += minIPv6
	}
	greatest = min(greatest, v.gsoSize*segments)
	payload := 1 + g.rng.IntN(g.pick(1, v.gsoSize, 4*v.gsoSize, 4*v.gsoSize, 10000, 10000, greatest))
	b = append(b, g.fill(min(payload, greatest))...)
	writeLengths(b)
	return Object{Flags: VNET, Header: v.bytes(), Frame: b}
}

// writeLengths writes the lengths that the kernel would have written in the
// headers of IP and UDP that are whole.
func writeLengths(frame []byte) {
	_, tags := etherType(frame)
	version, protocol, at, ok := transport(frame)
	if !ok {
		return
	}
	ip := frame[minFrame+tags:]
	if version == 4 {
		binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
	} else {
		binary.BigEndian.PutUint16(ip[4:], uint16(len(ip)-minIPv6))
	}
	if header := frame[at:]; protocol == protocolUDP && len(header) >= udpLen {
		binary.BigEndian.PutUint16(header[4:], uint16(len(header)))
	}
}

// ethernet is a header with some tags.
func (g *generator) ethernet(tags, ether int) []byte {
	b := g.fill(12)
	for range tags {
		b = binary.BigEndian.AppendUint16(b, uint16(g.pick(etherType8021Q, etherType8021AD)))
		b = append(b, g.fill(2)...)
	}
	return binary.BigEndian.AppendUint16(b, uint16(ether))
}
