// SPDX-License-Identifier: Apache-2.0

// Package test holds the end-to-end tests: the real program, run as a user
// runs it, on real packets between network namespaces (see test/lab). They
// need root and are skipped without.
package test
