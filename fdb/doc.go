// SPDX-License-Identifier: Apache-2.0

// Package fdb owns the switch's forwarding database: which port each station,
// a MAC in a VLAN, was last seen behind.
//
// Four rules keep one site from harming another. A station that shows up
// elsewhere moves at once. A station that is silent for the ageing time is
// forgotten, and so are at once all those of a port that goes away. Each port
// learns as many stations as were reserved for it, so that a flood of made-up
// addresses fills the flooder's own share and evicts nobody. All memory is
// allocated by New, and where an address is filed depends on a secret key, so
// that nobody can pile addresses up in one place.
//
// Lookup, and Learn of a station that is where it was, read without a lock. What
// changes the table's shape, which is learning a new station, moving and
// forgetting one, takes one mutex for the time of one station. Nothing on the
// way of a frame allocates.
package fdb
