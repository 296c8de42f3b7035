// SPDX-License-Identifier: Apache-2.0

package transport

// Waiting returns how many are at the door: with a handshake that is under way, and
// behind it without having said what for.
func (m *Mesh) Waiting() (halfOpen, inRooms int) {
	for _, room := range m.door.rooms {
		inRooms += room.count()
	}
	return m.door.halfOpen.count(), inRooms
}
