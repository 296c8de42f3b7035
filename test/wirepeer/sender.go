// SPDX-License-Identifier: Apache-2.0

package wirepeer

import "encoding/binary"

// minHeartbeatDatagram is what a datagram with a heartbeat is padded to (§6).
const minHeartbeatDatagram = 64

// minCut is the least room that a Sender cuts a frame for, record header and
// fixed fields of the slice included; less is padded. The text leaves it open.
const minCut = recordHeader + sliceFixed + 32

const recordHeader = 3 // tag u8, length u16

// AppendRecord appends a record of any kind and flags, without any check but
// that the length is that of body, modulo 65,536. A datagram is a sequence u16
// and records.
func AppendRecord(b []byte, kind byte, flags Flags, body []byte) []byte {
	b = append(b, byte(flags)|kind)
	b = binary.BigEndian.AppendUint16(b, uint16(len(body)))
	return append(b, body...)
}

// AppendWhole appends o as a WHOLE record. Its bytes must fit a u16.
func AppendWhole(b []byte, o Object) []byte {
	return AppendRecord(b, kindWhole, o.Flags, o.Append(nil))
}

// AppendSlice appends a SLICE record with any contents.
func AppendSlice(b []byte, flags Flags, id uint16, offset, total int, bytes []byte) []byte {
	body := binary.BigEndian.AppendUint16(nil, id)
	body = appendU24(body, offset)
	body = appendU24(body, total)
	return AppendRecord(b, kindSlice, flags, append(body, bytes...))
}

// AppendHead appends a HEAD record with any contents.
func AppendHead(b []byte, flags Flags, id uint16, total int, bytes []byte) []byte {
	body := binary.BigEndian.AppendUint16(nil, id)
	body = appendU24(body, total)
	return AppendRecord(b, kindHead, flags, append(body, bytes...))
}

// AppendHeartbeat appends a HEARTBEAT record.
func AppendHeartbeat(b []byte, h Heartbeat) []byte {
	body := binary.BigEndian.AppendUint64([]byte{h.Mode}, h.Nonce)
	return AppendRecord(b, kindHeartbeat, 0, body)
}

// Pad appends zeros, which are PAD, until b is size bytes long.
func Pad(b []byte, size int) []byte {
	for len(b) < size {
		b = append(b, 0)
	}
	return b
}

// Sender is the honest sending end of one lane. The zero value with a Size
// begins a lane; other first values of Sequence and ID try where they wrap.
type Sender struct {
	Size     int    // of a full datagram in bytes, at least 512
	Sequence uint16 // of the next datagram
	ID       uint16 // of the next object that is cut
}

// Datagrams packs objects, which all wait now, into datagrams as §3 and §4
// say: each full but the last, frames cut where a datagram ends, and a HEAD first
// in the datagram after the one with the first slice of a superframe.
func (s *Sender) Datagrams(objects []Object) [][]byte {
	var out [][]byte
	var head []byte // the HEAD record that the next datagram begins with
	b := make([]byte, 2)
	flush := func(size int) {
		out = append(out, s.finish(b, size))
		b = append(make([]byte, 2), head...)
		head = nil
	}
	for _, o := range objects {
		bytes := o.Append(nil)
		total := len(bytes)
		if s.Size-len(b) < minCut && s.Size-len(b) < recordHeader+total {
			flush(s.Size)
		}
		if recordHeader+total <= s.Size-len(b) {
			b = AppendWhole(b, o)
			continue
		}
		id := s.ID
		s.ID++
		for offset := 0; offset < total; {
			room := s.Size - len(b) - recordHeader - sliceFixed
			n := min(room, total-offset)
			b = AppendSlice(b, o.Flags, id, offset, total, bytes[offset:offset+n])
			if offset == 0 && o.salvageable() {
				head = AppendHead(nil, o.Flags, id, total, bytes[:min(maxHead, total)])
			}
			offset += n
			if offset < total {
				flush(s.Size)
			}
		}
	}
	if len(b) > 2 {
		flush(0)
	}
	return out
}

// Heartbeat returns a datagram with nothing but h, padded as §6 says.
func (s *Sender) Heartbeat(h Heartbeat) []byte {
	return s.finish(AppendHeartbeat(make([]byte, 2), h), minHeartbeatDatagram)
}

// finish pads b to size and writes the next sequence in its first two bytes.
func (s *Sender) finish(b []byte, size int) []byte {
	binary.BigEndian.PutUint16(b, s.Sequence)
	s.Sequence++
	return Pad(b, size)
}

// salvageable reports whether o is a superframe whose headers fit a HEAD.
func (o Object) salvageable() bool {
	v := parseVNET(o.Header)
	if v.gsoType == gsoNone {
		return false
	}
	headers, ok := v.superframe(o.Frame)
	return ok && o.Flags.partsBytes()+headers <= maxHead
}
