// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// ErrProtocol is wrapped by every error about a control message that breaks
// the protocol; the connection is to be closed with CloseProtocol.
var ErrProtocol = errors.New("protocol error")

// Codes a connection is closed with (section 2).
const (
	CloseGoodbye = iota
	CloseProtocol
	CloseReplaced
	CloseTwice
	CloseNotMember
	CloseRevoked
	CloseCutOff
)

// Types of control messages. All but HELLO are for lane 0.
const (
	TypeHello    = 1
	TypeLanes    = 2
	TypeProbeAck = 3
	TypeHave     = 4
	TypeMember   = 5
	TypeLinks    = 6
	TypeSeen     = 7
	TypePunch    = 8
	TypeRevoked  = 9
	TypeDoubts   = 10
)

const (
	maxBody = 16384

	// MaxConnIDLen bounds connection IDs: with longer ones quic-go accepts
	// datagrams that it then cannot send.
	MaxConnIDLen = 17
)

// Features is what a gateway takes.
type Features uint32

// The bits of Features.
const (
	FeatureCsum Features = 1 << iota
	FeatureTSO
	FeatureUSO
	FeatureRelay
	FeatureStripe
	FeatureVia
	FeatureTest
	FeatureParity
)

// Hello is the first message on a lane, in each direction.
type Hello struct {
	ID        [32]byte // SHA-256 of the public key
	Boot      [8]byte  // random, one a process
	Session   [8]byte
	Lane      uint8
	ConnIDLen uint8
	MTU       uint16
	Features  Features
	Revoked   ListVersion // of the list of revoked keys that the sender has
}

// ListVersion names a version of the list of revoked keys; the zero value is that
// of no list.
type ListVersion struct {
	Number uint64
	Digest [8]byte // tells two lists of one number apart
}

const (
	helloLen   = 72
	helloLeast = 56 // of one that says nothing of a list
)

// Append appends the message with its type and length.
func (h Hello) Append(p []byte) []byte {
	p = append(p, TypeHello, 0, helloLen)
	p = append(p, h.ID[:]...)
	p = append(p, h.Boot[:]...)
	p = append(p, h.Session[:]...)
	p = append(p, h.Lane, h.ConnIDLen)
	p = binary.BigEndian.AppendUint16(p, h.MTU)
	p = binary.BigEndian.AppendUint32(p, uint32(h.Features))
	p = binary.BigEndian.AppendUint64(p, h.Revoked.Number)
	return append(p, h.Revoked.Digest[:]...)
}

// ParseHello reads the body of a HELLO.
func ParseHello(b []byte) (h Hello, err error) {
	if len(b) < helloLeast {
		return h, fmt.Errorf("%w: hello of %d bytes, want at least %d", ErrProtocol, len(b), helloLeast)
	}
	copy(h.ID[:], b)
	copy(h.Boot[:], b[32:])
	copy(h.Session[:], b[40:])
	h.Lane, h.ConnIDLen = b[48], b[49]
	h.MTU = binary.BigEndian.Uint16(b[50:])
	h.Features = Features(binary.BigEndian.Uint32(b[52:]))
	if len(b) >= helloLen {
		h.Revoked.Number = binary.BigEndian.Uint64(b[56:])
		copy(h.Revoked.Digest[:], b[64:])
	}
	if h.ConnIDLen > MaxConnIDLen {
		return h, fmt.Errorf("%w: hello announces connection IDs of %d bytes, at most %d work", ErrProtocol, h.ConnIDLen, MaxConnIDLen)
	}
	return h, nil
}

// ProbeAck answers a probe of a lane's path.
type ProbeAck struct {
	Lane  uint8
	Nonce uint64
}

// Append appends the message.
func (a ProbeAck) Append(p []byte) []byte {
	p = append(p, TypeProbeAck, 0, 9, a.Lane)
	return binary.BigEndian.AppendUint64(p, a.Nonce)
}

// ParseProbeAck reads the body of a PROBE_ACK.
func ParseProbeAck(b []byte) (a ProbeAck, err error) {
	if len(b) < 9 {
		return a, fmt.Errorf("%w: probe ack of %d bytes, want 9", ErrProtocol, len(b))
	}
	return ProbeAck{b[0], binary.BigEndian.Uint64(b[1:])}, nil
}

// Lanes says how many data lanes its sender could use. It is for the side that
// dials them.
type Lanes struct{ Want uint8 }

// Append appends the message.
func (l Lanes) Append(p []byte) []byte { return append(p, TypeLanes, 0, 1, l.Want) }

// ParseLanes reads the body of a LANES.
func ParseLanes(b []byte) (Lanes, error) {
	if len(b) < 1 {
		return Lanes{}, fmt.Errorf("%w: lanes of 0 bytes, want 1", ErrProtocol)
	}
	return Lanes{b[0]}, nil
}

// ReadMessage reads one control message. The body is valid until the caller
// reuses buf, which is grown as needed up to the greatest body. It returns
// io.EOF when the stream ended between two messages.
func ReadMessage(r io.Reader, buf []byte) (typ uint8, body []byte, err error) {
	var h [3]byte
	if _, err := io.ReadFull(r, h[:1]); err != nil {
		return 0, nil, err
	}
	if _, err := io.ReadFull(r, h[1:]); err != nil {
		return 0, nil, cutShort(err)
	}
	n := int(binary.BigEndian.Uint16(h[1:]))
	if n > maxBody {
		return 0, nil, fmt.Errorf("%w: control message of %d bytes, at most %d are allowed", ErrProtocol, n, maxBody)
	}
	if n > cap(buf) {
		buf = make([]byte, n)
	}
	body = buf[:n]
	if _, err := io.ReadFull(r, body); err != nil {
		return 0, nil, cutShort(err)
	}
	return h[0], body, nil
}

// cutShort makes a protocol error of the end of a stream inside a message.
func cutShort(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return fmt.Errorf("%w: stream ends inside a control message", ErrProtocol)
	}
	return err
}
