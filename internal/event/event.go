// SPDX-License-Identifier: Apache-2.0

// Package event tells whoever listens what happens in a gateway: a bus in
// memory between those who see something and those who show it.
//
// Whoever publishes never waits. Each listener has a queue of its own, of a
// fixed size; one that reads too slowly loses its oldest events and is told how
// many. While nobody listens, publishing costs the load of one word.
package event

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Kind says what an event is about.
type Kind uint8

// The kinds.
const (
	_     Kind = iota
	Link       // the way to a peer: up, down and what lies between
	MAC        // a station in the MAC table
	Loop       // a loop between sites
	Guard      // what harms a LAN
	MTU        // which packets the path to a peer takes
	Join       // who asks to join, and what has become of it
	Lost       // events that the listener was too slow for; every listener is told
)

var kindNames = [...]string{Link: "link", MAC: "mac", Loop: "loop", Guard: "guard", MTU: "mtu", Join: "join", Lost: "lost"}

// KindNames returns the names of the kinds that one can listen for.
func KindNames() []string { return slices.Clone(kindNames[Link:Lost]) }

// ParseKind reads the name of a kind that one can listen for.
func ParseKind(name string) (Kind, error) {
	i := slices.Index(kindNames[Link:Lost], name)
	if i < 0 {
		return 0, fmt.Errorf("want one of %s", strings.Join(kindNames[Link:Lost], ", "))
	}
	return Link + Kind(i), nil
}

// String returns the name of the kind.
func (k Kind) String() string {
	if 0 < k && int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// MarshalText implements encoding.TextMarshaler.
func (k Kind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (k *Kind) UnmarshalText(text []byte) error {
	i := slices.Index(kindNames[Link:], string(text))
	if i < 0 {
		return errors.New("unknown kind of event")
	}
	*k = Link + Kind(i)
	return nil
}

// Event is one thing that has happened. It is the JSON that users see: every
// event has every field, "" or 0 where there is nothing to say, and fields are
// only ever added.
type Event struct {
	TimeMS int64  `json:"time_ms"` // since 1970; Publish sets it when it is 0
	Kind   Kind   `json:"kind"`
	What   string `json:"event"` // in one word, such as up or learned

	Site string `json:"site"` // the peer's, of Link and MTU; the asker's, of Join; those on this LAN, of Loop
	ID   string `json:"id"`   // the peer's, 64 hex digits
	Addr string `json:"addr"` // the peer's, "" when there is none
	Via  string `json:"via"`  // site that relays, "" when direct

	MAC  string `json:"mac"`  // a station
	VLAN uint16 `json:"vlan"` // its VLAN, 0 when untagged
	Port string `json:"port"` // where: local or a site
	From string `json:"from"` // the port where the station was before

	Reason string `json:"reason"` // why, for people
	Count  uint64 `json:"count"`  // how many, of what What says
}
