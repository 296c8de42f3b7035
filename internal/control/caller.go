// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
)

// caller is who is at the other end of a connection, as the kernel knows it. It is
// the address of that end too: this is how it comes through the layers of
// net/http to a request.
type caller struct {
	uid    int
	groups []int
	err    error // nothing else is known
}

// Network is that of a unix socket.
func (caller) Network() string { return "unix" }

// String is for messages.
func (c caller) String() string { return fmt.Sprintf("user %d", c.uid) }

// conn is a connection that knows its caller.
type conn struct {
	*net.UnixConn
	caller caller
}

// RemoteAddr is the caller.
func (c conn) RemoteAddr() net.Addr { return c.caller }

// Accept waits for the next caller.
func (s *socket) Accept() (net.Conn, error) {
	c, err := s.acceptUnix()
	if err != nil {
		return nil, err
	}
	return conn{c, callerOf(c)}, nil
}

type callerKey struct{}

// withCaller keeps for the requests of a connection who makes them.
func withCaller(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, callerKey{}, c.RemoteAddr())
}

// forMembers lets root, our own user, and members of the socket's group in. The
// mode of the socket has said so already; this holds when somebody has changed it.
// There are no commands for some of them only: who may see all may also invite.
func (s *Server) forMembers(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, ok := r.Context().Value(callerKey{}).(caller)
		if !ok {
			panic("control: a request without a caller")
		}
		if err := s.judge(c); err != nil {
			reply(w, nil, err)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (s *Server) judge(c caller) error {
	switch {
	case c.err != nil:
		return fmt.Errorf("%w: who asks cannot be told: %w", ErrNotAuthorised, c.err)
	case c.uid == 0, c.uid == os.Geteuid(),
		s.group >= 0 && slices.Contains(c.groups, s.group):
		return nil
	}
	return fmt.Errorf("%w: %v is neither root nor a member of the socket's group (run as root)", ErrNotAuthorised, c)
}
