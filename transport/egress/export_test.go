// SPDX-License-Identifier: Apache-2.0

package egress

const Buckets = buckets
