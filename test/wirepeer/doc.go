// SPDX-License-Identifier: Apache-2.0

// Package wirepeer is a second, slow and plain implementation of docs/wire.md,
// written from that text alone: the oracle which the fast one is tested
// against. It imports nothing of this module, so that no misreading of the
// text can be shared.
//
// Each rule of the text is one statement here and is named in a comment with
// its section (§). Where the text leaves room, the reading taken is marked
// "Reading:", so that a difference between the two implementations can be
// found from either end.
//
// Not here: salvage, which the text leaves to the receiver; the order of
// stripes, which needs more than one lane; which session replaces which; and
// all of QUIC.
package wirepeer
