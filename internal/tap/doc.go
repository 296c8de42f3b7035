// SPDX-License-Identifier: Apache-2.0

// Package tap owns the LAN side of a gateway: the TAP device that frames come
// and go by, its offloads, and its place in a Linux bridge.
//
//	LAN -- NIC --+
//	             | Linux bridge |-- TAP == Device: Run reads, Send writes
//	hosts' veth -+
//
// Frames are read and written with the virtio-net header that the kernel keeps
// them with, so that a TSO or USO superframe crosses this package in one piece
// and nobody computes a checksum here.
//
// A bridge belongs to the LAN: its MAC and MTU are never changed. One that did
// not exist is made, marked as ours in its alias, and removed again by the last
// of us to leave it.
package tap
