// SPDX-License-Identifier: Apache-2.0

package udpconn

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"

	"github.com/quic-go/quic-go"
)

// Gate knows the connection IDs that it has issued, and so which packets can be
// meant for a connection of ours: without a list of these, a lock or an
// allocation. What cannot be is dropped before quic-go sees it, which would
// answer some of it. An ID that a Gate with the same key issued before a restart
// is known as well, and only that draws a stateless reset.
//
//	 0        1                                                 17
//	+--------+--------------------------------------------------+
//	| random | AES-128(key; 8 random bytes, 8 zero bytes)       |
//	+--------+--------------------------------------------------+
//
// IDs tell nothing to who does not have the key, not even which of them belong
// together (RFC 9000, section 5.1). Who makes one up is found out but once in
// 2^64 times.
//
// A Gate is the ConnectionIDGenerator of one [quic.Transport], and guards its
// socket, see [Conn.Guard].
type Gate struct {
	block    cipher.Block
	unproven unproven

	// Of the reader, so that a look at a packet allocates nothing.
	plain [aes.BlockSize]byte
	last  [idLen]byte // the ID that was looked at last and is ours
}

const (
	// idLen is the length of connection IDs; see wire.MaxConnIDLen for why.
	idLen = 1 + aes.BlockSize

	// leastPacket is the length of the shortest packet that can be decrypted: a
	// first byte, an ID of ours, and what header protection takes its sample from
	// (RFC 9001, section 5.4.2). To a shorter one a connection that is closed might
	// say so again.
	leastPacket = 1 + idLen + 4 + 16

	// longestReset is the length of quic-go's stateless resets. To a packet that
	// is not longer it sends none (RFC 9000, section 10.3.3).
	longestReset = 42
	// shortestReset is that of the shortest which there may be (section 10.3).
	shortestReset = 21

	// leastInitial is the length of a datagram that may begin a connection
	// (section 14.1), and leastInitialID that of the ID in it (section 7.2).
	leastInitial, leastInitialID = 1200, 8

	maxIDLen = 20 // of QUIC version 1
)

// NewGate returns a Gate whose IDs are made with key.
func NewGate(key [aes.BlockSize]byte) *Gate {
	block, err := aes.NewCipher(key[:])
	if err != nil {
		panic("udpconn: " + err.Error()) // the key has a length that AES has
	}
	g := &Gate{block: block}
	g.last = g.newID() // zeros are not ours
	return g
}

// ConnectionIDLen returns the length of all IDs.
func (g *Gate) ConnectionIDLen() int { return idLen }

// GenerateConnectionID returns a new ID. Any goroutine may call it.
func (g *Gate) GenerateConnectionID() (quic.ConnectionID, error) {
	id := g.newID()
	return quic.ConnectionIDFromBytes(id[:]), nil
}

func (g *Gate) newID() (id [idLen]byte) {
	var plain [aes.BlockSize]byte
	rand.Read(plain[:8])
	rand.Read(id[:1])
	g.block.Encrypt(id[1:], plain[:])
	return id
}

// Admits reports whether a UDP datagram is to be handed up. It is called by one
// goroutine at a time.
//
//	                     | our ID, and long enough | another ID
//	---------------------+-------------------------+-------------------------------
//	Initial              | yes                     | from 1200 bytes on: a new one
//	Handshake, Retry     | yes                     | no
//	0-RTT, other version | no, never spoken        | no
//	short header         | yes                     | if it may be a stateless reset
func (g *Gate) Admits(packet []byte) bool {
	const fixed = 0x40
	switch {
	case len(packet) < shortestReset || packet[0]&fixed == 0:
		return false
	case isShortHeader(packet[0]):
		if g.issued(packet[1 : 1+idLen]) {
			return len(packet) >= leastPacket
		}
		return len(packet) <= longestReset
	}
	const initial, zeroRTT = 0, 1
	kind := packet[0] >> 4 & 3
	n := int(packet[5])
	if quic.Version(binary.BigEndian.Uint32(packet[1:])) != quic.Version1 || kind == zeroRTT || n > maxIDLen || len(packet) < 6+n {
		return false
	}
	if n == idLen && g.issued(packet[6:6+idLen]) {
		return len(packet) >= leastPacket
	}
	return kind == initial && len(packet) >= leastInitial && n >= leastInitialID
}

// issued reports whether an ID is one of ours.
func (g *Gate) issued(id []byte) bool {
	if [idLen]byte(id) == g.last {
		return true // as in a batch from one peer
	}
	g.block.Decrypt(g.plain[:], id[1:])
	if binary.BigEndian.Uint64(g.plain[8:]) != 0 {
		return false
	}
	g.last = [idLen]byte(id)
	return true
}

// isShortHeader reports whether a QUIC packet that begins with b is of the
// kind that carries datagrams (RFC 9000, section 17.3). The handshake's takes
// no credit.
func isShortHeader(b byte) bool { return b&0x80 == 0 }
