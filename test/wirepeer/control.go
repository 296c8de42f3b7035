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
	RELAY                       // forwards relayed frames
	STRIPE                      // puts striped objects back in order
)

// The types of control messages, and sizes in bytes (§2).
const (
	typeHello    = 1
	typeGoodbye  = 2
	typeProbeAck = 3

	messageHeader = 3 // type u8, length u16
	maxBody       = 16384

	helloBytes    = 56
	goodbyeBytes  = 1 // the text may be empty
	probeAckBytes = 9

	maxConnectionID = 17
	maxGoodbyeText  = 200
)

// ErrProtocol is what every error of [ParseMessage] wraps: the connection is
// to be closed with error 1.
var ErrProtocol = errors.New("protocol error")

// Message is one of [Hello], [Goodbye] and [ProbeAck].
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
}

// Append implements [Message].
func (h Hello) Append(b []byte) []byte {
	body := append([]byte(nil), h.ID[:]...)
	body = binary.BigEndian.AppendUint64(body, h.Boot)
	body = binary.BigEndian.AppendUint64(body, h.Session)
	body = append(body, h.Lane, h.ConnectionID)
	body = binary.BigEndian.AppendUint16(body, h.MTU)
	body = binary.BigEndian.AppendUint32(body, uint32(h.Features))
	return AppendMessage(b, typeHello, body)
}

// Goodbye says that its sender leaves now.
type Goodbye struct {
	Reason byte
	Text   string // not cleaned: whoever shows it does that
}

// Append implements [Message].
func (g Goodbye) Append(b []byte) []byte {
	return AppendMessage(b, typeGoodbye, append([]byte{g.Reason}, g.Text...))
}

// ProbeAck answers a [Heartbeat] of mode [Probe].
type ProbeAck struct {
	Lane  byte
	Nonce uint64
}

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

// ParseMessage takes the first message of b, n bytes long. With n = 0 and no
// error, b holds only the beginning of one. A message of an unknown type has n
// and is nil. An error wraps [ErrProtocol]; a body that is too long is found
// from its header alone.
//
// Which message may come when, and on which lane, is not looked at.
func ParseMessage(b []byte) (m Message, n int, err error) {
	if len(b) < messageHeader {
		return nil, 0, nil
	}
	length := int(binary.BigEndian.Uint16(b[1:]))
	if length > maxBody {
		return nil, 0, fmt.Errorf("%w: message of type %d with a body of %d bytes (at most %d)",
			ErrProtocol, b[0], length, maxBody)
	}
	n = messageHeader + length
	if len(b) < n {
		return nil, 0, nil
	}
	switch body := b[messageHeader:n]; b[0] {
	case typeHello:
		m, err = parseHello(body)
	case typeGoodbye:
		m, err = parseGoodbye(body)
	case typeProbeAck:
		m, err = parseProbeAck(body)
	}
	if err != nil {
		return nil, 0, err
	}
	return m, n, nil
}

func parseHello(b []byte) (Message, error) {
	if err := checkBody("HELLO", b, helloBytes); err != nil {
		return nil, err
	}
	h := Hello{
		Boot:         binary.BigEndian.Uint64(b[32:]),
		Session:      binary.BigEndian.Uint64(b[40:]),
		Lane:         b[48],
		ConnectionID: b[49],
		MTU:          binary.BigEndian.Uint16(b[50:]),
		Features:     Features(binary.BigEndian.Uint32(b[52:])),
	}
	copy(h.ID[:], b)
	if h.ConnectionID > maxConnectionID {
		return nil, fmt.Errorf("%w: HELLO: connection IDs of %d bytes (at most %d)",
			ErrProtocol, h.ConnectionID, maxConnectionID)
	}
	return h, nil
}

func parseGoodbye(b []byte) (Message, error) {
	if err := checkBody("GOODBYE", b, goodbyeBytes); err != nil {
		return nil, err
	}
	// Reading: what stands behind 200 bytes of text is not defined, and so
	// ignored.
	text := b[goodbyeBytes:]
	if len(text) > maxGoodbyeText {
		text = text[:maxGoodbyeText]
	}
	return Goodbye{Reason: b[0], Text: string(text)}, nil
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
