// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// leastDescriptors is how many file descriptors a gateway must be able to have. One
// with a few peers uses some 20; of those who have almost as many the one that is
// missing is another each time, and what it was for fails in its own way.
const leastDescriptors = 64

// checkDescriptors refuses a limit that is known to be too low. Go has raised the
// soft one to the hard one.
func checkDescriptors() error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil || limit.Cur >= leastDescriptors {
		return nil
	}
	return fmt.Errorf("limit of open files %d: %d or more are needed (ulimit -n, or LimitNOFILE= of a unit)", limit.Cur, leastDescriptors)
}
