// SPDX-License-Identifier: Apache-2.0

package wirepeer

import "encoding/binary"

// mutate changes some bytes of datagrams in place, and where some of them end.
func (g *generator) mutate(in [][]byte) [][]byte {
	rate := g.pick(1, 3, 10)
	out := make([][]byte, len(in))
	for i, b := range in {
		b = append([]byte(nil), b...)
		if g.one(rate) {
			b = g.change(b)
		}
		out[i] = b
	}
	return out
}

// change alters one thing of an honest datagram.
func (g *generator) change(b []byte) []byte {
	records := recordOffsets(b)
	at := records[g.rng.IntN(len(records))]
	switch g.rng.IntN(7) {
	case 0: // anywhere
		b[g.rng.IntN(len(b))] ^= 1 << g.rng.IntN(8)
	case 1: // in the tag: kind and flags
		b[at] ^= 1 << g.rng.IntN(8)
	case 2: // in the length
		n := int(binary.BigEndian.Uint16(b[at+1:]))
		binary.BigEndian.PutUint16(b[at+1:], uint16(g.near(n)))
	case 3: // in the fixed fields, and the header and frame behind them
		i := at + recordHeader + g.rng.IntN(48)
		if i < len(b) {
			b[i] = byte(g.pick(0, 0xff, int(b[i])^1, g.rng.IntN(256)))
		}
	case 4: // cut off
		b = b[:g.rng.IntN(len(b)+1)]
	case 5: // something behind
		b = append(b, g.fill(g.rng.IntN(20))...)
	case 6: // a record between
		var middle []byte
		middle = AppendRecord(middle, byte(g.rng.IntN(16)), Flags(g.rng.IntN(16)<<4), g.fill(g.rng.IntN(20)))
		b = append(b[:at:at], append(middle, b[at:]...)...)
	}
	return b
}

// recordOffsets returns where the records of a lawful datagram begin.
func recordOffsets(b []byte) (offsets []int) {
	for i := 2; i+recordHeader <= len(b) && b[i]&0x0f != kindPad; {
		offsets = append(offsets, i)
		i += recordHeader + int(binary.BigEndian.Uint16(b[i+1:]))
	}
	return offsets
}

// attack returns datagrams that are built to lie.
func (g *generator) attack() [][]byte {
	attacks := []func() [][]byte{
		g.attackNoise, g.attackHeartbeat, g.attackBody, g.attackObjectBounds, g.attackTotal,
		g.attackOverlap, g.attackRuns, g.attackFlags, g.attackID, g.attackHead,
		g.attackOffload, g.attackSegments, g.attackChecksum, g.attackMTU, g.attackTest, g.attackRelayed,
	}
	return attacks[g.rng.IntN(len(attacks))]()
}

// datagram returns a datagram with the next sequence and these records.
func (g *generator) datagram(records ...[]byte) []byte {
	b := make([]byte, 2)
	for _, r := range records {
		b = append(b, r...)
	}
	return g.finish(b, 0)
}

// attackNoise is random bytes, with a plausible tag half of the time.
func (g *generator) attackNoise() [][]byte {
	b := g.fill(g.rng.IntN(40))
	if len(b) > 2 && g.one(2) {
		b[2] &= 0x77
	}
	return [][]byte{b}
}

// attackHeartbeat is heartbeats of any length, mode and flags, with padding that has
// flags, or half a record header, behind them.
func (g *generator) attackHeartbeat() [][]byte {
	body := append([]byte{byte(g.rng.IntN(6))}, g.fill(8)...)
	body = append(body, g.fill(3)...)[:g.near(heartbeatBytes)]
	flags := Flags(g.pick(0, 0, 0, 0x10, 0x80))
	end := []byte{byte(g.pick(0, 0x10, 0x80, 0xf0, kindWhole, 5)), 1}[:1+g.rng.IntN(2)]
	return [][]byte{g.datagram(AppendRecord(nil, kindHeartbeat, flags, body), end)}
}

// attackBody is slices and heads whose body is about the least one.
func (g *generator) attackBody() [][]byte {
	id := g.nextID()
	short := func(kind byte, least int) []byte {
		body := binary.BigEndian.AppendUint16(nil, id)
		return AppendRecord(nil, kind, 0, append(body, g.fill(least)...)[:g.near(least)])
	}
	return [][]byte{g.datagram(short(kindSlice, sliceFixed+1), short(kindHead, headFixed+1))}
}

// attackObjectBounds is objects of about the least and the greatest length.
func (g *generator) attackObjectBounds() [][]byte {
	flags := Flags(g.rng.IntN(16) << 4)
	if g.one(3) {
		n := min(g.near(flags.partsBytes()+maxFrame), 65535)
		return [][]byte{g.datagram(AppendRecord(nil, kindWhole, flags, g.fill(n)))}
	}
	n := g.near(flags.partsBytes() + minFrame)
	whole := AppendRecord(nil, kindWhole, flags, make([]byte, n))
	short := AppendRecord(nil, kindWhole, flags, make([]byte, g.rng.IntN(n+1)))
	return [][]byte{g.datagram(whole, short)}
}

// attackTest is objects of a test, whole and cut, of which some have another flag.
func (g *generator) attackTest() [][]byte {
	flags, id := Test, g.nextID()
	if g.one(4) {
		flags |= Flags(g.pick(int(Striped), int(Relayed), int(VNET)))
	}
	b := g.fill(minFrame + g.rng.IntN(100))
	return [][]byte{
		g.datagram(AppendRecord(nil, kindWhole, flags, b), AppendRecord(nil, kindWhole, Test, b), AppendSlice(nil, flags, id, 0, len(b), b[:10])),
		g.datagram(AppendSlice(nil, flags, id, 10, len(b), b[10:])),
	}
}

// attackRelayed is relayed frames and superframes about the limit of the LAN, or
// about that of a relay, whole and cut, in the middle of their parts too.
func (g *generator) attackRelayed() [][]byte {
	var out [][]byte
	for range 4 {
		limit := g.pick(GenerateMTU, relayMTU)
		o := Object{Frame: g.ethernet(0, 0x88b5)}
		if g.one(2) {
			o.Frame = append(o.Frame, g.fill(g.near(limit))...)
		} else {
			o = g.smallSuperframe()
			v := parseVNET(o.Header)
			headers, _ := v.superframe(o.Frame)
			_, tags := etherType(o.Frame)
			v.gsoSize = max(1, g.near(minFrame+tags+limit-headers))
			o.Frame = append(o.Frame[:headers], g.fill(v.gsoSize+1+g.rng.IntN(3*v.gsoSize))...)
			writeLengths(o.Frame)
			o.Header = v.bytes()
		}
		o = g.relayed(o)
		if g.one(2) {
			out = append(out, g.datagram(AppendWhole(nil, o)))
			continue
		}
		b, id := o.Append(nil), g.nextID()
		cuts := []int{0, 1 + g.rng.IntN(o.Flags.partsBytes()), len(b) / 2, len(b)}
		var slices [][]byte
		for i := range len(cuts) - 1 {
			slices = append(slices, AppendSlice(nil, o.Flags, id, cuts[i], len(b), b[cuts[i]:cuts[i+1]]))
		}
		g.rng.Shuffle(len(slices), func(i, j int) { slices[i], slices[j] = slices[j], slices[i] })
		out = append(out, g.datagram(slices...))
	}
	return out
}

// attackTotal is slices and heads of one object that do not agree on its
// total, or whose total is at a bound.
func (g *generator) attackTotal() [][]byte {
	flags := Flags(g.rng.IntN(16) << 4)
	total := g.near(flags.partsBytes() + g.pick(minFrame, maxFrame, 100))
	if g.one(4) {
		total = g.pick(0, 1, 0xffffff)
	}
	id := g.nextID()
	n := max(1, min(total, 40))
	out := [][]byte{g.datagram(AppendSlice(nil, flags, id, 0, total, g.fill(n)))}
	second := total
	if g.one(2) {
		second = g.near(total)
	}
	for offset := n; offset < min(total, 70000); offset += 9000 {
		b := g.fill(min(9000, total-offset))
		out = append(out, g.datagram(AppendSlice(nil, flags, id, offset, second, b)))
	}
	return out
}

// attackOverlap is slices of a small object that share bytes, leave some out,
// or reach just beyond it.
func (g *generator) attackOverlap() [][]byte {
	id, total := g.nextID(), 100
	var out [][]byte
	for offset := 0; offset < total; {
		n := 1 + g.rng.IntN(40)
		if !g.one(6) {
			n = min(n, total-offset)
		}
		at := offset
		if g.one(6) {
			at = g.near(offset)
		}
		if g.one(20) {
			at = g.pick(total-1, total, total+1, 0xffffff)
		}
		out = append(out, g.datagram(AppendSlice(nil, 0, id, at, total, make([]byte, n))))
		offset += n
	}
	g.rng.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

// attackRuns is every second byte of an object in about as many runs as a
// receiver takes, and then the bytes between.
func (g *generator) attackRuns() [][]byte {
	id, runs := g.nextID(), g.near(maxRuns)
	var odd, even [][]byte
	for i := range runs {
		odd = append(odd, AppendSlice(nil, 0, id, 2*i, 2*runs, []byte{1}))
		even = append(even, AppendSlice(nil, 0, id, 2*i+1, 2*runs, []byte{2}))
	}
	g.rng.Shuffle(len(odd), func(i, j int) { odd[i], odd[j] = odd[j], odd[i] })
	if g.one(2) {
		return [][]byte{g.datagram(append(odd, even...)...)}
	}
	return [][]byte{g.datagram(odd...), g.datagram(even...)}
}

// attackFlags is an object whose second slice may have other flags.
func (g *generator) attackFlags() [][]byte {
	id := g.nextID()
	first, second := Flags(g.rng.IntN(8)<<4), Flags(g.rng.IntN(16)<<4)
	if g.one(2) {
		second = first
	}
	return [][]byte{
		g.datagram(AppendSlice(nil, first, id, 0, 64, make([]byte, 32))),
		g.datagram(AppendSlice(nil, second, id, 32, 64, make([]byte, 32))),
	}
}

// attackID opens objects at jumps around the bounds of the window and of 16
// bits, then ends some of them.
func (g *generator) attackID() [][]byte {
	id := g.ID
	var out [][]byte
	var ids []uint16
	for range 1 + g.rng.IntN(5) {
		id += uint16(g.pick(1, 1, -1, windowIDs-1, windowIDs, windowIDs+1, 1-windowIDs, -windowIDs, -1-windowIDs,
			0x7fff, 0x8000, 0x8001, g.rng.IntN(1<<16)))
		ids = append(ids, id)
		out = append(out, g.datagram(AppendSlice(nil, 0, id, 0, 30, make([]byte, 15))))
	}
	for _, id := range ids {
		if g.one(2) {
			out = append(out, g.datagram(AppendSlice(nil, 0, id, 15, 30, make([]byte, 15))))
		}
	}
	return out
}

// attackHead is heads that are too long, too short, before, between and behind
// the slices of their object, or say other things than these.
func (g *generator) attackHead() [][]byte {
	id, total := g.nextID(), g.pick(20, 300)
	head := func() []byte {
		n := g.pick(0, 1, g.near(total), g.near(maxHead), 10, 10, 10)
		t := total
		if g.one(6) {
			t = g.near(total)
		}
		return AppendHead(nil, 0, id, t, g.fill(n))
	}
	records := [][]byte{
		head(),
		AppendSlice(nil, 0, id, 0, total, make([]byte, 10)),
		head(),
		AppendSlice(nil, 0, id, 10, total, make([]byte, total-10)),
		head(),
	}
	var some [][]byte
	for i, r := range records {
		if i%2 == 1 || g.one(2) {
			some = append(some, r)
		}
	}
	if g.one(3) {
		some = some[:len(some)-1]
	}
	return [][]byte{g.datagram(some...)}
}

// attackOffload is superframes that are each wrong in one of the fields that
// §5 checks.
func (g *generator) attackOffload() [][]byte {
	var out [][]byte
	for range 8 {
		o := g.wrongSuperframe()
		if g.one(4) {
			o = g.relayed(o)
		}
		out = append(out, g.datagram(AppendWhole(nil, o)))
	}
	return out
}

func (g *generator) wrongSuperframe() Object {
	o := g.smallSuperframe()
	v := parseVNET(o.Header)
	headers, _ := v.superframe(o.Frame)
	_, tags := etherType(o.Frame)
	ip := minFrame + tags
	switch g.rng.IntN(14) {
	case 0:
		v.flags = byte(g.pick(0, 1, 2, 3, 0x80))
	case 1:
		v.gsoType = byte(g.pick(0, 1, 2, 3, 4, 5, 6, 0x80, 0x81, 0x84, 0x85))
	case 2:
		v.gsoSize = g.pick(0, 1, 0xffff, len(o.Frame)-headers-1, len(o.Frame)-headers)
	case 3:
		v.csumStart = g.pick(0, 13, 14, v.csumStart-1, v.csumStart+1, g.near(len(o.Frame)-v.csumOffset-2), 0xffff)
	case 4:
		v.csumOffset = g.pick(0, checksumInTCP, checksumInUDP, v.csumOffset+1, 0xffff)
	case 5: // cut around the end of the headers
		o.Frame = o.Frame[:min(len(o.Frame), g.near(headers))]
		writeLengths(o.Frame)
	case 6: // cut anywhere in them
		o.Frame = o.Frame[:minFrame+g.rng.IntN(headers-minFrame)]
		writeLengths(o.Frame)
	case 7: // EtherType, of a tag or behind
		binary.BigEndian.PutUint16(o.Frame[12+g.pick(0, tags):], uint16(g.pick(0x0800, 0x86dd, 0x8100, 0x88a8, 0x9100, 0x0806)))
	case 8: // version and length of the IP header
		o.Frame[ip] = byte(g.pick(0x40, 0x44, 0x45, 0x46, 0x4f, 0x60, 0x65))
	case 9: // its protocol fields and what is beside them
		o.Frame[ip+g.pick(6, 7, 9)] = byte(g.pick(0, 1, 6, 17, 0x20, 41, 43, 44, 50, 59, 60, 132))
	case 10: // length of the TCP header, where it is one
		if i := v.csumStart + 12; i < len(o.Frame) {
			o.Frame[i] = byte(g.pick(0x00, 0x40, 0x50, 0x60, 0xf0))
		}
	case 11: // a byte of the extension headers, or of the options
		if n := v.csumStart - ip - minIPv4; n > 0 {
			o.Frame[v.csumStart-1-g.rng.IntN(n)] = byte(g.pick(0, 1, 6, 17, 43, 44, 60, 0xff))
		}
	case 12: // the lengths in the headers of IP and UDP
		at := ip + g.pick(2, 4)
		if g.one(3) {
			at = v.csumStart + 4
		}
		binary.BigEndian.PutUint16(o.Frame[at:], uint16(g.near(u16(o.Frame[at:]))))
	case 13: // padded, or cut, behind what the headers say
		if g.one(2) {
			o.Frame = append(o.Frame, g.fill(1+g.rng.IntN(20))...)
		} else {
			o.Frame = o.Frame[:len(o.Frame)-1]
		}
	}
	// The same wrong in a frame that asks for its checksum only.
	if g.one(3) {
		v.gsoType = gsoNone
	}
	o.Header = v.bytes()
	return o
}

// attackSegments is superframes of about as many segments as a receiver takes,
// or of one.
func (g *generator) attackSegments() [][]byte {
	var out [][]byte
	for range 4 {
		o := g.superframe()
		v := parseVNET(o.Header)
		headers, _ := v.superframe(o.Frame)
		payload := len(o.Frame) - headers
		v.gsoSize = g.near(payload / g.pick(1, 1, 2, maxSegmentsUDP, maxSegmentsTCP))
		o.Header = v.bytes()
		out = append(out, g.Datagrams([]Object{o})...)
	}
	return out
}

// attackChecksum is small frames of random protocols that ask for a checksum
// about the first and the last place where it may be.
func (g *generator) attackChecksum() [][]byte {
	var out [][]byte
	for range 8 {
		ether := g.pick(etherTypeIPv4, etherTypeIPv6, etherTypeIPv6, 0x88b5)
		o := Object{Flags: VNET, Frame: g.ethernet(g.rng.IntN(4), ether)}
		_, tags := etherType(o.Frame)
		ip := minFrame + tags
		o.Frame = append(o.Frame, g.fill(42+g.rng.IntN(60))...)
		o.Frame[ip] = byte(g.pick(0x45, 0x46, 0x60))
		if ether == etherTypeIPv6 && !g.one(8) {
			o.Frame[ip] = 0x60
		}
		o.Frame[ip+6] = byte(g.pick(0, 6, 17, 43, 44, 60, 132))
		o.Frame[ip+7] = byte(g.pick(0, 0, 0, 1))
		o.Frame[ip+9] = byte(g.pick(1, 6, 17, 132))
		o.Frame[ip+40] = byte(g.pick(6, 17, 0, 43, 44, 60, 132))
		o.Frame[ip+41] = byte(g.pick(0, 0, 1, 4))
		_, _, at, ok := transport(o.Frame)
		if !ok { // where it would be
			at = ip + g.pick(20, 40, 48, 56)
		}
		v := vnet{flags: needsCSUM, csumStart: g.near(at), csumOffset: g.pick(0, 6, 16)}
		if g.one(2) {
			v.csumOffset = g.near(max(0, len(o.Frame)-v.csumStart-2))
		}
		o.Header = v.bytes()
		out = append(out, g.datagram(AppendWhole(nil, o)))
	}
	return out
}

// attackMTU is frames with up to three tags, and superframes, about the limit
// of the LAN.
func (g *generator) attackMTU() [][]byte {
	tags := g.rng.IntN(4)
	frame := g.ethernet(tags, 0x0800)
	frame = append(frame, g.fill(g.near(minFrame+4*min(tags, 2)+GenerateMTU)-len(frame))...)
	o := Object{Frame: frame}
	if g.one(2) {
		o.Flags = VNET
	}
	super := g.smallSuperframe()
	v := parseVNET(super.Header)
	headers, _ := v.superframe(super.Frame)
	_, tagBytes := etherType(super.Frame)
	v.gsoSize = max(1, g.near(minFrame+tagBytes+GenerateMTU-headers))
	super.Header = v.bytes()
	return [][]byte{g.datagram(AppendWhole(nil, o), AppendWhole(nil, super))}
}

// smallSuperframe is a superframe that fits a WHOLE with others.
func (g *generator) smallSuperframe() Object {
	for {
		if o := g.superframe(); len(o.Frame) <= 20000 {
			return o
		}
	}
}

// nextID takes the id that the honest sender would give next, and now and then
// one that it gave before.
func (g *generator) nextID() uint16 {
	if g.one(10) {
		return g.ID - uint16(g.rng.IntN(40))
	}
	id := g.ID
	g.ID++
	return id
}
