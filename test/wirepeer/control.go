// SPDX-License-Identifier: Apache-2.0

package wirepeer

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Features is the bit set of a HELLO: what its sender takes (§2).
type Features uint32

// The features.
const (
	CSUM   Features = 1 << iota // frames whose checksum is still to be done
	TSO                         // superframes of TCP; implies CSUM
	USO                         // superframes of UDP; implies CSUM
	RELAY                       // forwards relayed objects
	STRIPE                      // puts striped objects back in order
	VIA                         // takes objects that a relay has forwarded
	TEST                        // answers the objects of a test
	PARITY                      // takes PARITY records
)

// The types of control messages, and sizes in bytes (§2).
const (
	typeHello    = 1
	typeLanes    = 2
	typeProbeAck = 3
	typeHave     = 4
	typeMember   = 5
	typeLinks    = 6
	typeSeen     = 7
	typePunch    = 8
	typeRevoked  = 9
	typeDoubts   = 10

	messageHeader = 3 // type u8, length u16
	maxBody       = 16384

	helloBytes    = 72
	leastHello    = 56
	probeAckBytes = 9

	maxConnectionID = 17
)

// ErrProtocol is what every error of [Control] wraps: the connection is
// to be closed with code 1.
var ErrProtocol = errors.New("protocol error")

// Message is a [Hello], [Lanes], [ProbeAck], [Have], [Announcement], [Links],
// [Seen], [Punch], [Revoked] or [Doubts].
type Message interface {
	// Append appends the message with its header to b.
	Append(b []byte) []byte
}

// Hello is the first message on a lane in each direction.
type Hello struct {
	ID           [32]byte // SHA-256 of the sender's public key
	Boot         uint64
	Session      uint64
	Lane         byte
	ConnectionID byte   // length of the sender's connection IDs in bytes
	MTU          uint16 // of the sender's LAN
	Features     Features
	List         uint64 // version of the list of revoked keys that the sender has
	Digest       [8]byte
}

// Append implements [Message].
func (h Hello) Append(b []byte) []byte {
	body := append([]byte(nil), h.ID[:]...)
	body = binary.BigEndian.AppendUint64(body, h.Boot)
	body = binary.BigEndian.AppendUint64(body, h.Session)
	body = append(body, h.Lane, h.ConnectionID)
	body = binary.BigEndian.AppendUint16(body, h.MTU)
	body = binary.BigEndian.AppendUint32(body, uint32(h.Features))
	body = binary.BigEndian.AppendUint64(body, h.List)
	return AppendMessage(b, typeHello, append(body, h.Digest[:]...))
}

// ProbeAck answers a [Heartbeat] of mode [Probe].
type ProbeAck struct {
	Lane  byte
	Nonce uint64
}

// Lanes says how many data lanes its sender could use.
type Lanes struct{ Want byte }

// Append implements [Message].
func (l Lanes) Append(b []byte) []byte { return AppendMessage(b, typeLanes, []byte{l.Want}) }

// Append implements [Message].
func (a ProbeAck) Append(b []byte) []byte {
	body := binary.BigEndian.AppendUint64([]byte{a.Lane}, a.Nonce)
	return AppendMessage(b, typeProbeAck, body)
}

// AppendMessage appends a message of any type, without any check but that the
// length is that of body, modulo 65,536.
func AppendMessage(b []byte, typ byte, body []byte) []byte {
	b = append(b, typ)
	b = binary.BigEndian.AppendUint16(b, uint16(len(body)))
	return append(b, body...)
}

// Control is the receiving end of one lane's control stream.
type Control struct {
	// ID is SHA-256 of the public key in the certificate of the other side.
	ID [32]byte
	// Dialled is what this side said when it dialled the lane; nil at the side
	// that was dialled.
	Dialled *Hello

	hello *Hello // what the other side said
	have  bool   // it sent a HAVE
	list  uint64 // bytes of a list that have come
	rest  []byte // the beginning of a message
}

// Read takes the next bytes of the stream and returns the messages that end in
// them; skipped ones are left out. An error wraps [ErrProtocol], and nothing
// may be read after it; a body that is too long is found from its header
// alone. Read keeps nothing of b.
func (c *Control) Read(b []byte) ([]Message, error) {
	c.rest = append(c.rest, b...)
	var messages []Message
	for len(c.rest) >= messageHeader {
		typ, length := c.rest[0], u16(c.rest[1:])
		if length > maxBody {
			return messages, fmt.Errorf("%w: message of type %d with a body of %d bytes (at most %d)",
				ErrProtocol, typ, length, maxBody)
		}
		n := messageHeader + length
		if len(c.rest) < n {
			break
		}
		m, err := c.message(typ, c.rest[messageHeader:n])
		if err != nil {
			return messages, err
		}
		if m != nil {
			messages = append(messages, m)
		}
		c.rest = c.rest[n:]
	}
	return messages, nil
}

// End says that the stream has ended. An error wraps [ErrProtocol].
func (c *Control) End() error {
	if len(c.rest) > 0 {
		return fmt.Errorf("%w: the stream ends %d bytes into a message", ErrProtocol, len(c.rest))
	}
	return nil
}

// message takes one message, and returns nil for one that is skipped.
func (c *Control) message(typ byte, body []byte) (Message, error) {
	// Reading: what would be skipped is a first message too.
	if c.hello == nil && typ != typeHello {
		return nil, fmt.Errorf("%w: first message of type %d (want HELLO)", ErrProtocol, typ)
	}
	if typ == typeHello {
		return c.readHello(body)
	}
	// Reading: what is skipped may have any body.
	if c.hello.Lane != 0 {
		return nil, nil
	}
	switch typ {
	case typeLanes:
		if err := checkBody("LANES", body, 1); err != nil {
			return nil, err
		}
		return Lanes{body[0]}, nil
	case typeProbeAck:
		return parseProbeAck(body)
	case typeHave:
		// Reading: one that is ignored is lawful all the same.
		h, err := parseHave(body)
		if err != nil || c.have {
			return nil, err
		}
		c.have = true
		return h, nil
	case typeMember:
		return parseAnnouncement(body)
	case typeLinks:
		return parseLinks(body)
	case typeSeen:
		return parseSeen(body)
	case typePunch:
		return parsePunch(body)
	case typeRevoked:
		return c.readRevoked(body)
	case typeDoubts:
		return parseDoubts(body)
	}
	return nil, nil
}

func (c *Control) readHello(body []byte) (Message, error) {
	if c.hello != nil {
		return nil, fmt.Errorf("%w: second HELLO", ErrProtocol)
	}
	h, err := parseHello(body)
	if err != nil {
		return nil, err
	}
	if h.ID != c.ID {
		return nil, fmt.Errorf("%w: HELLO: id %x (that of the certificate is %x)", ErrProtocol, h.ID, c.ID)
	}
	if d := c.Dialled; d != nil && (h.Session != d.Session || h.Lane != d.Lane) {
		return nil, fmt.Errorf("%w: HELLO: session %x, lane %d (dialled %x, %d)",
			ErrProtocol, h.Session, h.Lane, d.Session, d.Lane)
	}
	c.hello = &h
	return h, nil
}

func parseHello(b []byte) (h Hello, err error) {
	if err := checkBody("HELLO", b, leastHello); err != nil {
		return h, err
	}
	h = Hello{
		Boot:         binary.BigEndian.Uint64(b[32:]),
		Session:      binary.BigEndian.Uint64(b[40:]),
		Lane:         b[48],
		ConnectionID: b[49],
		MTU:          binary.BigEndian.Uint16(b[50:]),
		Features:     Features(binary.BigEndian.Uint32(b[52:])),
	}
	copy(h.ID[:], b)
	if len(b) >= helloBytes {
		h.List = binary.BigEndian.Uint64(b[56:])
		copy(h.Digest[:], b[64:])
	}
	if h.ConnectionID > maxConnectionID {
		return h, fmt.Errorf("%w: HELLO: connection IDs of %d bytes (at most %d)",
			ErrProtocol, h.ConnectionID, maxConnectionID)
	}
	return h, nil
}

func parseProbeAck(b []byte) (Message, error) {
	if err := checkBody("PROBE_ACK", b, probeAckBytes); err != nil {
		return nil, err
	}
	return ProbeAck{Lane: b[0], Nonce: binary.BigEndian.Uint64(b[1:])}, nil
}

func checkBody(name string, b []byte, want int) error {
	if len(b) < want {
		return fmt.Errorf("%w: %s of %d bytes (at least %d)", ErrProtocol, name, len(b), want)
	}
	return nil
}
