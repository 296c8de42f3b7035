// SPDX-License-Identifier: Apache-2.0

package control

// Routes is the server without its socket.
var Routes = routes
