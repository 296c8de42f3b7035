// SPDX-License-Identifier: Apache-2.0

// Package udpconn is the UDP socket under quic-go: many packets a system call
// in both directions, receive credit so that quic-go's queues never overflow,
// and no network error that ends a connection which QUIC could keep.
//
//	kernel --UDP_GRO, recvmmsg--> ReadBatch --credit--> quic-go --> Flow.Receive
//	kernel <--UDP_SEGMENT-------- WriteMsgUDP <-------- quic-go <-- SendDatagram
//
// It relies on what quic-go v0.65 does inside; the tests fail where that
// changes.
package udpconn

import "net/netip"

// Options sets up a [Conn]. The zero value is right.
type Options struct {
	// BufferBytes is asked for as socket buffer in each direction. Zero
	// means 4 MiB, which the kernel doubles for its own overhead: quic-go
	// warns below 7 MiB of the doubled figure.
	BufferBytes int

	// Closed, unless nil, is told by Close what there is to tell in the end.
	Closed func(Stats)
}

// DefaultBufferBytes is what [Options] asks for when nothing is said.
const DefaultBufferBytes = 4 << 20

func (o Options) bufferBytes() int {
	if o.BufferBytes <= 0 {
		return DefaultBufferBytes
	}
	return o.BufferBytes
}

// Stats is a snapshot of a socket: what it can do, and what it did since it
// was opened. Packets are UDP datagrams as on the wire, however many of them
// went in one batch.
type Stats struct {
	GRO, GSO bool // the kernel has UDP_GRO, UDP_SEGMENT

	// Addresses the way to which refuses batches at present, in order: a NIC
	// without checksum offload, IPsec. Packets to them go one by one.
	GSORefused []netip.Addr

	// Socket buffers as the kernel accounts them: twice what was granted.
	ReceiveBufferBytes, SendBufferBytes int

	RxPackets  uint64 // packets received
	RxBytes    uint64 // their UDP payload
	RxBatches  uint64 // messages received: one packet, or several that GRO joined
	RxSyscalls uint64 // recvmmsg calls that brought messages

	RxOversize    uint64 // packets dropped: longer than the reader's buffer
	RxStrange     uint64 // packets dropped: for no connection of ours, and none that may begin
	RxOverrun     uint64 // packets dropped: of a flow without credit that goes on all the same, while others wait
	RxMarks       uint64 // messages marked CE by us: they had waited in the socket for too long
	RxKernelDrops uint64 // messages the kernel dropped, receive buffer full

	TxPackets  uint64 // packets sent
	TxBytes    uint64 // their UDP payload
	TxSyscalls uint64 // sendmsg calls that sent packets
	TxUnpinned uint64 // batches sent at the second try, without a pinned source
	TxRefused  uint64 // batches refused, and sent packet by packet
	// Packets not sent: they belong to no connection, and a second has at most
	// a few hundred of these.
	TxAnswersDropped uint64
	TxUnproven       uint64 // packets not sent: more than may go to an address that may be forged

	// Errors that were swallowed, by name ("ENOBUFS"). One of Tx is a batch
	// that QUIC takes as sent, and will find lost.
	RxErrors, TxErrors map[string]uint64

	Holds        uint64 // times a flow without credit held the reader
	HoldTimeouts uint64 // of these, ended by time: the count had gone wrong
}
