// SPDX-License-Identifier: Apache-2.0

// Package control lets commands talk to the running daemon: JSON over
// HTTP/1.1 over a unix socket, server and client side.
//
// The types below are the JSON that users see under --json. Fields are only
// ever added. Counts and bytes are integers, every _ms is a duration in
// milliseconds, and a list is [] when empty, never null.
package control

import (
	"context"
	"crypto/sha256"
	"errors"
	"net"
	"time"

	"github.com/l2bridge/l2bridge/internal/event"
)

// Schema is the number of the JSON contract. It rises only if a field had to
// change its meaning.
const Schema = 1

// State says how a site is as a whole.
type State string

// The states of a site, from good to bad.
const (
	StateUp         State = "up"         // every peer is reached
	StateDegraded   State = "degraded"   // some peers are reached, or one does not answer just now
	StateLoop       State = "loop"       // a loop was found and cut
	StateConnecting State = "connecting" // no peer has been reached yet
	StateDown       State = "down"       // no TAP, or no peer is reached any more
)

// PeerState says how the way to one peer is.
type PeerState string

// The states of a peer.
const (
	PeerUp         PeerState = "up"         // it is reached directly
	PeerConnecting PeerState = "connecting" // it has not been reached yet
	PeerSuspect    PeerState = "suspect"    // it does not answer just now
	PeerRelayed    PeerState = "relayed"    // it is reached through another peer
	PeerDown       PeerState = "down"       // it is lost
)

// LocalPort is the name of the port that is this site's own LAN.
const LocalPort = "local"

// Status is one site at one moment.
type Status struct {
	Schema      int      `json:"schema"`  // set by the server
	Version     string   `json:"version"` // set by the server
	Site        string   `json:"site"`
	ID          string   `json:"id"` // 64 hex digits: SHA-256 of the public key
	Network     string   `json:"network"`
	Founder     bool     `json:"founder"` // holds the network's CA key
	State       State    `json:"state"`
	SinceMS     int64    `json:"since_ms"` // in this state
	TAP         string   `json:"tap"`
	Bridge      string   `json:"bridge"`       // "" for a bare TAP
	BridgePorts []string `json:"bridge_ports"` // devices in the bridge, the TAP among them
	MTU         int      `json:"mtu"`          // of the TAP, in bytes
	Listen      string   `json:"listen"`
	Peers       []Peer   `json:"peers"`
	Drops       []Drop   `json:"drops"`
	Hints       []string `json:"hints"` // what is wrong and the exact command that mends it
	Offloads    Offloads `json:"offloads"`
	PortMapping string   `json:"port_mapping"` // how a router forwards our port, and its address; "" when none does
	Limits      Limits   `json:"limits"`
}

// Limits says what the daemon can still do to its host.
type Limits struct {
	Capabilities []string `json:"capabilities"` // such as cap_net_admin
	NoNewPrivs   bool     `json:"no_new_privs"`
	Landlock     int      `json:"landlock"` // version of the Landlock that limits where it writes; 0 for none
}

// Offloads says what the kernel does for this site. What is false or small
// costs speed and no frame; a hint says which remedy there is.
type Offloads struct {
	TAPVnet bool `json:"tap_vnet"` // frames of the TAP have a virtio-net header
	TAPTSO  bool `json:"tap_tso"`  // TCP superframes are read from the TAP
	TAPUSO  bool `json:"tap_uso"`  // UDP superframes are
	UDPGSO  bool `json:"udp_gso"`  // packets are sent in batches, to every peer
	UDPGRO  bool `json:"udp_gro"`  // packets are received in batches

	// Of the UDP socket, in bytes, as the kernel accounts them: twice what was
	// granted.
	ReceiveBuffer int `json:"receive_buffer"`
	SendBuffer    int `json:"send_buffer"`
}

// Peer is one remote gateway.
type Peer struct {
	Site     string    `json:"site"`
	ID       string    `json:"id"`
	State    PeerState `json:"state"`
	Addr     string    `json:"addr"`     // where its packets come from, or the address dialled
	Via      string    `json:"via"`      // the relaying site; "" when direct
	SinceMS  int64     `json:"since_ms"` // in this state
	RTTUS    int64     `json:"rtt_us"`   // round trip in microseconds; 0 when not known
	PathMTU  int       `json:"path_mtu"` // UDP payload in bytes
	Lanes    int       `json:"lanes"`
	Kex      string    `json:"kex"` // TLS key exchange, such as X25519MLKEM768
	RxFrames uint64    `json:"rx_frames"`
	TxFrames uint64    `json:"tx_frames"`
	RxBytes  uint64    `json:"rx_bytes"` // of inner frames
	TxBytes  uint64    `json:"tx_bytes"`
	MACs     int       `json:"macs"` // stations behind it
	Features []string  `json:"features"`
}

// What a peer may take beyond plain frames.
const (
	FeatureCsum = "csum" // frames whose checksum is still to be done
	FeatureTSO  = "tso"  // TCP superframes
	FeatureUSO  = "uso"  // UDP superframes
)

// Station is one entry of the MAC table.
type Station struct {
	MAC    string `json:"mac"`
	VLAN   uint16 `json:"vlan"` // 0 when untagged
	Port   string `json:"port"` // LocalPort or a site
	AgeMS  int64  `json:"age_ms"`
	Static bool   `json:"static"`
	Moves  uint64 `json:"moves"`
}

// Rekeyed is who a site is after its key was changed.
type Rekeyed struct {
	Site string `json:"site"`
	ID   string `json:"id"`
}

// Drop is one reason for which frames were dropped at one port.
type Drop struct {
	Reason string `json:"reason"`
	Port   string `json:"port"` // LocalPort, a site, or "" when it concerns no port
	Count  uint64 `json:"count"`
}

// Revoked is a site that was put out of the network.
type Revoked struct {
	Site string   `json:"site"`
	IDs  []string `json:"ids"` // the keys that are out by this; none when they were before
}

// Left is a network that this site has left.
type Left struct {
	Network string `json:"network"` // "" when this site was a member of none
	Site    string `json:"site"`
	Founder string `json:"founder"` // the site that holds the CA key
	Told    int    `json:"told"`    // sites that have heard it
	Peers   int    `json:"peers"`   // sites that were known
}

// Backend is what the server asks. Its methods are called from many
// goroutines at once. None but Invite, Approve and Test may block for more than moments.
// What they return belongs to the caller.
type Backend interface {
	Status() Status
	Peers() []Peer
	Stations() []Station
	// AddStation makes a static entry that survives restarts; port is
	// LocalPort or a site. mac is one station's, vlan at most MaxVLAN.
	AddStation(mac net.HardwareAddr, vlan uint16, port string) error
	// DelStation forgets an entry, static or learned. ErrNotFound when there
	// is none.
	DelStation(mac net.HardwareAddr, vlan uint16) error
	// FlushStations forgets the learned entries of a port, or with "" of all,
	// and returns how many. ErrNotFound when there is no such port.
	FlushStations(port string) (int, error)
	Drops() []Drop
	Admitter
	// Invite makes a token that one site can join with once, within ttl. site
	// is its name, or "" to leave that to the joiner. ErrNotAuthorised, with
	// the founder's name, where the CA key is not.
	Invite(ctx context.Context, site string, ttl time.Duration) (string, error)
	// Revoke puts a site out of the network. ErrNotAuthorised, with the founder's
	// name, where the CA key is not, ErrInvalid for that site itself, ErrNotFound
	// where there is and was none of that name.
	Revoke(ctx context.Context, site string) (Revoked, error)
	// Leave takes this site out of the network: tells the others, takes away
	// what makes it a member, and has the daemon end. ErrInvalid at a site that
	// holds the CA key while there are others.
	Leave(ctx context.Context) (Left, error)
	// Rekey gives this site another key and, unless that is "", the name site.
	Rekey(ctx context.Context, site string) (Rekeyed, error)
	// DropCA takes the CA key away from this site, if sum is that of what was
	// read of it. ErrNotAuthorised where it is not.
	DropCA(sum [sha256.Size]byte) error
	// ImportCA makes this site the holder of the CA key in data, and returns the
	// site's name.
	ImportCA(data []byte) (string, error)
	// Test measures the way to a site with a load of so long each way, and calls
	// progress as it goes on. ErrNotFound where there is no such site.
	Test(ctx context.Context, site string, each time.Duration, progress func(TestProgress)) (TestReport, error)
	// Events listens for events of these kinds, or with none for all, until the
	// caller closes the subscription. It fails when too many listen.
	Events(kinds ...event.Kind) (*event.Subscription, error)
}

// What a Backend's errors may be, and a Client's are, for errors.Is. Wrap
// them: the text is what the user reads.
var (
	ErrNotFound      = errors.New("not found")
	ErrNotAuthorised = errors.New("not authorised")
	ErrInvalid       = errors.New("invalid request")
	// ErrNotRunning is for a Client only: nobody answers at the socket.
	ErrNotRunning = errors.New("not running")
)

// MaxVLAN is the highest VLAN that a station can be in; 4095 is reserved
// (IEEE 802.1Q, table 9-2).
const MaxVLAN = 4094

// ParseMAC reads the address of one station: 48 bits, not zero, not a
// group's. The error says the rule and the remedy.
func ParseMAC(s string) (net.HardwareAddr, error) {
	mac, err := net.ParseMAC(s)
	switch {
	case err != nil || len(mac) != 6:
		return nil, errors.New("want a MAC address (such as 52:54:00:12:34:56)")
	case mac[0]&1 != 0:
		return nil, errors.New("a group address (want that of one station, such as 52:54:00:12:34:56)")
	case [6]byte(mac) == [6]byte{}:
		return nil, errors.New("the zero address (want that of one station, such as 52:54:00:12:34:56)")
	}
	return mac, nil
}
