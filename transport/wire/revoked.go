// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"encoding/binary"
	"fmt"
)

// MaxList bounds the list of revoked keys, in bytes.
const MaxList = 400_000

// revokedLen is what stands before the bytes of a part.
const revokedLen = 4 + 4

// Revoked returns the messages that carry a list of revoked keys, in parts. The
// body of each:
//
//	0        4        8
//	| length | offset | part of the list, from offset on |
//
// length is that of the whole list. The parts come in order and leave nothing out.
func Revoked(list []byte) (messages [][]byte) {
	const most = maxBody - revokedLen
	for at := 0; at < len(list); at += most {
		part := list[at:min(at+most, len(list))]
		p := appendHeader(nil, TypeRevoked, revokedLen+len(part))
		p = binary.BigEndian.AppendUint32(p, uint32(len(list)))
		p = binary.BigEndian.AppendUint32(p, uint32(at))
		messages = append(messages, append(p, part...))
	}
	return messages
}

// RevokedParts puts the list of revoked keys together that a peer sends. The zero
// value is ready for use.
type RevokedParts struct{ list []byte }

// Add takes the body of a REVOKED, and returns the list when it was the last part.
// This package does not look at what is in it. A part with offset 0 begins anew.
func (r *RevokedParts) Add(b []byte) (list []byte, err error) {
	if len(b) <= revokedLen {
		return nil, fmt.Errorf("%w: revoked of %d bytes, want more than %d", ErrProtocol, len(b), revokedLen)
	}
	length, offset, part := binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:]), b[revokedLen:]
	if offset == 0 {
		r.list = nil
	}
	if end := uint64(offset) + uint64(len(part)); length > MaxList || int(offset) != len(r.list) || end > uint64(length) {
		return nil, fmt.Errorf("%w: revoked has %d bytes from %d on of %d, want them from %d on, of %d at most", ErrProtocol, len(part), offset, length, len(r.list), MaxList)
	}
	r.list = append(r.list, part...)
	if len(r.list) < int(length) {
		return nil, nil
	}
	list, r.list = r.list, nil
	return list, nil
}
