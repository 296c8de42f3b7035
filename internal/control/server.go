// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"golang.org/x/net/netutil"

	"github.com/l2bridge/l2bridge/internal/event"
)

// Bounds on what whoever may open the socket can ask of the daemon.
const (
	maxConns        = 32
	maxHeaderBytes  = 8 << 10
	maxRequestBytes = 4 << 10
	maxImportBytes  = 16 << 20 // a full ledger, in base64
	requestTimeout  = 10 * time.Second
	idleTimeout     = 30 * time.Second
	// stopTimeout is what requests under way get when the server ends, out
	// of the 2 s in which the daemon is to be gone.
	stopTimeout = 500 * time.Millisecond
)

// Server is a control socket that stands. Make one with Listen; end it with
// Serve or Close.
type Server struct {
	socket *socket
	group  int // whose members may use it, -1 for none
}

// Listen puts a socket at path, mode 0660, in a directory that it makes if
// need be. Commands can connect from then on; Serve answers those of root, of our own
// user, and of the members of group, -1 for none. A socket
// that nobody answers at is replaced, one with a live owner is an error that
// names it.
func Listen(path string, group int) (*Server, error) {
	s, err := listen(path, group)
	if err != nil {
		return nil, fmt.Errorf("control socket %s: %w", path, err)
	}
	return &Server{s, group}, nil
}

// MakeDir makes the directory that Listen puts the socket at path into.
func MakeDir(path string) error {
	if err := makeDir(path); err != nil {
		return fmt.Errorf("control socket %s: %w", path, err)
	}
	return nil
}

// Close takes the socket away. It is only for a Server that is not served.
func (s *Server) Close() error { return s.socket.Close() }

// Serve answers from b until ctx ends, and then returns nil. When it returns,
// the socket is gone and no request is under way.
func (s *Server) Serve(ctx context.Context, b Backend) error {
	var conns sync.WaitGroup
	server := http.Server{
		Handler:           s.forMembers(routes(b)),
		ReadHeaderTimeout: requestTimeout,
		ReadTimeout:       requestTimeout,
		WriteTimeout:      requestTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnContext:       withCaller,
		ConnState: func(_ net.Conn, state http.ConnState) {
			switch state {
			case http.StateNew:
				conns.Add(1)
			case http.StateClosed:
				s.socket.connClosed()
				conns.Done()
			}
		},
	}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(netutil.LimitListener(s.socket, maxConns)) }()

	var err error
	select {
	case err = <-failed:
		server.Close()
	case <-ctx.Done():
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		if server.Shutdown(stop) != nil {
			server.Close()
		}
		<-failed
	}
	conns.Wait()
	if err != nil {
		return fmt.Errorf("control socket: %w", err)
	}
	return nil
}

// request is the body of any request: each route reads the fields it needs.
type request struct {
	MAC   string `json:"mac,omitempty"`
	VLAN  uint16 `json:"vlan,omitempty"`
	Port  string `json:"port,omitempty"`
	Site  string `json:"site,omitempty"`
	TTLMS int64  `json:"ttl_ms,omitempty"`

	TimeMS int64 `json:"time_ms,omitempty"`

	Kinds []event.Kind `json:"kinds,omitempty"`

	Sum []byte `json:"sum,omitempty"`
	CA  []byte `json:"ca,omitempty"`
}

// Answers that are no list and no Status.
type (
	tokenReply struct {
		Token string `json:"token"`
	}
	siteReply struct {
		Site string `json:"site"`
	}
	flushReply struct {
		Flushed int `json:"flushed"`
	}
	errorReply struct {
		Error string `json:"error"`
	}
)

func routes(b Backend) http.Handler {
	mux := http.NewServeMux()
	get := func(path string, answer func() any) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) {
			reply(w, answer(), nil)
		})
	}
	postUpTo := func(most int64, path string, answer func(ctx context.Context, q request) (any, error)) {
		mux.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) {
			q, err := readRequest(w, r, most)
			if err != nil {
				reply(w, nil, err)
				return
			}
			v, err := answer(r.Context(), q)
			reply(w, v, err)
		})
	}

	post := func(path string, answer func(ctx context.Context, q request) (any, error)) {
		postUpTo(maxRequestBytes, path, answer)
	}

	get("/v1/status", func() any {
		s := b.Status()
		s.Schema, s.Version = Schema, Version()
		s.BridgePorts, s.Hints = list(s.BridgePorts), list(s.Hints)
		s.Limits.Capabilities = list(s.Limits.Capabilities)
		s.Peers, s.Drops = peers(s.Peers), list(s.Drops)
		return s
	})
	get("/v1/peers", func() any { return peers(b.Peers()) })
	get("/v1/drops", func() any { return list(b.Drops()) })
	get("/v1/fdb", func() any { return list(b.Stations()) })
	post("/v1/fdb/add", func(_ context.Context, q request) (any, error) {
		mac, err := station(q)
		if err == nil {
			err = b.AddStation(mac, q.VLAN, q.Port)
		}
		return struct{}{}, err
	})
	post("/v1/fdb/del", func(_ context.Context, q request) (any, error) {
		mac, err := station(q)
		if err == nil {
			err = b.DelStation(mac, q.VLAN)
		}
		return struct{}{}, err
	})
	post("/v1/fdb/flush", func(_ context.Context, q request) (any, error) {
		n, err := b.FlushStations(q.Port)
		return flushReply{n}, err
	})
	mux.HandleFunc("POST /v1/test", testRoute(b))
	mux.HandleFunc("POST /v1/monitor", monitorRoute(b))
	admitRoutes(mux, b, post)
	post("/v1/invite", func(ctx context.Context, q request) (any, error) {
		ttl := time.Duration(q.TTLMS) * time.Millisecond
		if ttl <= 0 || ttl.Milliseconds() != q.TTLMS {
			return nil, fmt.Errorf("%w: ttl %d ms: want a positive time", ErrInvalid, q.TTLMS)
		}
		token, err := b.Invite(ctx, q.Site, ttl)
		return tokenReply{token}, err
	})
	post("/v1/revoke", func(ctx context.Context, q request) (any, error) {
		r, err := b.Revoke(ctx, q.Site)
		r.IDs = list(r.IDs)
		return r, err
	})
	post("/v1/leave", func(ctx context.Context, _ request) (any, error) { return b.Leave(ctx) })
	post("/v1/rekey", func(ctx context.Context, q request) (any, error) { return b.Rekey(ctx, q.Site) })
	post("/v1/ca/drop", func(_ context.Context, q request) (any, error) {
		if len(q.Sum) != sha256.Size {
			return nil, fmt.Errorf("%w: sum of %d bytes: want %d", ErrInvalid, len(q.Sum), sha256.Size)
		}
		return struct{}{}, b.DropCA([sha256.Size]byte(q.Sum))
	})
	postUpTo(maxImportBytes, "/v1/ca/import", func(_ context.Context, q request) (any, error) {
		site, err := b.ImportCA(q.CA)
		return siteReply{site}, err
	})
	return mux
}

// readRequest reads a request of at most most bytes.
func readRequest(w http.ResponseWriter, r *http.Request, most int64) (request, error) {
	var q request
	body := json.NewDecoder(http.MaxBytesReader(w, r.Body, most))
	body.DisallowUnknownFields() // a newer command's wish must not be half done
	if err := body.Decode(&q); err != nil {
		return q, fmt.Errorf("%w: %v (are command and daemon of the same version?)", ErrInvalid, err)
	}
	return q, nil
}

// station checks the entry that q names.
func station(q request) (net.HardwareAddr, error) {
	mac, err := ParseMAC(q.MAC)
	if err != nil {
		return nil, fmt.Errorf("%w: mac %.32q: %v", ErrInvalid, q.MAC, err)
	}
	if q.VLAN > MaxVLAN {
		return nil, fmt.Errorf("%w: vlan %d: want 0 to %d", ErrInvalid, q.VLAN, MaxVLAN)
	}
	return mac, nil
}

// statuses tells the kinds of error apart on the wire.
var statuses = map[int]error{
	http.StatusNotFound:   ErrNotFound,
	http.StatusForbidden:  ErrNotAuthorised,
	http.StatusBadRequest: ErrInvalid,
}

func reply(w http.ResponseWriter, v any, err error) {
	status := http.StatusOK
	if err != nil {
		status = http.StatusInternalServerError
		for s, kind := range statuses {
			if errors.Is(err, kind) {
				status = s
			}
		}
		v = errorReply{err.Error()}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v) // the only error is that the client has gone
}

// peers is list, for the lists in it too.
func peers(all []Peer) []Peer {
	all = slices.Clone(list(all))
	for i := range all {
		all[i].Features = list(all[i].Features)
	}
	return all
}

// list makes nil the empty list that JSON is to show.
func list[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}
