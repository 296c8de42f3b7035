// SPDX-License-Identifier: Apache-2.0

package wirepeer

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
)

// Bounds and sizes of the messages of a mesh (§2).
const (
	maxEntries     = 1024
	memberBytes    = 8
	versionBytes   = 8
	signatureBytes = 64
	maxCertificate = 2048
	maxAddresses   = 16
	maxText        = 255
)

// Have is the announcements that its sender has.
type Have []HaveEntry

// HaveEntry is one of them.
type HaveEntry struct {
	Member  Member
	Version uint64
}

// Append implements [Message].
func (h Have) Append(b []byte) []byte {
	var body []byte
	for _, e := range h {
		body = append(body, e.Member[:]...)
		body = binary.BigEndian.AppendUint64(body, e.Version)
	}
	return AppendMessage(b, typeHave, body)
}

func parseHave(b []byte) (Message, error) {
	if err := checkList("HAVE", b, memberBytes+versionBytes); err != nil {
		return nil, err
	}
	h := Have{}
	for ; len(b) > 0; b = b[memberBytes+versionBytes:] {
		h = append(h, HaveEntry{Member(b[:memberBytes]), binary.BigEndian.Uint64(b[memberBytes:])})
	}
	return h, nil
}

// Links is with whom its sender has a session.
type Links []Member

// Append implements [Message].
func (l Links) Append(b []byte) []byte {
	var body []byte
	for _, m := range l {
		body = append(body, m[:]...)
	}
	return AppendMessage(b, typeLinks, body)
}

func parseLinks(b []byte) (Message, error) {
	if err := checkList("LINKS", b, memberBytes); err != nil {
		return nil, err
	}
	l := Links{}
	for ; len(b) > 0; b = b[memberBytes:] {
		l = append(l, Member(b[:memberBytes]))
	}
	return l, nil
}

// Doubts is with whom its sender has a session that does not answer.
type Doubts []Member

// Append implements [Message].
func (d Doubts) Append(b []byte) []byte {
	var body []byte
	for _, m := range d {
		body = append(body, m[:]...)
	}
	return AppendMessage(b, typeDoubts, body)
}

func parseDoubts(b []byte) (Message, error) {
	if err := checkList("DOUBTS", b, memberBytes); err != nil {
		return nil, err
	}
	d := Doubts{}
	for ; len(b) > 0; b = b[memberBytes:] {
		d = append(d, Member(b[:memberBytes]))
	}
	return d, nil
}

func checkList(name string, b []byte, entry int) error {
	if len(b)%entry != 0 {
		return fmt.Errorf("%w: %s of %d bytes (a multiple of %d)", ErrProtocol, name, len(b), entry)
	}
	if n := len(b) / entry; n > maxEntries {
		return fmt.Errorf("%w: %s of %d entries (at most %d)", ErrProtocol, name, n, maxEntries)
	}
	return nil
}

// Announcement is a MEMBER. Whether its signature and its certificate are good
// is not looked at.
type Announcement struct {
	Signature   [signatureBytes]byte
	Version     uint64
	Features    Features
	MTU         uint16
	Certificate []byte
	Addresses   []string
	Behind      []byte // what a later version appended
}

// Append implements [Message].
func (a Announcement) Append(b []byte) []byte {
	return AppendMessage(b, typeMember, append(a.Signature[:], a.body()...))
}

// Signed is what the signature is made over.
func (a Announcement) Signed() []byte {
	return append([]byte("l2bridge member 1\x00"), a.body()...)
}

// body is all that stands behind the signature.
func (a Announcement) body() []byte {
	b := binary.BigEndian.AppendUint64(nil, a.Version)
	b = binary.BigEndian.AppendUint32(b, uint32(a.Features))
	b = binary.BigEndian.AppendUint16(b, a.MTU)
	b = binary.BigEndian.AppendUint16(b, uint16(len(a.Certificate)))
	b = append(b, a.Certificate...)
	b = append(b, byte(len(a.Addresses)))
	for _, text := range a.Addresses {
		b = append(b, byte(len(text)))
		b = append(b, text...)
	}
	return append(b, a.Behind...)
}

func parseAnnouncement(b []byte) (Message, error) {
	var a Announcement
	whole := len(b)
	// take returns the next n bytes, or zeros when there are not so many.
	short := false
	take := func(n int) []byte {
		if n > len(b) {
			short, b = true, nil
			return make([]byte, n)
		}
		part := b[:n]
		b = b[n:]
		return append([]byte(nil), part...)
	}
	copy(a.Signature[:], take(signatureBytes))
	a.Version = binary.BigEndian.Uint64(take(versionBytes))
	a.Features = Features(binary.BigEndian.Uint32(take(4)))
	a.MTU = binary.BigEndian.Uint16(take(2))
	a.Certificate = take(u16(take(2)))
	addresses := int(take(1)[0])
	for range addresses {
		a.Addresses = append(a.Addresses, string(take(int(take(1)[0]))))
	}
	a.Behind = take(len(b))
	if short {
		return nil, fmt.Errorf("%w: MEMBER ends after %d bytes", ErrProtocol, whole)
	}
	if n := len(a.Certificate); n < 1 || n > maxCertificate {
		return nil, fmt.Errorf("%w: MEMBER: certificate of %d bytes (1 to %d)", ErrProtocol, n, maxCertificate)
	}
	if addresses > maxAddresses {
		return nil, fmt.Errorf("%w: MEMBER: %d addresses (at most %d)", ErrProtocol, addresses, maxAddresses)
	}
	for _, text := range a.Addresses {
		if !isAddress(text) {
			return nil, fmt.Errorf("%w: MEMBER: address %q", ErrProtocol, text)
		}
	}
	return a, nil
}

var hostPort = regexp.MustCompile(`^([A-Za-z0-9._-]+|\[[A-Za-z0-9._:%-]+\]):([0-9]{1,5})$`)

// isAddress reports whether text is HOST:PORT.
func isAddress(text string) bool {
	parts := hostPort.FindStringSubmatch(text)
	if parts == nil || len(text) > maxText {
		return false
	}
	port, err := strconv.Atoi(parts[2])
	return err == nil && port >= 1 && port <= 65535
}

// Seen is where its sender sees the receiver.
type Seen struct {
	Address [16]byte
	Port    uint16
}

// Append implements [Message].
func (s Seen) Append(b []byte) []byte {
	return AppendMessage(b, typeSeen, binary.BigEndian.AppendUint16(s.Address[:], s.Port))
}

func parseSeen(b []byte) (Message, error) {
	if err := checkBody("SEEN", b, 16+2); err != nil {
		return nil, err
	}
	s := Seen{Port: binary.BigEndian.Uint16(b[16:])}
	copy(s.Address[:], b)
	ip := netip.AddrFrom16(s.Address).Unmap()
	if s.Port == 0 || ip.IsUnspecified() || ip.IsMulticast() {
		return nil, fmt.Errorf("%w: SEEN: no packet comes from %v, port %d", ErrProtocol, ip, s.Port)
	}
	return s, nil
}

// Punch says that Source is dialling Destination.
type Punch struct{ Destination, Source Member }

// Append implements [Message].
func (p Punch) Append(b []byte) []byte {
	return AppendMessage(b, typePunch, append(p.Destination[:], p.Source[:]...))
}

func parsePunch(b []byte) (Message, error) {
	if err := checkBody("PUNCH", b, 2*memberBytes); err != nil {
		return nil, err
	}
	return Punch{Member(b[:memberBytes]), Member(b[memberBytes : 2*memberBytes])}, nil
}

// Revoked is a part of the list of revoked keys. What is in the list is not looked
// at.
type Revoked struct {
	Length, Offset uint32
	Part           []byte
}

// Append implements [Message].
func (r Revoked) Append(b []byte) []byte {
	body := binary.BigEndian.AppendUint32(nil, r.Length)
	body = binary.BigEndian.AppendUint32(body, r.Offset)
	return AppendMessage(b, typeRevoked, append(body, r.Part...))
}

// readRevoked takes the next part of a list.
func (c *Control) readRevoked(b []byte) (Message, error) {
	const fields, most = 8, 400_000
	if err := checkBody("REVOKED", b, fields+1); err != nil {
		return nil, err
	}
	r := Revoked{binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:]), append([]byte(nil), b[fields:]...)}
	if r.Offset == 0 {
		c.list = 0
	}
	if r.Length > most || uint64(r.Offset) != c.list {
		return nil, fmt.Errorf("%w: REVOKED: part at %d of %d (at %d, of %d at most)", ErrProtocol, r.Offset, r.Length, c.list, most)
	}
	c.list += uint64(len(r.Part))
	if c.list > uint64(r.Length) {
		return nil, fmt.Errorf("%w: REVOKED: %d bytes of %d", ErrProtocol, c.list, r.Length)
	}
	if c.list == uint64(r.Length) {
		c.list = 0
	}
	return r, nil
}
