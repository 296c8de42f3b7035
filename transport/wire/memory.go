// SPDX-License-Identifier: Apache-2.0

package wire

import "sync/atomic"

// Memory bounds what several receivers keep of objects that are not whole. Its
// methods may be called by any goroutine; nil has no bound.
type Memory struct {
	Most int64 // bytes

	used atomic.Int64
}

// take takes n bytes, and reports false when they are not there to be had.
func (m *Memory) take(n int) bool {
	if m != nil && m.used.Add(int64(n)) > m.Most {
		m.give(n)
		return false
	}
	return true
}

func (m *Memory) give(n int) { m.used.Add(-int64(n)) }
