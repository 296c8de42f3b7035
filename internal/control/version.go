// SPDX-License-Identifier: Apache-2.0

package control

import "runtime/debug"

// version is set by the linker where git is not there to tell: -ldflags
// "-X github.com/l2bridge/l2bridge/internal/control.version=v1.2.3".
var version string

// Version returns the version of this program.
func Version() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}
