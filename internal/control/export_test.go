// SPDX-License-Identifier: Apache-2.0

package control

import "time"

// SetPatience has a Client wait for so long.
func (c *Client) SetPatience(d time.Duration) { c.http.Timeout = d }

// Routes is the server without its socket.
var Routes = routes
